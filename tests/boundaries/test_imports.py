# SPDX-License-Identifier: GPL-3.0-or-later
"""Each side imports with the other side's packages blocked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from support.isolation import import_all, modules_on_disk, run_blocked

ROOT = Path(__file__).parents[2]
TRAINING = ("torch", "lightning", "pytorch_lightning", "onnx", "onnxscript", "safetensors")
RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda")
RADIO = ("gnuradio", "pmt")


TENSORRT = "wavesfm_core.engines.tensorrt."
WITH_ONNX = {TENSORRT + name for name in ("mixed_precision", "onnx_graph", "transformer_products")}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} belongs to the other environment")


@pytest.mark.parametrize("name", ["json", "numpy"])
def test_blocking_works(name: str, tmp_path: Path) -> None:
    done = run_blocked(f"import {name}.anything", [name], tmp_path)
    assert done.returncode != 0
    assert "is blocked" in done.stderr


def test_a_lazy_import_of_a_blocked_package_is_no_fault(tmp_path: Path) -> None:
    assert run_blocked("def f():\n    import torch\nprint(1)", ["torch"], tmp_path).stdout == "1\n"


def test_core_needs_neither_torch_nor_gnuradio(tmp_path: Path) -> None:
    imported = import_all("wavesfm_core", TRAINING + RADIO + ("wavesfm_trainer",), tmp_path, skipped=WITH_ONNX)
    assert modules_on_disk(ROOT / "python/wavesfm_core", "wavesfm_core") - WITH_ONNX <= imported
    assert "wavesfm_core._kernels" in imported


def test_core_but_for_the_command_needs_only_numpy(tmp_path: Path) -> None:
    others = ("typer", "rich", "click", "sigmf", "scipy", "matplotlib", "psutil", "wavesfm_trainer")
    skipped = {"wavesfm_core.cli", *WITH_ONNX}
    imported = import_all("wavesfm_core", TRAINING + RADIO + RUNTIMES + others, tmp_path, skipped)
    expected = modules_on_disk(ROOT / "python/wavesfm_core", "wavesfm_core") - WITH_ONNX
    assert {name for name in expected if not name.startswith("wavesfm_core.cli")} <= imported


def test_the_onnx_package_brings_neither_torch_nor_runtimes(tmp_path: Path) -> None:
    modules = "\n".join(f"import {name}" for name in sorted(WITH_ONNX))
    done = run_blocked(modules, ("torch", "onnxscript", *RUNTIMES, *RADIO), tmp_path)
    assert done.returncode == 0, done.stderr


def test_core_is_installed_and_not_the_source_tree(tmp_path: Path) -> None:
    done = run_blocked("import wavesfm_core\nprint(wavesfm_core.__file__)", [], tmp_path)
    assert done.returncode == 0, f"run scripts/setup first: {done.stderr}"
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "python")


def test_trainer_needs_no_gnuradio(tmp_path: Path) -> None:
    needs("torch")
    imported = import_all("wavesfm_trainer", RADIO, tmp_path)
    assert modules_on_disk(ROOT / "trainer/wavesfm_trainer", "wavesfm_trainer") <= imported


def test_signals_need_no_torch(tmp_path: Path) -> None:
    imported = import_all("wavesfm_trainer.signals", TRAINING + RADIO + ("wavesfm_core",), tmp_path)
    assert modules_on_disk(ROOT / "trainer/wavesfm_trainer/signals", "wavesfm_trainer.signals") <= imported


def test_blocks_need_no_torch(tmp_path: Path) -> None:
    needs("gnuradio")
    imported = import_all("gnuradio.wavesfm", (*TRAINING, "wavesfm_trainer"), tmp_path)
    assert modules_on_disk(ROOT / "python/wavesfm", "gnuradio.wavesfm") <= imported
