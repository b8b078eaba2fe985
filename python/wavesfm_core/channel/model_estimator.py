# SPDX-License-Identifier: GPL-3.0-or-later
"""Channel estimation by the engine of a bundle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _kernels
from ..bundle.bundle import Bundle, bundle_inputs
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..engines import Engine
from ..errors import EngineError
from ..heads import ChannelHead
from ..preprocess.pilot_grid import Grid, Observation, observe
from ..preprocess.slot_layout import slot_layout
from ..preprocess.tile import prepare
from ..types import Tensor
from .estimators import LOWEST_SNR, native_estimate


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
    error_of : ChannelMethod, optional
        Method whose theory serves as the expected error. Default: none.

    Raises
    ------
    ConfigurationError
        A bundle of another kind.
    """

    name = "model"

    def __init__(self, bundle: Bundle, engine: Engine, error_of: _kernels.ChannelMethod | None = None) -> None:
        network = _Network(bundle, engine)
        layout = slot_layout(network.spec)
        self.spec, self.bundle_id, self._network = network.spec, bundle.id, network
        self.native: _kernels.ChannelMethod
        if network.preprocess.image is None:
            self.native = _kernels.ModelMethod(layout, network.run, bundle.spec.head.scale, bundle.id, error_of)
        else:
            self.native = _kernels.PythonMethod(layout, self.name, bundle.id, network.from_grids, error_of)

    def estimate(self, grids: Grid, observation: Observation | None = None) -> Grid:
        """See `Estimator.estimate`; also raises EngineError."""
        seen = observation or observe(grids, self.spec)
        if self._network.preprocess.image is None:
            return native_estimate(self.native, self.spec, seen)
        return self._network.from_grids(grids, seen.ls, seen.noise_power, seen.signal_power)


class _Network:
    """The bundle's network; apart from its estimator, whose C++ half holds it."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.preprocess = bundle.preprocess_as(PilotGridSpec, "a channel is to be estimated")
        self.spec = self.preprocess.numerology
        self._bundle, self._engine = bundle, engine
        self._head = ChannelHead(bundle.spec.head, bundle.id)

    def run(self, tiles: Tensor, snr_db: Tensor) -> Tensor:
        """Outputs float32 [B, 2, A, S * F] of tiles and SNRs [B, 1]; raises EngineError."""
        inputs = bundle_inputs(self._bundle.spec, tiles, np.zeros(len(tiles)), snr_db[:, 0])
        outputs = self._engine.run(inputs)[self._bundle.spec.outputs[0].name]
        expected = (len(tiles), *self._bundle.spec.head.output_shape)
        if outputs.shape != expected:
            raise EngineError("channel head", "outputs shape", outputs.shape, f"{expected}")
        return outputs

    def from_grids(
        self, grids: Grid, ls: Grid, noise_power: NDArray[np.float64], signal_power: NDArray[np.float64]
    ) -> Grid:
        """Channels complex64 [B, A, S, F] by the layout "image"; raises EngineError."""
        seen = Observation(ls, noise_power, signal_power)
        roots = np.sqrt(np.maximum(seen.signal_power, LOWEST_SNR * seen.noise_power)).astype(np.float32)
        scaled = grids / roots[:, None, None, None]
        tiles = np.stack([prepare(grid, self.preprocess, f"slot {i}") for i, grid in enumerate(scaled)])
        channels = self._head.channels(self.run(tiles, seen.snr_db[:, None].astype(np.float32)))
        channels *= roots[:, None, None, None]
        return channels
