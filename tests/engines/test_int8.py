# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in int8 on the CPU: near float32 or refused, kept in the cache, opened only if they are what was checked."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import tiny_onnx
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines import ENGINES, available_engines, compile_for_cpu, int8, open_engine
from wavesfm_core.engines.int8 import model_path
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import ConfigurationError, EngineError

NEEDS = ("onnx", "onnxruntime")
MISSING = ", ".join(name for name in NEEDS if importlib.util.find_spec(name) is None)
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


def tiles(bundle: Bundle, n_tiles: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n_tiles)
    return bundle_inputs(bundle.spec, rng.normal(size=(n_tiles, 1, 224, 224)), np.full(n_tiles, 1e6))


@pytest.mark.parametrize("device", [*ENGINES, "cpu"])
def test_outputs_are_near_those_in_float32(device: str, bundle: Bundle) -> None:
    if device != "cpu" and device not in available_engines():
        pytest.skip(f"{device} is not installed")
    with pytest.raises(EngineError, match="int8: found no such model in the cache, expected wavesfm compile"):
        open_engine(bundle, device, precision="int8")
    record = compile_for_cpu(bundle, device, tiles(bundle, 8), threads=1)
    assert (record.calibrated, record.checked, record.changed) == (6, 6, 0.0)  # 4 of 8, and the golden ones
    assert 0 < record.difference < int8.TOLERANCE
    with contextlib.closing(open_engine(bundle, device, threads=1, precision="int8")) as engine:
        assert engine.description.endswith("CPU, int8, threads: 1")
        assert replay_golden(bundle, engine).engine_difference > 0
        inputs = tiles(bundle, 3)
        expected = tiny_onnx.oracle(*inputs.values(), 3)
        outputs = engine.run(inputs)["logits"]
        assert 0 < np.abs(outputs - expected).max() < int8.TOLERANCE * np.abs(expected).max()


def test_golden_tiles_are_the_default(bundle: Bundle) -> None:
    record = compile_for_cpu(bundle, "onnxruntime")
    assert (record.calibrated, record.checked) == (2, 2)


@pytest.mark.parametrize(("limit", "message"), [("TOLERANCE", r"outputs .*% off"), ("CHANGED_LIMIT", "int8 accuracy")])
def test_a_loss_over_the_limit_is_refused(
    limit: str, message: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, limit, -1.0)
    with pytest.raises(EngineError, match=message):
        compile_for_cpu(bundle, "onnxruntime")
    assert not model_path(bundle).exists()
    assert list(model_path(bundle).parent.iterdir()) == []


def test_one_tile_cannot_be_compared(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="int8 calibration: found 1 tile, expected 2 or more"):
        compile_for_cpu(bundle, "onnxruntime", tiles(bundle, 1))


def test_a_model_that_was_changed_is_not_opened(bundle: Bundle) -> None:
    compile_for_cpu(bundle, "onnxruntime")
    path = model_path(bundle)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    with pytest.raises(EngineError, match="sha256: found another model"):
        open_engine(bundle, "cpu", precision="int8")
    path.write_bytes(whole)
    path.chmod(0o666)
    with pytest.raises(EngineError, match="expected a model that this program made"):
        open_engine(bundle, "cpu", precision="int8")
    path.chmod(0o600)
    path.with_suffix(".json").write_text(json.dumps({"model": 1}))
    with pytest.raises(EngineError, match="expected a model that this program made"):
        open_engine(bundle, "cpu", precision="int8")


def test_another_bundle_has_another_model(bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    compile_for_cpu(bundle, "onnxruntime")
    other = Bundle.open(make_bundle(tmp_path / "other", labels=("noise", "a", "b", "c")))
    with pytest.raises(EngineError, match="no such model in the cache"):
        open_engine(other, "cpu", precision="int8")


def test_a_loss_is_measured() -> None:
    exact = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    outputs = np.array([[2.2, 2.0], [4.0, 3.0]], np.float32)
    assert int8._loss(exact, outputs, True) == (pytest.approx(0.3), 0.5)
    assert int8._loss(exact, outputs, False)[1] == 0.0
    assert int8._loss(exact, outputs * np.nan, True) == (np.inf, 1.0)


def test_fp16_is_no_precision_of_a_cpu(bundle: Bundle) -> None:
    with pytest.raises(ConfigurationError, match="fp16 on the CPU"):
        open_engine(bundle, "cpu", precision="fp16")
