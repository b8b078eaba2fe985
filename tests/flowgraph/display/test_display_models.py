# SPDX-License-Identifier: GPL-3.0-or-later
"""The displays' models without Qt: rows, scrolling image, emitters, events, health, saved boxes, delay and angle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sigmf.validate
from gnuradio.wavesfm.display.capture import SampleRing
from gnuradio.wavesfm.display.emitters import MOST_EMITTERS, EmitterTable
from gnuradio.wavesfm.display.estimator_model import EstimatorModel, delay_angle
from gnuradio.wavesfm.display.health import Health, si
from gnuradio.wavesfm.display.palette import LABEL_COLOURS, THEMES, label_colour, power_colours
from gnuradio.wavesfm.display.signal_model import DisplayOptions, SignalModel
from gnuradio.wavesfm.display.spectrum import RowMaker
from gnuradio.wavesfm.display.waterfall import EMPTY, WaterfallRing
from support.display_messages import RATE_HZ, emitter, event
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.recordings.iqfile import open_recording


def cisoid(f, n, amplitude=1.0):
    return (amplitude * np.exp(2j * np.pi * f * np.arange(n))).astype(np.complex64)


def test_a_row_has_the_power_where_it_is():
    maker = RowMaker(columns=256, rows_per_s=100)
    maker.set_rate(1e6)
    rows = maker.push(cisoid(0.25, 25_000, 0.1))
    assert (len(rows), maker.row_samples) == (2, 10_000)
    assert rows[0].argmax() == 192 and rows[0].max() == pytest.approx(-20, abs=0.1)
    assert rows[0].dtype == np.float32


@pytest.mark.parametrize("rate_hz", [0.0, 3e4, 1e6, 20e6])
def test_rows_do_not_depend_on_the_chunks_and_count_what_they_skip(rate_hz):
    rng = np.random.default_rng(2)
    samples = rng.standard_normal(120_000 if rate_hz < 2e6 else 1_500_000).astype(np.float32).view(np.complex64)
    whole, parts = RowMaker(128, 60), RowMaker(128, 60)
    for maker in (whole, parts):
        maker.set_rate(rate_hz)
    expected, found, at = whole.push(samples), [], 0
    while at < len(samples):
        size = int(rng.integers(1, 3000))
        found += parts.push(samples[at : at + size])
        at += size
    assert len(expected) == len(samples) // whole.row_samples > 0
    np.testing.assert_array_equal(found, expected)
    assert parts.samples_in == len(samples) and parts.samples_skipped == whole.samples_skipped
    assert whole.samples_in - whole.samples_skipped <= (len(expected) + 1) * 6 * 128 or rate_hz < 1e6


def test_a_burst_within_a_transform_shows_and_nan_does_not_spoil_a_row():
    maker = RowMaker(128, 10)
    maker.set_rate(1280 * 10)
    samples = np.full(1280, 1e-4, np.complex64)
    samples[256:384] = cisoid(-0.25, 128)
    samples[700] = np.nan
    (row,) = maker.push(samples)
    assert np.isfinite(row).all() and row.argmax() == 32


def ring_of(*rows, columns=64):
    ring = WaterfallRing(16, columns)
    ring.retune(100e6, 64e3)
    for row in rows:
        ring.add(np.asarray(row, np.float32))
    return ring


def peaked(at, columns=64):
    row = np.full(columns, -100, np.float32) + np.arange(columns) % 3
    row[at] = -20
    return row


def test_the_newest_row_is_first_and_the_oldest_leave():
    ring = ring_of(*(peaked(i) for i in range(20)))
    image = ring.image()
    assert image.shape == (16, 64) and image.dtype == np.uint8
    assert list(image.argmax(axis=1)) == list(range(19, 3, -1))
    assert ring.count == 16


def test_a_retune_moves_the_rows_to_their_frequencies():
    ring = ring_of(peaked(40), peaked(5))
    ring.retune(100e6 + 10e3, 64e3)  # ten bins up
    image = ring.image()
    assert image[1].argmax() == 30 and image[0].max() < 255
    assert (image[:2, -10:] == EMPTY).all() and (image[:2, :54] != EMPTY).all()
    ring.retune(100e6, 64e3)
    assert ring.image()[1].argmax() == 40
    assert (ring.image()[:, :10] == EMPTY).all()
    ring.retune(2.4e9, 64e3)
    assert (ring.image() == EMPTY).all()
    ring.add(peaked(3))
    ring.retune(2.4e9, 1e6)  # another rate
    assert (ring.image() == EMPTY).all() and ring.count == 0


def test_the_scale_follows_the_power():
    ring = ring_of(*(peaked(7) for _ in range(70)))
    low, high = ring.levels_db
    assert low == pytest.approx(-100, abs=2) and -75 <= high <= -10
    for _ in range(140):
        ring.add(peaked(7) + 40)
    assert ring.levels_db[0] == pytest.approx(-60, abs=2)


def test_emitters_appear_change_and_end():
    table = EmitterTable()
    table.take_event(event("appeared", 1, sample=1000))
    (one,) = table.shown()
    assert (one.active, one.caption(), one.edges_hz) == (True, "lora 90%", (868.1e6, 868.225e6))
    assert one.end_sample(50_000) == 50_000 and [list(span) for span in one.spans] == [[1000, -1]]
    table.take_event(event("changed", 1, sample=9000, changes=["label"], label="gsm"))
    table.take_event(event("ended", 1, sample=21_000, label="gsm", n_samples=20_000))
    (one,) = table.shown()
    assert (one.active, one.label, one.end_sample(50_000)) == (False, "gsm", 21_000)
    assert [list(span) for span in one.spans] == [[1000, 21_000]]
    assert [each.sign for each in table.events] == ["+", "~", "-"]
    table.take_event(event("changed", 1, sample=21_000, changes=["label"], label="dmr", n_samples=20_000))
    assert not table.shown()[0].active and table.shown()[0].label == "dmr"
    assert "changed label" in table.events[1].text and "868.1625 MHz" in table.events[1].text


def test_the_time_of_the_first_sample():
    table = EmitterTable()
    table.take_event({**event("ended", 1, sample=1_751_000), "time": (1_700_000_000, 0.5)})  # 1.75 s after the start
    table.take_detections({"run": 1, "emitters": [{**emitter(2), "time": (1_700_000_000, 0.25)}, emitter(3)]})
    times = {each.number: each.record["start_time"] for each in table.shown()}
    assert times == {1: (1_699_999_998, 0.75), 2: (1_700_000_000, 0.25), 3: None}


def test_what_is_no_signal_has_no_box_and_no_event():
    table = EmitterTable()
    table.take_event(event("appeared", 1))
    table.take_event(event("ended", 1, kind="shadow"))
    table.take_event(event("appeared", 2, kind="line"))
    assert table.shown() == [] and len(table.events) == 1


def test_detections_complete_and_correct_the_table():
    table = EmitterTable()
    table.take_event(event("appeared", 1))
    table.take_detections({"run": 1, "emitters": [emitter(2), emitter(3, low_hz=-4e5, high_hz=-3e5)]})
    assert [(each.number, each.active) for each in table.shown()] == [(3, True), (1, True), (2, True)]
    table.take_detections({"run": 1, "emitters": None})
    assert [(each.number, each.active) for each in table.shown()] == [(3, False), (1, True), (2, False)]


def test_at_the_end_of_the_stream_nothing_is_on_the_air():
    table = EmitterTable()
    table.take_event(event("appeared", 1))
    table.finish()
    table.take_detections({"run": 1, "emitters": [emitter(2)]})  # known, and never announced
    assert [each.active for each in table.shown()] == [False, False]
    table.clear()
    table.take_event(event("appeared", 1))
    assert table.shown()[0].active


def test_another_run_and_very_many_emitters():
    table = EmitterTable()
    for number in range(1, MOST_EMITTERS + 21):
        table.take_event(event("appeared", number, sample=number))
    assert len(table.shown()) == MOST_EMITTERS and table.forgotten == 20
    table.take_event(event("appeared", 1, run=2))
    assert [each.number for each in table.shown()] == [1] and len(table.events) == 1


@pytest.mark.parametrize("wrong", [{"event": "appeared"}, {**event("ended", 1), "low_hz": None}, {"sample": "x"}])
def test_a_message_of_another_schema_is_refused_and_changes_nothing(wrong):
    table = EmitterTable()
    with pytest.raises((KeyError, TypeError, ValueError)):
        table.take_event(wrong)
    assert table.shown() == [] and not table.events


def test_health():
    health = Health()
    health.take_status({"kind": "started", "engine": "openvino", "bundle_id": "m@1"})
    health.take_status({"kind": "accounts", "dropped": 3, "overflows": 0, "band": {"samples_missed": 7}})
    health.take_status({"kind": "warning", "text": "no tile"})
    for latency_s in (0.1, None, 0.25):
        health.take_lag(latency_s)
    health.measure(0.0, 0)
    health.measure(0.5, 600_000)
    health.measure(2.0, 4_800_000)
    assert (health.rate_hz, health.last_text) == (2.4e6, "no tile")
    assert health.losses() == {"dropped": 3, "band.samples_missed": 7}
    line = health.line()
    for part in ("engine: openvino", "rate: 2.4 MS/s", "lag: 250 ms", "3 dropped, 7 band.samples missed"):
        assert part in line
    health.take_status({"kind": "engine", "to": "gpu"})
    assert health.engine == "gpu" and [si(value) for value in (5, 2e4, 3e9)] == ["5 ", "20 k", "3 G"]


def test_the_ring_of_samples_keeps_the_newest():
    ring = SampleRing(100)
    ring.restart(1000)
    for first in range(0, 260, 65):
        ring.push(np.arange(first, first + 65).astype(np.complex64))
    first, samples = ring.cut(0, 5000)
    assert first == 1160 and list(samples.real) == list(range(160, 260))
    assert ring.cut(1200, 1203)[0] == 1200 and list(ring.cut(1200, 1203)[1].real) == [200, 201, 202]
    assert len(ring.cut(0, 900)[1]) == 0
    ring.push(np.arange(500).astype(np.complex64))  # more than it holds
    assert list(ring.cut(0, 5000)[1].real) == list(range(400, 500))


def model(tmp_path, **options):
    options = {"rows": 32, "columns": 64, "keep_mb": 1, **options}
    paths = {"save_dir": str(tmp_path / "saved"), "teach_dir": str(tmp_path / "taught")}
    return SignalModel(DisplayOptions(**options, **paths), RATE_HZ, 868e6)


def test_a_box_is_saved_as_annotated_sigmf(tmp_path):
    m = model(tmp_path)
    samples = cisoid(0.1, 60_000)
    m.take(samples)
    m.take_event(event("appeared", 1, sample=10_000, start_sample=10_000))
    m.take_event(event("ended", 1, sample=30_000, start_sample=10_000, n_samples=20_000))
    saved, taught = m.save(1), m.save(1, "my car key")
    assert saved.parent.name == "saved" and taught.name == "my-car-key-0001.sigmf-meta"
    for path, label in ((saved, "lora"), (taught, "my car key")):
        meta = json.loads(path.read_text())
        sigmf.validate.validate(meta)
        (box,) = meta["annotations"]
        assert (box["core:label"], box["core:sample_start"], box["core:sample_count"]) == (label, 2000, 20_000)
        assert (box["core:freq_lower_edge"], box["core:freq_upper_edge"]) == (868.1e6, 868.225e6)
        with open_recording(path) as recording:
            assert (recording.n_samples, recording.rate_hz, recording.centre_hz) == (24_000, RATE_HZ, 868e6)
            np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), samples[8000:32_000])
    assert m.save(1, "my car key").name == "my-car-key-0002.sigmf-meta"


def test_what_cannot_be_saved_is_said(tmp_path):
    m = model(tmp_path, keep_mb=0.08)  # 10000 samples
    m.take(cisoid(0.1, 60_000))
    m.take_event(event("ended", 1, sample=3000, start_sample=1000, n_samples=2000))
    with pytest.raises(InputError, match="samples"):
        m.save(1)
    with pytest.raises(InputError, match="emitter"):
        m.save(2)
    m.take_event(event("appeared", 3, sample=55_000, start_sample=55_000))
    (tmp_path / "saved").write_text("a file in the way")
    with pytest.raises(ConfigurationError, match="saved"):
        m.save(3)
    m.retune(rate_hz=0.0)
    with pytest.raises(ConfigurationError, match="rate"):
        m.save(3)


def test_a_snapshot_places_boxes_and_outlives_the_model(tmp_path):
    m = model(tmp_path, history_s=1.0)
    m.take(cisoid(0.1, int(RATE_HZ)))
    m.take_event(event("appeared", 1, sample=250_000, start_sample=250_000))
    seen = m.snapshot()
    assert (seen.centre_hz, seen.rate_hz, seen.history) == (868e6, RATE_HZ, pytest.approx(1.0, rel=1e-3))
    assert seen.seconds_ago(250_000) == pytest.approx(0.75, abs=0.04)
    before = seen.image.copy()
    m.take(cisoid(-0.3, 500_000, 0.1))
    m.take_event(event("ended", 1, sample=600_000))
    np.testing.assert_array_equal(seen.image, before)
    assert seen.emitters[0].active and not m.snapshot().emitters[0].active
    m.retune(centre_hz=433e6)
    assert m.snapshot().centre_hz == 433e6
    m.restart()
    assert m.snapshot().emitters == [] and m.snapshot().now_sample == 0
    assert 0 < m.samples_skipped < m.samples_in == 1_500_000


@pytest.mark.parametrize("wrong", [{"history_s": 0}, {"keep_mb": -1}, {"rows": 3}, {"columns": 5}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        DisplayOptions(**wrong)


def test_delay_and_angle_of_one_path():
    antennas, subcarriers, angle, delay = 16, 48, 0.5, 0.125
    a = np.exp(1j * np.pi * angle * np.arange(antennas))
    k = np.exp(-2j * np.pi * delay * np.arange(subcarriers))
    picture = delay_angle(np.outer(a, k).astype(np.complex64))
    assert picture.shape == (64, 96)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (row - 32) / 32 == pytest.approx(angle, abs=0.05)
    assert column / 192 == pytest.approx(delay, abs=0.01)
    assert (delay_angle(np.zeros((2, 4), np.complex64)) < -30).all()


def test_the_estimator_s_curves_and_state():
    m = EstimatorModel(history=3)
    for i in range(5):
        facts = {"snr_db": 10.0 + i, "nmse_db": None, "residual": 1.5, "backed_off": i == 4, "method": "model"}
        m.take_channel({**facts, "latency_s": 0.02}, np.ones((2, 3, 4), np.complex64))
    seen = m.snapshot()
    assert list(seen.curves["snr_db"]) == [12, 13, 14] and np.isnan(seen.curves["nmse_db"]).all()
    assert list(seen.backed_off) == [False, False, True] and (seen.method, seen.estimates) == ("model", 5)
    with pytest.raises(ValueError, match="shape"):
        m.take_channel({}, np.ones(4, np.complex64))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_colours():
    lightness = power_colours()[1:].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) >= -0.5).all() and lightness[-1] - lightness[0] > 180
    assert label_colour("lora") in LABEL_COLOURS and label_colour("lora") == label_colour("lora")
    assert label_colour("unknown") == label_colour("") == label_colour("noise")
    for theme in THEMES.values():
        for place in (theme.background, theme.panel):
            bright, dim = sorted((luminance(theme.text), luminance(place)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) > 7  # WCAG AAA
