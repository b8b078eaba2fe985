# SPDX-License-Identifier: GPL-3.0-or-later
"""What scripts/gpu-check reports: measured rows, rows that are not available, rows that failed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import synthetic_vit
from support.known_engines import KnownEngine
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.availability import cuda_devices
from wavesfm_core.engines.onnxruntime import OnnxRuntimeEngine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import EngineError

ROOT = Path(__file__).parents[2]
pytest.importorskip("onnxruntime")


@pytest.fixture()
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "apps"))
    import gpu_check

    return gpu_check


class Close(OnnxRuntimeEngine):
    """The reference, off by `apart` in every output, with what a compiled engine knows of itself."""

    def __init__(self, bundle: Bundle, apart: float) -> None:
        super().__init__(bundle, threads=1)
        self.apart, self.memory_bytes = apart, 5_000_000
        self.plan = SimpleNamespace(n_bytes=2_000_000, built_s=3.5, layers={"bf16": 7}, warnings=(), read_back=True)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values + np.float32(self.apart) for name, values in super().run(inputs).items()}


def refuse(bundle: Bundle, most: int) -> Any:
    raise EngineError("compiler", "plan", "no | memory", "some")


def four(gpu_check: ModuleType) -> list[Any]:
    contender = gpu_check.Contender
    return [
        contender("tensorrt", "bf16", "", lambda bundle, most: Close(bundle, 0.01)),
        contender("tensorrt", "fp16", "", refuse),
        contender("tensorrt", "int8", "no pycuda", refuse),
        contender("torch.compile", "bf16", "", lambda bundle, most: KnownEngine(bundle, "torch"), False),
    ]


def test_parity(gpu_check: ModuleType, fake_bundle: Path) -> None:
    measured, failed, missing = gpu_check.parity("fake", Bundle.open(fake_bundle), 9, four(gpu_check))
    assert measured["difference"] == pytest.approx(0.01, rel=1e-3)
    assert 0.999 < measured["cosine"] < 1 and measured["agreement"] == 1.0
    known = {
        "tiles": 9,
        "build_s": 3.5,
        "plan_mb": 2.0,
        "memory_mb": 5.0,
        "layers": {"bf16": 7},
        "layers_read_back": True,
    }
    assert {name: measured[name] for name in known} == known
    assert failed["failed"] == "EngineError: compiler: plan: found no | memory, expected some"
    assert missing["not_available"] == "no pycuda" and "cosine" not in missing


def test_speed(gpu_check: ModuleType, fake_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "BATCHES", (1, 2, 5))
    bundle = Bundle.open(fake_bundle)
    engine = KnownEngine(bundle, "torch", delay_s=0.002)
    fast, *others = four(gpu_check)
    rates, latency = gpu_check.speed("fake", bundle, 0.01, fast._replace(open=lambda bundle, most: engine))
    assert set(engine.calls) == {1, 2, 5} and engine.closed
    assert 0 < rates["batch_5"] <= 5 / 0.002 and rates["batch_1"] <= 1 / 0.002
    assert 2 <= latency["p50_ms"] <= latency["p99_ms"]
    for contender, key in zip(others, ("failed", "not_available")):
        rates, latency = gpu_check.speed("fake", bundle, 0.01, contender)
        assert rates[key] == latency[key] and "p50_ms" not in latency


def test_inputs_differ_from_tile_to_tile(gpu_check: ModuleType, fake_bundle: Path) -> None:
    inputs = gpu_check.varied(Bundle.open(fake_bundle), 7)
    assert inputs["tile"].shape == (7, 1, 224, 224) and inputs["log10_rate"].shape == (7, 1)
    assert len({tile.tobytes() for tile in inputs["tile"]}) == 7
    assert np.array_equal(gpu_check.cut(inputs, 3)["tile"], inputs["tile"][:3])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_what_is_installed_and_cannot_be_loaded_is_not_available(
    gpu_check: ModuleType, fake_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_contenders
    from wavesfm_core.engines import availability as presence
    from wavesfm_core.engines import onnxruntime

    def find(name: str) -> object:
        return ModuleType(name)

    library = onnxruntime.library()
    monkeypatch.setattr(onnxruntime, "library", lambda: library)  # it asks find_spec, too
    monkeypatch.setattr(gpu_contenders.importlib.util, "find_spec", find)
    monkeypatch.setattr(presence, "cuda_devices", lambda: 1)
    monkeypatch.setattr(gpu_contenders, "cuda_devices", lambda: 1)
    monkeypatch.setattr(gpu_contenders, "missing_for_onnxruntime_cuda", lambda: "")
    monkeypatch.setattr(gpu_contenders, "missing_for_torch", lambda: "no torch")
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(onnxruntime, "cuda_providers", lambda device_id: [onnxruntime.CUDA, onnxruntime.CPU])
    everyone = {contender.name: contender for contender in gpu_contenders.contenders()}
    for name in ("tensorrt", "tensorrt_rtx"):
        assert f"installed but not loaded (engine tensorrt: library: found no module {name}" in everyone[name].missing
    (row,) = gpu_check.parity("fake", Bundle.open(fake_bundle), 1, [everyone["onnxruntime CUDA"]])
    assert "CUDAExecutionProvider: found only CPUExecutionProvider" in row["not_available"]


def test_every_test_that_needs_a_gpu_is_run(gpu_check: ModuleType) -> None:
    marked = re.compile(r"^(pytestmark = |@)pytest\.mark\.gpu", re.M)
    files = [path for path in (ROOT / "tests").rglob("*.py") if marked.search(path.read_text(encoding="utf-8"))]
    assert files == [gpu_check.GPU_TESTS]


def test_goals(gpu_check: ModuleType) -> None:
    half = {"engine": "tensorrt", "precision": "bf16"}
    rates = {f"batch_{n}": 1000.0 * n for n in gpu_check.BATCHES}
    slow = {name: value / 2 for name, value in rates.items()}
    report = {
        "parity": [
            {**half, "cosine": 0.9999, "agreement": 0.999, "tiles": 1000},
            {**half, "precision": "fp16", "cosine": 0.9998, "agreement": 0.2, "tiles": 64},
            {**half, "precision": "int8", "cosine": 0.5, "agreement": 0.5, "tiles": 1000},
        ],
        "tiles_per_s": [{**half, **rates}, {"engine": "torch.compile", "precision": "bf16", **slow}],
        "latency": [{**half, "p50_ms": 0.7}, {**half, "precision": "fp16", "not_available": "no driver"}],
        "products_tflops": 64e3 * gpu_check.PAPER_FLOP / 1e12 * 2,
    }
    found = [row["found"] for row in gpu_check.goals(report)]
    assert found == [0.9998, 0.999, 2.0, 0.7, 0.5]
    nothing = {"parity": [], "tiles_per_s": [], "latency": [], "products_tflops": None}
    assert {row["not_available"] for row in gpu_check.goals(nothing)} == {"not measured"}


def test_the_tables(gpu_check: ModuleType) -> None:
    row = {"model": "m", "engine": "tensorrt", "precision": "bf16"}
    report = {
        "machine": {"gpus": ["Some GPU, 1.2"]},
        "tests": {"tests": 4, "skipped": 1},
        "parity": [{**row, "cosine": 0.99987, "build_s": 12.345}, {**row, "failed": "no | memory\nat all"}],
        "tiles_per_s": [{**row, "batch_1": 1234.5}],
        "latency": [{**row, "not_available": "no pycuda"}],
        "goals": [{"goal": "g", "wanted": "1", "found": 2.0}],
    }
    text = gpu_check.markdown(report)
    assert "Some GPU, 1.2" in text and "tests 4, skipped 1" in text
    assert "| m | tensorrt | bf16 | 0.9999 |  |  | 12.35 |" in text
    assert "| m | tensorrt | bf16 | failed: no / memory at all |" in text
    assert "| m | tensorrt | bf16 | not available: no pycuda |  |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [{line.count("|") for line in table} for table in tables] == [{10}, {14}, {6}, {4}]
    assert gpu_check.failures(report) == 1


def test_the_synthetic_bundle_gives_its_golden_outputs(gpu_check: ModuleType, tmp_path: Path) -> None:
    bundle = gpu_check.synthetic_bundle(tmp_path, **synthetic_vit.SMALL)
    assert replay_golden(bundle, OnnxRuntimeEngine(bundle)).tiles == 2
    assert np.abs(bundle.golden().outputs["logits"]).max() > 0.01


@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a GPU")
def test_a_machine_without_a_gpu(tmp_path: Path, fake_bundle: Path) -> None:
    command = [sys.executable, str(ROOT / "apps/gpu_check.py"), "--out", str(tmp_path), "--models"]
    done = subprocess.run([*command, str(fake_bundle.parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu-report.json").read_text())
    for section in ("parity", "tiles_per_s", "latency", "goals"):
        assert report[section] and all("not_available" in row for row in report[section])
    assert report["tests"]["not_available"] == "all were skipped" and report["tests"]["tests"] >= 4
    assert (tmp_path / "gpu-report.md").read_text() == done.stdout


@pytest.mark.parametrize("wrong", [["--tiles", "0"], ["--seconds", "0"], ["--out", "/nowhere"]])
def test_a_wrong_parameter(gpu_check: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(wrong)
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err


def test_the_shell_front_refuses_a_folder_that_is_not_there() -> None:
    done = subprocess.run([ROOT / "scripts/gpu-check", "--wheels", "/nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gpu-check: found --wheels '/nowhere', expected a directory\n"
