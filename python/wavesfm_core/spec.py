"""Frozen descriptions that travel in a bundle; `from_dict` names the field that is wrong."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import BundleError

T = TypeVar("T")

WINDOWS = ("hann", "hamming", "blackman", "rectangular")
REFERENCES = ("median", "full_scale")
SOURCES = ("tile", "log10_rate")
TASKS = ("classification",)


@dataclass(frozen=True)
class SpectrogramSpec:
    """How IQ becomes a tile: window, FFT, |.|^2, mean over frames, dB with floor, fftshift, resize, range, standardise.

    fft_size, hop_samples: of one frame; window: one of WINDOWS, scaled to unit mean power.
    frames_averaged: frames whose power is averaged into one row; rows_per_tile: rows of a full tile.
    min_rows: fewest rows of which a partial tile is made.
    floor_db: power per FFT bin below which everything is this, in dB relative to full scale (a tone of |x| = 1 on one
        bin is 0 dB with the rectangular window).
    height, width: of the prepared tile (time down, frequency rightwards from -rate/2 to rate/2); bicubic, antialiased.
    reference: "median" subtracts the tile's own median in dB (independent of receiver gain), or as much more as brings
        the tile's 99.9 % quantile down to high_db; "full_scale" subtracts nothing.
    low_db, high_db: after the reference, clipped and mapped to [0, 1]; mean, std: then standardised.
    """

    fft_size: int = 512
    hop_samples: int = 512
    window: str = "hann"
    frames_averaged: int = 2
    rows_per_tile: int = 448
    min_rows: int = 4
    floor_db: float = -160.0
    height: int = 224
    width: int = 224
    reference: str = "median"
    low_db: float = -20.0
    high_db: float = 60.0
    mean: float = 0.25
    std: float = 0.1

    def __post_init__(self) -> None:
        rules = {
            "fft_size": (self.fft_size >= 8 and self.fft_size % 2 == 0 and self.fft_size <= 65536, "even, 8 to 65536"),
            "hop_samples": (0 < self.hop_samples <= self.fft_size, "1 to fft_size"),
            "window": (self.window in WINDOWS, f"one of {', '.join(WINDOWS)}"),
            "frames_averaged": (1 <= self.frames_averaged <= 65536, "1 to 65536"),
            "rows_per_tile": (1 <= self.rows_per_tile <= 65536, "1 to 65536"),
            "min_rows": (1 <= self.min_rows <= self.rows_per_tile, "1 to rows_per_tile"),
            "floor_db": (math.isfinite(self.floor_db), "a finite number"),
            "height": (1 <= self.height <= 4096, "1 to 4096"),
            "width": (1 <= self.width <= 4096, "1 to 4096"),
            "reference": (self.reference in REFERENCES, f"one of {', '.join(REFERENCES)}"),
            "high_db": (math.isfinite(self.low_db) and self.low_db < self.high_db < math.inf, "more than low_db"),
            "mean": (math.isfinite(self.mean), "a finite number"),
            "std": (math.isfinite(self.std) and self.std > 0, "a positive number"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise BundleError("preprocess", name, getattr(self, name), expected)

    @property
    def frames_per_tile(self) -> int:
        """FFT frames of a full tile."""
        return self.rows_per_tile * self.frames_averaged

    @property
    def stride_samples(self) -> int:
        """Samples from the start of one tile to the start of the next."""
        return self.frames_per_tile * self.hop_samples

    @property
    def tile_samples(self) -> int:
        """Samples that a full tile needs; equals the stride when frames do not overlap."""
        return self.stride_samples + self.fft_size - self.hop_samples

    @property
    def min_samples(self) -> int:
        """Fewest samples of which a partial tile can be made."""
        return (self.min_rows * self.frames_averaged - 1) * self.hop_samples + self.fft_size


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the model: name and shape, with -1 for the batch; source says what feeds an input.

    source "tile": float32 [B, C, H, W]; "log10_rate": float32 [B, 1], log10 of the sample rate in Hz, 0 when unknown.
    Outputs leave `source` empty.
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
    """What the outputs mean: the task, its labels in order, the confidence below which the answer is "unknown"."""

    task: str
    labels: tuple[str, ...]
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BundleError("head", "task", self.task, f"one of {', '.join(TASKS)}")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise BundleError("head", "labels", list(self.labels), "two or more different labels")
        if not 0 <= self.threshold <= 1:
            raise BundleError("head", "threshold", self.threshold, "0 to 1")


@dataclass(frozen=True)
class BundleSpec:
    """All of bundle.json but the schema version.

    sha256: of model.onnx; tolerance: of the outputs in float32; rates_hz: the lowest and the highest trained at.
    """

    name: str
    preprocess: SpectrogramSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    head: HeadSpec
    sha256: str
    tolerance: float
    rates_hz: tuple[float, float]
    licence: str
    training_data: str
    versions: dict[str, str] = field(default_factory=dict)


def to_dict(spec: Any) -> dict[str, Any]:
    """Plain types for JSON."""
    return dataclasses.asdict(spec)


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build a spec from JSON, strictly: missing, unknown and mistyped fields are refused by name."""
    if not isinstance(values, dict):
        raise BundleError(where, cls.__name__, type(values).__name__, "an object")
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
        return None if value is None else _convert(arguments[0], value, where, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BundleError(where, name, repr(value)[:60], f"{hint.__name__}")
    return value
