# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's run path on a fake GPU: order of buffers, overlap, graphs, failures, threads, nothing left behind."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import synthetic_vit
from support.fake_cuda import FakeDriver, FakeLibrary, FakePycuda, outputs_of
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines.tensorrt import cuda as cuda_driver
from wavesfm_core.engines.tensorrt.compiler import compile_bundle
from wavesfm_core.engines.tensorrt.cuda import PyCudaDriver
from wavesfm_core.engines.tensorrt.engine import TensorRTEngine
from wavesfm_core.engines.tensorrt.library import PlanRefused
from wavesfm_core.engines.tensorrt.plan_cache import PlanCache
from wavesfm_core.engines.tensorrt.session import parts, profile_of
from wavesfm_core.errors import ConfigurationError, EngineError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A transformer whose golden outputs are the fake's."""
    directory = tmp_path_factory.mktemp("vit")
    first = synthetic_vit.make_bundle(directory / "a", np.zeros((2, 3), np.float32), **synthetic_vit.SMALL)
    outputs = outputs_of(np.stack(first.golden().tiles), (3,))
    return synthetic_vit.make_bundle(directory / "b", outputs, **synthetic_vit.SMALL)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def library(bundle: Bundle, driver: FakeDriver) -> FakeLibrary:
    return FakeLibrary(bundle.spec, driver)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache")


def inputs(bundle: Bundle, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    tiles = np.random.default_rng(seed).normal(size=(n, *bundle.spec.preprocess.tile_shape))
    return bundle_inputs(bundle.spec, tiles + np.arange(n).reshape(-1, 1, 1, 1), np.zeros(n))


def expected(given: dict[str, np.ndarray]) -> np.ndarray:
    return outputs_of(given["tile"], (3,))


def open_engine(bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, **options: Any) -> Any:
    return TensorRTEngine(bundle, driver=driver, library=library, cache=cache, **{"max_batch": 20, **options})


@pytest.mark.parametrize("captures", [False, True])
@pytest.mark.parametrize("n", [1, 2, 8, 15, 16, 20, 21, 64, 97])
def test_any_batch_gives_its_outputs(
    bundle: Bundle, driver: FakeDriver, cache: PlanCache, n: int, captures: bool
) -> None:
    engine = open_engine(bundle, driver, FakeLibrary(bundle.spec, driver, captures), cache)
    for seed in range(3):
        given = inputs(bundle, n, seed)
        kept = {name: array.copy() for name, array in given.items()}
        outputs = engine.run(given)
        assert list(outputs) == ["logits"]
        np.testing.assert_allclose(outputs["logits"], expected(kept), atol=1e-5)
        np.testing.assert_array_equal(given["tile"], kept["tile"])


def test_earlier_outputs_are_not_overwritten(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    first = engine.run(inputs(bundle, 4, 1))["logits"]
    kept = first.copy()
    engine.run(inputs(bundle, 4, 2))
    np.testing.assert_array_equal(first, kept)


def test_the_next_part_is_copied_before_this_one_is_waited_for(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    driver.log.clear()
    engine.run(inputs(bundle, 60))
    order = [name for name in driver.log if name in ("upload", "launch", "synchronise")]
    start = ["upload", "launch"]
    assert order == [*start, *start, "synchronise", *start, "synchronise", "synchronise"]


@pytest.mark.parametrize(
    ("batch", "maximum", "sizes"),
    [(1, 64, [1]), (15, 64, [15]), (16, 64, [8, 8]), (64, 64, [32, 32]), (65, 32, [21, 22, 22]), (7, 3, [2, 2, 3])],
)
def test_parts(batch: int, maximum: int, sizes: list[int]) -> None:
    cut = parts(batch, maximum)
    assert [part.stop - part.start for part in cut] == sizes
    assert [i for part in cut for i in range(batch)[part]] == list(range(batch))


def test_profiles(bundle: Bundle) -> None:
    assert (profile_of(bundle.spec).preferred, profile_of(bundle.spec).maximum) == (8, 64)
    assert (profile_of(bundle.spec, 4).preferred, profile_of(bundle.spec, 4).maximum) == (4, 4)
    for wrong in (0, -1, 1 << 20):
        with pytest.raises(ConfigurationError, match="profile: batch"):
            profile_of(bundle.spec, wrong)


def test_graphs_for_the_profiles_batches(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    runs = len(library.batches)
    assert len(driver.graphs) == 4 * 2  # 1, 8, 10 (20 is run as 10 and 10), and 20, of larger batches
    driver.log.clear()
    engine.run(inputs(bundle, 8))
    engine.run(inputs(bundle, 20))
    engine.run(inputs(bundle, 40))
    assert driver.log.count("launch") == 5
    assert len(library.batches) == runs
    engine.run(inputs(bundle, 5))
    assert library.batches[runs:] == [5]


def test_a_library_that_captures_by_itself_is_left_to_it(bundle: Bundle, driver: FakeDriver, cache: PlanCache) -> None:
    open_engine(bundle, driver, FakeLibrary(bundle.spec, driver, captures=True), cache)
    assert not driver.graphs
    assert "begin_capture" not in driver.calls


@pytest.mark.parametrize("call", ["begin_capture", "end_capture"])
def test_without_graphs_it_runs_all_the_same(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, call: str, caplog: Any
) -> None:
    open_engine(bundle, driver, library, cache).close()  # so that the plan is there
    driver.fail(call)
    if call == "end_capture":
        driver.end_capture = _ending(driver.end_capture)  # type: ignore[method-assign]
    engine = open_engine(bundle, driver, library, cache)
    assert "without a CUDA graph: engine tensorrt: CUDA" in caplog.text
    given = inputs(bundle, 8)
    np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)


def _ending(end_capture: Any) -> Any:
    """As a driver does: a capture that cannot be ended is over all the same."""

    def end(stream: Any) -> Any:
        try:
            return end_capture(stream)
        finally:
            stream.capturing = None

    return end


def test_the_context_is_this_threads_only_while_it_is_used(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    found = []

    def run() -> None:
        given = inputs(bundle, 3)
        found.append(np.allclose(engine.run(given)["logits"], expected(given)))
        found.append(driver._local.depth)

    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert found == [True, 0, True, 0]


def test_starting_and_stopping_leaves_nothing(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    for _ in range(5):
        engine = open_engine(bundle, driver, library, cache)
        assert driver.held > 10
        assert len(library.alive) == 6  # the engine, its context, and one for each batch with graphs
        engine.run(inputs(bundle, 30))
        engine.close()
        gc.collect()
        assert (driver.held, len(library.alive)) == (0, 0)
        engine.close()
        with pytest.raises(EngineError, match="closed engine"):
            engine.run(inputs(bundle, 1))
    assert driver.closed == 0  # it is the caller's
    assert len(library.builds) == 1


@pytest.mark.parametrize("call", ["stream", "event", "pinned", "allocate", "upload", "record", "wait", "synchronise"])
def test_a_constructor_that_fails_leaves_nothing(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, call: str
) -> None:
    driver.fail(call)
    with pytest.raises(EngineError, match="CUDA_ERROR_FAKE") as caught:
        open_engine(bundle, driver, library, cache)
    caught.value.__traceback__ = caught.value.__context__ = None
    del caught
    gc.collect()
    assert (driver.held, len(library.alive)) == (0, 0)


@pytest.mark.parametrize("call", ["upload", "record", "wait", "launch", "synchronise"])
def test_a_failing_call_is_an_error_and_the_engine_goes_on(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, call: str
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    driver.fail(call)
    with pytest.raises(EngineError, match=f"CUDA {call}: found CUDA_ERROR_FAKE"):
        engine.run(inputs(bundle, 20))
    given = inputs(bundle, 20, 7)
    np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)
    engine.close()


def test_a_refused_run_says_the_librarys_words(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    engine = open_engine(bundle, driver, library, cache)
    library.failures.add(len(library.batches))
    with pytest.raises(EngineError, match="run of batch 5: found the library's own words"):
        engine.run(inputs(bundle, 5))


def test_whatever_the_bindings_raise_is_an_engine_error(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(bundle, driver, library, cache)

    def broken(stream: Any) -> int:
        raise TypeError("no such stream")

    monkeypatch.setattr(driver, "stream_handle", broken)
    with pytest.raises(EngineError, match="run: found TypeError: no such stream"):
        engine.run(inputs(bundle, 5))
    with pytest.raises(EngineError, match="opening: found TypeError: no such stream"):
        open_engine(bundle, driver, library, cache)


def test_inputs_are_checked(bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache) -> None:
    engine = open_engine(bundle, driver, library, cache)
    with pytest.raises(EngineError, match="input tile: found nothing"):
        engine.run({})
    with pytest.raises(EngineError, match="float64"):
        engine.run({"tile": np.zeros((1, 2, 32, 32))})
    with pytest.raises(EngineError, match="batch"):
        engine.run({"tile": np.zeros((0, 2, 32, 32), np.float32)})


@pytest.mark.parametrize(("capability", "precision"), [("sm_75", "fp16"), ("sm_80", "bf16"), ("sm_120", "bf16")])
def test_auto_is_what_the_gpu_has(bundle: Bundle, cache: PlanCache, capability: str, precision: str) -> None:
    driver = FakeDriver(capability)
    library = FakeLibrary(bundle.spec, driver)
    library.products = {precision: 13}
    engine = open_engine(bundle, driver, library, cache)
    assert engine.description == f"tensorrt fake 1, Fake GPU, {precision}"
    assert engine.relative_tolerance == {"fp16": 0.01, "bf16": 0.05}[precision]
    assert engine.memory_bytes == 2 * 20 * 4 * (2 * 32 * 32 + 3)
    assert engine.plan.key.capabilities == (capability,)


def test_an_unknown_precision_is_refused(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    with pytest.raises(ConfigurationError, match="found 'fp8', expected one of auto, fp32, bf16, fp16, int8"):
        open_engine(bundle, driver, library, cache, precision="fp8")


def test_a_plan_of_other_tensors_is_refused(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "tensors", lambda engine: {"input": [], "output": []})
    with pytest.raises(Exception, match="input tile: found only none"):
        open_engine(bundle, driver, library, cache)
    gc.collect()
    assert driver.held == 0


def test_a_cached_plan_that_the_library_no_longer_takes_is_built_anew(
    bundle: Bundle,
    driver: FakeDriver,
    library: FakeLibrary,
    cache: PlanCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    open_engine(bundle, driver, library, cache).close()
    take, refusals = library.deserialise, [1]

    def deserialise(plan: bytes) -> Any:
        if refusals:
            refusals.pop()
            raise PlanRefused("tensorrt", "plan", "incompatible device", "a plan for this GPU, driver and library")
        return take(plan)

    monkeypatch.setattr(library, "deserialise", deserialise)
    engine = open_engine(bundle, driver, library, cache)
    assert len(library.builds) == 2
    assert "is built anew: tensorrt: plan: found incompatible device" in caplog.text
    given = inputs(bundle, 3)
    np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)
    assert [record.key for record in cache.records()] == [engine.plan.key]
    refusals.extend([1, 1])  # and one that is fresh is not built for ever
    with pytest.raises(EngineError, match="incompatible device"):
        open_engine(bundle, driver, library, cache)


def test_plans_built_ahead_that_are_refused_are_passed_over_and_kept(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.builds_ahead = True
    compile_bundle(bundle, portable=True, library=library, cache=cache)
    compile_bundle(bundle, targets=["sm_89"], library=library, cache=cache)
    records, take, refused = cache.records(), library.deserialise, []

    def deserialise(plan: bytes) -> Any:
        if '"targets": []' in plan.decode() and '"portable": false' in plan.decode():
            return take(plan)
        refused.append(plan)
        raise PlanRefused("tensorrt", "plan", "incompatible device", "a plan for this GPU, driver and library")

    monkeypatch.setattr(library, "deserialise", deserialise)
    engine = open_engine(bundle, driver, library, cache, max_batch=None)
    assert (len(refused), len(library.builds)) == (2, 3)
    assert {record.key for record in cache.records()} == {record.key for record in (*records, engine.plan)}


def test_a_plan_of_the_users_profile_is_what_the_engine_takes(
    bundle: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    compile_bundle(bundle, max_batch=5, library=library, driver=driver, cache=cache)
    library.batches.clear()
    engine = open_engine(bundle, driver, library, cache, max_batch=None)
    assert (len(library.builds), engine.plan.key.maximum, max(library.batches)) == (1, 5, 5)
    given = inputs(bundle, 12)
    np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)


def test_without_pycuda_it_says_so(bundle: Bundle, library: FakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pycuda: found .*expected the NVIDIA driver and pycuda"):
        TensorRTEngine(bundle, library=library)


def test_without_a_library_it_says_so(bundle: Bundle, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"library: found no module tensorrt or tensorrt_rtx .*pip install"):
        TensorRTEngine(bundle, driver=driver)


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePycuda:
    module = FakePycuda()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=module))
    monkeypatch.setitem(sys.modules, "pycuda.driver", module)
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", module.library)
    monkeypatch.setattr(cuda_driver, "_KERNEL_MODULE", tmp_path / "version")
    return module


def test_pycuda_keeps_the_context_only_while_it_is_used(pycuda: FakePycuda) -> None:
    driver = PyCudaDriver(1)
    assert driver.gpu == cuda_driver.GPU("GPU 1", "sm_89", "13000", 1 << 30)
    with pytest.raises(ZeroDivisionError), driver.current():
        assert len(pycuda.stack) == 1
        _ = 1 / 0
    assert pycuda.stack == []
    driver.close()
    driver.close()
    with pytest.raises(EngineError, match="a closed one"), driver.current():
        pass


@pytest.mark.parametrize("opens", ["here", "elsewhere"])
@pytest.mark.parametrize("under", [False, True])
def test_the_primary_context_is_given_back_in_whichever_thread(pycuda: FakePycuda, opens: str, under: bool) -> None:
    drivers: list[PyCudaDriver] = []
    if opens == "here":
        drivers.append(PyCudaDriver())
    else:
        thread = threading.Thread(target=lambda: drivers.append(PyCudaDriver()))
        thread.start()
        thread.join()
    others = pycuda.Context()  # of somebody else in this thread
    if under:
        others.push()
    assert pycuda.retained == 1
    drivers[0].close()
    assert pycuda.retained == 0
    assert pycuda.stack == ([others] if under else [])


def test_pycudas_errors_are_named_where_they_happen(pycuda: FakePycuda) -> None:
    driver = PyCudaDriver()
    pycuda.failures.add("mem_get_info")
    with driver.current():
        with pytest.raises(EngineError, match=r"CUDA memory: found mem_get_info failed: out of memory"):
            driver.memory()
        with pytest.raises(EngineError, match=r"cuStreamBeginCapture_v2: found CUDA_ERROR_FAKE \(900\)"):
            driver.begin_capture(SimpleNamespace(handle=1))


@pytest.mark.parametrize(
    "said",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 2025\nGCC version:  gcc 12.3.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)",
    ],
)
def test_the_drivers_own_version_is_named_where_the_system_says_it(pycuda: FakePycuda, said: str) -> None:
    cuda_driver._KERNEL_MODULE.write_text(said)
    assert PyCudaDriver().gpu.driver == "13000 580.65.06"


def test_a_gpu_that_is_not_there_is_refused(pycuda: FakePycuda) -> None:
    with pytest.raises(EngineError, match="device_id: found 2, expected one of the 2 GPUs here"):
        PyCudaDriver(2)


def test_a_driver_without_a_gpu_says_so(pycuda: FakePycuda) -> None:
    pycuda.failures.add("init")
    with pytest.raises(EngineError, match="CUDA initialisation: found init failed"):
        PyCudaDriver()
