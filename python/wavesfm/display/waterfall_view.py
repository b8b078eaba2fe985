# SPDX-License-Identifier: GPL-3.0-or-later
"""The scrolling waterfall with boxes that can be clicked (pyqtgraph)."""

from __future__ import annotations

from typing import Any

from PyQt5 import QtCore, QtGui, QtWidgets  # isort: skip  # before pyqtgraph, which takes the binding that is loaded
import pyqtgraph as pg

from .emitters import ShownEmitter
from .palette import Theme, label_colour, power_colours
from .qt import small_font, style_plot
from .signal_model import Snapshot

LEAST_BOX = 7  # pixels
CAPTION_HEIGHT = 23  # pixels
CLICK_MARGIN = 4  # pixels
ZOOM_MARGIN = 0.6  # of the width of a box, on either side
MOST_BOXES = 60


class _Box:
    """A frame and its caption."""

    def __init__(self, plot: pg.PlotItem) -> None:
        self.frame, self.caption = QtWidgets.QGraphicsRectItem(), pg.TextItem(anchor=(0, 0))
        for item, depth in ((self.frame, 10), (self.caption, 20)):
            item.setZValue(depth)
            plot.addItem(item, ignoreBounds=True)
        self.caption.setFont(small_font())
        self._styled: Any = None

    def place(self, rectangle: QtCore.QRectF, at: QtCore.QPointF) -> None:
        self.frame.setRect(rectangle)
        self.caption.setPos(at)

    def style(self, emitter: ShownEmitter, selected: bool, theme: Theme) -> None:
        wanted = (emitter.caption(), selected, emitter.active, theme.name)
        if wanted == self._styled:
            return
        self._styled = wanted
        colour = QtGui.QColor(theme.accent if selected and theme.name == "dark" else label_colour(emitter.label))
        pen = QtGui.QPen(colour, 3 if selected else 2)
        pen.setCosmetic(True)
        if not emitter.label:
            pen.setStyle(QtCore.Qt.DotLine)
        self.frame.setPen(pen)
        self.caption.setText(f"{'> ' if selected else ''}{emitter.caption()}", color="#ffffff")
        self.caption.fill = pg.mkBrush(0, 0, 0, 190)
        self.caption.border = pg.mkPen(colour, width=2 if selected else 1)
        self.caption.update()

    def remove(self, plot: pg.PlotItem) -> None:
        for item in (self.frame, self.caption):
            plot.removeItem(item)


class WaterfallView(pg.PlotWidget):
    """Time downwards from now, frequency across; emits the number of the emitter that was clicked, 0 for none."""

    picked = QtCore.pyqtSignal(int)
    menu_wanted = QtCore.pyqtSignal(int, QtCore.QPoint)

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._image = pg.ImageItem(axisOrder="row-major")
        plot = self.getPlotItem()
        plot.addItem(self._image)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.getViewBox().invertY(True)
        self._boxes: dict[int, _Box] = {}
        self._rectangles: dict[int, QtCore.QRectF] = {}
        self._axis: tuple[float, float, float] | None = None
        self._snapshot: Snapshot | None = None
        self.selected = 0
        self.set_theme(theme)
        self.scene().sigMouseClicked.connect(self._clicked)

    def set_theme(self, theme: Theme) -> None:
        """Change the colours."""
        self._theme = theme
        colours = power_colours()
        colours[0] = QtGui.QColor(theme.panel).getRgb()[:3]
        self._image.setLookupTable(colours)
        style_plot(self, theme)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Draw the rows and the boxes."""
        self._snapshot = snapshot
        self._image.setImage(snapshot.image, autoLevels=False, levels=(0, 255))
        axis = (snapshot.centre_hz, snapshot.rate_hz, snapshot.history)
        low, width = self._band(snapshot)
        self._image.setRect(QtCore.QRectF(low, 0.0, width, snapshot.history))
        if axis != self._axis:
            self._axis = axis
            known = snapshot.rate_hz > 0
            self.setLabel("bottom", "frequency, MHz" if known else "frequency, sample rates (it is not known)")
            self.setLabel("left", "seconds ago" if known else "rows ago")
            style_plot(self, self._theme)
            self.show_all()
        self._show_boxes(snapshot)

    def show_all(self) -> None:
        """Show the whole band and all of the history."""
        if self._snapshot is not None:
            low, width = self._band(self._snapshot)
            self.setRange(xRange=(low, low + width), yRange=(0.0, self._snapshot.history), padding=0)

    def zoom_to(self, emitter: ShownEmitter) -> None:
        """Show the frequencies around an emitter."""
        low, high = (edge / 1e6 for edge in emitter.edges_hz)
        room = ZOOM_MARGIN * (high - low)
        self.setXRange(low - room, high + room, padding=0)

    def box_centre(self, number: int) -> QtCore.QPoint | None:
        """Where in this widget the middle of a box is; None where it is not drawn."""
        rectangle = self._rectangles.get(number)
        if rectangle is None:
            return None
        scene = self.getViewBox().mapViewToScene(rectangle.center())
        return self.mapFromScene(scene)

    def _band(self, snapshot: Snapshot) -> tuple[float, float]:
        """Lower end and width of the axis."""
        if snapshot.rate_hz <= 0:
            return -0.5, 1.0
        return (snapshot.centre_hz - snapshot.rate_hz / 2) / 1e6, snapshot.rate_hz / 1e6

    def _show_boxes(self, snapshot: Snapshot) -> None:
        plot, taken = self.getPlotItem(), list[QtCore.QRectF]()
        self._rectangles = self._visible(snapshot)
        for number in set(self._boxes) - set(self._rectangles):
            self._boxes.pop(number).remove(plot)
        for emitter in snapshot.emitters:
            rectangle = self._rectangles.get(emitter.number)
            if rectangle is not None:
                box = self._boxes.get(emitter.number) or self._boxes.setdefault(emitter.number, _Box(plot))
                box.style(emitter, emitter.number == self.selected, self._theme)
                box.place(rectangle, self._caption_place(rectangle, box, taken))

    def _visible(self, snapshot: Snapshot) -> dict[int, QtCore.QRectF]:
        """The boxes in the shown part of the band, newest first, at least LEAST_BOX pixels wide and high."""
        least_x, least_y = (float(size) * LEAST_BOX for size in self.getViewBox().viewPixelSize())
        shown = self.getViewBox().viewRect()
        found: dict[int, QtCore.QRectF] = {}
        newest = sorted(snapshot.emitters, key=lambda each: -each.end_sample(snapshot.now_sample))
        for emitter in newest:
            low, high = (edge / 1e6 for edge in emitter.edges_hz)
            top = max(0.0, snapshot.seconds_ago(emitter.end_sample(snapshot.now_sample)))
            bottom = min(snapshot.history, snapshot.seconds_ago(emitter.start_sample))
            spare_x, spare_y = max(0.0, least_x - (high - low)) / 2, max(0.0, least_y - (bottom - top))
            rectangle = QtCore.QRectF(low - spare_x, top, high - low + 2 * spare_x, bottom - top + spare_y)
            if top < snapshot.history and bottom >= 0 and shown.intersects(rectangle) and snapshot.rate_hz > 0:
                found[emitter.number] = rectangle
            if len(found) == MOST_BOXES:
                break
        return found

    def _caption_place(self, rectangle: QtCore.QRectF, box: _Box, taken: list[QtCore.QRectF]) -> QtCore.QPointF:
        """The upper left corner of a caption within the view, lower down where another caption is in the way."""
        view = self.getViewBox()
        pixel_x, pixel_y = (float(size) for size in view.viewPixelSize())
        width = box.caption.boundingRect().width() * pixel_x
        shown, height = view.viewRect(), CAPTION_HEIGHT * pixel_y
        left = max(shown.left(), min(rectangle.left(), shown.right() - width))
        place = QtCore.QRectF(left, max(shown.top(), rectangle.top()), width, height)
        while any(place.intersects(other) for other in taken) and place.bottom() < shown.bottom():
            place.translate(0.0, height)
        taken.append(place)
        return place.topLeft()

    def _clicked(self, event: Any) -> None:
        number = self._at(self.getViewBox().mapSceneToView(event.scenePos()))
        if event.button() == QtCore.Qt.RightButton:
            if number:
                self.picked.emit(number)
                self.menu_wanted.emit(number, event.screenPos().toPoint())
            return
        self.picked.emit(number)

    def _at(self, point: QtCore.QPointF) -> int:
        """The emitter whose box is at a point, the smallest of several; 0 for none."""
        x, y = (float(size) * CLICK_MARGIN for size in self.getViewBox().viewPixelSize())
        hits = {
            number: rectangle.width() * rectangle.height()
            for number, rectangle in self._rectangles.items()
            if rectangle.adjusted(-x, -y, x, y).contains(point)
        }
        return min(hits, key=lambda number: hits[number], default=0)
