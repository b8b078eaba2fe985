# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a run directory for the report. Only the training loop and this module write or parse them.

config.json
    Written by the training loop. An object with name, command ("pretrain", "finetune" or "train-channels"), recipe,
    task, method ("probe", "last", "lora" or "all"), pretrained (name or run directory of the weights that it started
    from; "" from scratch), seed (int), args (object: every option by name) and trainable_parameters (int).
    Optional: task_file (of a task that does not ship); watched and mode ("max" or "min"), the column of metrics.csv
    that selected the weights; extended_from (former lengths of a run that was extended, in epochs). Other fields are
    kept.

metrics.csv
    Written by the training loop. One row for each epoch, with the columns step, epoch and any number of figures, empty
    if a row has none. `epoch` counts completed epochs: the row after the first epoch has 1.

predictions.npz
    Written by `write_evaluation`, without pickled arrays. N samples of one split in the order of the cache, by kind:

    classification
        target int64 [N]; logits float32 [N, labels]
    position
        target_m, predicted_m float32 [N, axes], metres
    channel
        squared_error, power float64 [N]: mean over the coefficients of |h^ - h|^2 and of |h|^2, in units of the targets
        (`metrics.channel_errors`); snr_db float32 [N], NaN if unknown
    pretraining
        loss float64 [N]: eq. 13 for each tile at the run's mask ratio. Examples to draw, all or none: original float32
        [K, C, H, W] in the range of the cache; ratio float32 [R]; for each i below R reconstruction_{i} float32 [K, C,
        H, W] (the decoder's output for all patches) and hidden_{i} bool [K, patches], row by row, True for masked
        patches

    Any kind may add index int64 [N] (row of the cache), group (fixed-width strings [N]: samples of a group depend on
    each other, so confidence intervals draw whole groups) and snr_db.

evaluation.json
    An object with format (1), kind, task, split (usually "test"), n_samples, labels (classification), axes (position),
    metrics {name: number or null} from `metrics.*_metrics` (null: no such figure),
    headline: the metric that the tables show (HEADLINES), interval [low, high] or null: its 95 % bootstrap interval
    over samples, baselines {name: {snr_db: [...], mse: [...], nmse_db: [...]}}: curves of other estimators on the same
    samples (channel), predictions_sha256: of predictions.npz, so that the pair is known to belong together.
"""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.atomic_file import atomic_path, write_atomically
from wavesfm_core.errors import InputError
from wavesfm_core.hashing import file_sha256

from ..models.run_layout import read_object
from .metrics import (
    bootstrap_interval,
    channel_metrics,
    classification_metrics,
    mean_class_accuracy,
    position_errors,
    position_metrics,
)

FORMAT = 1
HEADLINES = {
    "classification": "class_accuracy",
    "position": "mean_error_m",
    "channel": "mse",
    "pretraining": "loss",
}
BETTER = {"classification": "max", "position": "min", "channel": "min", "pretraining": "min"}

Arrays = Mapping[str, NDArray[Any]]
Curves = Mapping[str, Mapping[str, list[float]]]


@dataclass(frozen=True)
class Evaluation:
    """One run on one split: the contents of evaluation.json and predictions.npz."""

    kind: str
    """Kind of the task."""
    task: str
    """Name of the task."""
    split: str
    """Part of the data."""
    n_samples: int
    """Samples."""
    metrics: dict[str, float]
    """Figures of merit by name; NaN for one that does not exist."""
    headline: str
    """Metric that the tables show."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the headline over samples."""
    labels: tuple[str, ...] = ()
    """Labels of a classification."""
    axes: tuple[str, ...] = ()
    """Axes of a position."""
    baselines: Curves = field(default_factory=dict)
    """Curves of other estimators on the same samples."""
    arrays: Arrays = field(default_factory=dict, repr=False)
    """Contents of predictions.npz."""


# kind -> array -> (kinds of dtype, dimensions); all have N rows
_REQUIRED: dict[str, dict[str, tuple[str, int]]] = {
    "classification": {"target": ("iu", 1), "logits": ("f", 2)},
    "position": {"target_m": ("f", 2), "predicted_m": ("f", 2)},
    "channel": {"squared_error": ("f", 1), "power": ("f", 1), "snr_db": ("f", 1)},
    "pretraining": {"loss": ("f", 1)},
}
_OPTIONAL: dict[str, tuple[str, int]] = {"index": ("iu", 1), "group": ("U", 1), "snr_db": ("f", 1)}
_MAY_BE_NAN = ("snr_db",)


def write_evaluation(
    run_dir: Path,
    kind: str,
    task: str,
    split: str,
    arrays: Arrays,
    labels: tuple[str, ...] = (),
    axes: tuple[str, ...] = (),
    baselines: Curves | None = None,
) -> Evaluation:
    """Compute the metrics, and write predictions.npz and evaluation.json, each atomically.

    Parameters
    ----------
    run_dir : where the files go.
    kind, task, split, arrays, labels, axes, baselines : see the module.

    Raises
    ------
    InputError : arrays that are missing, of another shape or dtype, not finite, or that contradict labels or axes
        (nothing is written then); or there is no room.
    """
    path = run_dir / "predictions.npz"
    n = _check(path, kind, arrays, labels, axes)
    figures, statistic = _figures(kind, arrays, axes)
    bounds = bootstrap_interval(statistic, n, arrays.get("group"))
    evaluation = Evaluation(
        kind=kind,
        task=task,
        split=split,
        n_samples=n,
        metrics=figures,
        headline=HEADLINES[kind],
        interval=(bounds.low, bounds.high) if math.isfinite(bounds.low) else None,
        labels=tuple(labels),
        axes=tuple(axes),
        baselines={
            name: {k: [float(x) for x in v] for k, v in curve.items()} for name, curve in (baselines or {}).items()
        },
        arrays=dict(arrays),
    )
    _check_baselines(run_dir / "evaluation.json", evaluation.baselines)
    with _writing(path), atomic_path(path) as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, **arrays)
    digest = file_sha256(path)
    values = {k: v for k, v in asdict(evaluation).items() if k != "arrays"}
    text = json.dumps(_plain({"format": FORMAT, **values, "predictions_sha256": digest}), indent=1, allow_nan=False)
    with _writing(path):
        write_atomically(run_dir / "evaluation.json", text + "\n")
    return evaluation


def read_evaluation(run_dir: Path) -> Evaluation:
    """Read what `write_evaluation` wrote, strictly.

    Raises
    ------
    InputError : a file is missing, damaged, of another format, or the predictions are not those of the metrics.
    """
    path = run_dir / "evaluation.json"
    values = read_object(path)
    if values.get("format") != FORMAT:
        raise InputError(path, "format", values.get("format", "nothing"), str(FORMAT))
    _check_fields(path, values)
    arrays = _read_arrays(run_dir / "predictions.npz", values["predictions_sha256"])
    labels, axes = tuple(values["labels"]), tuple(values["axes"])
    n = _check(run_dir / "predictions.npz", values["kind"], arrays, labels, axes)
    if n != values["n_samples"]:
        raise InputError(path, "n_samples", values["n_samples"], f"{n}, the rows of predictions.npz")
    _check_baselines(path, values["baselines"])
    return Evaluation(
        kind=values["kind"],
        task=values["task"],
        split=values["split"],
        n_samples=n,
        metrics={k: math.nan if v is None else float(v) for k, v in values["metrics"].items()},
        headline=values["headline"],
        interval=None if values["interval"] is None else (float(values["interval"][0]), float(values["interval"][1])),
        labels=labels,
        axes=axes,
        baselines={name: {k: _numbers(v) for k, v in c.items()} for name, c in values["baselines"].items()},
        arrays=arrays,
    )


def _figures(kind: str, arrays: Arrays, axes: tuple[str, ...]) -> tuple[dict[str, float], Callable[[NDArray], float]]:
    """The metrics, and the headline as a function of sample indices."""
    if kind == "classification":
        logits, target = arrays["logits"], arrays["target"]
        predicted = logits.argmax(axis=1)
        return classification_metrics(logits, target), lambda i: mean_class_accuracy(
            target[i], predicted[i], logits.shape[1]
        )
    if kind == "position":
        error = position_errors(arrays["predicted_m"], arrays["target_m"])
        return position_metrics(arrays["predicted_m"], arrays["target_m"], axes), lambda i: float(error[i].mean())
    if kind == "channel":
        squared_error = arrays["squared_error"]
        return channel_metrics(squared_error, arrays["power"]), lambda i: float(squared_error[i].mean())
    loss = arrays["loss"]
    return {"loss": float(loss.mean())}, lambda i: float(loss[i].mean())


def _check(path: Path, kind: str, arrays: Arrays, labels: tuple[str, ...], axes: tuple[str, ...]) -> int:
    """Number of samples, or InputError for the first fault."""
    if kind not in _REQUIRED:
        raise InputError(path, "kind", repr(kind), f"one of {', '.join(_REQUIRED)}")
    n = None
    for name, (dtypes, dimensions) in {**_OPTIONAL, **_REQUIRED[kind]}.items():
        if name not in arrays:
            if name in _REQUIRED[kind]:
                raise InputError(path, name, "nothing", f"an array, as kind {kind!r} has it")
            continue
        array = arrays[name]
        if array.dtype.kind not in dtypes or array.ndim != dimensions:
            found = f"{array.dtype} with {array.ndim} dimensions"
            raise InputError(path, name, found, f"dtype kind {dtypes!r} with {dimensions} dimensions")
        n = len(array) if n is None else n
        if len(array) != n or n == 0:
            raise InputError(
                path, name, f"{len(array)} rows", f"{n} rows like the other arrays" if n else "one or more"
            )
        if array.dtype.kind == "f" and name not in _MAY_BE_NAN and not np.isfinite(array).all():
            raise InputError(path, name, f"{int((~np.isfinite(array)).sum())} values not finite", "finite numbers")
    assert n is not None
    _check_meaning(path, kind, arrays, labels, axes)
    return n


def _check_meaning(path: Path, kind: str, arrays: Arrays, labels: tuple[str, ...], axes: tuple[str, ...]) -> None:
    if kind == "classification":
        target, n_labels = arrays["target"], arrays["logits"].shape[1]
        if len(labels) != n_labels:
            raise InputError(path, "logits", f"{n_labels} columns", f"{len(labels)}, one per label")
        if target.min() < 0 or target.max() >= n_labels:
            raise InputError(path, "target", f"{target.min()} to {target.max()}", f"0 to {n_labels - 1}")
    if kind == "position":
        for name in ("target_m", "predicted_m"):
            if arrays[name].shape[1] != len(axes):
                raise InputError(path, name, f"{arrays[name].shape[1]} columns", f"{len(axes)}, one per axis")
    if kind == "channel":
        for name in ("squared_error", "power"):
            if arrays[name].min() < 0 or not arrays[name].any():
                raise InputError(path, name, "negative or only zeros", "mean squares")
    if kind == "pretraining" and "original" in arrays:
        _check_examples(path, arrays)


def _check_examples(path: Path, arrays: Arrays) -> None:
    if "ratio" not in arrays:
        raise InputError(path, "ratio", "nothing", "the mask ratio of each reconstruction")
    shape = arrays["original"].shape
    for i in range(len(arrays["ratio"])):
        for name in (f"reconstruction_{i}", f"hidden_{i}"):
            if name not in arrays:
                raise InputError(path, name, "nothing", "an array for each ratio")
        if arrays[f"reconstruction_{i}"].shape != shape or len(shape) != 4:
            raise InputError(path, f"reconstruction_{i}", arrays[f"reconstruction_{i}"].shape, f"{shape}, as original")
        hidden = arrays[f"hidden_{i}"]
        if hidden.dtype != bool or hidden.ndim != 2 or len(hidden) != shape[0]:
            raise InputError(path, f"hidden_{i}", f"{hidden.dtype} {hidden.shape}", f"bool [{shape[0]}, patches]")


def _check_fields(path: Path, values: dict[str, Any]) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "kind": (str,),
        "task": (str,),
        "split": (str,),
        "n_samples": (int,),
        "metrics": (dict,),
        "headline": (str,),
        "interval": (list, type(None)),
        "labels": (list,),
        "axes": (list,),
        "baselines": (dict,),
        "predictions_sha256": (str,),
    }
    for name, types in kinds.items():
        if name not in values or not isinstance(values[name], types):
            raise InputError(path, name, repr(values.get(name, "nothing"))[:60], " or ".join(t.__name__ for t in types))
    for name, value in values["metrics"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(path, f"metrics.{name}", repr(value)[:60], "a number or null")
    if values["headline"] not in values["metrics"]:
        raise InputError(path, "headline", values["headline"], f"one of {', '.join(values['metrics'])}")
    if values["interval"] is not None and len(_numbers(values["interval"])) != 2:
        raise InputError(path, "interval", values["interval"], "two numbers")


def _check_baselines(path: Path, baselines: Any) -> None:
    for name, curve in baselines.items():
        if not isinstance(curve, Mapping) or not {"snr_db", "mse"} <= set(curve):
            raise InputError(path, f"baselines.{name}", repr(curve)[:60], "lists snr_db and mse (and nmse_db)")
        if len({len(v) for v in curve.values()}) != 1:
            raise InputError(path, f"baselines.{name}", {k: len(v) for k, v in curve.items()}, "lists of equal length")


def _read_arrays(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise InputError(path, "file", "nothing", "the predictions that evaluation.json was computed from")
    if (found := file_sha256(path)) != digest:
        raise InputError(path, "sha256", found[:12] + "...", f"{digest[:12]}..., as evaluation.json says")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(path, "content", error, "arrays without pickled objects") from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(path, "writing", error.strerror or error, "room on the disk and the right to write") from None


def _numbers(values: list[Any]) -> list[float]:
    return [math.nan if v is None else float(v) for v in values]


def _plain(value: Any) -> Any:
    """JSON has no NaN: such a number becomes null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
