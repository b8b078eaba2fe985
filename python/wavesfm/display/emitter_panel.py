# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands beside the waterfall: emitters, the selected one, the timeline and the events (Qt)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from PyQt5 import QtCore, QtWidgets  # isort: skip  # before pyqtgraph, which takes the binding that is loaded
import pyqtgraph as pg

from .emitters import LoggedEvent, ShownEmitter
from .palette import Theme, label_colour
from .qt import style_plot, swatch
from .signal_model import Snapshot

COLUMNS = ("Label", "MHz", "kHz", "dB", "Since", "Last seen", "Bursts")
LABEL_WIDTH = 125  # pixels
TOP = 5
LANE_HEIGHT = 16  # pixels that the name of a lane needs
TIMELINE_S = 60.0
NUMBER = QtCore.Qt.UserRole


def clock_text(sample: int, rate_hz: float, time: Any) -> str:
    """UTC of a sample where it is known, otherwise its time in the stream."""
    if time is not None:
        seconds, fraction = time[0], time[1]
        moment = datetime.fromtimestamp(float(seconds), UTC)
        return f"{moment:%H:%M:%S}{f'{fraction:.3f}'[1:]}"
    return f"{sample / rate_hz:.3f} s" if rate_hz > 0 else str(sample)


class EmitterList(QtWidgets.QTableWidget):
    """A line for each emitter; emits the number of the one that was chosen."""

    picked = QtCore.pyqtSignal(int)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setHorizontalHeaderLabels(COLUMNS)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        self.setEditTriggers(QtWidgets.QAbstractItemView.NoEditTriggers)
        self.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        self.setSelectionMode(QtWidgets.QAbstractItemView.SingleSelection)
        self.setShowGrid(False)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QtWidgets.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, QtWidgets.QHeaderView.Interactive)
        header.setStretchLastSection(True)
        self.setColumnWidth(0, LABEL_WIDTH)
        self.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarAlwaysOff)
        self.cellClicked.connect(lambda row, _: self.picked.emit(self.item(row, 0).data(NUMBER)))

    def show_snapshot(self, snapshot: Snapshot, selected: int) -> None:
        """Fill the table: those on the air first, then by the time they were last seen."""
        now = snapshot.now_sample
        ordered = sorted(snapshot.emitters, key=lambda each: (not each.active, -each.end_sample(now), each.middle_hz))
        self.setRowCount(len(ordered))
        self.clearSelection()
        for row, emitter in enumerate(ordered):
            for column, text in enumerate(_cells(emitter, snapshot)):
                item = self.item(row, column)
                if item is None:
                    item = QtWidgets.QTableWidgetItem()
                    side = QtCore.Qt.AlignLeft if column == 0 else QtCore.Qt.AlignRight
                    item.setTextAlignment(int(side | QtCore.Qt.AlignVCenter))
                    self.setItem(row, column, item)
                if item.text() != text:
                    item.setText(text)
                if (column == 0 and item.data(NUMBER) != emitter.number) or item.data(NUMBER + 1) != emitter.label:
                    item.setData(NUMBER, emitter.number)
                    item.setData(NUMBER + 1, emitter.label)
                    if column == 0:
                        item.setIcon(swatch(label_colour(emitter.label)))
            if emitter.number == selected:
                self.selectRow(row)


def _cells(emitter: ShownEmitter, snapshot: Snapshot) -> list[str]:
    record, now = emitter.record, snapshot.now_sample
    ago = snapshot.seconds_ago(emitter.end_sample(now))
    seen = "on air" if emitter.active else f"{ago:.1f} s ago" if snapshot.rate_hz else f"{ago:.0f} rows ago"
    snr = record.get("snr_db")
    return [
        emitter.caption(),
        f"{emitter.middle_hz / 1e6:.4f}",
        f"{emitter.width_hz / 1e3:.4g}",
        "" if snr is None else f"{snr:.0f}",
        clock_text(emitter.start_sample, snapshot.rate_hz, record["start_time"]),
        seen,
        str(record.get("n_bursts", "")),
    ]


class Selected(QtWidgets.QGroupBox):
    """The chosen emitter, or the whole band: its most probable labels, and what can be done with it."""

    zoom = QtCore.pyqtSignal()
    save = QtCore.pyqtSignal()
    teach = QtCore.pyqtSignal(str)

    def __init__(self) -> None:
        super().__init__("Nothing selected")
        grid = QtWidgets.QGridLayout(self)
        grid.setVerticalSpacing(3)
        self._names, self._bars = [], []
        for row in range(TOP):
            name, bar = QtWidgets.QLabel(""), QtWidgets.QProgressBar()
            bar.setRange(0, 1000)
            grid.addWidget(name, row, 0)
            grid.addWidget(bar, row, 1, 1, 3)
            self._names.append(name)
            self._bars.append(bar)
        grid.setColumnStretch(1, 1)
        self.zoom_button, self.save_button = QtWidgets.QPushButton("Zoom"), QtWidgets.QPushButton("Save SigMF")
        self.teach_button, self.label_box = QtWidgets.QPushButton("This is"), QtWidgets.QComboBox()
        self.label_box.setEditable(True)
        self.label_box.lineEdit().setPlaceholderText("label")
        self.label_box.setMinimumWidth(110)
        buttons = QtWidgets.QHBoxLayout()
        for widget in (self.zoom_button, self.save_button, self.teach_button):
            buttons.addWidget(widget)
        buttons.addWidget(self.label_box, 1)
        grid.addLayout(buttons, TOP, 0, 1, 4)
        self.zoom_button.clicked.connect(self.zoom)
        self.save_button.clicked.connect(self.save)
        self.teach_button.clicked.connect(lambda: self.teach.emit(self.label_box.currentText().strip()))
        self._labels: tuple[str, ...] = ()

    def show_emitter(self, emitter: ShownEmitter | None, snapshot: Snapshot) -> None:
        """Fill the bars."""
        for widget in (self.zoom_button, self.save_button, self.teach_button, self.label_box):
            widget.setEnabled(emitter is not None)
        if emitter is not None:
            place = f"{emitter.middle_hz / 1e6:.4f} MHz, {emitter.width_hz / 1e3:.4g} kHz"
            self.setTitle(f"{emitter.caption()}  at {place}")
            probabilities = emitter.record.get("probabilities") or {}
        else:
            probabilities = snapshot.whole.get("probabilities") or {}
            self.setTitle("Whole band" if probabilities else "Nothing selected")
        ordered = sorted(probabilities.items(), key=lambda item: -item[1])[:TOP]
        for row, (name, bar) in enumerate(zip(self._names, self._bars)):
            label, value = ordered[row] if row < len(ordered) else ("", 0.0)
            name.setText(label)
            bar.setValue(round(1000 * value))
            bar.setFormat(f"{value:.1%}" if label else "")
            bar.setStyleSheet(f"QProgressBar::chunk {{ background: {label_colour(label)}; }}")
        labels = tuple(sorted(probabilities))
        if labels and labels != self._labels:
            self._labels, text = labels, self.label_box.currentText()
            self.label_box.clear()
            self.label_box.addItems(labels)
            self.label_box.setCurrentText(text)


class Timeline(pg.PlotWidget):
    """A lane for each of the last emitters with its times on the air, for up to a minute."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        plot = self.getPlotItem()
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.getViewBox().invertX(True)
        plot.getViewBox().invertY(True)
        self.setLabel("bottom", "seconds ago")
        self._bars = pg.BarGraphItem(x0=[], x1=[], y=[], height=0.7)
        plot.addItem(self._bars)
        self.set_theme(theme)

    def set_theme(self, theme: Theme) -> None:
        """Change the colours."""
        style_plot(self, theme)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Draw the lanes, in the order of frequency."""
        now, rate_hz = snapshot.now_sample, snapshot.rate_hz
        length = max(snapshot.history, min(TIMELINE_S, now / rate_hz)) if rate_hz > 0 else TIMELINE_S
        fitting = max(3, int(self.getViewBox().height()) // LANE_HEIGHT)
        newest = sorted(snapshot.emitters, key=lambda each: -each.end_sample(now))[:fitting]
        lanes = sorted(newest, key=lambda each: each.middle_hz)
        x0, x1, y, brushes = [], [], [], []
        for lane, emitter in enumerate(lanes):
            for start, stop in emitter.spans or [[emitter.start_sample, emitter.end_sample(now)]]:
                x0.append(max(0.0, (now - (stop if stop >= 0 else now)) / (rate_hz or 1.0)))
                x1.append(max(x0[-1] + length / 400, (now - start) / (rate_hz or 1.0)))
                y.append(lane)
                brushes.append(pg.mkBrush(label_colour(emitter.label)))
        self._bars.setOpts(x0=x0, x1=x1, y=y, height=0.7, brushes=brushes, pens=[pg.mkPen(None)] * len(y))
        names = [(lane, f"{each.middle_hz / 1e6:.3f} {each.label or '?'}") for lane, each in enumerate(lanes)]
        self.getAxis("left").setTicks([names])
        self.setRange(xRange=(0.0, length), yRange=(-0.6, max(4, len(lanes)) - 0.4), padding=0)


class EventList(QtWidgets.QListWidget):
    """What happened, newest first; emits the number of the emitter that was chosen."""

    picked = QtCore.pyqtSignal(int)

    def __init__(self) -> None:
        super().__init__()
        self._last: LoggedEvent | None = None
        self.itemClicked.connect(lambda item: self.picked.emit(item.data(NUMBER)))

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Add what is new."""
        fresh = []
        for event in snapshot.events:
            if event is self._last:
                break
            fresh.append(event)
        if not snapshot.events:
            self.clear()
        self._last = snapshot.events[0] if snapshot.events else None
        for event in reversed(fresh):
            text = f"{clock_text(event.sample, snapshot.rate_hz, event.time)}  {event.sign} {event.text}"
            item = QtWidgets.QListWidgetItem(swatch(label_colour(event.label)), text)
            item.setData(NUMBER, event.number)
            self.insertItem(0, item)
        while self.count() > 500:
            self.takeItem(self.count() - 1)
