# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluate a trained run on a split of prepared data: evaluation.json and predictions.npz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import HeadSpec, Preprocess
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.heads import ChannelHead, PositionHead, make_head

from ..data.cache import read_cache
from ..data.examples import Examples
from ..data.splits import SIDES
from ..models.mae import MaskedAutoencoder
from ..models.step_random import StepRandom
from .metrics import channel_errors
from .run_files import Curves, Evaluation, write_evaluation
from .torch_engine import open_device
from .trained_run import TrainedEncoder, TrainedTask, load_run

STATISTICS = ("low", "high", "mean", "std")
"""Fields of a preprocessing that were measured on the training split; the run's own are used."""
RATIOS = (0.7, 0.8, 0.9)
"""Shares of masked patches in the reconstructions that are kept (figure 5 of the paper)."""
DRAWN_TILES = 4
MASKS_SEED, MASKS_STEP, DRAWN_STEP = 0, 2**31 + 2**20, 2**31 + 2**21  # beyond every training and validation step

Arrays = dict[str, NDArray[Any]]


def evaluate_run(
    run: Path | str,
    cache: Path | str,
    split: str = "test",
    device: str = "cpu",
    batch_size: int = 64,
    output: Path | str | None = None,
    baselines: Curves | None = None,
) -> Evaluation:
    """Evaluate a run on a split, and write the result with `run_files.write_evaluation`.

    Preprocessing statistics and head are the run's own, whatever the data were prepared with. The model computes in
    float32; its outputs become metres and channels through core's heads. A pre-trained run is evaluated by eq. 13 on
    each tile, with the same masks each time, and keeps reconstructions of a few tiles at 70, 80 and 90 %.

    Parameters
    ----------
    run : run directory or weights file.
    cache : file of data.cache, or folder of tile shards.
    split : "train", "validation" or "test".
    device : "auto" or torch's name of a device.
    batch_size : tiles at a time.
    output : where the two files go; None: the run directory.
    baselines : curves of other estimators on the same samples (channel).

    Raises
    ------
    WeightsError : see `load_run`.
    InputError : the data are of another kind, have other labels, axes, grid or channels, or were prepared otherwise.
        Nothing is computed then.
    ConfigurationError : an option.
    """
    if batch_size < 1:
        raise ConfigurationError("evaluate", "batch_size", batch_size, "1 or more")
    trained = load_run(run)
    if isinstance(trained, TrainedTask) and isinstance(trained.preprocess, PilotGridSpec):
        expected = "a model of tiles: wavesfm-train compare-channels measures estimators of slots"
        raise InputError(run, "preprocess", trained.preprocess.kind, expected)
    examples = read_cache(Path(cache), split)
    if isinstance(trained, TrainedEncoder):
        spec, kind = _spec_of_encoder(trained, examples, Path(cache)), "pretraining"
    else:
        spec, kind = trained.preprocess, trained.head.task
        check_task(trained, examples, Path(cache))
    torch_device = open_device(device)
    trained.model.to(torch_device)
    batches = Batches(examples, spec, batch_size, torch_device)
    if isinstance(trained, TrainedEncoder):
        arrays = _pretraining(trained.model, batches)
        labels, axes = (), ()
    else:
        arrays = _task(trained, batches)
        labels, axes = trained.head.labels, trained.head.axes
    arrays |= _provenance(examples, Path(cache), split)
    task = str(trained.config.get("task") or examples.note["task"])
    directory = Path(output) if output is not None else trained.directory
    return write_evaluation(directory, kind, task, split, arrays, labels, axes, baselines)


class Batches:
    """The examples of a split as the run takes them, in order: (rows, tile [B, C, H, W], log10_rate [B, 1] or None).

    Cached values are relative to the statistics that the data were prepared with; `spec` has the run's. Both are linear
    in the array's values (or decibels), so one is computed from the other.
    """

    def __init__(self, examples: Examples, spec: Preprocess, batch_size: int, device: torch.device) -> None:
        self.examples, self.spec, self.batch_size, self.device = examples, spec, batch_size, device
        self._mean, self._std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (spec.mean, spec.std))

    def __len__(self) -> int:
        return len(self.examples)

    def image(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Images float32 [n, C, H, W] in the range of the run's preprocessing, not standardised."""
        image = self.examples.image[rows].astype(np.float32)
        if self.examples.image.dtype == np.uint8:
            image /= 255
        return self.spec.rescaled(image, self.examples.spec)

    def tile(self, rows: slice | NDArray[np.int64]) -> Tensor:
        """Standardised tiles on the device."""
        return torch.from_numpy((self.image(rows) - self._mean) / self._std).to(self.device)

    def image_of(self, tile: Tensor) -> NDArray[np.float32]:
        """Standardised tiles converted back to the range."""
        return tile.float().cpu().numpy() * self._std + self._mean

    def rate(self, rows: slice | NDArray[np.int64]) -> Tensor | None:
        """log10 of the sample rates [n, 1] on the device; None if the data set has none."""
        if self.examples.log10_rate is None:
            return None
        return torch.from_numpy(self.examples.log10_rate[rows].reshape(-1, 1)).to(self.device)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        for start in range(0, len(self), self.batch_size):
            rows = slice(start, min(len(self), start + self.batch_size))
            yield rows, self.tile(rows), self.rate(rows)


def check_task(trained: TrainedTask, examples: Examples, where: Path) -> None:
    """Raise InputError unless the examples are of the run's task and were prepared as its own were."""
    head, note = trained.head, examples.note
    if note["kind"] != head.task or examples.target is None:
        raise InputError(where, "kind", note["kind"], f"{head.task}, which the run was trained for")
    meanings = {"classification": "labels", "position": "axes", "channel": "grid"}
    name = meanings[head.task]
    expected, found = tuple(getattr(head, name)), tuple(note.get(name) or ())
    if head.task == "position":
        found = found[: len(expected)]  # a run may have learnt the first axes only
    if expected != found:
        raise InputError(where, name, list(found), f"{list(expected)}, the run's")
    check_preprocess(trained.preprocess, examples.spec, where)


def check_preprocess(run_spec: Preprocess, data_spec: Preprocess, where: Path) -> None:
    """Raise InputError for the first field, except statistics, in which data differ from a run's."""
    if run_spec.kind != data_spec.kind:
        raise InputError(where, "preprocess", data_spec.kind, f"{run_spec.kind}, as the run was trained on")
    for field in fields(run_spec):
        found, expected = getattr(data_spec, field.name), getattr(run_spec, field.name)
        if field.name not in STATISTICS and found != expected:
            raise InputError(where, f"preprocess.{field.name}", found, f"{expected}, as the run was trained on")


def _spec_of_encoder(trained: TrainedEncoder, examples: Examples, where: Path) -> Preprocess:
    """Preprocessing of the run's data set that these examples are like: the equal one, otherwise the only one."""
    fitting: dict[str, Preprocess] = {}
    reason: InputError | None = None
    for name, spec in trained.preprocess.items():
        try:
            check_preprocess(spec, examples.spec, where)
            fitting[name] = spec
        except InputError as error:
            reason = reason or error
    if examples.spec in fitting.values():
        return examples.spec
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if fitting:
        expected = f"the statistics of one of them: {', '.join(fitting)} were all prepared so"
        raise InputError(where, "preprocess", "statistics of none of the run's data sets", expected)
    seen = ", ".join(f"{name} ({' x '.join(map(str, s.tile_shape))})" for name, s in trained.preprocess.items())
    found = " x ".join(map(str, examples.spec.tile_shape))
    if len(trained.preprocess) == 1 and reason is not None:
        raise reason
    raise InputError(where, "preprocess", found, f"data like one of the run's: {seen or 'it names none'}")


@torch.inference_mode()
def _task(trained: TrainedTask, batches: Batches) -> Arrays:
    parts = [
        _answers(trained.head, trained.model(tile, rate).float().cpu().numpy(), batches.examples.target[rows])
        for rows, tile, rate in batches
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _answers(head: HeadSpec, outputs: NDArray[np.float32], target: NDArray) -> Arrays:
    """Arrays of predictions.npz for a batch, through core's heads; EngineError for outputs that are not finite."""
    reader = make_head(head, "run")
    if isinstance(reader, PositionHead):
        axes = len(head.axes)
        return {"target_m": target[:, :axes], "predicted_m": reader.positions_m(outputs).astype(np.float32)}
    if isinstance(reader, ChannelHead):
        parts = target.reshape(len(target), 2, *head.grid)
        error, power = channel_errors(reader.channels(outputs), parts[:, 0] + 1j * parts[:, 1])
        return {"squared_error": error, "power": power}
    return {"target": target.astype(np.int64), "logits": outputs}


@torch.inference_mode()
def _pretraining(model: MaskedAutoencoder, batches: Batches) -> Arrays:
    noise = StepRandom(MASKS_SEED, MASKS_STEP).rand(len(batches), model.args.n_patches)
    losses = [tile_losses(model, tile, rate, noise[rows]) for rows, tile, rate in batches]
    return {"loss": np.concatenate(losses)} | _reconstructions(model, batches)


def tile_losses(model: MaskedAutoencoder, tile: Tensor, rate: Tensor | None, noise: Tensor) -> NDArray[np.float64]:
    """Eq. 13 of each tile, float64 [B]; the model's loss is the mean of them."""
    out = model(tile, rate, noise, reconstruct=True)
    assert out.prediction is not None
    error = (out.prediction.double() - model.encoder.patchify(tile).double()).square()
    patch = error.sum(dim=-1) if model.args.reading == "paper" else error.mean(dim=-1)
    return ((patch * out.mask).sum(dim=1) / out.mask.sum(dim=1)).cpu().numpy()


def _reconstructions(model: MaskedAutoencoder, batches: Batches) -> Arrays:
    """A few tiles, evenly spaced over the split, with their reconstructions at each ratio; see `run_files`."""
    rows = np.unique(np.linspace(0, len(batches) - 1, DRAWN_TILES).round().astype(np.int64))
    tile, rate = batches.tile(rows), batches.rate(rows)
    noise = StepRandom(MASKS_SEED, DRAWN_STEP).rand(len(rows), model.args.n_patches)
    arrays: Arrays = {"original": batches.image(rows), "ratio": np.array(RATIOS, np.float32)}
    for i, ratio in enumerate(RATIOS):
        other = MaskedAutoencoder(model.args, ratio, model.cls_in_pretraining)
        other.load_state_dict(model.state_dict(), assign=True)
        out = other.to(tile.device).eval()(tile, rate, noise, reconstruct=True)
        arrays[f"reconstruction_{i}"] = batches.image_of(model.unpatchify(out.prediction))
        arrays[f"hidden_{i}"] = out.mask.cpu().numpy()
    return arrays


def _provenance(examples: Examples, cache: Path, split: str) -> Arrays:
    """Rows of the cache, groups and SNR of the samples."""
    arrays: Arrays = {}
    if cache.is_file():
        with h5py.File(cache) as file:
            arrays["index"] = np.flatnonzero(file["split"][:] == SIDES.index(split))
    if any(examples.group):  # a sample without a group is a group by itself
        arrays["group"] = np.array([group or f"sample {i}" for i, group in enumerate(examples.group)])
    if examples.snr_db is not None:
        arrays["snr_db"] = examples.snr_db
    elif examples.note["kind"] == "channel":
        arrays["snr_db"] = np.full(len(examples), np.nan, np.float32)
    return arrays
