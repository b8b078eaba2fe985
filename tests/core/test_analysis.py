# SPDX-License-Identifier: GPL-3.0-or-later
"""An analysis holds predictions, findings and notes of one recording, also of a stream that is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.analysis import analyse, beside
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.iqstream import IQStream
from wavesfm_core.types import Prediction


class Interrupt:
    """Raises KeyboardInterrupt at the third prediction."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, prediction: Prediction) -> None:
        self.count += 1
        if self.count == 3:
            raise KeyboardInterrupt


def test_an_analysis(fake_bundle: Path, tmp_path: Path, tone: Callable[..., np.ndarray]) -> None:
    path = tmp_path / "x_100M_1M.cf32"
    np.concatenate([tone(-0.2, 4096), tone(0.3, 4200)]).tofile(path)
    with open_recording(path) as recording:
        analysis = analyse(Pipeline.open(fake_bundle), recording, detect="off")
    assert (analysis.name, analysis.rate_hz, analysis.centre_hz) == (path.name, 1e6, 100e6)
    assert (analysis.n_samples, analysis.duration_s) == (8296, pytest.approx(8.296e-3))
    assert [finding.label for finding in analysis.findings] == ["left", "right"]
    assert sum(finding.tiles for finding in analysis.findings) == len(analysis.predictions) == analysis.summary.tiles
    (note,) = analysis.notes
    assert note.startswith("104 of 8296 samples (1.3%) were not looked at")


def _burst(n: int) -> np.ndarray:
    """Noise, and in its middle half a band of noise 20 dB stronger from 150 to 250 kHz, at 1 MS/s."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, n, 2)).astype(np.float32).view(np.complex64)[..., 0]
    band = np.fft.ifft(np.fft.fft(noise[1]) * (np.abs(np.fft.fftfreq(n) - 0.2) < 0.05))
    samples = noise[0] * np.float32(0.01)
    samples[n // 4 : 3 * n // 4] += band[n // 4 : 3 * n // 4].astype(np.complex64) * np.float32(0.1)
    return samples


def test_a_signal_in_the_band_is_a_finding_with_edges(fake_bundle: Path, tmp_path: Path) -> None:
    n = 1 << 20
    _burst(n).tofile(tmp_path / "x_100M_1M.cf32")
    with open_recording(tmp_path / "x_100M_1M.cf32") as recording:
        analysis = analyse(Pipeline.open(fake_bundle), recording)
    assert analysis.detected
    (finding,) = analysis.findings
    edges = finding.edges_hz()
    assert edges is not None and np.allclose(edges, (100.15e6, 100.25e6), atol=6e3)
    assert abs(finding.start_sample - n // 4) < 2000 and abs(finding.n_samples - n // 2) < 4000
    assert finding.snr_db is not None and finding.snr_db > 15 and finding.n_bursts == 1


def test_noise_alone_leaves_the_findings_of_the_whole_band(fake_bundle: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(2).normal(size=(1 << 18, 2)).astype(np.float32).view(np.complex64)[:, 0]
    samples.tofile(tmp_path / "x_100M_1M.cf32")
    with open_recording(tmp_path / "x_100M_1M.cf32") as recording:
        analysis = analyse(Pipeline.open(fake_bundle, gate_db=None), recording)
        searched = analyse(Pipeline.open(fake_bundle, gate_db=None), recording, detect="on")
    assert not analysis.detected and sum(finding.tiles for finding in analysis.findings) == len(analysis.predictions)
    assert searched.detected and searched.findings == []


def test_labels_of_the_whole_band_stay_where_no_signal_was_found(fake_bundle: Path, tmp_path: Path) -> None:
    """A signal at one time hides no other at another time."""
    n = 1 << 20
    pipeline = Pipeline.open(fake_bundle, gate_db=None)
    _burst(n).tofile(tmp_path / "x_100M_1M.cf32")
    with open_recording(tmp_path / "x_100M_1M.cf32") as recording:
        whole = analyse(pipeline, recording, detect="off").findings
        analysis = analyse(pipeline, recording)
    (signal,) = [each for each in analysis.findings if each.band_hz is not None]
    apart = [
        each
        for each in whole
        if each.label != "noise" and (each.end_sample <= signal.start_sample or each.start_sample >= signal.end_sample)
    ]
    assert [each for each in analysis.findings if each.band_hz is None] == apart
    early = replace(whole[0], label="left", start_sample=0, n_samples=100)
    late = replace(early, start_sample=signal.start_sample)
    quiet = replace(early, label="noise")
    assert beside([early, late, quiet], [signal]) == [early]


def test_a_search_that_cannot_be_is_refused(fake_bundle: Path, tmp_path: Path) -> None:
    _burst(1 << 16).tofile(tmp_path / "x.cf32")
    with open_recording(tmp_path / "x.cf32") as recording:
        with pytest.raises(ConfigurationError, match="detect: found an unknown sample rate"):
            analyse(Pipeline.open(fake_bundle), recording, detect="on")
        with pytest.raises(ConfigurationError, match="detect: found 'maybe'"):
            analyse(Pipeline.open(fake_bundle), recording, detect="maybe")
        assert not analyse(Pipeline.open(fake_bundle), recording).detected


def test_a_stream_ends_with_an_interrupt(fake_bundle: Path) -> None:
    with IQStream("/dev/zero", 1e6, "cs16", length=10**9) as stream:
        analysis = analyse(Pipeline.open(fake_bundle, gate_db=None), _with_noise(stream), Interrupt())
    assert len(analysis.predictions) == 3
    assert "interrupted: later samples were not read" in analysis.notes


def test_a_recording_does_not(fake_bundle: Path, tmp_path: Path, tone: Callable[..., np.ndarray]) -> None:
    tone(0.3, 10 * 2048).tofile(tmp_path / "x.cf32")
    with open_recording(tmp_path / "x.cf32") as recording, pytest.raises(KeyboardInterrupt):
        analyse(Pipeline.open(fake_bundle), recording, Interrupt())


def _with_noise(stream: IQStream) -> IQStream:
    """The stream with noise in place of its zeros, which would be digital silence."""
    silent, rng = stream.blocks, np.random.default_rng(1)

    def blocks(*places: int, **ends: int):  # type: ignore[no-untyped-def]
        for block in silent(*places, **ends):
            yield (rng.normal(size=(len(block), 2)) * 1e-3).astype("f4").view(np.complex64).reshape(-1)

    stream.blocks = blocks  # type: ignore[method-assign]
    return stream
