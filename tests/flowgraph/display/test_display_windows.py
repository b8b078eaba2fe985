# SPDX-License-Identifier: GPL-3.0-or-later
"""The windows without a screen: boxes and clicks, tables, themes, saving, and nothing that holds the model up."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PyQt5.QtTest")
pytest.importorskip("pyqtgraph")

from gnuradio.wavesfm.display.estimator_model import EstimatorModel
from gnuradio.wavesfm.display.estimator_window import EstimatorWindow
from gnuradio.wavesfm.display.palette import DARK, LIGHT
from gnuradio.wavesfm.display.qt import require_qt
from gnuradio.wavesfm.display.signal_model import DisplayOptions, SignalModel
from gnuradio.wavesfm.display.signal_window import SignalWindow
from PyQt5 import QtCore, QtWidgets
from PyQt5.QtTest import QTest
from support.display_messages import RATE_HZ, event
from support.waiting import until
from wavesfm_core.errors import ConfigurationError

LEFT, RIGHT = QtCore.Qt.LeftButton, QtCore.Qt.RightButton


@pytest.fixture(scope="module")
def application():
    yield QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture()
def model(tmp_path):
    paths = {"save_dir": str(tmp_path / "saved"), "teach_dir": str(tmp_path / "taught")}
    model = SignalModel(DisplayOptions(rows=64, columns=128, history_s=1.0, keep_mb=8, **paths), RATE_HZ, 868e6)
    rng = np.random.default_rng(1)
    model.take(rng.standard_normal(1_600_000).astype(np.float32).view(np.complex64))
    model.take_event(event("appeared", 1, sample=300_000, start_sample=300_000))
    narrow = {"low_hz": -300e3, "high_hz": -299e3, "start_sample": 200_000, "label": "dmr"}
    model.take_event(event("ended", 2, sample=500_000, n_samples=300_000, **narrow))
    return model


@pytest.fixture()
def window(application, model):
    window = SignalWindow(model)
    window._timer.stop()  # the tests draw the frames
    window.resize(1200, 700)
    window.show()
    application.processEvents()
    window.frames = 0
    window.refresh()
    application.processEvents()
    yield window
    window.close()


def click(window, number, button=LEFT):
    place = window.waterfall.box_centre(number)
    QTest.mouseClick(window.waterfall.viewport(), button, QtCore.Qt.NoModifier, place)
    QtWidgets.QApplication.processEvents()


def texts(table):
    return [[table.item(row, column).text() for column in range(7)] for row in range(table.rowCount())]


def test_boxes_table_and_events_show_the_emitters(window):
    assert texts(window.emitters) == [
        ["lora 90%", "868.1625", "125", "22", "0.300 s", "on air", "2"],
        ["dmr 90%", "867.7005", "1", "22", "0.200 s", "0.3 s ago", "2"],
    ]
    assert [window.events.item(row).text()[:9] for row in range(window.events.count())] == ["0.500 s  ", "0.300 s  "]
    assert "868 MHz" in window.tuning.text() and "1 MS/s" in window.tuning.text()
    assert set(window.waterfall._rectangles) == {1, 2}
    low, width = window.waterfall._band(window.snapshot)
    assert (low, low + width) == pytest.approx((867.5, 868.5))


def test_a_click_on_a_box_chooses_its_emitter_and_one_beside_it_none(window):
    click(window, 2)
    assert window.waterfall.selected == 2 and "dmr 90%" in window.selected.title()
    assert window.emitters.selectedItems()[0].text() == "dmr 90%"
    assert [bar.value() for bar in window.selected._bars[:3]] == [900, 60, 40]
    assert [name.text() for name in window.selected._names] == ["lora", "gsm", "noise", "", ""]
    corner = window.waterfall.box_centre(2) + QtCore.QPoint(60, 0)
    QTest.mouseClick(window.waterfall.viewport(), LEFT, QtCore.Qt.NoModifier, corner)
    assert window.waterfall.selected == 0 and not window.selected.save_button.isEnabled()


def test_the_table_and_the_events_choose_as_well(window):
    table = window.emitters
    place = table.visualItemRect(table.item(1, 1)).center()
    QTest.mouseClick(table.viewport(), LEFT, QtCore.Qt.NoModifier, place)
    assert window.waterfall.selected == 2
    window.events.itemClicked.emit(window.events.item(1))
    assert window.waterfall.selected == 1


def test_zoom_and_full_view(window):
    click(window, 1)
    QTest.mouseClick(window.selected.zoom_button, LEFT)
    (low, high), _ = window.waterfall.viewRange()
    assert 868.0 < low < 868.1 and 868.225 < high < 868.35
    QTest.mouseClick(window.full_button, LEFT)
    assert window.waterfall.viewRange()[0] == pytest.approx([867.5, 868.5])


def test_save_and_this_is(window, tmp_path):
    click(window, 1)
    QTest.mouseClick(window.selected.save_button, LEFT)
    assert "saved" in window.message.text()
    assert len(list((tmp_path / "saved").glob("lora-*.sigmf-meta"))) == 1
    window.selected.label_box.setCurrentText("")
    QTest.mouseClick(window.selected.teach_button, LEFT)
    assert "label is needed" in window.message.text() and not (tmp_path / "taught").exists()
    QTest.keyClicks(window.selected.label_box, "doorbell")
    QTest.mouseClick(window.selected.teach_button, LEFT)
    (meta,) = (tmp_path / "taught").glob("*.sigmf-meta")
    assert json.loads(meta.read_text())["annotations"][0]["core:label"] == "doorbell"
    window.select(0)
    window.save()
    assert window.message.text().startswith("not saved: ")


def test_the_menu_of_the_right_button(window, application, tmp_path):
    click(window, 1, RIGHT)
    (menu,) = window.findChildren(QtWidgets.QMenu)
    actions = {action.text(): action for action in menu.actions()}
    assert list(actions) == ["Zoom", "Save SigMF", "This is lora", "This is gsm", "This is noise"]
    actions["This is gsm"].trigger()
    assert [path.name for path in (tmp_path / "taught").glob("*.sigmf-meta")] == ["gsm-0001.sigmf-meta"]
    menu.close()


def test_the_axis_follows_a_retune_and_boxes_stay_at_their_frequencies(window, model):
    model.retune(centre_hz=868.4e6)
    model.take(np.zeros(100_000, np.complex64))
    window.refresh()
    assert window.waterfall.viewRange()[0] == pytest.approx([867.9, 868.9])
    assert set(window.waterfall._rectangles) == {1}
    model.retune(centre_hz=2.4e9)
    window.refresh()
    assert window.waterfall._rectangles == {} and window.waterfall.box_centre(1) is None


def test_pause_holds_the_picture_and_not_the_model(window, model):
    QTest.mouseClick(window.pause_button, LEFT)
    before = window.snapshot
    model.take(np.zeros(200_000, np.complex64))
    window.refresh()
    assert window.snapshot is before and model.samples_in == 1_000_000
    QTest.mouseClick(window.pause_button, LEFT)
    window.refresh()
    assert window.snapshot is not before


def test_themes(window):
    for theme, other in ((LIGHT, "Dark"), (DARK, "Light")):
        QTest.mouseClick(window.theme_button, LEFT)
        assert window.theme_button.text() == other and theme.background in window.styleSheet()
        assert window.waterfall.backgroundBrush().color().name() == theme.panel


def test_losses_are_in_the_status_with_a_sign(window, model):
    window.frames = 0
    window.refresh()
    assert window.status.text().startswith("engine: unknown") and "lost: none" in window.status.text()
    model.take_status({"kind": "accounts", "dropped": 5})
    window.frames = 0
    window.refresh()
    assert window.status.text().startswith("(!) ") and "lost: 5 dropped" in window.status.text()


def test_the_whole_band_is_shown_where_nothing_is_chosen(window, model):
    model.take_prediction({"label": "wbfm", "probabilities": {"wbfm": 0.8, "dab": 0.2}, "latency_s": 0.01})
    window.frames = 0
    window.refresh()
    assert window.selected.title() == "Whole band" and window.selected._names[0].text() == "wbfm"


def test_captions_are_not_over_each_other(window, model):
    for number in range(10, 16):
        edges = {"low_hz": 5e3 * number, "high_hz": 5e3 * number + 2e3}
        model.take_event(event("appeared", number, sample=700_000, start_sample=700_000, **edges))
    window.refresh()
    captions = [box.caption.mapRectToScene(box.caption.boundingRect()) for box in window.waterfall._boxes.values()]
    assert len(captions) == 8
    for i, one in enumerate(captions):
        for other in captions[:i]:
            both = one.intersected(other)
            assert min(both.width(), both.height()) < 2


def test_a_window_of_an_unknown_stream_opens(application):
    window = SignalWindow(SignalModel(DisplayOptions(rows=32, columns=64)), "light")
    window._timer.stop()
    window.model.take(np.ones(20_000, np.complex64))
    window.model.take_event(event("appeared", 1, centre_hz=None))
    window.frames = 0
    window.refresh()
    assert "rate unknown" in window.tuning.text()
    window.close()


def test_a_flowgraph_s_window_that_holds_it_opens_at_a_useful_size(application, model):
    outer, area = QtWidgets.QWidget(), QtWidgets.QScrollArea()
    QtWidgets.QVBoxLayout(outer).addWidget(area)
    window = SignalWindow(model)
    window._timer.stop()
    area.setWidget(window)
    area.setWidgetResizable(True)
    outer.resize(500, 300)
    outer.show()
    room = application.primaryScreen().availableSize()
    until(lambda: application.processEvents() or outer.width() >= min(1280, room.width()))
    assert outer.height() >= min(760, room.height())
    outer.close()


def test_the_estimator_s_window(application):
    model = EstimatorModel(history=20)
    window = EstimatorWindow(model)
    window._timer.stop()
    for i in range(30):
        facts = {"snr_db": 10.0, "nmse_db": -20.0 if i % 2 else None, "residual": 1.1, "backed_off": i > 24}
        model.take_channel({**facts, "method": "model"}, np.ones((4, 3, 12), np.complex64))
    model.take_status({"kind": "started", "engine": "openvino", "bundle_id": "c@1"})
    window.refresh()
    assert "least squares (backed off)" in window.state.text() and "25%" in window.state.text()
    assert len(window._curves["snr_db"].getData()[0]) == 20 and "engine: openvino" in window.status.text()
    assert window._image.image.shape == (16, 24)
    QTest.mouseClick(window.theme_button, LEFT)
    assert LIGHT.background in window.styleSheet()
    window.close()


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyqtgraph", None)
    with pytest.raises(ConfigurationError, match="apt install python3-pyqtgraph"):
        require_qt("signal_display")
