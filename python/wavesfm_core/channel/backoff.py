# SPDX-License-Identifier: GPL-3.0-or-later
"""Fallback from an estimator to least squares, by SNR and by the residual at the pilots, with hysteresis."""

from __future__ import annotations

import math

from .. import _kernels
from ..errors import ConfigurationError

RESIDUAL_ENTER = 1.75
"""Residual (see `preprocess.pilot_grid.residuals`) from which on least squares are taken: the error at the pilots is
then three quarters of that of least squares."""
RESIDUAL_LEAVE = 1.4
"""Residual below which the estimator is taken again."""


class BackOff(_kernels.BackOff):
    """Back-off of one stream of slots.

    It becomes active when one of two thresholds is reached, and inactive when both values are below their lower
    thresholds.

    Parameters
    ----------
    enter_db : float
        Becomes active at this SNR and above; infinite: never because of the SNR.
    leave_db : float
        Lower threshold of the SNR.
    residual_enter : float
        Becomes active at this residual and above; infinite: never because of the residual.
    residual_leave : float
        Lower threshold of the residual.

    Raises
    ------
    ConfigurationError
        A lower threshold that is not below its upper one.

    References
    ----------
    The WavesFM paper, section V.A: at high SNR least squares are better than a model that stops improving.
    """

    def __init__(
        self,
        enter_db: float = math.inf,
        leave_db: float = math.inf,
        residual_enter: float = RESIDUAL_ENTER,
        residual_leave: float = RESIDUAL_LEAVE,
    ) -> None:
        super().__init__(enter_db, leave_db, residual_enter, residual_leave)
        pairs = (("leave_db", leave_db, enter_db), ("residual_leave", residual_leave, residual_enter))
        for name, leave, enter in pairs:
            if not (leave < enter or leave == enter == math.inf):
                raise ConfigurationError("back-off", name, leave, f"less than {enter:g}, at which it is entered")
