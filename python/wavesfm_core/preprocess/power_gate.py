# SPDX-License-Identifier: GPL-3.0-or-later
"""The power gate: tiles in which nothing stands out of the noise floor never reach the engine."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError
from ..types import Tile
from .tile_stream import TileStream

# With two frames to a row, noise alone peaks 4.5 dB over its median in a full tile and up to 7.5 dB in a short one; the
# weakest of some fifty real recordings of signals peaks at 9.6 dB.
DEFAULT_GATE_DB = 8.5
NOISE_MARGIN_DB = 1.0
EDGE_MARGIN_DB = 4.0
RISE_DB_PER_TILE = 0.05
_SHORT_TILES = 8


class NoiseLevels(NamedTuple):
    """Of a tile of white noise: how far its peak is over its floor, and how far its lowest tenth is under it."""

    peak_db: float
    depth_db: float


_NOTHING = NoiseLevels(-math.inf, -math.inf)


class PowerGate:
    """Passes a tile whose peak is `gate_db` or more over the running noise floor; None passes all.

    The running floor is the lowest tile floor seen: it follows down at once and up by RISE_DB_PER_TILE, so that a
    wideband signal, which lifts the median of its own tile, is still measured against the noise before it. It starts
    anew with a new rate or centre frequency. A lone tile is measured against its own floor, and so is one with so much
    digital silence that its floor is the spec's `floor_db`, of which no noise floor can be learned.

    A signal that fills most of the band and all of the time (DAB, a loaded cell) is its tile's median, and nothing
    stands out of it; but the rest of its tile lies below. So a tile also passes when its lowest tenth lies deeper under
    the median than white noise's by EDGE_MARGIN_DB. A receiver's own filter edges may pass a tile of noise that way,
    which costs time and nothing else. This needs the spec.

    spec: the less a geometry averages, the higher noise itself peaks, and the more so in short tiles; with the spec a
    tile must also be NOISE_MARGIN_DB over what white noise shows in its geometry.
    """

    def __init__(self, gate_db: float | None = DEFAULT_GATE_DB, spec: SpectrogramSpec | None = None) -> None:
        self.gate_db = gate_db
        self._silence_db = -math.inf if spec is None else spec.floor_db
        self._spec = spec
        full, short = (_NOTHING, _NOTHING) if spec is None else noise_levels(spec)
        self._noise = {False: full, True: short}  # by Tile.partial
        self.reset()

    @property
    def gate_db(self) -> float | None:
        """dB over the noise floor, None for off; may be set at any time. ConfigurationError for NaN or less than 0."""
        return self._gate_db

    @gate_db.setter
    def gate_db(self, value: float | None) -> None:
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigurationError("power gate", "gate_db", value, "a number of dB, 0 or more, or None for off")
        self._gate_db = None if value is None else float(value)

    def reset(self) -> None:
        """Forget the noise floor, for a new stream."""
        self._tuned: tuple[float, float | None] | None = None
        self._floor_db = math.inf

    def passes(self, tile: Tile) -> bool:
        """Whether the tile goes to the engine; tiles come in the order of the stream."""
        floor_db = self._follow(tile)
        gate_db = self._gate_db  # read once: another thread may set it
        noise = self._noise[tile.partial]
        if gate_db is None or tile.peak_db - floor_db >= max(gate_db, noise.peak_db + NOISE_MARGIN_DB):
            return True
        return self._spec is not None and depth_db(tile, self._spec) >= noise.depth_db + EDGE_MARGIN_DB

    def _follow(self, tile: Tile) -> float:
        tuned = (tile.rate_hz, tile.centre_hz)
        if tuned != self._tuned:
            self._tuned, self._floor_db = tuned, math.inf
        if tile.floor_db <= self._silence_db + 0.5:  # the resize rounds
            return tile.floor_db
        self._floor_db = min(tile.floor_db, self._floor_db + RISE_DB_PER_TILE)
        return self._floor_db


def depth_db(tile: Tile, spec: SpectrogramSpec) -> float:
    """How far the lowest tenth of a prepared tile lies under its median, in dB, within the spec's range."""
    count = tile.data.size
    cells = np.partition(tile.data.ravel(), (count // 10, count // 2))
    return float(cells[count // 2] - cells[count // 10]) * spec.std * (spec.high_db - spec.low_db)


def noise_levels(spec: SpectrogramSpec) -> tuple[NoiseLevels, NoiseLevels]:
    """What white noise shows in this geometry: in a full tile, and at most in a few of the shortest."""
    rng = np.random.default_rng(0)
    short = [_noise(spec, rng, spec.min_samples) for _ in range(_SHORT_TILES)]
    most = NoiseLevels(max(level.peak_db for level in short), max(level.depth_db for level in short))
    return _noise(spec, rng, spec.tile_samples), most


def _noise(spec: SpectrogramSpec, rng: np.random.Generator, n_samples: int) -> NoiseLevels:
    noise = rng.standard_normal((n_samples, 2), dtype=np.float32).view(np.complex64).ravel() * np.float32(0.1)
    stream = TileStream(spec)
    tile = (stream.push(noise) + stream.finish())[0]
    return NoiseLevels(tile.peak_db - tile.floor_db, depth_db(tile, spec))
