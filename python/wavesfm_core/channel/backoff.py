# SPDX-License-Identifier: GPL-3.0-or-later
"""When to take least squares instead of an estimator: by SNR and by how well it fits the pilots, with hysteresis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import ConfigurationError


@dataclass
class BackOff:
    """The back-off of one stream of slots: a state that two thresholds each enter and leave.

    enter_db, leave_db: backs off at this SNR and above, and comes back below leave_db, which is lower (the paper,
    section V.A: where least squares are better than a model that stops improving); infinite: never for the SNR.
    residual_enter, residual_leave: backs off at this residual and above (see `residuals`: 1.75 is an estimate whose
    error at the pilots is three quarters of that of least squares), and comes back below residual_leave, which is
    lower; infinite: never for the residual. It comes back when both say so.
    active: least squares are to be taken; switches: how often that changed. Raises ConfigurationError.
    """

    enter_db: float = math.inf
    leave_db: float = math.inf
    residual_enter: float = 1.75
    residual_leave: float = 1.4
    active: bool = field(default=False, init=False)
    switches: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        pairs = (
            ("leave_db", self.leave_db, self.enter_db),
            ("residual_leave", self.residual_leave, self.residual_enter),
        )
        for name, leave, enter in pairs:
            if not (leave < enter or leave == enter == math.inf):
                raise ConfigurationError("back-off", name, leave, f"less than {enter:g}, at which it is entered")

    def update(self, snr_db: float, residual: float) -> bool:
        """Take in the next slot of the stream; whether least squares are to be taken for it."""
        if self.active:
            active = not (snr_db < self.leave_db and residual < self.residual_leave)
        else:
            active = snr_db >= self.enter_db or residual >= self.residual_enter
        self.switches += active != self.active
        self.active = active
        return active

    def reset(self) -> None:
        """Another stream begins, or another estimator: not backed off; `switches` goes on."""
        self.active = False
