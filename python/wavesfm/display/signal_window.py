# SPDX-License-Identifier: GPL-3.0-or-later
"""The window of `signal_display` (Qt): it draws what `SignalModel` holds, at its pace, and never touches the stream."""

from __future__ import annotations

import time as clock

from PyQt5 import QtCore, QtWidgets
from wavesfm_core.errors import WavesfmError

from .emitter_panel import EmitterList, EventList, Selected, Timeline
from .health import si
from .palette import THEMES
from .qt import grow_window, style_sheet
from .signal_model import SignalModel, Snapshot
from .waterfall_view import WaterfallView

FRAME_MS = 33
TABLE_EVERY = 8  # frames
SIZE = (1280, 760)
FRAME = (30, 90)  # pixels of a flowgraph's window around it: margins and a line of controls
SIDE = 500  # pixels of what stands beside the waterfall
HEIGHTS = (270, 165, 260)  # of the table, the chosen emitter, timeline and events
LEAST_SIZE = (900, 560)


class SignalWindow(QtWidgets.QWidget):
    """Waterfall with boxes, emitters, timeline and status of a model.

    Parameters
    ----------
    model : SignalModel
        What is shown.
    theme : {"dark", "light"}
        Colours at the start.
    title : str
        Of the window.
    """

    def __init__(self, model: SignalModel, theme: str = "dark", title: str = "") -> None:
        super().__init__()
        self.model, self.frames, self._theme = model, 0, THEMES[theme]
        self.setAttribute(QtCore.Qt.WA_StyledBackground)  # its background also within another window
        self.setWindowTitle(title or "Signals")
        self.setMinimumSize(*LEAST_SIZE)
        self.waterfall, self.timeline = WaterfallView(self._theme), Timeline(self._theme)
        self.emitters, self.selected, self.events = EmitterList(), Selected(), EventList()
        self._lay_out()
        self.waterfall.picked.connect(self.select)
        self.waterfall.menu_wanted.connect(self._open_menu)
        self.emitters.picked.connect(self.select)
        self.events.picked.connect(self.select)
        self.selected.zoom.connect(self.zoom)
        self.selected.save.connect(self.save)
        self.selected.teach.connect(self.teach)
        self.set_theme(theme)
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._timer.start(FRAME_MS)
        self.refresh()

    def sizeHint(self) -> QtCore.QSize:
        """The size at which it opens."""
        return QtCore.QSize(*SIZE)

    def showEvent(self, event: object) -> None:
        """Open the flowgraph's window at a useful size."""
        super().showEvent(event)
        QtCore.QTimer.singleShot(0, lambda: grow_window(self, SIZE[0] + FRAME[0], SIZE[1] + FRAME[1]))

    def refresh(self) -> None:
        """Draw one frame; tables and texts more rarely."""
        self.model.health.measure(clock.monotonic(), self.model.samples_in)
        slow = self.frames % TABLE_EVERY == 0
        self.frames += 1
        if slow:
            self._show_status()
        if self.pause_button.isChecked():
            return
        self.snapshot = self.model.snapshot()
        self.waterfall.show_snapshot(self.snapshot)
        if slow:
            self._show_tables(self.snapshot)

    def select(self, number: int) -> None:
        """Choose an emitter by its number; 0: none."""
        self.waterfall.selected = number
        self.waterfall.show_snapshot(self.snapshot)
        self._show_tables(self.snapshot)

    def zoom(self) -> None:
        """Show the frequencies around the chosen emitter."""
        if (emitter := self.model.emitter(self.waterfall.selected)) is not None:
            self.waterfall.zoom_to(emitter)

    def save(self) -> None:
        """Write the samples of the chosen emitter."""
        self._save("")

    def teach(self, label: str) -> None:
        """Write the samples of the chosen emitter under the right label, for teaching."""
        if label:
            self._save(label)
        else:
            self.message.setText("This is: a label is needed")

    def set_theme(self, name: str) -> None:
        """Change the colours: "dark" or "light"."""
        self._theme = THEMES[name]
        self.setStyleSheet(style_sheet(self._theme))
        for view in (self.waterfall, self.timeline):
            view.set_theme(self._theme)
        self.theme_button.setText("Light" if name == "dark" else "Dark")

    def _save(self, label: str) -> None:
        try:
            path = self.model.save(self.waterfall.selected, label)
        except WavesfmError as error:
            self.message.setText(f"not saved: {error}")
        else:
            self.message.setText(f"saved {path}")

    def _open_menu(self, number: int, place: QtCore.QPoint) -> None:
        menu = QtWidgets.QMenu(self)
        menu.addAction("Zoom", self.zoom)
        menu.addAction("Save SigMF", self.save)
        emitter = self.model.emitter(number)
        for label, _ in emitter.top() if emitter else ():
            menu.addAction(f"This is {label}", lambda label=label: self.teach(label))
        menu.popup(place)

    def _show_tables(self, snapshot: Snapshot) -> None:
        self.emitters.show_snapshot(snapshot, self.waterfall.selected)
        self.selected.show_emitter(self.model.emitter(self.waterfall.selected), snapshot)
        self.timeline.show_snapshot(snapshot)
        self.events.show_snapshot(snapshot)
        where = f"{snapshot.centre_hz / 1e6:.6g} MHz" if snapshot.centre_hz else "frequency unknown"
        rate = f"{si(snapshot.rate_hz)}S/s" if snapshot.rate_hz else "rate unknown"
        self.tuning.setText(f"<b>{where}</b>   {rate}   {len(snapshot.emitters)} emitters")

    def _show_status(self) -> None:
        health = self.model.health
        losses = bool(health.losses())
        seen = 1 - self.model.samples_skipped / max(1, self.model.samples_in)
        self.status.setText(f"{'(!) ' if losses else ''}{health.line()}   drawn: {seen:.0%} of the samples")
        self.status.setToolTip(f"{health.bundle_id}\n{health.last_text}".strip())
        self.status.setStyleSheet(f"color: {self._theme.warning if losses else self._theme.text};")

    def _lay_out(self) -> None:
        self.tuning, self.status, self.message = QtWidgets.QLabel(), QtWidgets.QLabel(), QtWidgets.QLabel()
        self.full_button, self.pause_button = QtWidgets.QPushButton("Full view"), QtWidgets.QPushButton("Pause")
        self.theme_button = QtWidgets.QPushButton("Light")
        self.pause_button.setCheckable(True)
        self.full_button.clicked.connect(self.waterfall.show_all)
        self.theme_button.clicked.connect(lambda: self.set_theme("light" if self._theme.name == "dark" else "dark"))
        bar = QtWidgets.QHBoxLayout()
        bar.addWidget(self.tuning, 1)
        for button in (self.full_button, self.pause_button, self.theme_button):
            bar.addWidget(button)
        tabs = QtWidgets.QTabWidget()
        tabs.addTab(self.timeline, "Timeline")
        tabs.addTab(self.events, "Events")
        beside = QtWidgets.QSplitter(QtCore.Qt.Vertical)
        for widget, share in ((self.emitters, 4), (self.selected, 2), (tabs, 3)):
            beside.addWidget(widget)
            beside.setStretchFactor(beside.count() - 1, share)
        beside.setSizes(list(HEIGHTS))
        split = QtWidgets.QSplitter(QtCore.Qt.Horizontal)
        split.addWidget(self.waterfall)
        split.addWidget(beside)
        split.setSizes([SIZE[0] - SIDE, SIDE])
        split.setStretchFactor(0, 1)
        line = QtWidgets.QHBoxLayout()
        line.addWidget(self.status, 1)
        line.addWidget(self.message)
        for label in (self.status, self.message):
            label.setSizePolicy(QtWidgets.QSizePolicy.Ignored, QtWidgets.QSizePolicy.Preferred)
        line.setStretch(0, 2)
        line.setStretch(1, 1)
        whole = QtWidgets.QVBoxLayout(self)
        whole.setContentsMargins(8, 8, 8, 6)
        whole.addLayout(bar)
        whole.addWidget(split, 1)
        whole.addLayout(line)
