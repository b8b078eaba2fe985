# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings on trigger: windows, annotations, quota, a full disk; and downloads of emitters."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.live_parts import RATE, FakePipeline, ListSource, blocks_of, scene
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.live.block import SampleBlock
from wavesfm_core.live.bus import Record
from wavesfm_core.live.config import RecordConfig
from wavesfm_core.live.extract import cut_window, emitter_recording
from wavesfm_core.live.iq_ring import IQRing
from wavesfm_core.live.quota import make_room
from wavesfm_core.live.recorder import TriggerRecorder
from wavesfm_core.live.session import LiveSession
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.types import StreamTime


def run(folder: Path, trigger: dict, quota_bytes: int = 10**9) -> tuple[TriggerRecorder, list[Record], np.ndarray]:
    samples = scene(0.6)
    blocks = blocks_of(samples)
    blocks[0] = SampleBlock.of(samples[:20_000], RATE, 100e6, StreamTime(1_700_000_000, 0.0))
    session = LiveSession(ListSource(blocks), FakePipeline, ring_s=2.0)
    records: list[Record] = []
    session.bus.add(records.append)
    recorder = TriggerRecorder(session, RecordConfig(folder, (trigger,), 0.05, 0.1, quota_bytes))
    session.run()
    recorder.close()
    assert recorder.accounts.closes() and recorder.accounts.waiting == 0
    return recorder, records, samples


def test_a_label_writes_its_window_with_annotations(tmp_path: Path) -> None:
    recorder, records, samples = run(tmp_path, {"label": "wide"})
    assert recorder.accounts.written == 1
    (written,) = [each.values for each in records if each.kind == "recording"]
    assert written["reason"] == "wide"
    with open_recording(written["path"]) as recording:
        assert (recording.rate_hz, recording.centre_hz) == (RATE, 100e6)
        values = np.concatenate(list(recording.blocks()))
        start = round((float(recording.time) - 1_700_000_000) * RATE)
        meta = recording.metadata
    assert len(values) == written["n_samples"] >= 0.1 * RATE
    assert np.array_equal(values, samples[start : start + len(values)])
    assert len(meta["annotations"]) == written["annotations"] >= 1
    for each in meta["annotations"]:
        assert 0 <= each["core:sample_start"] < len(values)
        assert each["core:sample_start"] + each["core:sample_count"] <= len(values)
        assert abs(each["core:freq_lower_edge"] - 100e6) < RATE / 2
    assert {path.name.split("_")[0] for path in tmp_path.iterdir()} == {"wavesfm"}


def test_a_power_fires_once_for_each_emitter_and_another_label_does_not(tmp_path: Path) -> None:
    recorder, _, _ = run(tmp_path / "a", {"power_db": -100})
    assert recorder.accounts.written == recorder.accounts.requested >= 2
    recorder, _, _ = run(tmp_path / "b", {"unknown": True})
    assert recorder.accounts.requested == 0


def test_a_disk_that_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wavesfm_core.recordings.sigmf_writer.write_atomically", full)
    recorder, records, _ = run(tmp_path, {"label": "wide"})
    assert recorder.accounts.failed == 1 and "No space" in recorder.accounts.last_error
    assert any("No space" in str(each.values) for each in records if each.kind == "warning")
    assert list(tmp_path.iterdir()) == []  # the samples without metadata are removed


def test_the_oldest_recordings_make_room(tmp_path: Path) -> None:
    for number in range(3):
        for end in ("data", "meta"):
            (tmp_path / f"wavesfm_2026010{number}T000000.000Z_x.sigmf-{end}").write_bytes(bytes(100))
    (tmp_path / "mine.sigmf-data").write_bytes(bytes(10_000))
    deleted = make_room(tmp_path, 150, 600)
    assert [path.name[:17] for path in deleted] == ["wavesfm_20260100T"]
    assert len(list(tmp_path.iterdir())) == 5
    with pytest.raises(ConfigurationError, match="quota"):
        make_room(tmp_path, 601, 600)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_window_ends_at_gaps_and_retunes() -> None:
    ring = IQRing(100.0)
    each = np.zeros(1000, np.complex64)
    for start, centre_hz in ((0, 1e6), (1000, 1e6), (2500, 1e6), (3500, 2e6)):
        ring.push(start, SampleBlock.of(each, 1e6, centre_hz))
    assert cut_window(ring, 100, 4000, 1500)[:2] == (100, 2000)
    assert cut_window(ring, 100, 4000, 2600)[:2] == (2500, 3500)
    assert cut_window(ring, 100, 4000, 3999)[:2] == (3500, 4000)
    with pytest.raises(InputError, match="still kept"):
        cut_window(ring, 9000, 9100, 9050)


def test_the_ring_is_bounded_in_bytes() -> None:
    ring = IQRing(1e9, most_bytes=40_000)
    for start in range(0, 100_000, 1000):
        ring.push(start, SampleBlock.of(np.zeros(1000, np.complex64), 1e6))
    assert ring.span == (95_000, 100_000)


def test_an_emitter_is_cut_out_of_the_ring(tmp_path: Path) -> None:
    session = LiveSession(ListSource(blocks_of(scene(0.6))), FakePipeline, ring_s=2.0)
    session.run()
    emitter = next(known.emitter for known in session.emitters.all() if known.emitter.label == "narrow")
    new = emitter_recording(session.ring, emitter, 10**6)
    with tarfile.open(fileobj=io.BytesIO(new.archive("x"))) as archive:
        assert archive.getnames() == ["x/x.sigmf-meta", "x/x.sigmf-data"]
        meta = json.load(archive.extractfile("x/x.sigmf-meta"))
    (tmp_path / "x.sigmf").write_bytes(new.archive("x"))
    with open_recording(tmp_path / "x.sigmf") as recording:
        samples = np.concatenate(list(recording.blocks()))
        assert 15e3 < recording.rate_hz < 60e3
        assert recording.centre_hz == pytest.approx(100.2075e6, abs=5e3)
    assert os.fspath(tmp_path) and len(samples) > 0.2 * recording.rate_hz
    (box,) = meta["annotations"]
    inside = np.abs(samples[box["core:sample_start"] :][: box["core:sample_count"]]) ** 2
    assert inside.mean() > 20 * np.median(np.abs(samples[: box["core:sample_start"] // 2]) ** 2)
