# SPDX-License-Identifier: GPL-3.0-or-later
"""Channel estimation by the engine of a bundle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle, bundle_inputs
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..engines import Engine
from ..heads import ChannelHead
from ..preprocess.pilot_grid import Grid, Observation, least_squares_tiles, observe
from ..preprocess.tile import prepare
from .estimators import LOWEST_SNR


class ModelEstimator:
    """Estimator with a bundle's model.

    Layout "least_squares": the input is the least squares over the root of their mean power; the output is multiplied
    by that root. Layout "image": the grid is scaled to a signal power of 1, as in training, and the output scaled back;
    the measured signal power is limited to an SNR of -10 dB.

    Parameters
    ----------
    bundle : Bundle
        Bundle of pilot grids.
    engine : Engine
        Engine of the bundle.

    Raises
    ------
    ConfigurationError
        A bundle of another kind.
    """

    name = "model"

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        preprocess = bundle.preprocess_as(PilotGridSpec, "a channel is to be estimated")
        self.spec = preprocess.numerology
        self.bundle_id = bundle.id
        self._bundle, self._engine, self._preprocess = bundle, engine, preprocess
        self._head = ChannelHead(bundle.spec.head, bundle.id)

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`; also raises EngineError."""
        seen = observation or observe(grids, self.spec)
        tiles, roots = least_squares_tiles(seen.ls) if self._preprocess.image is None else self._images(grids, seen)
        inputs = bundle_inputs(self._bundle.spec, tiles, np.zeros(len(tiles)), seen.snr_db)
        channels = self._head.channels(self._engine.run(inputs)[self._bundle.spec.outputs[0].name])
        channels *= roots[:, None, None, None]
        return channels

    def _images(self, grids: Grid, seen: Observation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        roots = np.sqrt(np.maximum(seen.signal_power, LOWEST_SNR * seen.noise_power)).astype(np.float32)
        scaled = grids / roots[:, None, None, None]
        return np.stack([prepare(grid, self._preprocess, f"slot {i}") for i, grid in enumerate(scaled)]), roots
