# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo as its user runs it: the table, the predictions of `wavesfm classify`, annotations, picture, refusals."""

from __future__ import annotations

import importlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sigmf.validate
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.recordings.findings import Finding, find_runs
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_trainer.evaluation.band_scenes import Truth, make_band_scene

APPS = Path(__file__).parents[2] / "apps"
TILE = 2048
SCALES = {"cu8": (127.5, 127.5, "u1"), "cs8": (127.0, 0.0, "i1"), "cs16": (32767.0, 0.0, "<i2"), "cf32": (1, 0, "<f4")}


@pytest.fixture()
def demo(fake_bundle, tmp_path):
    """demo(*arguments) -> the finished process; its files go to `out`."""

    def run(*arguments, model=fake_bundle):
        command = [sys.executable, APPS / "demo.py", "--model", model, "--output", tmp_path / "out", *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "110"}
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, env=env)

    return run


@pytest.fixture()
def parts(tone):
    """Two signals, 10 and 6.5 tiles long; the fake bundle says left and right of them."""
    return np.concatenate([tone(-0.2, 10 * TILE, snr_db=50), tone(0.3, 6 * TILE + 1024, snr_db=50)])


def write(path, samples, sample_format):
    scale, zero, dtype = SCALES[sample_format]
    values = samples.view(np.float32) * scale + zero
    path.parent.mkdir(exist_ok=True)
    (values if sample_format == "cf32" else np.rint(values)).astype(dtype).tofile(path)
    return path


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def valid_meta(path):
    meta = json.loads(path.read_text())
    sigmf.validate.validate(meta)
    return meta


def same_as_classify(lines, bundle, path, **options):
    """The predictions in the file `lines`, after a comparison with those of `wavesfm classify` of the recording."""
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    with open_recording(path, **options) as recording:
        expected = [p.as_dict() for p in Pipeline.open(bundle).classify_recording(recording)]
    assert len(found) == len(expected)
    for this, wanted in zip(found, expected):
        assert (this["time"] or {}).get("utc") == (wanted["time"] or {}).get("utc")
        for key in ("label", "start_sample", "n_samples", "rate_hz", "rate_note", "centre_hz", "partial", "bundle_id"):
            assert this[key] == wanted[key]
        assert this["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
    return found


def test_the_generated_scene(demo, fake_bundle, tmp_path):
    done = demo("--signals", 2, "--seconds", 0.1)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    meta = valid_meta(out / "scene.sigmf-meta")
    assert {file.name for file in out.iterdir()} == {
        "scene.sigmf-data", "scene.sigmf-meta", "scene.png", "scene.predictions.jsonl", "scene.events.jsonl",
    }  # fmt: skip
    same_as_classify(out / "scene.predictions.jsonl", fake_bundle, out / "scene.sigmf-meta")
    truths = make_band_scene(13, 8e6, 0.1, 2, (12.0, 30.0)).truths
    for truth in truths:
        middle = 868 + (truth.low_hz + truth.high_hz) / 2e6
        assert re.search(rf"{middle:.3f} .* {truth.label} ", done.stdout), (truth, done.stdout)
    assert re.search(r"found \d of 2 signals, named 0; ", done.stdout)
    assert "800000 samples_searched, 0 samples_missed" in done.stdout
    events = [json.loads(line) for line in (out / "scene.events.jsonl").read_text().splitlines()]
    boxes = [each for each in events if each["event"] == "ended" and each["kind"] == "signal"]
    assert any(abs(each["low_hz"] - truth.low_hz) < 2e4 for each in boxes for truth in truths)
    edges = [(868e6 + each["low_hz"], 868e6 + each["high_hz"]) for each in boxes if each["label"] != "noise"]
    drawn = [(a["core:freq_lower_edge"], a["core:freq_upper_edge"]) for a in meta["annotations"]]
    assert set(edges) <= set(drawn)
    assert png_size(out / "scene.png")[0] == waterfall_width()


def waterfall_width():
    sys.path.insert(0, str(APPS))
    try:
        return importlib.import_module("waterfall").WIDTH
    finally:
        sys.path.remove(str(APPS))


@pytest.mark.parametrize("sample_format", SCALES)
def test_a_recording_of_the_users(sample_format, demo, fake_bundle, parts, tmp_path):
    named = sample_format != "cs8"
    path = write(tmp_path / "mine" / ("a b." + (sample_format if named else "iq")), parts, sample_format)
    done = demo(
        path,
        "--detect",
        "off",
        "--rate",
        "250k",
        "--centre",
        "433.92M",
        *([] if named else ["--format", sample_format]),
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    options = {"rate_hz": 250e3, "sample_format": sample_format, "centre_hz": 433.92e6}
    predictions = same_as_classify(out / "a b.predictions.jsonl", fake_bundle, path, **options)
    assert [p["label"] for p in predictions] == ["left"] * 10 + ["right"] * 7
    assert re.search(r"0\.000 +0\.082 +433\.92 +left +[01]\.\d\d +10 ", done.stdout), done.stdout
    assert re.search(r"0\.082 +0\.053 +433\.92 +right +[01]\.\d\d +7 ", done.stdout), done.stdout
    assert "most probable: left" in done.stdout
    assert f"{len(parts)} in " in done.stdout
    meta = valid_meta(out / "a b.sigmf-meta")
    assert meta["global"]["core:dataset"] == path.name
    assert [(a["core:sample_start"], a["core:label"]) for a in meta["annotations"]] == [
        (0, "left"),
        (10 * TILE, "right"),
    ]
    assert png_size(out / "a b.png")[0] == waterfall_width()
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing beside the recording
    with open_recording(out / "a b.sigmf-meta") as copy:  # the metadata and the link are a recording
        assert (copy.n_samples, copy.rate_hz, copy.centre_hz) == (len(parts), 250e3, 433.92e6)
    assert demo(path, *([] if named else ["--format", sample_format])).returncode == 0  # again, and with no rate


def test_a_sigmf_recording_stays_as_it_was(demo, fake_bundle, parts, tmp_path):
    data = write(tmp_path / "mine" / "r.sigmf-data", parts, "cs16")
    meta = {
        "global": {"core:datatype": "ci16_le", "core:version": "1.2.0", "core:sample_rate": 1e6},
        "captures": [{"core:sample_start": 0, "core:frequency": 1e9}, {"core:sample_start": 9000}],
        "annotations": [{"core:sample_start": 5, "core:sample_count": 7, "core:label": "mine"}],
    }
    path = data.with_name("r.sigmf-meta")
    path.write_text(json.dumps(meta))
    done = demo(path, "--detect", "off")
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text()) == meta
    assert len(list(path.parent.iterdir())) == 2
    copy = valid_meta(tmp_path / "out" / "r.sigmf-meta")
    assert [a["core:label"] for a in copy["annotations"] if a.get("core:label") == "mine"] == ["mine"]
    assert len(copy["annotations"]) > 2
    assert (tmp_path / "out" / "r.sigmf-data").samefile(data)


def test_captures_that_follow_on_are_one_stream_offline_and_live(demo, fake_bundle, parts, tmp_path):
    """A capture every 1000 samples, as a recorder writes that starts one at each tag; then a jump in time."""
    data = write(tmp_path / "mine" / "r.sigmf-data", parts, "cs16")
    times = [i * 1e-3 + (5.0 if i >= 20 else 0.0) for i in range(33)]
    captures = [
        {"core:sample_start": 1000 * i, "core:frequency": 1e8, "core:datetime": f"2024-06-05T12:00:{t:09.6f}Z"}
        for i, t in enumerate(times)
    ]
    fields = {"core:datatype": "ci16_le", "core:version": "1.2.0", "core:sample_rate": 1e6}
    path = data.with_name("r.sigmf-meta")
    path.write_text(json.dumps({"global": fields, "captures": captures, "annotations": []}))
    assert demo(path).returncode == 0
    found = same_as_classify(tmp_path / "out" / "r.predictions.jsonl", fake_bundle, path)
    assert [p["start_sample"] for p in found] == [*range(0, 20_000, TILE), *range(20_000, len(parts), TILE)]
    assert found[10]["time"]["utc"] == "2024-06-05T12:00:05.020000000Z"


def test_a_made_scene_never_writes_through_a_link(demo, parts, tmp_path):
    data = write(tmp_path / "mine" / "scene.cf32", parts, "cf32")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scene.sigmf-data").symlink_to(data)
    before = data.read_bytes()
    assert demo("--signals", 1, "--seconds", 0.05).returncode == 0
    assert data.read_bytes() == before


def test_another_recording_in_the_way_is_refused(demo, parts, tmp_path):
    write(tmp_path / "out" / "r.cf32", parts[:5000], "cf32")
    done = demo(write(tmp_path / "mine" / "r.cf32", parts, "cf32"))
    assert (done.returncode, "another recording" in done.stderr) == (2, True)


def test_what_is_wrong_is_one_sentence(demo, parts, tmp_path):
    write(tmp_path / "mine" / "short.cf32", parts[:100], "cf32")
    write(tmp_path / "mine" / "r.cf32", parts, "cf32")
    mine = tmp_path / "mine"
    (mine / "odd.cs16").write_bytes(bytes(3))
    (mine / "file").write_bytes(b"")
    refusals = {
        "found nothing, expected a recording": demo(mine / "missing.cu8"),
        "found 3 bytes": demo(mine / "odd.cs16"),
        "found 100 samples, expected at least": demo(mine / "short.cf32"),
        "--rate: found 'fast'": demo(mine / "r.cf32", "--rate", "fast"),
        "device": demo(mine / "r.cf32", "--device", "abacus"),
        "bundle": demo(mine / "r.cf32", model=mine / "nothing"),
        "--output": demo(mine / "r.cf32", "--output", mine / "file"),
    }
    for said, done in refusals.items():
        assert done.returncode == 2, (said, done.stderr)
        assert said in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("wavesfm_")]  # GNU Radio's own log
        assert len(lines) == 1 and lines[0].startswith("demo: "), done.stderr


@pytest.mark.parametrize("made", [True, False])
def test_a_failing_engine_is_said(made, fake_engine, fake_bundle, parts, tmp_path, monkeypatch, capsys):
    fake_engine(failures=range(1000))
    path = write(tmp_path / "mine" / "r.cf32", parts, "cf32")
    monkeypatch.syspath_prepend(str(APPS))
    import demo as module

    chosen = ["--signals", "1", "--seconds", "0.05"] if made else [str(path)]
    options = ["--model", str(fake_bundle), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["demo", *chosen, *options])
    assert module.main() == 1
    said = capsys.readouterr()
    assert "demo: not all was classified: " in said.err
    assert " 0 inferred" in said.out and "most probable" not in said.out
    assert (" of 1 signals, named 0; " in said.out) == made


def test_picture_and_annotations_show_the_same_findings(waterfall, demo, fake_bundle, parts, tmp_path):
    path = write(tmp_path / "mine" / "r_100M_1M.cf32", parts, "cf32")
    assert demo(path, "--detect", "off").returncode == 0
    with open_recording(path) as recording:
        findings = find_runs(Pipeline.open(fake_bundle).classify_recording(recording))
    annotations = valid_meta(tmp_path / "out" / "r_100M_1M.sigmf-meta")["annotations"]
    assert len(findings) == len(annotations) == 2
    for finding, annotation in zip(findings, annotations):
        assert (annotation["core:sample_start"], annotation["core:label"]) == (finding.start_sample, finding.label)
        shares = re.search(r"confidence (0\.\d+|1\.000), mean of (\d+) tiles", annotation["core:comment"])
        assert float(shares[1]) == pytest.approx(finding.confidence, abs=6e-4)
        assert waterfall.Shown(finding).text(True) == f"100 MHz  {finding.label} {finding.confidence:.0%}"
    wrong = waterfall.Shown(findings[0], "gsm")
    assert (wrong.wrong, wrong.text(False)) == (True, f"left {findings[0].confidence:.0%}  sent: gsm")


TRUTHS = (Truth("gsm", 0.0, 1.0, -2e5, -1e5, 20.0), Truth("dab", 0.0, 1.0, 1e5, 2e5, 20.0))


def in_band(label, low_hz, high_hz):
    return Finding(label, 0.9, 0, 1000000, 1e6, 1e8, None, 3, 0, "m", "", (low_hz, high_hz), 20.0, 1)


def test_the_truth_stands_beside_what_was_found(waterfall):
    findings = [in_band("lora", -2e5, -1e5), in_band("wbfm", 3e5, 4e5)]
    texts = [each.text(True) for each in waterfall.shown(findings, TRUTHS)]
    assert texts == ["99.85 MHz  lora 90%  sent: gsm", "100.35 MHz  wbfm 90%  sent: nothing", "not found  sent: dab"]
    assert all(each.wrong for each in waterfall.shown(findings, TRUTHS))
    assert not any(each.wrong for each in waterfall.shown([in_band("gsm", -2e5, -1e5)], TRUTHS[:1]))


def test_labels_of_boxes_are_never_over_each_other(waterfall, tone, tmp_path):
    with open_recording(write(tmp_path / "r.cf32", tone(0.1, 100_000), "cf32"), rate_hz=1e6) as recording:
        places = waterfall._Places(recording, 600)
        spots = [places.free((0.01 * i, 0.0), 8) for i in range(6)]
    for i, (left, y) in enumerate(spots):
        for other, at in spots[:i]:
            assert abs(left - other) >= 8 * waterfall.LETTER_WIDTH or abs(y - at) >= waterfall.LINE_HEIGHT - 3


@pytest.fixture()
def waterfall(monkeypatch):
    monkeypatch.syspath_prepend(str(APPS))
    import waterfall

    return waterfall


@pytest.mark.parametrize("rows", [7, 100, 1000])
def test_the_picture_has_the_power_where_it_is(rows, waterfall, tone, tmp_path):
    samples = np.concatenate([tone(-0.2, 8 * TILE, snr_db=50), tone(0.25, 8 * TILE, snr_db=51)])
    with open_recording(write(tmp_path / "r.cf32", samples, "cf32")) as recording:
        picture = waterfall.waterfall(recording, rows, 256)
    assert picture.shape == (rows, 256)
    assert np.isfinite(picture).mean() > 0.9
    seen = picture[np.isfinite(picture).all(axis=1)]
    assert seen[0].argmax() == pytest.approx(0.3 * 256, abs=1)
    assert seen[-1].argmax() == pytest.approx(0.75 * 256, abs=1)
    noise_db = 10 * np.log10(2e-6)  # of the fixture, per sample
    assert seen[-1].max() == pytest.approx(noise_db + 51, abs=2)
    assert np.median(seen) == pytest.approx(noise_db - 10 * np.log10(256 / 1.5), abs=2)


def test_rows_without_a_transform_are_empty(waterfall, tone, tmp_path):
    with open_recording(write(tmp_path / "r.cf32", tone(0.1, 300), "cf32")) as recording:
        picture = waterfall.waterfall(recording, 300, 256)
    assert np.isnan(picture[:128]).all() and np.isfinite(picture[128:172]).all() and np.isnan(picture[173:]).all()


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_never_over_each_other(seed, waterfall):
    rng = np.random.default_rng(seed)
    centres = np.sort(rng.uniform(0, 600, 30))
    places = waterfall.spread(centres, 19, 600)
    assert np.diff(places).min() >= 19 - 1e-9
    assert places[0] >= 9 and places[-1] <= 600 - 9.5
    assert waterfall.spread([100, 300], 19, 600) == [100, 300]


def test_a_picture_of_very_many_runs(waterfall, tone, tmp_path):
    path = write(tmp_path / "r.cf32", tone(0.1, 300 * TILE), "cf32")
    found = [Finding(f"label {i % 7}", 0.5, i * TILE, TILE, 0.0, None, None, 1, 0, "m") for i in range(300)]
    with open_recording(path) as recording:
        waterfall.draw(tmp_path / "p.png", recording, found, "many")
    width, height = png_size(tmp_path / "p.png")
    assert width == waterfall.WIDTH
    assert height < 2000
