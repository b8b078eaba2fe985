"""The power gate: tiles in which nothing stands out of the noise floor never reach the engine."""

from __future__ import annotations

import math

import numpy as np

from .errors import ConfigurationError
from .preprocess import TileStream
from .spec import SpectrogramSpec
from .types import Tile

# With two frames to a row, noise alone peaks 4.5 dB over its median in a full tile and up to 7.5 dB in a short one; the
# weakest of some fifty real recordings of signals peaks at 9.6 dB.
DEFAULT_GATE_DB = 8.5
NOISE_MARGIN_DB = 1.0
RISE_DB_PER_TILE = 0.05
_SHORT_TILES = 8


class PowerGate:
    """Passes a tile whose peak is `gate_db` or more over the running noise floor; None passes all.

    The running floor is the lowest tile floor seen: it follows down at once and up by RISE_DB_PER_TILE, so that a
    wideband signal, which lifts the median of its own tile, is still measured against the noise before it. It starts
    anew with a new rate or centre frequency. A lone tile is measured against its own floor, and so is one with so much
    digital silence that its floor is the spec's `floor_db`, of which no noise floor can be learned.

    spec: the less a geometry averages, the higher noise itself peaks, and the more so in short tiles; with the spec a
    tile must also be NOISE_MARGIN_DB over what white noise shows in its geometry.
    """

    def __init__(self, gate_db: float | None = DEFAULT_GATE_DB, spec: SpectrogramSpec | None = None) -> None:
        self.gate_db = gate_db
        self._silence_db = -math.inf if spec is None else spec.floor_db
        full_db, short_db = (-math.inf, -math.inf) if spec is None else noise_peaks_db(spec)
        self._least_db = {False: full_db + NOISE_MARGIN_DB, True: short_db + NOISE_MARGIN_DB}  # by Tile.partial
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
        return gate_db is None or tile.peak_db - floor_db >= max(gate_db, self._least_db[tile.partial])

    def _follow(self, tile: Tile) -> float:
        tuned = (tile.rate_hz, tile.centre_hz)
        if tuned != self._tuned:
            self._tuned, self._floor_db = tuned, math.inf
        if tile.floor_db <= self._silence_db + 0.5:  # the resize rounds
            return tile.floor_db
        self._floor_db = min(tile.floor_db, self._floor_db + RISE_DB_PER_TILE)
        return self._floor_db


def noise_peaks_db(spec: SpectrogramSpec) -> tuple[float, float]:
    """How far white noise peaks over its own floor, in dB: in a full tile, and at most in a few of the shortest."""
    rng = np.random.default_rng(0)
    short = [_noise_peak_db(spec, rng, spec.min_samples) for _ in range(_SHORT_TILES)]
    return _noise_peak_db(spec, rng, spec.tile_samples), max(short)


def _noise_peak_db(spec: SpectrogramSpec, rng: np.random.Generator, n_samples: int) -> float:
    noise = rng.standard_normal((n_samples, 2), dtype=np.float32).view(np.complex64).ravel() * np.float32(0.1)
    stream = TileStream(spec)
    tile = (stream.push(noise) + stream.finish())[0]
    return tile.peak_db - tile.floor_db
