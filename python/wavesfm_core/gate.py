"""The power gate: tiles in which nothing stands out of the noise floor never reach the engine."""

from __future__ import annotations

import math

from .errors import ConfigurationError
from .types import Tile

DEFAULT_GATE_DB = 10.0
RISE_DB_PER_TILE = 0.05


class PowerGate:
    """Passes a tile whose peak is `gate_db` or more over the running noise floor; None passes all.

    The running floor is the lowest tile floor seen: it follows down at once and up by RISE_DB_PER_TILE, so that a
    wideband signal, which lifts the median of its own tile, is still measured against the noise before it. It starts
    anew with a new rate or centre frequency. A lone tile is measured against its own floor.
    """

    def __init__(self, gate_db: float | None = DEFAULT_GATE_DB) -> None:
        self.gate_db = gate_db
        self.reset()

    @property
    def gate_db(self) -> float | None:
        """dB over the noise floor, None for off; raises ConfigurationError for NaN, infinity or less than 0."""
        return self._gate_db

    @gate_db.setter
    def gate_db(self, value: float | None) -> None:
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigurationError("power gate", "gate_db", value, "a number of dB, 0 or more, or None for off")
        self._gate_db = None if value is None else float(value)

    def reset(self) -> None:
        """Forget the noise floor, for a new stream."""
        self._tuned: tuple[float, float | None] | None = None
        self._floor_db = 0.0

    def passes(self, tile: Tile) -> bool:
        """Whether the tile goes to the engine; tiles come in the order of the stream."""
        tuned = (tile.rate_hz, tile.centre_hz)
        if tuned != self._tuned:
            self._tuned, self._floor_db = tuned, tile.floor_db
        self._floor_db = min(tile.floor_db, self._floor_db + RISE_DB_PER_TILE)
        return self._gate_db is None or tile.peak_db - self._floor_db >= self._gate_db
