# SPDX-License-Identifier: GPL-3.0-or-later
"""Frozen descriptions that travel in a bundle; `from_dict` names the field that is wrong."""

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
"""Kind of a specification that names none, as in files from before there were other kinds."""
SOURCES = ("tile", "log10_rate", "snr_db")
TASK_FIELDS = {  # of HeadSpec, which hold for one task only
    "classification": ("labels", "threshold"),
    "position": ("axes", "low_m", "high_m"),
    "channel": ("grid", "scale"),
}
TASKS = tuple(TASK_FIELDS)
GRID_LIMIT = 1 << 24  # elements of a channel matrix

Preprocess = SpectrogramSpec | ImageSpec | PilotGridSpec
"""All kinds of preprocessing; the first is the one of a specification without "kind"."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the model: name and shape, with -1 for the batch; source says what feeds an input.

    source "tile": float32 [B, C, H, W]; "log10_rate": float32 [B, 1], log10 of the sample rate in Hz, 0 when unknown
    (spectrograms only); "snr_db": float32 [B, 1], the signal-to-noise ratio measured at the pilots, in dB (pilot grids
    only). Outputs leave `source` empty.
    """

    name: str
    shape: tuple[int, ...]
    source: str = ""

    def __post_init__(self) -> None:
        if not self.shape or self.shape[0] != -1:
            raise BundleError("tensor " + self.name, "shape", self.shape, "-1 (the batch) first")
        if self.source and self.source not in SOURCES:
            raise BundleError("tensor " + self.name, "source", self.source, f"one of {', '.join(SOURCES)}")


@dataclass(frozen=True)
class HeadSpec:
    """What the outputs mean: the task, and the fields of that task; those of another task stay as they are by default.

    classification: labels in the order of the logits [B, L]; threshold: confidence below which the answer is "unknown".
    position: axes, the names of the coordinates in the order of the outputs [B, D]; low_m and high_m, the coordinates
        in metres that -1 and 1 mean.
    channel: grid, (antennas, symbols, subcarriers) of the outputs [B, 2, antennas, symbols * subcarriers], which are
        the real and the imaginary part, symbol after symbol; scale, by which they are multiplied.
    """

    task: str
    labels: tuple[str, ...] = ()
    threshold: float = 0.0
    axes: tuple[str, ...] = ()
    low_m: tuple[float, ...] = ()
    high_m: tuple[float, ...] = ()
    grid: tuple[int, ...] = ()
    scale: float = 1.0

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
        """Of the model's first output, for one tile: (L,), (D,) or (2, antennas, symbols * subcarriers)."""
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
    """All of bundle.json but the schema version.

    preprocess: a "kind" in the file tells which, and without one it is a spectrogram.
    sha256: of model.onnx; tolerance: of the outputs in float32; rates_hz: the lowest and the highest trained at, 0 and
    0 for images and pilot grids.
    covariances: sha256 of covariances.npz, which a bundle of pilot grids may have; "" for none.
    """

    name: str
    preprocess: Preprocess
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    head: HeadSpec
    sha256: str
    tolerance: float
    rates_hz: tuple[float, float]
    licence: str
    training_data: str
    versions: dict[str, str] = field(default_factory=dict)
    covariances: str = ""


def to_dict(spec: Any) -> dict[str, Any]:
    """Plain types for JSON, which `from_dict` reads again.

    An ImageSpec or a PilotGridSpec says its "kind"; a SpectrogramSpec says none, as in files from before there were
    images. Of a HeadSpec only the fields of its task; a BundleSpec without covariances has no such field, as before.
    """
    values = {f.name: _plain(getattr(spec, f.name)) for f in dataclasses.fields(spec)}
    if isinstance(spec, HeadSpec):
        return {name: values[name] for name in ("task", *TASK_FIELDS[spec.task])}
    if isinstance(spec, BundleSpec) and not spec.covariances:
        del values["covariances"]
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
    """The spec that `to_dict` wrote, by its "kind" (none: a spectrogram); raises BundleError."""
    return cast(Preprocess, _of_kind(typing.get_args(Preprocess), values, where))


def _of_kind(classes: tuple[Any, ...], values: Any, where: str) -> Any:
    known = {cls.kind: cls for cls in classes}
    kind = values.get("kind", classes[0].kind) if isinstance(values, dict) else classes[0].kind
    if not isinstance(kind, str) or kind not in known:
        raise BundleError(where, "kind", repr(kind)[:60], f"one of {', '.join(known)}")
    return from_dict(known[kind], values, where)


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build a spec from JSON, strictly: missing, unknown and mistyped fields are refused by name; raises BundleError.

    A "kind" is accepted where the class itself has one (beside its fields), and must be that.
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
