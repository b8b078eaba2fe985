# SPDX-License-Identifier: GPL-3.0-or-later
"""Losses and validation figures of pre-training and fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from wavesfm_core.bundle.spec import HeadSpec, to_dict
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError, InputError

from ..models.mae import MaskedAutoencoder
from ..models.patch_sampling import draw_patches
from ..models.step_random import StepRandom
from ..models.task_model import TaskModel
from . import losses
from .batches import Batch, DeviceExamples, Loaders, move, refuse_too_large
from .feature_cache import FEATURE_DTYPES, cache_prefix, prefix_bytes

log = logging.getLogger(__name__)
VALIDATION_MASKS_STEP = 2**31  # beyond every training step, so that the masks differ from those of training
LOSSES = {"classification": ("cross_entropy",), "position": ("mse",), "channel": ("snr_mse", "mse")}
Reduce = Callable[[Tensor], Tensor]  # sum over the processes


class ValidationBatch(NamedTuple):
    """One validation batch."""

    name: str
    """Name of the data set."""
    number: int
    """Batch index in the data set."""
    batch: Batch
    """Tensors."""


class Objective(Protocol):
    """Model, loss and validation of a run, as the training loop uses them."""

    model: nn.Module
    """The model that is trained and kept."""
    betas: tuple[float, float]
    """Betas of AdamW."""
    monitor: str
    """Validation figure that selects the weights."""
    mode: str
    """Whether the monitored figure should be "min" or "max"."""
    progress: float
    """Share of the run that is done; the loop sets it before each step."""

    def prepare(
        self, loaders: Loaders, autocast: Callable[[], AbstractContextManager[Any]], device: torch.device
    ) -> None:
        """Prepare for training, with the model on the device: refuse data that do not suit, and move them there.

        Parameters
        ----------
        loaders : data of the run.
        autocast : context of the model's computations.
        device : where the run computes.
        """

    def training_loss(self, batch: Batch, draws: StepRandom) -> Tensor:
        """Mean loss of a batch; all randomness comes from `draws`."""

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups of trainable parameters for the optimiser."""

    def validate(self, batches: Iterable[ValidationBatch], reduce: Reduce) -> dict[str, float]:
        """Figures over the validation batches of all processes.

        Parameters
        ----------
        batches : those of this process.
        reduce : adds a tensor up over the processes.
        """

    def describe(self) -> dict[str, Any]:
        """Plain types that a run records and compares when it is resumed."""

    def extra(self, loaders: Loaders) -> dict[str, Any]:
        """Plain types that go into the weights file beside the model's arguments."""


class PretrainObjective:
    """Masked wireless modelling (eq. 13) over one or several data sets, each batch of one modality.

    Validation masks are the same each time, for any number of processes.
    """

    betas = (0.9, 0.95)
    monitor, mode = "val_loss", "min"

    def __init__(self, model: MaskedAutoencoder, seed: int = 0) -> None:
        self.model, self.seed, self.progress = model, seed, 0.0
        self.validation_names: list[str] = []

    def prepare(
        self, loaders: Loaders, autocast: Callable[[], AbstractContextManager[Any]], device: torch.device
    ) -> None:
        known = self.model.args.channels
        self.validation_names = [examples.name for examples in loaders.validation]
        for examples in loaders.all:
            _check_image(examples, known, self.model.args.image)
        move(loaders.all, device)

    def training_loss(self, batch: Batch, draws: StepRandom) -> Tensor:
        self.model.set_step_random(draws)
        return self.model(batch["tile"], batch.get("log10_rate"), target=batch.get("clean")).loss

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        return self.model.parameter_groups(lr, weight_decay, layer_decay)

    def validate(self, batches: Iterable[ValidationBatch], reduce: Reduce) -> dict[str, float]:
        """val_loss: mean over the data sets of their mean losses; with several, also val_loss_NAME."""
        names = self.validation_names
        sums = torch.zeros(len(names), 2, dtype=torch.float64)
        for name, number, batch in batches:
            tile = batch["tile"]
            draws = StepRandom(self.seed, VALIDATION_MASKS_STEP + number, device=tile.device)
            noise = draws.rand(len(tile), self.model.args.n_patches)
            loss = self.model(tile, batch.get("log10_rate"), noise, reconstruct=False).loss
            sums[names.index(name)] += torch.tensor([float(loss) * len(tile), len(tile)], dtype=torch.float64)
        sums = reduce(sums)
        each = (sums[:, 0] / sums[:, 1]).tolist()
        figures = {"val_loss": float(np.mean(each))}
        return figures | ({f"val_loss_{n}": v for n, v in zip(names, each)} if len(names) > 1 else {})

    def describe(self) -> dict[str, Any]:
        return {"kind": "pretraining", "model": asdict(self.model.args) | self.model.config()}

    def extra(self, loaders: Loaders) -> dict[str, Any]:
        return {"data": {e.name: {"preprocess": to_dict(e.spec)} for e in loaders.training}}


@dataclass(frozen=True)
class FinetuneArgs:
    """How a task is learnt."""

    loss: str = ""
    """"cross_entropy" (eq. 17, 18), "mse" (eq. 19) or "snr_mse" (eq. 20, 21); "": the usual one of the head."""
    label_smoothing: float | None = None
    """theta of eq. 17; None: in a recipe the task's, otherwise off."""
    class_weights: bool | None = None
    """Weigh classes by beta of eq. 18; None: in a recipe the task's, otherwise off."""
    elements: str = "sum"
    """"sum" over coordinates or coefficients, as eq. 19 and 21 print it, or "mean"."""
    cache_prefix: str = "auto"
    """Whether the outputs of frozen, deterministic blocks are computed once and kept.

    "always", "never", or "auto": if it is possible (no augmentation) and they fit into memory.
    """
    feature_dtype: str = "float16"
    """Type of the kept features, one of FEATURE_DTYPES."""
    keep: tuple[tuple[float, float], ...] = ()
    """Stages (share of the run, share of patches) that see some patches only while training (vit.draw_patches).

    In order, the last one until 1.0; empty: all patches always.
    """

    def __post_init__(self) -> None:
        until = [stage[0] for stage in self.keep]
        stages = not until or (until == sorted(until) and until[0] > 0 and until[-1] == 1.0)
        usual = {name for names in LOSSES.values() for name in names}
        entropy = self.loss in ("", "cross_entropy")
        rules = {
            "loss": (self.loss in ("", *usual), f"one of {', '.join(sorted(usual))}"),
            "label_smoothing": (0 <= (self.label_smoothing or 0) < 1, "0 to below 1"),
            "elements": (self.elements in losses.ELEMENTS, f"one of {', '.join(losses.ELEMENTS)}"),
            "cache_prefix": (self.cache_prefix in ("auto", "always", "never"), "auto, always or never"),
            "feature_dtype": (self.feature_dtype in FEATURE_DTYPES, f"one of {', '.join(FEATURE_DTYPES)}"),
            "keep": (stages and all(0 < share <= 1 for _, share in self.keep), "stages in order that end at 1.0"),
        }
        rules |= {
            name: (entropy or not getattr(self, name), "none, or loss cross_entropy")
            for name in ("label_smoothing", "class_weights")
            if rules.get(name, (True, ""))[0]
        }
        if self.cache_prefix == "always" and self.keep:
            rules["cache_prefix"] = (False, "never with keep, which looks at other patches in each step")
        require_rules("FinetuneArgs", self, rules)


class FinetuneObjective:
    """A task on a TaskModel: loss, validation figures, and features of the frozen part computed once if possible.

    Position targets in metres become -1 to 1 between the head's low_m and high_m. Channel targets are divided by the
    head's scale.

    Parameters
    ----------
    model : the model.
    head : meaning of its outputs, as the bundle will have it.
    args : how the task is learnt.

    Raises
    ------
    ConfigurationError : a loss or option that does not suit the head.
    """

    betas = (0.9, 0.999)

    def __init__(self, model: TaskModel, head: HeadSpec, args: FinetuneArgs | None = None) -> None:
        args = args or FinetuneArgs()
        switches = {"label_smoothing": args.label_smoothing or 0.0, "class_weights": bool(args.class_weights)}
        self.model, self.head, self.args = model, head, replace(args, **switches)
        self.loss_name = self.args.loss or LOSSES[head.task][0]
        if self.loss_name not in LOSSES[head.task]:
            expected = f"one of {', '.join(LOSSES[head.task])} for {head.task}"
            raise ConfigurationError("FinetuneArgs", "loss", self.loss_name, expected)
        if (self.args.label_smoothing or self.args.class_weights) and self.loss_name != "cross_entropy":
            raise ConfigurationError("FinetuneArgs", "label_smoothing, class_weights", "set", f"off for {head.task}")
        if self.args.keep and model.task_args.head == "block":
            raise ConfigurationError("FinetuneArgs", "keep", self.args.keep, "nothing with head 'block'")
        self.monitor, self.mode = _MONITORS[head.task]
        self.progress = 0.0
        self.start: dict[str, Any] = {}
        self.cached = False
        self.class_weights: Tensor | None = None
        self._low, self._high = torch.tensor(head.low_m), torch.tensor(head.high_m)

    def prepare(
        self, loaders: Loaders, autocast: Callable[[], AbstractContextManager[Any]], device: torch.device
    ) -> None:
        for examples in loaders.all:
            _check_image(examples, self.model.encoder_args.channels, self.model.encoder_args.image)
            self._check_targets(examples)
        if self.args.class_weights:
            self.class_weights = self._weights_of_classes(loaders).to(device)
        self._low, self._high = self._low.to(device), self._high.to(device)
        if not self._may_cache(loaders, device):
            move(loaders.all, device)
            return
        cache_prefix(self.model, loaders.all, autocast, device, FEATURE_DTYPES[self.args.feature_dtype])
        self.cached = True

    def _weights_of_classes(self, loaders: Loaders) -> Tensor:
        """Weights from the targets that are trained on: a subset's own, and repeats as often as they are shown."""
        shown = [
            e.host["target"].numpy()[e.order(0, 0).numpy() if e.repeats != 1 else slice(None)] for e in loaders.training
        ]
        names = ", ".join(e.name for e in loaders.training)
        return losses.class_weights(np.concatenate(shown), self.head.labels, names)

    def _may_cache(self, loaders: Loaders, device: torch.device) -> bool:
        reasons = {
            "never": self.args.cache_prefix == "never",
            "no frozen, deterministic block": self.model.prefix_depth() == 0,
            "augmentation": any(e.augmentation.active for e in loaders.training),
            "keep": bool(self.args.keep),
        }
        reason = next((name for name, holds in reasons.items() if holds), None)
        if reason and self.args.cache_prefix == "always":
            raise ConfigurationError("FinetuneArgs", "cache_prefix", f"always with {reason}", "never, or that changed")
        if reason or self.args.cache_prefix == "always":
            return not reason
        try:
            needed = prefix_bytes(self.model, loaders.all, FEATURE_DTYPES[self.args.feature_dtype])
            refuse_too_large(needed, device, "features of the frozen blocks")
        except ConfigurationError as error:
            log.warning("the frozen blocks are computed at each step: %s", error)
            return False
        return True

    def training_loss(self, batch: Batch, draws: StepRandom) -> Tensor:
        self.model.set_step_random(draws)
        keep = None
        share = next((share for until, share in self.args.keep if self.progress <= until), 1.0)
        if share < 1:
            args = self.model.encoder_args
            keep = draw_patches(batch["tile"], args.patch, max(1, int(args.n_patches * share)), draws)
        return self.loss(self.outputs(batch, keep), batch)

    def outputs(self, batch: Batch, keep: Tensor | None = None) -> Tensor:
        """Outputs of the model, float32; from the features if they are kept."""
        if "features" in batch:
            features = batch["features"]
            return self.model.from_prefix(features.float()).float()
        return self.model(batch["tile"], batch.get("log10_rate"), keep).float()

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Scalar loss of a batch."""
        if self.head.task == "classification":
            return losses.cross_entropy(outputs, batch["target"], self.args.label_smoothing, self.class_weights)
        target = self._scaled_target(batch["target"])
        if self.loss_name == "snr_mse":
            return losses.snr_weighted_squared_error(outputs, target, batch["snr_db"], self.args.elements)
        return losses.squared_error(outputs, target, self.args.elements)

    def _scaled_target(self, target: Tensor) -> Tensor:
        if self.head.task == "position":
            return 2 * (target[:, : len(self.head.axes)] - self._low) / (self._high - self._low) - 1
        return target / self.head.scale

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        return self.model.parameter_groups(lr, weight_decay, layer_decay)

    def validate(self, batches: Iterable[ValidationBatch], reduce: Reduce) -> dict[str, float]:
        """val_loss, and val_class_accuracy | val_mean_error_m | val_mse and val_nmse_db, over all examples."""
        n_labels = len(self.head.labels)
        sums = torch.zeros(4 + n_labels * n_labels, dtype=torch.float64)  # loss, examples, two of the task's, confusion
        for _, _, batch in batches:
            outputs, n = self.outputs(batch), len(batch["target"])
            sums[:2] += torch.tensor([float(self.loss(outputs, batch)) * n, n], dtype=torch.float64)
            if n_labels:
                pair = batch["target"] * n_labels + outputs.argmax(1)
                sums[4:] += torch.bincount(pair, minlength=n_labels**2).cpu()
            else:
                sums[2:4] += self._error_sums(outputs, batch["target"]).cpu()
        sums = reduce(sums)
        figures = {"val_loss": float(sums[0] / sums[1])}
        if n_labels:
            return figures | {"val_class_accuracy": _mean_class_accuracy(sums[4:].view(n_labels, n_labels))}
        mean = float(sums[2] / sums[1])
        if self.head.task == "position":
            return figures | {"val_mean_error_m": mean}
        return figures | {"val_mse": mean, "val_nmse_db": 10 * float(torch.log10(sums[2] / sums[3]))}

    def _error_sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Sums over the batch of the error (metres, or mean |h^ - h|^2 over the coefficients) and of the power."""
        if self.head.task == "position":
            metres = self._low + (outputs + 1) / 2 * (self._high - self._low)
            error = (metres - target[:, : len(self.head.axes)]).norm(dim=1)
            return torch.stack([error.double().sum(), error.new_zeros((), dtype=torch.float64)])
        error = (outputs * self.head.scale - target).square().sum(1).flatten(1).mean(1)
        power = target.square().sum(1).flatten(1).mean(1)
        return torch.stack([error.double().sum(), power.double().sum()])

    def _check_targets(self, examples: DeviceExamples) -> None:
        target = examples.host.get("target")
        if target is None:
            raise InputError(examples.name, "target", "nothing", f"targets for {self.head.task}")
        shape = list(target.shape[1:])
        right = {
            "classification": target.ndim == 1 and target.dtype == torch.int64,
            "position": target.ndim == 2 and target.shape[1] >= len(self.head.axes),
            "channel": target.ndim == 4 and tuple(shape) == self.head.output_shape,
        }[self.head.task]
        if not right:
            raise InputError(examples.name, "target", f"{target.dtype} of {shape}", f"{self.head.task} targets")
        if self.head.task == "classification" and not 0 <= int(target.min()) <= int(target.max()) < len(
            self.head.labels
        ):
            found = f"{int(target.min())} to {int(target.max())}"
            raise InputError(examples.name, "target", found, f"0 to {len(self.head.labels) - 1}, as there are labels")
        if self.loss_name == "snr_mse":
            snr = examples.host.get("snr_db")
            if snr is None or not bool(torch.isfinite(snr).all()):
                found = "nothing" if snr is None else f"{int((~torch.isfinite(snr)).sum())} that are not finite"
                raise InputError(examples.name, "snr_db", found, "the SNR of every example (loss snr_mse needs it)")

    def describe(self) -> dict[str, Any]:
        model = {"encoder": asdict(self.model.encoder_args), **self.model.config()}
        start = {"start": self.start} if self.start else {}
        return {"kind": "finetuning", "model": model, "head": to_dict(self.head), "args": asdict(self.args), **start}

    def extra(self, loaders: Loaders) -> dict[str, Any]:
        extra = {"head": to_dict(self.head), "preprocess": to_dict(loaders.training[0].spec)}
        rates = [e.host["log10_rate"] for e in loaders.training if "log10_rate" in e.host]
        known = torch.cat([rate[rate > 0] for rate in rates]) if rates else torch.zeros(0)
        if len(known):
            extra["rates_hz"] = [float(10 ** known.min().double()), float(10 ** known.max().double())]
        return extra


_MONITORS = {
    "classification": ("val_class_accuracy", "max"),
    "position": ("val_mean_error_m", "min"),
    "channel": ("val_mse", "min"),
}


def _mean_class_accuracy(confusion: Tensor) -> float:
    """Mean recall over the classes that have samples; rows are targets."""
    present = confusion.sum(1) > 0
    return float((confusion.diag()[present] / confusion.sum(1)[present]).mean())


def _check_image(examples: DeviceExamples, channels: tuple[int, ...], side: int) -> None:
    found = tuple(examples.host["image"].shape[1:])
    if found[0] not in channels or found[1:] != (side, side):
        expected = f"{' or '.join(map(str, channels))} x {side} x {side}, as the model takes"
        raise InputError(examples.name, "image", " x ".join(map(str, found)), expected)
