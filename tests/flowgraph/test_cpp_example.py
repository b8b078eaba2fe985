# SPDX-License-Identifier: GPL-3.0-or-later
"""The C++ flowgraph of examples/cpp builds against the installed library and gives the labels that Python gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.engines.onnxruntime import library
from wavesfm_core.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
RATE_HZ = 2.048e6
TILES = 2.5


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_example_builds_and_classifies(tmp_path: Path) -> None:
    build = tmp_path / "build"
    prefixes = f"-DCMAKE_PREFIX_PATH={sys.prefix};/usr"
    run("cmake", "-S", ROOT / "examples/cpp", "-B", build, prefixes, "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", build)
    pipeline = Pipeline.open(ROOT / "models/rf20-nano", "onnxruntime", threads=1, gate_db=None, replay=False)
    n_samples = int(TILES * pipeline.stream_spec.tile_samples)
    parts = np.random.default_rng(1).normal(size=(n_samples, 2)).astype(np.float32)
    samples = (parts * np.float32(1e-3)).view(np.complex64).ravel()
    samples += np.float32(1e-3) * np.exp(0.3j * np.arange(n_samples)).astype(np.complex64)
    samples.tofile(tmp_path / "recording.cf32")
    arguments = (ROOT / "models/rf20-nano", "onnxruntime", library(), tmp_path / "recording.cf32", RATE_HZ)
    lines = run(build / "classify_file", *arguments).splitlines()
    expected = pipeline.classify(samples, RATE_HZ)
    pipeline.close()
    assert len(lines) == len(expected) == 3
    for line, prediction in zip(lines, expected, strict=True):
        start, length, label, probability = line.split()
        assert (int(start), int(length), label) == (prediction.start_sample, prediction.n_samples, prediction.label)
        assert float(probability) == pytest.approx(prediction.confidence, abs=2e-3)
