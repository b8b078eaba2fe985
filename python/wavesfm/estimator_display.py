# SPDX-License-Identifier: GPL-3.0-or-later
"""A window with the quality of channel estimates over time and the channel over delay and angle."""

from __future__ import annotations

from typing import Any

import pmt
from wavesfm_core.errors import ConfigurationError

from .display.estimator_model import EstimatorModel
from .display.palette import THEMES
from .display.qt import require_application, require_qt
from .keep_alive import KeptAlive
from .pdus import grid_from_pmt
from .signal_display import MessageReader


class estimator_display(KeptAlive, MessageReader):
    """Show SNR, expected error, residual, back-off and the delay and angle of what a channel estimator publishes.

    Parameters
    ----------
    history : int
        Estimates in the curves.
    theme : {"dark", "light"}
        Colours at the start.
    title : str
        Of the window.

    Raises
    ------
    ConfigurationError
        For a wrong parameter, or where PyQt5 or pyqtgraph is not installed.

    Notes
    -----
    Messages in: `channel` and `status` of a channel estimator.
    """

    def __init__(self, history: int = 400, theme: str = "dark", title: str = "") -> None:
        require_qt("estimator_display")
        if theme not in THEMES:
            raise ConfigurationError("estimator_display", "theme", repr(theme), f"one of {', '.join(THEMES)}")
        if not 2 <= int(history) <= 100_000:
            raise ConfigurationError("estimator_display", "history", history, "2 to 100000")
        self.model = EstimatorModel(int(history))
        self._theme, self._title, self._window = theme, title, None
        handlers = {"channel": self._take_channel, "status": self._take_status}
        MessageReader.__init__(self, "wavesfm_estimator_display", handlers)

    def start(self) -> bool:
        self.model.restart()
        return True

    def qwidget(self) -> Any:
        """The window, made on the first call, which must be on the thread of the QApplication."""
        if self._window is None:
            require_application("estimator_display")
            from .display.estimator_window import EstimatorWindow

            self._window = EstimatorWindow(self.model, self._theme, self._title)
        return self._window

    def status(self) -> dict[str, int]:
        """Return counts: estimates, messages_refused."""
        return {"estimates": self.model.estimates, "messages_refused": self.refused}

    def _take_channel(self, message: Any) -> None:
        self.model.take_channel(*grid_from_pmt(message))

    def _take_status(self, message: Any) -> None:
        self.model.take_status(pmt.to_python(message))
