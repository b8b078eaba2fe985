# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the windows can be shown, and what all of them share: style sheets, swatches, bars."""

from __future__ import annotations

import importlib
import os
from typing import Any

from wavesfm_core.errors import ConfigurationError

from .palette import Theme

os.environ.setdefault("PYQTGRAPH_QT_LIB", "PyQt5")  # GNU Radio's; pyqtgraph by itself prefers PyQt6

FONT_PIXELS = 12
PACKAGES = {"PyQt5": "python3-pyqt5", "pyqtgraph": "python3-pyqtgraph"}  # by module: the package of Debian


def require_qt(where: str) -> None:
    """Import what windows need.

    Raises
    ------
    ConfigurationError
        A package is missing (it says how to install it), or pyqtgraph runs on another binding than GNU Radio.
    """
    for module, package in PACKAGES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            expected = f"it installed: apt install {package}, or pip install '{module}'"
            raise ConfigurationError(where, f"package {module}", str(error), expected) from None
    if (binding := importlib.import_module("pyqtgraph").Qt.QT_LIB) != "PyQt5":
        raise ConfigurationError(where, "package pyqtgraph", binding, "PyQt5, imported before pyqtgraph")


def require_application(where: str) -> None:
    """Raise ConfigurationError where no QApplication exists, without which Qt ends the process."""
    from PyQt5 import QtWidgets

    if QtWidgets.QApplication.instance() is None:
        raise ConfigurationError(where, "window", "no QApplication", "a flowgraph with QT GUI, or a QApplication")


def grow_window(widget: Any, width: int, height: int) -> None:
    """Make the window that holds a widget at least so large, as far as the screen has room.

    A flowgraph's window scrolls what it holds and opens small whatever the widget's size hint is.
    """
    from PyQt5 import QtCore, QtWidgets

    window = widget.window()
    if window is not widget:
        room = QtWidgets.QApplication.primaryScreen().availableSize()
        window.resize(window.size().expandedTo(QtCore.QSize(width, height)).boundedTo(room))


def style_sheet(theme: Theme) -> str:
    """The style of a window."""
    return f"""
    QWidget {{ background: {theme.background}; color: {theme.text}; font-size: 12px; }}
    QTableWidget, QListWidget, QComboBox, QLineEdit {{ background: {theme.panel}; border: 1px solid {theme.faint};
        selection-background-color: {theme.faint}; selection-color: {theme.text}; gridline-color: {theme.faint}; }}
    QHeaderView::section {{ background: {theme.background}; border: 0; border-bottom: 1px solid {theme.faint};
        padding: 3px; font-weight: bold; }}
    QPushButton {{ background: {theme.panel}; border: 1px solid {theme.faint}; border-radius: 3px; padding: 4px 10px; }}
    QPushButton:hover, QPushButton:checked {{ border-color: {theme.accent}; }}
    QPushButton:disabled, QComboBox:disabled {{ color: {theme.faint}; }}
    QProgressBar {{ background: {theme.panel}; border: 1px solid {theme.faint}; border-radius: 2px; height: 14px;
        text-align: center; }}
    QTabWidget::pane {{ border: 1px solid {theme.faint}; }}
    QTabBar::tab {{ background: {theme.background}; border: 1px solid {theme.faint}; padding: 4px 12px; }}
    QTabBar::tab:selected {{ background: {theme.panel}; border-bottom-color: {theme.accent}; }}
    """


def swatch(colour: str) -> Any:
    """A square icon of one colour."""
    from PyQt5 import QtGui

    pixmap = QtGui.QPixmap(12, 12)
    pixmap.fill(QtGui.QColor(colour))
    return QtGui.QIcon(pixmap)


def small_font() -> Any:
    """The font of axes and captions."""
    from PyQt5 import QtGui

    font = QtGui.QFont()
    font.setPixelSize(FONT_PIXELS)
    return font


def style_plot(plot: Any, theme: Theme) -> None:
    """Colours and font of a plot's background and axes."""
    plot.setBackground(theme.panel)
    for side in ("left", "bottom"):
        axis = plot.getAxis(side)
        axis.setPen(theme.faint)
        axis.setTextPen(theme.text)
        axis.setTickFont(small_font())
        axis.setLabel(axis.labelText, **{"font-size": f"{FONT_PIXELS}px", "color": theme.text})
