# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm compile` and `wavesfm cache`, with TensorRT-RTX where it is installed, and what they refuse."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_bundles
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.tensorrt.calibration import read_tiles
from wavesfm_core.errors import InputError

pytest.importorskip("typer")

from wavesfm_core.cli import main

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


@pytest.fixture
def wavesfm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """wavesfm(*arguments) -> exit code, stdout, stderr; the cache in a directory of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["wavesfm", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.make_image_bundle(tmp_path_factory.mktemp("tiny") / "b", "position")


@needs_rtx
def test_a_bundle_is_compiled_listed_and_cleared(wavesfm: Any, bundle: Path) -> None:
    assert "0 plans, 0.0 MB" in wavesfm("cache", "list")[1]
    assert re.search(r"compiled .*none", wavesfm("info", bundle)[1])
    arguments = ("compile", bundle, "--precision", "fp32", "--target", "sm_86,SM120", "--max-batch", 16)
    code, out, err = wavesfm(*arguments)
    assert (code, err) == (0, "")
    assert re.search(r"plan .* MB, built in .* s, sha256", out)
    assert "sm_120, sm_86" in out
    assert "fp32; products of the network, not read back: 1 in fp32" in out
    assert "1 to 16, tuned for 8" in out
    assert "not checked: no GPU" in out
    assert "from the cache" in wavesfm(*arguments)[1]
    listed = wavesfm("cache", "list")[1]
    assert "tiny-position@" in listed
    assert "1 plans" in listed
    assert "fp32 for sm_120, sm_86" in wavesfm("info", bundle)[1]
    assert wavesfm("cache", "clear")[1].startswith("1 plans and 0 int8 models")
    assert "0 plans" in wavesfm("cache", "list")[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp8"], "found 'fp8', expected one of fp32, bf16, fp16, int8"),
        (["--target", "hopper"], "found 'hopper', expected a compute capability such as sm_89"),
        (["--target", ","], "found '', expected a compute capability such as sm_89"),
        (["--target", "sm_86", "--portable"], "either targets or portable"),
        (["--max-batch", "0"], "profile: batch"),
        (["--max-batch", "0", "--precision", "f32"], "profile: batch"),
        (["--library", "onnx"], "one of auto, tensorrt, tensorrt_rtx"),
        (["--calibration", "missing.npz"], "missing.npz: contents"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(wavesfm: Any, bundle: Path, options: list[str], words: str) -> None:
    code, _, err = wavesfm("compile", bundle, *options)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_lock_that_cannot_be_had_is_said_in_one_sentence(wavesfm: Any, tmp_path: Path) -> None:
    (tmp_path / "cache/gr-wavesfm/lock").mkdir(parents=True)
    code, _, err = wavesfm("cache", "clear")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "lock: found Is a directory, expected a file that can be opened and locked" in err


def test_without_a_gpu_and_a_target_it_says_what_to_do(
    wavesfm: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    code, _, err = wavesfm("compile", bundle, "--precision", "fp32")
    assert code == 2
    assert "pycuda" in err or "pip install 'tensorrt-rtx-cu13" in err
    assert len(err.splitlines()) == 1


def test_a_users_calibration_tiles(bundle: Path, tmp_path: Path) -> None:
    spec = Bundle.open(bundle).spec
    tiles = np.random.default_rng(0).normal(size=(4, *spec.preprocess.tile_shape)).astype(np.float32)
    np.savez(tmp_path / "good.npz", tiles=tiles)
    found = read_tiles(tmp_path / "good.npz", spec)
    assert list(found) == ["tile"]
    np.testing.assert_array_equal(found["tile"], tiles)
    bad = {
        "tiles: found nothing": {"other": tiles},
        r"tiles: found float64": {"tiles": tiles.astype(np.float64)},
        r"tiles: found float32 \(4, 3, 32\)": {"tiles": tiles[..., 0]},
        "tiles: found float32 .0,": {"tiles": tiles[:0]},
        "rate_hz: found": {"tiles": tiles, "rate_hz": np.zeros(3)},
        "values: found NaN": {"tiles": np.full_like(tiles, np.nan)},
    }
    for words, arrays in bad.items():
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InputError, match=words):
            read_tiles(tmp_path / "bad.npz", spec)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_int8_for_the_cpu_shows_its_loss_and_its_speed(wavesfm: Any, bundle: Path) -> None:
    code, out, _ = wavesfm("compile", bundle, "--precision", "int8", "--device", "onnxruntime")
    assert code == 0
    assert re.search(r"outputs differ by .*% of the largest, at most 10%", out)
    assert re.search(r"ms per tile .*CPU, f32", out) and re.search(r"ms per tile .*CPU, int8", out)
    assert wavesfm("cache", "clear")[1].startswith("0 plans and 1 int8 models")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "tpu"), "--device: found 'tpu'"),
        (("--device", "cpu"), "--precision: found bf16, expected int8 for device cpu"),
        (("--device", "cpu", "--precision", "int8", "--portable"), "--device cpu: found an option of GPUs"),
    ],
)
def test_wrong_options_for_the_cpu(wavesfm: Any, bundle: Path, options: tuple[str, ...], words: str) -> None:
    code, _, err = wavesfm("compile", bundle, *options)
    assert code == 2 and words in err
