# SPDX-License-Identifier: GPL-3.0-or-later
"""Fallback from an estimator to least squares, by SNR and by the residual at the pilots, with hysteresis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import ConfigurationError


@dataclass
class BackOff:
    """Back-off of one stream of slots.

    It becomes active when one of two thresholds is reached, and inactive when both values are below their lower
    thresholds.

    Raises
    ------
    ConfigurationError
        A lower threshold that is not below its upper one.

    References
    ----------
    The WavesFM paper, section V.A: at high SNR least squares are better than a model that stops improving.
    """

    enter_db: float = math.inf
    """Becomes active at this SNR and above; infinite: never because of the SNR."""
    leave_db: float = math.inf
    """Lower threshold of the SNR."""
    residual_enter: float = 1.75
    """Becomes active at this residual and above (see `preprocess.pilot_grid.residuals`); infinite: never because of
    the residual. At 1.75 the error at the pilots is three quarters of that of least squares."""
    residual_leave: float = 1.4
    """Lower threshold of the residual."""
    active: bool = field(default=False, init=False)
    """Whether least squares replace the estimator."""
    switches: int = field(default=0, init=False)
    """Changes of `active` so far."""

    def __post_init__(self) -> None:
        pairs = (
            ("leave_db", self.leave_db, self.enter_db),
            ("residual_leave", self.residual_leave, self.residual_enter),
        )
        for name, leave, enter in pairs:
            if not (leave < enter or leave == enter == math.inf):
                raise ConfigurationError("back-off", name, leave, f"less than {enter:g}, at which it is entered")

    def update(self, snr_db: float, residual: float) -> bool:
        """Update the state with the next slot; True if least squares replace the estimator for it."""
        if self.active:
            active = not (snr_db < self.leave_db and residual < self.residual_leave)
        else:
            active = snr_db >= self.enter_db or residual >= self.residual_enter
        self.switches += active != self.active
        self.active = active
        return active

    def reset(self) -> None:
        """Become inactive for another stream or estimator; `switches` is kept."""
        self.active = False
