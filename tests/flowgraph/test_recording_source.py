# SPDX-License-Identifier: GPL-3.0-or-later
"""The recording source: the samples of `open_recording`, its tags, its end, and faults that hang nothing."""

from __future__ import annotations

import json

import numpy as np
import pmt
import pytest
from gnuradio import blocks, gr, wavesfm
from support.flowgraphs import Collector, finish, run
from wavesfm_core.errors import ConfigurationError, InputError, WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.sample_formats import FORMATS, SIGMF_DATATYPES

TILE = 2048
N = 100_003


def write_raw(path, sample_format, n_samples=N):
    rng = np.random.default_rng(5)
    if sample_format == "cf32":
        rng.standard_normal(2 * n_samples, np.float32).tofile(path)
    else:
        path.write_bytes(rng.bytes(n_samples * FORMATS[sample_format].sample_bytes))
    return path


def write_sigmf(directory, samples, captures, rate_hz=1e6):
    samples.tofile(directory / "r.sigmf-data")
    fields = {"core:datatype": "cf32_le", "core:version": "1.2.0"}
    if rate_hz:
        fields["core:sample_rate"] = rate_hz
    meta = {"global": fields, "captures": captures, "annotations": []}
    (directory / "r.sigmf-meta").write_text(json.dumps(meta))
    return directory / "r.sigmf-meta"


def played(source, n_samples=None):
    """Samples and tags as (offset, key, value) of a source; of a repeating one its first n_samples."""
    top, sink = gr.top_block(), blocks.vector_sink_c()
    parts = [source] if n_samples is None else [source, blocks.head(gr.sizeof_gr_complex, n_samples)]
    top.connect(*parts, sink)
    run(top)
    tags = [(tag.offset, pmt.symbol_to_string(tag.key), pmt.to_python(tag.value)) for tag in sink.tags()]
    return np.array(sink.data(), np.complex64), sorted(tags)


@pytest.mark.parametrize("sample_format", ["cu8", "cs8", "cs16", "cf32", "cs16be", "rs16"])
@pytest.mark.parametrize("named", [True, False])
def test_the_samples_of_every_format(sample_format, named, tmp_path):
    path = write_raw(tmp_path / ("r." + sample_format if named else "r.bin"), sample_format)
    samples, tags = played(wavesfm.recording_source(str(path), "" if named else sample_format))
    with open_recording(path, sample_format=sample_format) as recording:
        expected = np.concatenate(list(recording.blocks()))
    assert samples.size == N
    assert samples.tobytes() == expected.tobytes()
    assert tags == []


@pytest.mark.parametrize("datatype", ["cu8", "ci8", "ci16_le", "cf32_le", "ci32_be", "ri8"])
def test_the_samples_of_every_sigmf_datatype(datatype, tmp_path):
    write_raw(tmp_path / "r.sigmf-data", SIGMF_DATATYPES[datatype], 5000)
    meta = {"global": {"core:datatype": datatype, "core:version": "1.2.0"}, "captures": [], "annotations": []}
    (tmp_path / "r.sigmf-meta").write_text(json.dumps(meta))
    samples, _ = played(wavesfm.recording_source(str(tmp_path / "r.sigmf-data")))
    with open_recording(tmp_path / "r.sigmf-data") as recording:
        assert samples.tobytes() == np.concatenate(list(recording.blocks())).tobytes()


def test_tags_at_each_capture(tmp_path, tone):
    captures = [
        {"core:sample_start": 0, "core:frequency": 100e6, "core:datetime": "2026-01-02T03:04:05.25Z"},
        {"core:sample_start": 30_001, "core:frequency": 200e6},
        {"core:sample_start": 90_000},
    ]
    source = wavesfm.recording_source(str(write_sigmf(tmp_path, tone(0.1, N), captures)))
    _, tags = played(source)
    assert tags == [
        (0, "rx_freq", 100e6),
        (0, "rx_rate", 1e6),
        (0, "rx_time", (1767323045, 0.25)),
        (30_001, "rx_freq", 200e6),
        (30_001, "rx_rate", 1e6),
        (90_000, "rx_rate", 1e6),
    ]
    assert (source.rate_hz, source.centre_hz, source.n_samples) == (1e6, 100e6, N)


def test_parameters_go_before_the_file(tmp_path):
    path = write_raw(tmp_path / "g001_433.92M_250k.cu8", "cu8")
    assert played(wavesfm.recording_source(str(path)))[1] == [(0, "rx_freq", 433.92e6), (0, "rx_rate", 250e3)]
    source = wavesfm.recording_source(str(path), sample_rate=1e6, center_freq=868e6)
    assert played(source)[1] == [(0, "rx_freq", 868e6), (0, "rx_rate", 1e6)]


def test_it_repeats_with_its_tags(tmp_path, tone):
    samples = tone(0.1, 7000)
    captures = [{"core:sample_start": 0, "core:frequency": 1e6}, {"core:sample_start": 5000, "core:frequency": 2e6}]
    path = write_sigmf(tmp_path, samples, captures, rate_hz=0)
    found, tags = played(wavesfm.recording_source(str(path), repeat=True), 20_000)
    assert found.tobytes() == np.tile(samples, 3)[:20_000].tobytes()
    starts = [(0, 1e6), (5000, 2e6), (7000, 1e6), (12_000, 2e6), (14_000, 1e6), (19_000, 2e6)]
    assert tags == [(offset, "rx_freq", centre) for offset, centre in starts]


def test_a_second_run_plays_it_again(tmp_path, tone):
    samples = tone(0.1, 5000)
    samples.tofile(tmp_path / "r.cf32")
    source = wavesfm.recording_source(str(tmp_path / "r.cf32"))
    for _ in range(2):
        assert played(source)[0].tobytes() == samples.tobytes()


def test_the_classifier_says_what_classify_says(fake_bundle, tmp_path, tone):
    parts = [tone(-0.2, 5 * TILE + 700), tone(0.3, 3 * TILE), tone(-0.3, 300)]
    starts = np.cumsum([0, *map(len, parts)])[:3].tolist()
    captures = [
        {"core:sample_start": start, "core:frequency": 1e9 + i, "core:datetime": f"2026-01-02T03:04:{i:02d}Z"}
        for i, start in enumerate(starts)
    ]
    path = write_sigmf(tmp_path, np.concatenate(parts), captures)
    graph = Collector(wavesfm.recording_source(str(path)), wavesfm.classifier(str(fake_bundle))).run()
    with open_recording(path) as recording:
        expected = list(Pipeline.open(fake_bundle).classify_recording(recording))
    assert len(expected) == 10
    for found, wanted in zip(graph.predictions, expected, strict=True):
        for key in ("label", "start_sample", "n_samples", "rate_hz", "centre_hz", "partial", "time"):
            assert found[key] == getattr(wanted, key)
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"filename": ""}, "filename"),
        ({"filename": "missing.cu8"}, "file"),
        ({"filename": "odd.cs16"}, "size"),
        ({"filename": "empty.cu8"}, "size"),
        ({"filename": "r.bin"}, "format"),
        ({"filename": "r.cu8", "sample_format": "cu9"}, "format"),
        ({"filename": "r.cu8", "sample_rate": -1.0}, "sample rate"),
        ({"filename": "r.cu8", "center_freq": float("inf")}, "centre frequency"),
    ],
)
def test_what_is_wrong_is_refused_at_once(arguments, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, size in (("odd.cs16", 3), ("empty.cu8", 0), ("r.bin", 8), ("r.cu8", 8)):
        (tmp_path / name).write_bytes(bytes(size))
    with pytest.raises(WavesfmError) as refused:
        wavesfm.recording_source(**arguments)
    assert refused.value.field == field
    assert isinstance(refused.value, (InputError, ConfigurationError))


def test_a_fault_while_playing_ends_the_stream(tmp_path, tone):
    tone(0.1, 500_000).tofile(tmp_path / "r.cf32")
    source = wavesfm.recording_source(str(tmp_path / "r.cf32"))
    good, calls = source._recording.blocks, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        return good(*arguments)

    source._recording.blocks = failing
    samples, _ = played(source)
    assert 0 < samples.size < 500_000
    assert len(calls) == 2


def test_a_repeating_source_can_be_stopped(tmp_path, tone):
    tone(0.1, 1000).tofile(tmp_path / "r.cf32")
    top, probe = gr.top_block(), blocks.probe_signal_c()
    source = wavesfm.recording_source(str(tmp_path / "r.cf32"), repeat=True)
    top.connect(source, probe)
    top.start()
    top.stop()
    finish(top)
