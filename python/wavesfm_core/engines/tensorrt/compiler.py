# SPDX-License-Identifier: GPL-3.0-or-later
"""Compilation of a bundle for a GPU: typed ONNX, build, check against the reference, cache."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BundleError, ConfigurationError, EngineError
from ...packages import install_command
from ...preprocess.golden_inputs import golden_inputs
from ...types import Tensor
from .calibration import activation_ranges, digest
from .cuda import GPU, CudaDriver, PyCudaDriver
from .library import Build, Library, Profile, Progress, capability_name, open_library
from .plan_cache import AHEAD, BATCHES, CALIBRATION, PlanCache, PlanKey, PlanRecord
from .precisions import PRECISIONS, RELATIVE_TOLERANCES
from .session import GpuSession, profile_of

if TYPE_CHECKING:
    from ...bundle.bundle import Bundle

log = logging.getLogger(__name__)

RECIPE = "1"
"""Version of the changes to a model before its build. Plans of another recipe are built anew."""
NO_GPU = "not checked: no GPU"
_BF16_FROM = 80  # Ampere; earlier GPUs have only float16


@dataclass(frozen=True)
class Accuracy:
    """Outputs of a plan against those of the reference."""

    tiles: int
    """Number of tiles compared."""
    difference: float
    """Largest difference, of the output that is furthest off relative to its tolerance."""
    tolerance: float
    """Allowed difference of that output."""
    cosine: float
    """Smallest cosine similarity over the outputs."""
    agreement: float | None
    """Share of tiles with the same largest logit; None for tasks without labels."""

    def __str__(self) -> str:
        labels = "" if self.agreement is None else f", {self.agreement:.1%} of the labels the same"
        within = f"difference {self.difference:.3g} of {self.tolerance:.3g}"
        return f"{self.tiles} tiles: {within}, cosine {self.cosine:.6f}{labels}"


@dataclass(frozen=True)
class Plan:
    """A compiled bundle."""

    data: bytes
    """The plan."""
    record: PlanRecord
    """Its record."""
    cached: bool
    """Whether it was in the cache."""

    @property
    def profile(self) -> Profile:
        """Batches of the plan."""
        return Profile(self.record.key.preferred, self.record.key.maximum)


def compile_bundle(
    bundle: Bundle,
    precision: str = "bf16",
    max_batch: int | None = None,
    targets: Sequence[str] = (),
    portable: bool = False,
    library: str | Library = "auto",
    progress: Progress | None = None,
    cache: PlanCache | None = None,
    force: bool = False,
    *,
    driver: CudaDriver | None = None,
    device_id: int = 0,
    calibration: Mapping[str, Tensor] | None = None,
    to_run: bool = False,
) -> Plan:
    """Compile a bundle, or take its plan from the cache.

    A plan for the GPU that is present is compared with the golden outputs and, on calibration tiles, with onnxruntime
    in float32. The record of any other plan says NO_GPU; the first GPU that runs it makes the comparison.

    Parameters
    ----------
    bundle : Bundle
        Bundle to compile.
    precision : str
        "fp32" or "f32", "bf16", "fp16" or "int8".
    max_batch : int, optional
        Largest batch. Default: a number that suits the size of the tiles.
    targets : sequence of str
        Compute capabilities (sm_89) to build for in place of the GPU that is present (TensorRT-RTX, without a GPU).
    portable : bool
        Build for all GPUs that the library supports with one plan.
    library : str or Library
        "auto", a name, or an open library.
    progress : Progress, optional
        Receives the progress of the build.
    cache : PlanCache, optional
        Default: the user's.
    force : bool
        Keep a plan whose accuracy is lower than the precision allows.
    driver : CudaDriver, optional
        The GPU that is present. Default: pycuda's for `device_id`, if one is needed.
    device_id : int
        Index of the GPU.
    calibration : Mapping of str to ndarray, optional
        Inputs of the model for int8 and the comparison. Default: the golden tiles.
    to_run : bool
        The caller runs the plan now. A plan that cannot be cached is then returned nevertheless, and the latest cached
        plan serves whatever its max_batch and calibration, where these are None.

    Returns
    -------
    Plan
        The plan and its record.

    Raises
    ------
    ConfigurationError
        A wrong or contradicting option, or a cache that cannot be used.
    EngineError
        A missing package, a failed build, layers in another precision, or outputs that are too far off.
    BundleError
        The bundle is damaged or was replaced after it was opened.
    """
    precision = "fp32" if precision == "f32" else precision
    if precision not in PRECISIONS:
        raise ConfigurationError("compile", "precision", repr(precision), "one of " + ", ".join(PRECISIONS))
    if targets and portable:
        raise ConfigurationError("compile", "portable", "targets beside it", "either targets or portable")
    targets = tuple(dict.fromkeys(map(capability_name, targets)))
    profile = profile_of(bundle.spec, max_batch)
    ahead = bool(targets) or portable
    if isinstance(library, str):
        library = open_library(library, gpu=not ahead)
    if targets and not library.builds_ahead:
        expected = "none: it builds for the GPU that is present, or portable"
        raise ConfigurationError(library.name, "targets", ", ".join(targets), expected)
    free = (*(BATCHES if max_batch is None else ()), *(CALIBRATION if calibration is None else ())) if to_run else ()
    opened = None
    if driver is None and not (ahead and library.builds_ahead):
        driver = opened = _driver(device_id)
    try:
        job = _Job(
            bundle, precision, profile, targets, portable, library, driver, calibration, progress, force, to_run, free
        )
        return job.plan(PlanCache() if cache is None else cache)
    finally:
        if opened is not None:
            opened.close()


def _driver(device_id: int) -> PyCudaDriver:
    try:
        return PyCudaDriver(device_id)
    except EngineError as error:
        expected = f"{error.expected}; or a target (sm_86), for which TensorRT-RTX needs no GPU"
        raise EngineError("compile", error.field, error.found, expected) from error


def precision_for(bundle: Bundle, gpu: GPU) -> str:
    """Fastest precision without calibration: bf16, fp16 before Ampere, fp32 for a model that is no transformer."""
    require_onnx()
    from .mixed_precision import activations

    if not activations(bundle.model_path.read_bytes()):
        return "fp32"
    return "bf16" if int(gpu.capability.removeprefix("sm_")) >= _BF16_FROM else "fp16"


def require_onnx() -> None:
    """Raise EngineError unless the package onnx is here, which types the precision into the graph."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise EngineError("compile", "package onnx", error, install_command("onnx")) from error


@dataclass(frozen=True)
class _Job:
    """One call of compile_bundle with checked options."""

    bundle: Bundle
    precision: str
    profile: Profile
    targets: tuple[str, ...]
    portable: bool
    library: Library
    driver: CudaDriver | None
    calibration: Mapping[str, Tensor] | None
    progress: Progress | None
    force: bool
    to_run: bool
    free: tuple[str, ...]  # fields of the key in which a cached plan may differ

    def plan(self, cache: PlanCache) -> Plan:
        key = self._key()
        return self._cached(cache, key, quiet=True) or self._new(cache, key)

    def _cached(self, cache: PlanCache, key: PlanKey, quiet: bool = False) -> Plan | None:
        found = cache.find(key, quiet, self.free, self.force)
        if found is None:
            return None
        log.info("%s: plan %s from the cache", self.bundle.id, found[1].key.digest)
        return Plan(*found, cached=True)

    def _new(self, cache: PlanCache, key: PlanKey) -> Plan:
        with cache.locked():
            if (cached := self._cached(cache, key)) is not None:  # another process built it meanwhile
                return cached
            cache.discard_stale(key)
            adopted = self._adopted(cache, key)
            data, record = adopted or self._build(key)
            try:
                record = cache.store(data, record)
            except ConfigurationError as error:
                if not self.to_run:
                    raise
                log.warning("%s: the plan is used but not cached: %s", self.bundle.id, error)
                record = dataclasses.replace(record, sha256=hashlib.sha256(data).hexdigest(), n_bytes=len(data))
            return Plan(data, record, adopted is not None)

    def _adopted(self, cache: PlanCache, key: PlanKey) -> tuple[bytes, PlanRecord] | None:
        """A plan that was built ahead, examined on the GPU that is present, with a record under this GPU's key.

        A plan that does not pass stays in the cache for other GPUs.
        """
        if self.driver is None or key.gpu in AHEAD:
            return None
        for data, record in cache.ahead(key, self.free, self.force):
            log.info("%s: plan %s, built ahead, is examined on this GPU", self.bundle.id, record.key.digest)
            adopted = dataclasses.replace(key, **{name: getattr(record.key, name) for name in self.free})
            try:
                return data, self._examined(data, dataclasses.replace(record, key=adopted))
            except EngineError as error:
                log.warning("the plan %s, built ahead, is not for this GPU: %s", record.key.digest, error)
        return None

    def _key(self) -> PlanKey:
        tiles = self.calibration if self.precision == "int8" else None
        gpu, version = "portable", ""
        capabilities: tuple[str, ...] = ()
        if self.targets:
            gpu, capabilities = "targets", tuple(sorted(self.targets))
        elif not self.portable and self.driver is not None:
            facts = self.driver.gpu
            gpu, capabilities, version = facts.name, (facts.capability,), facts.driver
        return PlanKey(
            self.bundle.spec.sha256,
            self.library.name,
            self.library.version,
            gpu,
            capabilities,
            version,
            self.precision,
            self.profile.preferred,
            self.profile.maximum,
            RECIPE,
            "" if tiles is None else digest(tiles),
        )

    def _build(self, key: PlanKey) -> tuple[bytes, PlanRecord]:
        log.info("%s: building for %s in %s", self.bundle.id, ", ".join((key.gpu, *key.capabilities)), self.precision)
        require_onnx()
        from .mixed_precision import typed

        started = time.monotonic()
        model = self._model()
        ranges = activation_ranges(model, self._calibration_inputs()) if self.precision == "int8" else None
        built = self._built(typed(model, self.precision, ranges))
        seconds = round(time.monotonic() - started, 3)
        products = dict(built.products)
        record = PlanRecord(key, "", 0, self.bundle.id, seconds, products, NO_GPU, built.warnings)
        if self.driver is not None and not self.targets:
            record = self._examined(built.plan, record)
        return built.plan, record

    def _model(self) -> bytes:
        """Bytes of the model, which must be those of the key: the file may have been replaced."""
        path, expected = self.bundle.model_path, self.bundle.spec.sha256
        model = path.read_bytes()
        if (found := hashlib.sha256(model).hexdigest()) != expected:
            raise BundleError(path, "sha256", found, f"{expected} as when the bundle was opened")
        return model

    def _built(self, model: bytes) -> Build:
        if self.driver is None:
            built = self._run_builder(model)
        else:
            with self.driver.current():
                built = self._run_builder(model)
        if not built.products.get(self.precision, 0) and self.precision != "fp32":
            found = f"products in {_counted(built.products)}"
            raise EngineError(self.library.name, "precision", found, f"products in {self.precision}")
        return built

    def _run_builder(self, model: bytes) -> Build:
        return self.library.build(model, self.profile, self.targets, self.portable, self.progress)

    def _examined(self, plan: bytes, record: PlanRecord) -> PlanRecord:
        """The record with the built layers and the accuracy, found on the GPU."""
        assert self.driver is not None
        profile = Profile(record.key.preferred, record.key.maximum)
        session = GpuSession(plan, self.bundle.spec, self.bundle.model_path, profile, self.library, self.driver)
        try:
            layers = session.layer_precisions()
            if layers and self.precision != "fp32" and set(layers) <= {"fp32", "tf32"}:
                found = f"layers in {_counted(layers)}"
                raise EngineError(self.library.name, "precision that was built", found, f"layers in {self.precision}")
            accuracy = self._compare(session)
        finally:
            session.close()
        forced = not accuracy.difference <= accuracy.tolerance
        if forced:
            if not self.force:
                expected = f"at most {accuracy.tolerance:.3g}; another precision, or force, takes it"
                found = f"a difference of {accuracy.difference:.3g} in {self.precision}"
                raise EngineError(self.bundle.path, "accuracy", found, expected)
            log.warning("%s: kept by force although the accuracy is too low: %s", self.bundle.id, accuracy)
        read_back = bool(layers)
        layers = layers or record.layers
        return dataclasses.replace(record, layers=layers, read_back=read_back, accuracy=str(accuracy), forced=forced)

    def _compare(self, session: GpuSession) -> Accuracy:
        golden = self.bundle.golden()
        pairs = [(session.run(self._golden_inputs()), golden.outputs)]
        if self.calibration is not None:
            from ..onnxruntime import OnnxRuntimeEngine

            reference = OnnxRuntimeEngine(self.bundle)
            pairs.append((session.run(self.calibration), reference.run(self.calibration)))
        spec = self.bundle.spec
        logits = spec.outputs[0].name if spec.head.task == "classification" else None
        return compared(pairs, spec.tolerance, RELATIVE_TOLERANCES[self.precision], logits)

    def _calibration_inputs(self) -> Mapping[str, Tensor]:
        return self._golden_inputs() if self.calibration is None else self.calibration

    def _golden_inputs(self) -> dict[str, Tensor]:
        return golden_inputs(self.bundle.spec, self.bundle.golden())


def compared(
    pairs: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]],
    absolute: float,
    relative: float,
    logits: str | None = None,
) -> Accuracy:
    """Compare outputs with references.

    Parameters
    ----------
    pairs : sequence
        Outputs and reference outputs by name. A value that is not finite differs infinitely.
    absolute : float
        Allowed difference.
    relative : float
        Allowed difference as a share of an output's largest reference value, where that is more than `absolute`.
    logits : str, optional
        Output whose largest elements are compared.

    Returns
    -------
    Accuracy
        Of the output that is furthest off relative to its tolerance.
    """
    worst, allowed, cosine, tiles, same = 0.0, absolute, 1.0, 0, 0
    for outputs, references in pairs:
        tiles += len(next(iter(references.values())))
        for name, reference in references.items():
            a, b = outputs[name].astype(np.float64), reference.astype(np.float64)
            tolerance = max(absolute, relative * float(np.max(np.abs(b))))
            apart = float(np.max(np.abs(a - b))) if np.isfinite(a).all() else float("inf")
            if apart / tolerance >= worst / allowed:
                worst, allowed = apart, tolerance
            norms = float(np.linalg.norm(a) * np.linalg.norm(b))
            cosine = min(cosine, float(np.vdot(a, b)) / norms) if norms > 0 else cosine
        if logits is not None:
            same += int(np.sum(outputs[logits].argmax(axis=1) == references[logits].argmax(axis=1)))
    return Accuracy(tiles, worst, allowed, cosine, None if logits is None else same / tiles)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({n})" for name, n in sorted(counts.items())) or "no precision"
