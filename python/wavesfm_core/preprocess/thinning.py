# SPDX-License-Identifier: GPL-3.0-or-later
"""Thinning: a tile that did not change since the model was asked gets the same label without inference, for a while."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError
from ..types import Tile
from .tile_signature import WIDEST_TOLERANCE_DB, Signature, alike, length_class, signature, tolerances

TUNINGS = 1024  # remembered; the one not visited for longest is forgotten


@dataclass(slots=True)
class Asked:
    """The last tile of a tuning that the model was asked about."""

    seen: Signature
    """Its figures."""
    at_s: float
    """Its place in the stream."""
    label: str | None = None
    """The model's answer, None until it comes."""


class Thinning:
    """Find tiles that look like the last one of the same tuning that the model was asked about.

    Tiles look alike within the tolerances of the power gate: mean power within 1 dB, the spectrum, its steps in time
    and its bursts within 6 standard deviations of those of white noise (see `tile_signature`). So steady carriers and
    noise-like signals (OFDM) are thinned, and bursts and speech are asked about as before. Tiles too short to compare
    are never thinned. Decisions depend on the sequence of tiles only and not on how it is cut into batches.

    Parameters
    ----------
    ask_again_s : float
        Seconds of the stream after which the model is asked again although nothing changed; 0: every tile is asked.
    spec : SpectrogramSpec or None
        Geometry of the tiles; None: every tile is asked.

    Raises
    ------
    ConfigurationError
        For a time that is negative or not finite.
    """

    def __init__(self, ask_again_s: float = 0.0, spec: SpectrogramSpec | None = None) -> None:
        if not (math.isfinite(ask_again_s) and ask_again_s >= 0):
            raise ConfigurationError("thinning", "ask_again_s", ask_again_s, "seconds, 0 or more")
        self._ask_again_s, self._spec = ask_again_s, spec
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new stream."""
        self.repeated = 0
        self._asked: OrderedDict[tuple[float, float | None], Asked] = OrderedDict()

    def earlier(self, tile: Tile) -> Asked | None:
        """The tile whose answer is this one's too; None where the model is to be asked.

        Parameters
        ----------
        tile : Tile
            Tiles come in the order of the stream.
        """
        if not self._ask_again_s or self._spec is None:
            return None
        asked = self._asked.get((tile.rate_hz, tile.centre_hz))
        if asked is None or not 0 <= _place_s(tile) - asked.at_s < self._ask_again_s:
            return None
        limits = tolerances(self._spec, length_class(self._spec, tile.n_samples))
        if max(limits.column, limits.peak, limits.shape[1]) > WIDEST_TOLERANCE_DB:
            return None
        if not alike(signature(tile, self._spec), asked.seen, limits):
            return None
        self.repeated += 1
        return asked

    def ask(self, tile: Tile) -> Asked | None:
        """Note that the model is asked about a tile; the caller sets `label` of what is returned."""
        if not self._ask_again_s or self._spec is None:
            return None
        key = (tile.rate_hz, tile.centre_hz)
        asked = self._asked[key] = Asked(signature(tile, self._spec), _place_s(tile))
        self._asked.move_to_end(key)
        if len(self._asked) > TUNINGS:
            self._asked.popitem(last=False)
        return asked

    def forget_unanswered(self) -> None:
        """After a failure: no answers will come for the tiles that wait for one."""
        for key in [key for key, asked in self._asked.items() if asked.label is None]:
            del self._asked[key]


def _place_s(tile: Tile) -> float:
    """Seconds of a tile's start in the stream; of an unknown rate as if it were 1 MS/s."""
    return tile.start_sample / (tile.rate_hz or 1e6)
