# SPDX-License-Identifier: GPL-3.0-or-later
"""The window of `estimator_display` (Qt): quality over time, back-off, and the channel over delay and angle."""

from __future__ import annotations

import time as clock

import numpy as np

from PyQt5 import QtCore, QtWidgets  # isort: skip  # before pyqtgraph, which takes the binding that is loaded
import pyqtgraph as pg

from .estimator_model import RANGE_DB, EstimatorModel, EstimatorSnapshot
from .health import si
from .palette import LABEL_COLOURS, THEMES, Theme, power_colours
from .qt import grow_window, style_plot, style_sheet

FRAME_MS = 50
SIZE = (980, 420)
FRAME = (30, 420)  # pixels of a flowgraph's window around it: margins, and plots above it
LINES = {
    "snr_db": ("SNR, dB", QtCore.Qt.SolidLine, LABEL_COLOURS[1]),
    "nmse_db": ("NMSE, dB", QtCore.Qt.DashLine, LABEL_COLOURS[0]),
}
"""By the name of a curve: text, line and colour; lines differ, so that colour does not stand alone."""


class EstimatorWindow(QtWidgets.QWidget):
    """Curves and picture of a model.

    Parameters
    ----------
    model : EstimatorModel
        What is shown.
    theme : {"dark", "light"}
        Colours at the start.
    title : str
        Of the window.
    """

    def __init__(self, model: EstimatorModel, theme: str = "dark", title: str = "") -> None:
        super().__init__()
        self.model, self._theme = model, THEMES[theme]
        self.setAttribute(QtCore.Qt.WA_StyledBackground)  # its background also within another window
        self.setWindowTitle(title or "Channel estimation")
        self.setMinimumSize(640, 300)
        self.decibels, self.residual, self.picture = pg.PlotWidget(), pg.PlotWidget(), pg.PlotWidget()
        self._make_curves()
        self._make_picture()
        self.state, self.status = QtWidgets.QLabel(), QtWidgets.QLabel()
        self.theme_button = QtWidgets.QPushButton()
        self.theme_button.clicked.connect(lambda: self.set_theme("light" if self._theme.name == "dark" else "dark"))
        bar = QtWidgets.QHBoxLayout()
        bar.addWidget(self.state, 1)
        bar.addWidget(self.theme_button)
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(8, 8, 8, 6)
        grid.addLayout(bar, 0, 0, 1, 2)
        grid.addWidget(self.decibels, 1, 0)
        grid.addWidget(self.residual, 2, 0)
        grid.addWidget(self.picture, 1, 1, 2, 1)
        grid.addWidget(self.status, 3, 0, 1, 2)
        for row, share in ((1, 3), (2, 2)):
            grid.setRowStretch(row, share)
        for column in (0, 1):
            grid.setColumnStretch(column, 1)
        self.set_theme(theme)
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._timer.start(FRAME_MS)
        self.refresh()

    def sizeHint(self) -> QtCore.QSize:
        """The size at which it opens."""
        return QtCore.QSize(*SIZE)

    def set_theme(self, name: str) -> None:
        """Change the colours: "dark" or "light"."""
        self._theme: Theme = THEMES[name]
        self.setStyleSheet(style_sheet(self._theme))
        for plot in (self.decibels, self.residual, self.picture):
            style_plot(plot, self._theme)
            if (legend := plot.getPlotItem().legend) is not None:
                legend.setLabelTextColor(self._theme.text)
        self.theme_button.setText("Light" if name == "dark" else "Dark")

    def showEvent(self, event: object) -> None:
        """Open the flowgraph's window at a useful size."""
        super().showEvent(event)
        QtCore.QTimer.singleShot(0, lambda: grow_window(self, SIZE[0] + FRAME[0], SIZE[1] + FRAME[1]))

    def refresh(self) -> None:
        """Draw one frame."""
        self.model.health.measure(clock.monotonic(), self.model.estimates)
        snapshot = self.model.snapshot()
        for name, curve in self._curves.items():
            values = snapshot.curves[name]
            curve.setData(np.arange(len(values)) - len(values), values, connect="finite")
        at = np.flatnonzero(snapshot.backed_off) - len(snapshot.backed_off)
        self._backed_off.setOpts(x=at, height=np.ones(len(at)), y0=0, width=1)
        self._image.setImage(snapshot.picture_db, autoLevels=False)
        self._image.setRect(QtCore.QRectF(0.0, -1.0, 50.0, 2.0))
        self._show_texts(snapshot)

    def _show_texts(self, snapshot: EstimatorSnapshot) -> None:
        backing = bool(len(snapshot.backed_off) and snapshot.backed_off[-1])
        share = float(snapshot.backed_off.mean()) if len(snapshot.backed_off) else 0.0
        state = "least squares (backed off)" if backing else snapshot.method or "no estimate yet"
        self.state.setText(f"<b>{state}</b>   backed off in {share:.0%} of the last {len(snapshot.backed_off)}")
        health = self.model.health
        lag = "-" if health.lag_s is None else f"{1e3 * health.lag_s:.0f} ms"
        losses = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in health.losses().items())
        parts = (f"engine: {health.engine or 'none'}", f"{si(health.rate_hz)}slots/s", f"lag: {lag}")
        self.status.setText(f"{'(!) ' if losses else ''}" + "   ".join((*parts, f"lost: {losses or 'none'}")))
        self.status.setStyleSheet(f"color: {self._theme.warning if losses else self._theme.text};")
        self.status.setToolTip(f"{health.bundle_id}\n{health.last_text}".strip())

    def _make_curves(self) -> None:
        self._curves = {}
        self.decibels.addLegend(offset=(8, 8))
        self.decibels.setLabel("left", "dB")
        for name, (text, line, colour) in LINES.items():
            pen = pg.mkPen(colour, width=2, style=line)
            self._curves[name] = self.decibels.plot(pen=pen, name=text)
        self._backed_off = pg.BarGraphItem(x=[], height=[], width=1, brush=(214, 94, 0, 120), pen=pg.mkPen(None))
        self.residual.addLegend(offset=(8, 8))
        self.residual.addItem(self._backed_off)
        self._curves["residual"] = self.residual.plot(pen=pg.mkPen(LABEL_COLOURS[2], width=2), name="residual / noise")
        self.residual.addLine(y=1.0, pen=pg.mkPen("#808080", style=QtCore.Qt.DotLine))
        self.residual.setLabel("bottom", "slots; orange columns: backed off")
        for plot in (self.decibels, self.residual):
            plot.getPlotItem().setMenuEnabled(False)
            plot.setMouseEnabled(x=False, y=False)
            plot.hideButtons()
        self.decibels.setXLink(self.residual)

    def _make_picture(self) -> None:
        self._image = pg.ImageItem(axisOrder="row-major")
        self._image.setLookupTable(power_colours())
        self._image.setLevels((-RANGE_DB, 0.0))
        self.picture.addItem(self._image)
        self.picture.setLabel("bottom", "delay, % of a symbol")
        self.picture.setLabel("left", "sine of the angle of arrival")
        self.picture.getPlotItem().setMenuEnabled(False)
        self.picture.hideButtons()
