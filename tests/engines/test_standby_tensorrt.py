# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorRT's own engine, on a fake GPU, in the CPU's stead and back: nothing of the GPU is held afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic_vit
from support.fake_cuda import FakeDriver, FakeLibrary, outputs_of
from support.waiting import LONG_S
from wavesfm_core import engines
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.standby import EngineChange, StandbyEngine
from wavesfm_core.errors import ConfigurationError

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A transformer whose golden outputs are the fake's."""
    directory = tmp_path_factory.mktemp("vit")
    first = synthetic_vit.make_bundle(directory / "a", np.zeros((2, 3), np.float32), **synthetic_vit.SMALL)
    outputs = outputs_of(np.stack(first.golden().tiles), (3,))
    return synthetic_vit.make_bundle(directory / "b", outputs, **synthetic_vit.SMALL)


@pytest.fixture()
def driver(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """The only GPU of this machine, with a library for it."""
    driver = FakeDriver()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "missing_for_tensorrt", lambda: "")
    monkeypatch.setattr(engines, "missing_for_onnxruntime_cuda", lambda: "no onnxruntime-gpu")
    monkeypatch.setattr("wavesfm_core.engines.tensorrt.engine.PyCudaDriver", lambda device_id: driver)
    monkeypatch.setattr("wavesfm_core.engines.tensorrt.engine.open_library", lambda: FakeLibrary(bundle.spec, driver))
    return driver


def batch(bundle: Bundle, seed: int) -> dict[str, np.ndarray]:
    tiles = np.random.default_rng(seed).normal(size=(3, *bundle.spec.preprocess.tile_shape)).astype(np.float32)
    return bundle_inputs(bundle.spec, tiles, np.zeros(3))


def opened(bundle: Bundle, device: str, changes: list[EngineChange]) -> Any:
    engine = open_engine(bundle, device, on_change=changes.append)
    assert isinstance(engine, StandbyEngine)
    engine._thread.join(LONG_S)
    return engine


@pytest.mark.parametrize("device", ["auto", "tensorrt"])
def test_the_switch_and_the_failure(bundle: Bundle, driver: FakeDriver, device: str) -> None:
    changes: list[EngineChange] = []
    engine = opened(bundle, device, changes)
    given = batch(bundle, 1)
    np.testing.assert_allclose(engine.run(given)["logits"], outputs_of(given["tile"], (3,)), atol=1e-5)
    assert (engine.state, engine.relative_tolerance) == ("fast", 0.05) and "Fake GPU, bf16" in engine.description
    assert driver.held > 0
    driver.fail("upload")
    expected = open_engine(bundle, "cpu").run(batch(bundle, 2))["logits"]
    np.testing.assert_allclose(engine.run(batch(bundle, 2))["logits"], expected, rtol=0, atol=0.05)
    assert (engine.state, engine.failures, driver.held) == ("cpu", 1, 0)
    assert [change.failed for change in changes] == [False, True]
    engine.close()


@pytest.mark.parametrize(
    ("path", "found"), [("gr-wavesfm", "plan cache: found File"), ("gr-wavesfm/lock", "lock: found")]
)
def test_without_a_cache_auto_is_the_cpu(
    bundle: Bundle, driver: FakeDriver, tmp_path: Path, path: str, found: str, caplog: Any
) -> None:
    if path.endswith("lock"):
        (tmp_path / path).mkdir(parents=True)
    else:
        (tmp_path / path).touch()
    engine = open_engine(bundle, "auto")
    assert "Fake GPU" not in engine.description and found in caplog.text
    engine.close()
    with pytest.raises(ConfigurationError, match=found):
        open_engine(bundle, "tensorrt")
    engine = opened(bundle, "auto", [])
    assert engine.state == "cpu" and found in engine.reason
    engine.close()
    assert driver.held == 0


def test_many_starts_and_stops_hold_nothing(bundle: Bundle, driver: FakeDriver) -> None:
    for seed in range(6):
        engine = opened(bundle, "tensorrt", [])
        engine.run(batch(bundle, seed))
        assert engine.state == "fast"
        engine.close()
        assert driver.held == 0
