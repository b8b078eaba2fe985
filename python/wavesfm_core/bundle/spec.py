# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents of bundle.json as frozen dataclasses, and their conversion from and to JSON."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ..checks import Rules, require_rules
from ..errors import BundleError
from .image_spec import ImageSpec
from .pilot_grid_spec import PilotGridSpec
from .preprocess_spec import PreprocessSpec
from .spectrogram_spec import SpectrogramSpec

T = TypeVar("T")

DEFAULT_KIND = SpectrogramSpec.kind
"""Kind of a specification without "kind", as in files older than the other kinds."""
SOURCES = ("tile", "log10_rate", "snr_db")
"""Quantities that can feed an input of the model."""
TASK_FIELDS = {
    "classification": ("labels", "threshold", "temperature", "unknown_from"),
    "position": ("axes", "low_m", "high_m"),
    "channel": ("grid", "scale"),
}
"""Fields of HeadSpec by the task that has them."""
TASKS = tuple(TASK_FIELDS)
GRID_LIMIT = 1 << 24
"""Most elements of a channel matrix."""

Preprocess = SpectrogramSpec | ImageSpec | PilotGridSpec
"""All kinds of preprocessing; the first is the one of a specification without "kind"."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the model."""

    name: str
    """Name in the ONNX file."""
    shape: tuple[int, ...]
    """Shape, with -1 for the batch first."""
    source: str = ""
    """One of SOURCES for an input, "" for an output. "tile": float32 [B, C, H, W]; "log10_rate": float32 [B, 1], log10
    of the sample rate in Hz, 0 when unknown (spectrograms only); "snr_db": float32 [B, 1], signal-to-noise ratio
    measured at the pilots in dB (pilot grids only)."""

    def __post_init__(self) -> None:
        if not self.shape or self.shape[0] != -1:
            raise BundleError("tensor " + self.name, "shape", self.shape, "-1 (the batch) first")
        if self.source and self.source not in SOURCES:
            raise BundleError("tensor " + self.name, "source", self.source, f"one of {', '.join(SOURCES)}")


@dataclass(frozen=True)
class HeadSpec:
    """Meaning of the model's outputs. Only the fields of the task may differ from their defaults.

    Raises
    ------
    BundleError
        A field of another task, or one outside its range.
    """

    task: str
    """One of TASKS."""
    labels: tuple[str, ...] = ()
    """Classification: labels in the order of the logits [B, L]."""
    threshold: float = 0.0
    """Classification: confidence below which the label is "unknown"."""
    axes: tuple[str, ...] = ()
    """Position: names of the coordinates in the order of the outputs [B, D]."""
    low_m: tuple[float, ...] = ()
    """Position: coordinates in metres of the output -1."""
    high_m: tuple[float, ...] = ()
    """Position: coordinates in metres of the output 1."""
    grid: tuple[int, ...] = ()
    """Channel: antennas, symbols and subcarriers. The outputs are [B, 2, antennas, symbols * subcarriers], real and
    imaginary part, symbol after symbol."""
    scale: float = 1.0
    """Channel: factor of the outputs."""
    temperature: float = 1.0
    """Classification: divisor of the logits, chosen on validation data so that confidences are calibrated."""
    unknown_from: float = 1.0
    """Classification: probability of a label "unknown" from which on it is the answer, although another label is more
    probable; 1.0 for never."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BundleError("head", "task", self.task, f"one of {', '.join(TASKS)}")
        for f in dataclasses.fields(self):
            if f.name not in ("task", *TASK_FIELDS[self.task]) and getattr(self, f.name) != f.default:
                expected = f"no such field for {self.task}, which has {', '.join(TASK_FIELDS[self.task])}"
                raise BundleError("head", f.name, getattr(self, f.name), expected)
        require_rules("head", self, self._rules(), BundleError)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the first output for one tile: (L,), (D,) or (2, antennas, symbols * subcarriers)."""
        if self.task == "classification":
            return (len(self.labels),)
        if self.task == "position":
            return (len(self.axes),)
        antennas, symbols, subcarriers = self.grid
        return 2, antennas, symbols * subcarriers

    def _rules(self) -> Rules:
        if self.task == "classification":
            different = len(self.labels) >= 2 and len(set(self.labels)) == len(self.labels)
            return {
                "labels": (different, "two or more different labels"),
                "threshold": (0 <= self.threshold <= 1, "0 to 1"),
                "temperature": (0 < self.temperature < math.inf, "a positive number"),
                "unknown_from": (0 < self.unknown_from <= 1, "above 0, up to 1"),
            }
        if self.task == "position":
            n = len(self.axes)
            finite = len(self.low_m) == n and all(map(math.isfinite, self.low_m))
            more = len(self.high_m) == n and all(a < b < math.inf for a, b in zip(self.low_m, self.high_m))
            return {
                "axes": (1 <= n == len(set(self.axes)), "one or more different names"),
                "low_m": (finite, f"{n} finite numbers, one for each axis"),
                "high_m": (more, f"{n} numbers, each more than low_m's"),
            }
        three = len(self.grid) == 3 and min(self.grid) >= 1 and math.prod(self.grid) <= GRID_LIMIT
        return {
            "grid": (three, f"antennas, symbols and subcarriers, each 1 or more and at most {GRID_LIMIT} together"),
            "scale": (0 < self.scale < math.inf, "a positive number"),
        }


@dataclass(frozen=True)
class BundleSpec:
    """Contents of bundle.json without the schema version."""

    name: str
    """Name of the model."""
    preprocess: Preprocess
    """How an input becomes a tile."""
    inputs: tuple[TensorSpec, ...]
    """Inputs of the model."""
    outputs: tuple[TensorSpec, ...]
    """Outputs of the model; the head reads the first."""
    head: HeadSpec
    """Meaning of the outputs."""
    sha256: str
    """sha256 of model.onnx."""
    tolerance: float
    """Allowed difference of outputs in float32 from the golden outputs."""
    rates_hz: tuple[float, float]
    """Lowest and highest sample rate of the training data; 0 and 0 for inputs without a rate."""
    licence: str
    """Licence of the weights."""
    training_data: str
    """Training data and their licence."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that wrote the bundle."""
    covariances: str = field(default="", metadata={"omit_default": True})
    """sha256 of covariances.npz, "" for none; pilot grids only."""


def to_dict(spec: Any) -> dict[str, Any]:
    """Convert a specification to plain types for JSON, which `from_dict` reads.

    A kind of preprocessing other than DEFAULT_KIND has an entry "kind". A HeadSpec has only the fields of its task.
    Fields with the metadata "omit_default" are left out while they have their default: they are younger than the
    schema, and bundles without them keep their bytes.
    """
    values = {
        f.name: _plain(getattr(spec, f.name))
        for f in dataclasses.fields(spec)
        if not (f.metadata.get("omit_default") and getattr(spec, f.name) == f.default)
    }
    if isinstance(spec, HeadSpec):
        return {name: values[name] for name in ("task", *TASK_FIELDS[spec.task]) if name in values}
    if isinstance(spec, PreprocessSpec) and spec.kind != DEFAULT_KIND:
        return {"kind": spec.kind, **values}
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return dict(value) if isinstance(value, dict) else value


def preprocess_from_dict(values: Any, where: str) -> Preprocess:
    """Build a preprocessing by its "kind" (default: DEFAULT_KIND) from the values of `to_dict`; raises BundleError."""
    return cast(Preprocess, _of_kind(typing.get_args(Preprocess), values, where))


def _of_kind(classes: tuple[Any, ...], values: Any, where: str) -> Any:
    known = {cls.kind: cls for cls in classes}
    kind = values.get("kind", classes[0].kind) if isinstance(values, dict) else classes[0].kind
    if not isinstance(kind, str) or kind not in known:
        raise BundleError(where, "kind", repr(kind)[:60], f"one of {', '.join(known)}")
    return from_dict(known[kind], values, where)


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build a dataclass from JSON strictly.

    Parameters
    ----------
    cls : type
        A dataclass. If it has a class variable `kind`, an entry "kind" may be present and must equal it.
    values : object
        The parsed JSON.
    where : str
        Name of the file in errors.

    Raises
    ------
    BundleError
        Names a missing, unknown or mistyped field.
    """
    if not isinstance(values, dict):
        raise BundleError(where, cls.__name__, type(values).__name__, "an object")
    kind = getattr(cls, "kind", None)
    if kind is not None and "kind" in values and "kind" not in {f.name for f in dataclasses.fields(cls)}:  # type: ignore[arg-type]
        if values["kind"] != kind:
            raise BundleError(where, "kind", repr(values["kind"])[:60], kind)
        values = {name: value for name, value in values.items() if name != "kind"}
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise BundleError(where, name, "a field that is not known", f"one of {', '.join(known)}")
    built = {}
    for name, f in known.items():
        if name in values:
            built[name] = _convert(hints[name], values[name], where, name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise BundleError(where, name, "nothing", "a value")
    try:
        return cls(**built)
    except BundleError as error:
        raise BundleError(where, f"{error.where}.{error.field}", error.found, error.expected) from None


def _convert(hint: Any, value: Any, where: str, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, f"{where}: {name}")  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise BundleError(where, name, type(value).__name__, "a list")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise BundleError(where, name, f"{len(value)} items", f"{len(arguments)} items")
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_convert(h, v, where, f"{name}[{i}]") for i, (h, v) in enumerate(zip(each, value)))
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(where, name, type(value).__name__, "an object")
        return {str(k): _convert(arguments[1], v, where, f"{name}.{k}") for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if all(map(dataclasses.is_dataclass, arguments)):
            return _of_kind(arguments, value, f"{where}: {name}")
        return None if value is None else _convert(arguments[0], value, where, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BundleError(where, name, repr(value)[:60], f"{hint.__name__}")
    return value
