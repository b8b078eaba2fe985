# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared fixtures: a small bundle that the real runtimes run, signals for it, and where real recordings may lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from support import tiny_onnx

# A busy machine is no finding about the code: no deadlines, and no complaint that drawing took long.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

FAKE_LABELS = ("noise", "left", "right")


def _tone(cycles_per_sample: float, n_samples: int, seed: int = 0, snr_db: float = 40.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_samples, 2)).astype(np.float32).view(np.complex64).ravel() * np.float32(1e-3)
    amplitude = 1e-3 * 2**0.5 * 10 ** (snr_db / 20)
    return (noise + amplitude * np.exp(2j * np.pi * cycles_per_sample * np.arange(n_samples))).astype(np.complex64)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """tone(cycles_per_sample, n_samples, seed=0, snr_db=40.0) -> complex64: a carrier in noise; -200: only noise."""
    return _tone


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """make_bundle(directory, threshold=0.0, model=None, labels=FAKE_LABELS, **preprocess) -> the bundle's directory.

    The model (tiny_onnx, or other bytes) answers "left" for a carrier below the centre, "right" above, "noise" for
    noise. A full tile has 2048 samples (fft_size 64, 32 rows of one frame), a partial one at least 256.
    """
    from wavesfm_core.bundle.bundle import bundle_inputs, write_bundle
    from wavesfm_core.bundle.golden import Golden
    from wavesfm_core.bundle.spec import BundleSpec, HeadSpec, TensorSpec
    from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
    from wavesfm_core.preprocess.tile import prepare

    def make(
        directory: Path,
        threshold: float = 0.0,
        model: bytes | None = None,
        labels: tuple[str, ...] = FAKE_LABELS,
        **preprocess: object,
    ) -> Path:
        geometry = {"fft_size": 64, "hop_samples": 64, "frames_averaged": 1, "rows_per_tile": 32, "min_rows": 4}
        spec = BundleSpec(
            name="fake",
            preprocess=SpectrogramSpec(**{**geometry, **preprocess}),
            inputs=(TensorSpec("tile", (-1, 1, 224, 224), "tile"), TensorSpec("log10_rate", (-1, 1), "log10_rate")),
            outputs=(TensorSpec("logits", (-1, len(labels))),),
            head=HeadSpec("classification", labels, threshold),
            sha256="",
            tolerance=1e-3,
            rates_hz=(0.25e6, 25e6),
            licence="CC0-1.0",
            training_data="none",
        )
        iq = tuple(_tone(cycles, n) for cycles, n in ((-0.2, 2048), (0.3, 700)))
        rates = np.array([1e6, 0.0])
        tiles = tuple(prepare(samples, spec.preprocess) for samples in iq)
        log10_rate = bundle_inputs(spec, np.stack(tiles), rates)["log10_rate"]
        outputs = {"logits": tiny_onnx.oracle(np.stack(tiles), log10_rate, len(labels))}
        onnx = tiny_onnx.model(len(labels)) if model is None else model
        return write_bundle(directory, spec, onnx, Golden(iq, rates, tiles, outputs), "# fake\n").path

    return make


@pytest.fixture(scope="session")
def fake_bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one such bundle, shared by all tests: do not write to it."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "fake")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of real recordings; skips where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("WAVESFM_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real recordings at {path} (WAVESFM_SHARED_DATA)")
    return path
