# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles compiled: with TensorRT-RTX itself, which builds without a GPU, and on the fake one, where plans run too."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic_vit, tiny_bundles
from support.fake_cuda import FakeDriver, FakeLibrary, outputs_of
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines.tensorrt import library as trt_library
from wavesfm_core.engines.tensorrt.compiler import NO_GPU, Plan, compared, compile_bundle, precision_for
from wavesfm_core.engines.tensorrt.engine import TensorRTEngine
from wavesfm_core.engines.tensorrt.library import Profile, capability_name, open_library, read_layers
from wavesfm_core.engines.tensorrt.mixed_precision import typed
from wavesfm_core.engines.tensorrt.plan_cache import PlanCache
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json"))
TARGETS = ("sm_86", "sm_120")
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13)",
)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(tiny_bundles.make_image_bundle(tmp_path_factory.mktemp("tiny") / "b", "classification"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A transformer whose golden outputs are the fake library's."""
    directory = tmp_path_factory.mktemp("vit")
    first = synthetic_vit.make_bundle(directory / "a", np.zeros((2, 3), np.float32), **synthetic_vit.SMALL)
    outputs = outputs_of(np.stack(first.golden().tiles), (3,))
    return synthetic_vit.make_bundle(directory / "b", outputs, **synthetic_vit.SMALL)


# With TensorRT-RTX


@needs_rtx
@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_shipped_bundles_build(path: Path, cache: PlanCache) -> None:
    bundle = Bundle.open(path)
    phases: list[str] = []
    plan = compile_bundle(
        bundle,
        "bf16",
        targets=TARGETS,
        library="tensorrt_rtx",
        cache=cache,
        progress=lambda phase, done, steps: phases.append(phase),
    )
    assert plan.record.warnings == ()
    assert plan.record.layers["bf16"] > 10
    assert plan.record.accuracy == NO_GPU
    assert plan.record.n_bytes == len(plan.data) > 1 << 20
    assert plan.record.key.capabilities == ("sm_120", "sm_86")
    assert len(set(phases)) > 3
    again = compile_bundle(bundle, "bf16", targets=TARGETS[::-1], library="tensorrt_rtx", cache=cache)
    assert again.cached
    assert again.data == plan.data


@needs_rtx
def test_the_papers_size_builds() -> None:
    model = synthetic_vit.vit(**synthetic_vit.PAPER)
    assert len(model) > 4 * 38e6
    library = open_library("tensorrt_rtx")
    built = library.build(typed(model, "bf16"), Profile(8, 64), TARGETS)
    assert built.products == {"bf16": 1 + 6 * 12, "fp32": 1}
    assert built.warnings == ()
    assert len(built.plan) > 2 * 37e6


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_is_what_the_network_says(vit: Bundle, cache: PlanCache, precision: str) -> None:
    pytest.importorskip("onnxruntime")
    plan = compile_bundle(vit, precision, targets=TARGETS[:1], library="tensorrt_rtx", cache=cache)
    expected = {
        "fp32": {"fp32": 14},
        "fp16": {"fp16": 13, "fp32": 1},
        "int8": {"int8": 9, "fp16": 4, "fp32": 1},
    }
    assert plan.record.layers == expected[precision]


@needs_rtx
@pytest.mark.parametrize("task", tiny_bundles.HEADS)
def test_bundles_of_every_task_build(task: str, tmp_path: Path, cache: PlanCache) -> None:
    bundle = Bundle.open(tiny_bundles.make_image_bundle(tmp_path / "b", task))
    plan = compile_bundle(bundle, "fp32", targets=TARGETS[:1], library="tensorrt_rtx", cache=cache)
    assert plan.record.layers == {"fp32": 1}


@needs_rtx
def test_a_plan_is_found_again_and_built_anew_when_something_changes(
    tiny: Bundle, tmp_path: Path, cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"targets": TARGETS[:1], "library": "tensorrt_rtx", "cache": cache}
    first = compile_bundle(tiny, "fp32", **options)
    assert not first.cached
    assert compile_bundle(tiny, "fp32", **options).cached
    assert not compile_bundle(tiny, "fp32", 16, **options).cached  # another profile
    changed = tiny_bundles.make_image_bundle(tmp_path / "c", "classification", licence="other")
    assert compile_bundle(Bundle.open(changed), "fp32", **options).cached  # the same model
    other = Bundle.open(tiny_bundles.make_image_bundle(tmp_path / "d", "position"))
    assert not compile_bundle(other, "fp32", **options).cached  # another model
    path = cache.directory / (first.record.key.digest + ".plan")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = compile_bundle(tiny, "fp32", **options)
    assert not again.cached
    assert caplog.text.count("built anew: its sha256 is not the one on record") == 1
    assert compile_bundle(tiny, "fp32", **options).cached


@needs_rtx
def test_a_portable_plan_builds(vit: Bundle, cache: PlanCache) -> None:
    plan = compile_bundle(vit, portable=True, library="tensorrt_rtx", cache=cache)
    key = plan.record.key
    assert (key.gpu, key.capabilities, key.driver) == ("portable", (), "")
    assert (plan.record.layers, plan.record.read_back, plan.record.accuracy) == ({"bf16": 13, "fp32": 1}, False, NO_GPU)


@needs_rtx
def test_what_rtx_cannot_build_is_said(tiny: Bundle, cache: PlanCache) -> None:
    options: dict[str, Any] = {"library": "tensorrt_rtx", "cache": cache}
    with pytest.raises(ConfigurationError, match="targets: found sm_90, expected of sm_120"):
        compile_bundle(tiny, "fp32", targets=["sm_90"], **options)
    with pytest.raises(ConfigurationError, match="take fp32"):
        compile_bundle(tiny, "bf16", targets=["sm_86"], **options)
    broken = typed(tiny.model_path.read_bytes(), "fp32").replace(b"MatMul", b"NoSuch")
    with pytest.raises(EngineError, match="model: found refused"):
        open_library("tensorrt_rtx").build(broken, Profile(8, 64), ("sm_86",))
    assert cache.records() == []


@needs_rtx
def test_a_build_can_be_ended(tiny: Bundle, cache: PlanCache) -> None:
    def stop(phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_bundle(tiny, "fp32", targets=["sm_86"], library="tensorrt_rtx", cache=cache, progress=stop)
    assert cache.records() == []


@needs_rtx
def test_a_plan_cannot_be_loaded_without_a_driver(tiny: Bundle, cache: PlanCache) -> None:
    if trt_library_has_gpu():
        pytest.skip("there is a GPU")
    plan = compile_bundle(tiny, "fp32", targets=["sm_86"], library="tensorrt_rtx", cache=cache)
    with pytest.raises(
        EngineError, match=r"tensorrt_rtx: plan: found .*expected a plan for this GPU, driver and library"
    ):
        open_library("tensorrt_rtx").deserialise(plan.data)


def trt_library_has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


# On the fake GPU


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def library(vit: Bundle, driver: FakeDriver) -> FakeLibrary:
    return FakeLibrary(vit.spec, driver)


def test_a_plan_for_this_gpu_is_compared_with_the_reference(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    library.layers = {"bf16": 40, "fp32": 9}
    plan = compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache)
    assert plan.record.layers == {"bf16": 40, "fp32": 9}
    assert plan.record.read_back
    assert plan.record.accuracy.startswith("2 tiles: difference ")
    assert plan.record.accuracy.endswith("cosine 1.000000, 100.0% of the labels the same")
    key = plan.record.key
    assert (key.gpu, key.capabilities, key.driver, key.version) == ("Fake GPU", ("sm_89",), "13000", "fake 1")
    assert driver.held == 0
    for changed in (FakeDriver("sm_90"), driver):
        library.driver = changed
        assert compile_bundle(vit, "bf16", library=library, driver=changed, cache=cache).cached is (changed is driver)


@pytest.mark.parametrize("offset", [10.0, float("nan")])
def test_outputs_that_are_too_far_off_are_refused_unless_forced(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, offset: float, caplog: Any
) -> None:
    library.offset = offset
    with pytest.raises(EngineError, match=r"accuracy: found a difference of (10|inf) in bf16, expected at most 0\.1"):
        compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache)
    assert cache.records() == []
    assert driver.held == 0
    plan = compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache, force=True)
    assert not plan.cached
    assert "kept by force although the accuracy is too low" in caplog.text
    assert compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache, force=True).cached
    with pytest.raises(EngineError, match="accuracy: found a difference"):  # it is not handed out unforced
        compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache)
    with pytest.raises(EngineError, match="accuracy: found a difference"):
        TensorRTEngine(vit, "bf16", library=library, driver=driver, cache=cache)
    library.offset = 0.0
    assert not compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache).cached
    assert not compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache, force=True).record.forced


def test_a_silent_float32_is_refused(vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache) -> None:
    library.layers = {"fp32": 30}
    with pytest.raises(EngineError, match=r"precision that was built: found layers in fp32 \(30\), expected .* bf16"):
        compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache)
    library.products = {"fp32": 14}
    with pytest.raises(EngineError, match=r"precision: found products in fp32 \(14\), expected products in bf16"):
        compile_bundle(vit, "bf16", library=library, driver=driver, cache=cache)
    assert driver.held == 0


def test_calibration_tiles_are_compared_too(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    pytest.importorskip("onnxruntime")
    library.products = {"int8": 9, "fp16": 4}
    tiles = np.random.default_rng(4).normal(size=(3, *vit.spec.preprocess.tile_shape))
    calibration = bundle_inputs(vit.spec, tiles, np.zeros(3))
    options: dict[str, Any] = {"library": library, "driver": driver, "cache": cache, "force": True}
    plan = compile_bundle(vit, "int8", calibration=calibration, **options)
    assert plan.record.accuracy.startswith("5 tiles")  # the reference is onnxruntime's: the fake is far off
    assert compile_bundle(vit, "int8", calibration=calibration, **options).cached
    other = {name: 2 * array for name, array in calibration.items()}
    assert not compile_bundle(vit, "int8", calibration=other, **options).cached


def test_options_that_contradict_are_refused(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    options: dict[str, Any] = {"library": library, "driver": driver, "cache": cache}
    with pytest.raises(ConfigurationError, match="either targets or portable"):
        compile_bundle(vit, targets=["sm_86"], portable=True, **options)
    with pytest.raises(ConfigurationError, match="found sm_86, expected none: it builds for the GPU that is"):
        compile_bundle(vit, targets=["sm_86"], **options)
    with pytest.raises(ConfigurationError, match="one of fp32, bf16, fp16, int8"):
        compile_bundle(vit, "fp8", **options)
    with pytest.raises(ConfigurationError, match="found 'x', expected one of auto, tensorrt, tensorrt_rtx"):
        compile_bundle(vit, library="x", cache=cache)


@pytest.fixture
def ahead(vit: Bundle, library: FakeLibrary, cache: PlanCache) -> Plan:
    """Built with no GPU for the one that is there later."""
    library.builds_ahead = True
    plan = compile_bundle(vit, targets=["sm_86", "sm_89"], library=library, cache=cache)
    assert (plan.record.accuracy, plan.record.read_back) == (NO_GPU, False)
    return plan


def test_a_plan_built_ahead_is_examined_on_the_gpu_that_takes_it(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, ahead: Plan
) -> None:
    library.layers = {"bf16": 40, "fp32": 9}
    plan = compile_bundle(vit, library=library, driver=driver, cache=cache)
    assert (plan.data, plan.cached, len(library.builds)) == (ahead.data, True, 1)
    assert (plan.record.layers, plan.record.read_back) == (library.layers, True)
    assert plan.record.accuracy.startswith("2 tiles: difference ")
    assert plan.record.key.gpu == "Fake GPU"
    assert {record.key: record for record in cache.records()} == {r.key: r for r in (ahead.record, plan.record)}
    runs = len(library.batches)
    assert compile_bundle(vit, library=library, driver=driver, cache=cache) == plan
    assert len(library.batches) == runs  # once


@pytest.mark.parametrize("why", ["accuracy", "precision"])
def test_a_plan_built_ahead_that_does_not_pass_is_left_to_others(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, ahead: Plan, why: str, caplog: Any
) -> None:
    if why == "accuracy":
        library.offset = 10.0
    else:
        library.layers = {"fp32": 40}
    with pytest.raises(EngineError, match=why):
        compile_bundle(vit, library=library, driver=driver, cache=cache)
    assert "built ahead, is not for this GPU" in caplog.text
    assert len(library.builds) == 2  # it was tried to build one here
    assert cache.records() == [ahead.record]


def test_who_runs_a_plan_takes_the_one_that_was_compiled_last(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache
) -> None:
    pytest.importorskip("onnxruntime")
    library.products = {"int8": 9, "fp16": 4}
    options: dict[str, Any] = {"library": library, "driver": driver, "cache": cache, "force": True}
    tiles = np.random.default_rng(4).normal(size=(3, *vit.spec.preprocess.tile_shape))
    plan = compile_bundle(vit, "int8", 16, calibration=bundle_inputs(vit.spec, tiles, np.zeros(3)), **options)
    taken = compile_bundle(vit, "int8", to_run=True, **options)
    assert (taken.data, taken.cached, taken.profile) == (plan.data, True, Profile(8, 16))
    assert not compile_bundle(vit, "int8", **options).cached  # who compiles gets what was asked for
    assert not compile_bundle(vit, "int8", 24, to_run=True, **options).cached  # and so who says how many tiles


def test_a_plan_that_cannot_be_kept_is_run_all_the_same(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, monkeypatch: Any, caplog: Any
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    options: dict[str, Any] = {"library": library, "driver": driver, "cache": cache}
    with pytest.raises(ConfigurationError, match="No space left"):
        compile_bundle(vit, **options)
    plan = compile_bundle(vit, to_run=True, **options)
    assert (plan.record.n_bytes, plan.cached) == (len(plan.data), False)
    assert "is used but not cached" in caplog.text
    assert cache.records() == []


def test_a_model_that_is_not_the_one_that_was_opened_is_not_compiled(
    driver: FakeDriver, cache: PlanCache, tmp_path: Path
) -> None:
    opened = Bundle.open(tiny_bundles.make_image_bundle(tmp_path / "b", "classification"))
    opened.model_path.write_bytes(opened.model_path.read_bytes() + b"x")
    library = FakeLibrary(opened.spec, driver)
    with pytest.raises(BundleError, match=r"model.onnx: sha256: found .* as when the bundle was opened"):
        compile_bundle(opened, "fp32", library=library, driver=driver, cache=cache)
    assert (library.builds, cache.records()) == ([], [])


def test_a_stale_plan_is_built_anew_with_one_line(
    vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache, caplog: Any
) -> None:
    options: dict[str, Any] = {"library": library, "cache": cache}
    compile_bundle(vit, driver=driver, **options)
    driver.gpu = dataclasses.replace(driver.gpu, driver="13010")
    assert not compile_bundle(vit, driver=driver, **options).cached
    (line,) = [text for text in caplog.messages if "anew" in text]
    assert line.endswith("is built anew: it is of driver '13000', now '13010'")
    assert len(cache.records()) == 1


def test_portable_is_another_plan(vit: Bundle, driver: FakeDriver, library: FakeLibrary, cache: PlanCache) -> None:
    options: dict[str, Any] = {"library": library, "driver": driver, "cache": cache}
    plan = compile_bundle(vit, portable=True, **options)
    assert (plan.record.key.gpu, library.builds[-1]["portable"]) == ("portable", True)
    assert compile_bundle(vit, **options).data == plan.data  # it serves this GPU


def test_without_a_gpu_a_target_is_asked_for(
    vit: Bundle, library: FakeLibrary, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"or a target \(sm_86\), for which TensorRT-RTX needs no GPU"):
        compile_bundle(vit, library=library, cache=cache)


def test_the_best_precision_without_calibration(vit: Bundle, tiny: Bundle) -> None:
    assert precision_for(vit, FakeDriver("sm_75").gpu) == "fp16"
    assert precision_for(vit, FakeDriver("sm_86").gpu) == "bf16"
    assert precision_for(tiny, FakeDriver("sm_86").gpu) == "fp32"


def test_differences_are_measured_against_the_largest_output() -> None:
    reference = {"a": np.array([[1.0, 2.0], [4.0, 3.0]], np.float32), "b": np.ones((2, 1), np.float32)}
    outputs = {"a": np.array([[1.1, 2.0], [3.0, 3.5]], np.float32), "b": np.ones((2, 1), np.float32)}
    found = compared([(outputs, reference)], 0.1, 0.5, "a")
    assert (found.tiles, found.difference, found.tolerance, found.agreement) == (2, 1.0, 2.0, 0.5)
    assert 0.9 < found.cosine < 1
    exact = compared([(reference, reference)], 0.1, 0.0)
    assert (exact.difference, exact.tolerance, exact.agreement) == (0.0, 0.1, None)
    assert exact.cosine == pytest.approx(1)
    broken = compared([({**outputs, "b": np.full((2, 1), np.nan, np.float32)}, reference)], 0.1, 0.5, "a")
    assert broken.difference == np.inf


# What libraries say


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([("__myl_Gemm_1", ["Half"]), ("softmax", ["Float"]), ("b", ["BFloat16"])], {"fp16": 1, "fp32": 1, "bf16": 1}),
        ([("a", ["Row major linear FP16 format"]), ("b", ["Row major Int8 format"])], {"fp16": 1, "int8": 1}),
        ([("{ForeignNode[first...last]}", ["Float"])], {}),
        ([("a", [])], {}),
    ],
)
def test_layers_are_read_from_what_the_inspector_says(layers: Any, expected: dict[str, int]) -> None:
    said = [{"Name": name, "Outputs": [{"Format/Datatype": kind} for kind in kinds]} for name, kinds in layers]
    assert read_layers(json.dumps({"Layers": said})) == expected


@pytest.mark.parametrize("said", ["", "no json", "[]", "{}", '{"Layers": ["names", "only"]}', '{"Layers": 3}'])
def test_an_inspector_that_says_nothing_is_no_failure(said: str) -> None:
    assert read_layers(said) == {}


def test_names_of_targets() -> None:
    assert [capability_name(text) for text in ("sm_89", "SM89", "8.9", " sm120 ")] == ["sm_89"] * 3 + ["sm_120"]
    for wrong in ("", "hopper", "sm_", "sm_1", "sm_12345", "89 90"):
        with pytest.raises(ConfigurationError, match="a compute capability such as sm_89"):
            capability_name(wrong)


def test_libraries_that_do_not_load_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(trt_library.importlib, "import_module", importing)
    assert trt_library.find_libraries() == {}
    with pytest.raises(EngineError, match="found no module tensorrt_rtx that can be loaded"):
        open_library("tensorrt_rtx")
