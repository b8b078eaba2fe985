"""Frozen descriptions that travel in a bundle; `from_dict` names the field that is wrong."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, final

from .channel.numerology import OFDMSpec
from .errors import BundleError

T = TypeVar("T")
PreprocessT = TypeVar("PreprocessT", "SpectrogramSpec", "ImageSpec", "PilotGridSpec")

WINDOWS = ("hann", "hamming", "blackman", "rectangular")
REFERENCES = ("median", "full_scale")
SOURCES = ("tile", "log10_rate", "snr_db")
LAYOUTS = ("image", "least_squares")
TASK_FIELDS = {  # of HeadSpec, which hold for one task only
    "classification": ("labels", "threshold", "temperature", "unknown_from"),
    "position": ("axes", "low_m", "high_m"),
    "channel": ("grid", "scale"),
}
TASKS = tuple(TASK_FIELDS)
SIDE_LIMIT = 4096  # of a prepared tile
CHANNELS_LIMIT = 64
VALUES_LIMIT = 1 << 26  # of a prepared image with all its channels: 256 MiB
GRID_LIMIT = 1 << 24  # elements of a channel matrix


@final
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

    kind: ClassVar[str] = "spectrogram"

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
            "height": (1 <= self.height <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "width": (1 <= self.width <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "reference": (self.reference in REFERENCES, f"one of {', '.join(REFERENCES)}"),
            "high_db": (math.isfinite(self.low_db) and self.low_db < self.high_db < math.inf, "more than low_db"),
            "mean": (math.isfinite(self.mean), "a finite number"),
            "std": (math.isfinite(self.std) and self.std > 0, "a positive number"),
        }
        _refuse_broken("preprocess", self, rules)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Channels (one), height and width of a prepared tile."""
        return 1, self.height, self.width

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


@final
@dataclass(frozen=True)
class ImageSpec:
    """How an array of CSI, pilots or powers becomes a tile: decibels where asked for, resize, range, standardise.

    An array is float32 [channels, rows, columns] of any rows and columns; a tile is float32 [channels, height, width].
    decibel_floor: None, or x becomes 10 log10(x + decibel_floor) first (x: powers, none negative; 1e-12 in the paper).
    height, width: bicubic antialiased resize.
    low, high: mapped to range_low and range_high, without clipping: the extremes of the training data, so that other
        data may lie a little outside.
    mean, std: then subtracted and divided by, one of each for each channel.

    All but the decibels is affine and the resize's weights sum to 1, so the orders in which the paper has the steps
    (the range before the resize in pre-training, after it in most tasks; the resize last of all for channel
    estimation) give the same numbers but for rounding: this one order is implemented for all.
    """

    kind: ClassVar[str] = "image"

    channels: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range_low: float = 0.0
    range_high: float = 1.0
    decibel_floor: float | None = None
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        each = f"{self.channels} finite numbers, one for each channel"
        rules = {
            "channels": (1 <= self.channels <= CHANNELS_LIMIT, f"1 to {CHANNELS_LIMIT}"),
            "low": (math.isfinite(self.low), "a finite number"),
            "high": (self.low < self.high < math.inf, "more than low"),
            "mean": (len(self.mean) == self.channels and all(map(math.isfinite, self.mean)), each),
            "std": (
                len(self.std) == self.channels and all(math.isfinite(std) and std > 0 for std in self.std),
                f"{self.channels} positive numbers, one for each channel",
            ),
            "range_low": (math.isfinite(self.range_low), "a finite number"),
            "range_high": (self.range_low < self.range_high < math.inf, "more than range_low"),
            "decibel_floor": (
                self.decibel_floor is None or 0 < self.decibel_floor < math.inf,
                "a positive number, or null for no decibels",
            ),
            "height": (1 <= self.height <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "width": (1 <= self.width <= SIDE_LIMIT, f"1 to {SIDE_LIMIT}"),
            "tile_shape": (math.prod(self.tile_shape) <= VALUES_LIMIT, f"at most {VALUES_LIMIT} values"),
        }
        _refuse_broken("preprocess", self, rules)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a prepared tile."""
        return self.channels, self.height, self.width


@final
@dataclass(frozen=True)
class PilotGridSpec:
    """How a received grid of an OFDM slot, complex64 [A, S, F], becomes a tile of its pilots.

    numerology: of the slot.
    layout: "image" is the paper's: float32 [2, 1 + A, P * Fp], real and imaginary parts, row 0 the pilots sent and the
        rows below what each antenna received, pilot symbol after pilot symbol; then the steps of `image`.
        "least_squares" is what was received over what was sent, divided by the root of its mean power in the slot:
        float32 [2 P, A, Fp], real and imaginary part of the first pilot symbol, then of the second.
    image: for layout "image", of 2 channels; None for "least_squares".
    """

    kind: ClassVar[str] = "pilot_grid"

    numerology: OFDMSpec
    layout: str
    image: ImageSpec | None = None

    def __post_init__(self) -> None:
        is_image = self.layout == "image"
        fits = self.image is not None and self.image.channels == 2 if is_image else self.image is None
        rules = {
            "layout": (self.layout in LAYOUTS, f"one of {', '.join(LAYOUTS)}"),
            "image": (fits, "an image of 2 channels" if is_image else "null, since the layout is least_squares"),
        }
        _refuse_broken("preprocess", self, rules)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """Of a prepared tile: the image's, or 2 P, A and Fp."""
        if self.image is not None:
            return self.image.tile_shape
        symbols, subcarriers = self.numerology.pilots.shape
        return 2 * symbols, self.numerology.antennas, subcarriers


Preprocess = SpectrogramSpec | ImageSpec | PilotGridSpec


def unscaled(spec: PreprocessT) -> PreprocessT:
    """The same preprocessing without its last step (mean 0, std 1): what a cache holds, to standardise later."""
    if isinstance(spec, ImageSpec):
        return dataclasses.replace(spec, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels)
    if isinstance(spec, PilotGridSpec):
        return spec if spec.image is None else dataclasses.replace(spec, image=unscaled(spec.image))
    return dataclasses.replace(spec, mean=0.0, std=1.0)


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

    classification: labels in the order of the logits [B, L]; threshold: confidence below which the answer is "unknown";
        temperature: by which logits are divided, so that confidences are honest; unknown_from: probability of a label
        "unknown" from which on it is the answer, although another label is more probable (1.0: never).
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
    temperature: float = 1.0
    unknown_from: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BundleError("head", "task", self.task, f"one of {', '.join(TASKS)}")
        for f in dataclasses.fields(self):
            if f.name not in ("task", *TASK_FIELDS[self.task]) and getattr(self, f.name) != f.default:
                expected = f"no such field for {self.task}, which has {', '.join(TASK_FIELDS[self.task])}"
                raise BundleError("head", f.name, getattr(self, f.name), expected)
        _refuse_broken("head", self, self._rules())

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the model's first output, for one tile: (L,), (D,) or (2, antennas, symbols * subcarriers)."""
        if self.task == "classification":
            return (len(self.labels),)
        if self.task == "position":
            return (len(self.axes),)
        antennas, symbols, subcarriers = self.grid
        return 2, antennas, symbols * subcarriers

    def _rules(self) -> dict[str, tuple[bool, str]]:
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
    """All of bundle.json but the schema version.

    preprocess: a "kind" in the file tells which, and without one it is a spectrogram.
    sha256: of model.onnx; tolerance: of the outputs in float32; rates_hz: the lowest and the highest trained at, 0 and
    0 for images and pilot grids.
    covariances: sha256 of covariances.npz, which a bundle of pilot grids may have; "" for none.
    """

    name: str
    preprocess: SpectrogramSpec | ImageSpec | PilotGridSpec
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
    return {"kind": spec.kind, **values} if isinstance(spec, (ImageSpec, PilotGridSpec)) else values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return dict(value) if isinstance(value, dict) else value


def preprocess_from_dict(values: Any, where: str) -> Preprocess:
    """The spec that `to_dict` wrote, by its "kind" (none: a spectrogram); raises BundleError."""
    return _of_kind((SpectrogramSpec, ImageSpec, PilotGridSpec), values, where)


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


def _refuse_broken(where: str, spec: Any, rules: dict[str, tuple[bool, str]]) -> None:
    for name, (holds, expected) in rules.items():
        if not holds:
            value = getattr(spec, name)
            raise BundleError(where, name, "nothing" if value == () else value, expected)
