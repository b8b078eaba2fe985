# SPDX-License-Identifier: GPL-3.0-or-later
"""Data sets as tensors on the device; batches are ordered by (seed, epoch), augmented and standardised there."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wavesfm_core.errors import ConfigurationError, InputError

from ..models.step_random import StepRandom
from .augmentation import Augmentation

if TYPE_CHECKING:
    from ..data.examples import Examples

log = logging.getLogger(__name__)
SHARE_OF_FREE_MEMORY = 0.8
"""Largest part that data may take; the rest is for the model, its gradients and its activations."""
Batch = dict[str, Tensor]


class DeviceExamples:
    """The examples of one split of one data set, kept as uint8 or float16 and standardised batch by batch.

    `features`, if set, replace the images, which are not on the device then (see `FinetuneObjective.prepare`).

    Parameters
    ----------
    examples : from data.cache.read_cache; image uint8 (shares of 255) or float16 [N, C, H, W].
    name : for messages and records.
    augmentation : of training batches.
    repeats : passes over the examples in one epoch of training; may be a fraction (the paper balances with 1, 2 and
        3.5).
    indices : rows of a subset, int64 [n]; None: all.
    subset : options that chose it, for the record.
    """

    def __init__(
        self,
        examples: Examples,
        name: str,
        augmentation: Augmentation | None = None,
        repeats: float = 1.0,
        indices: NDArray[np.int64] | None = None,
        subset: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 < repeats < 1e6:
            raise ConfigurationError(name, "repeats", repeats, "a positive number")
        chosen = np.arange(len(examples.image)) if indices is None else np.asarray(indices, np.int64)
        if not len(chosen):
            raise InputError(name, "examples", "none", "one or more")
        self.examples, self.name, self.repeats, self.chosen = examples, name, repeats, chosen
        self.subset = dict(subset or {})
        self.augmentation = augmentation or Augmentation()
        self.spec, self.note = examples.spec, examples.note
        self.device = torch.device("cpu")
        self.features: Tensor | None = None
        subset = slice(None) if indices is None else chosen
        self.host: dict[str, Tensor] = {"image": torch.from_numpy(np.ascontiguousarray(examples.image[subset]))}
        for key in ("target", "log10_rate", "snr_db"):
            if (values := getattr(examples, key)) is not None:
                self.host[key] = torch.from_numpy(np.ascontiguousarray(values[subset]))
        self.tensors = dict(self.host)
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(self.spec.mean, dtype=torch.float32).reshape(shape)
        self._std = torch.tensor(self.spec.std, dtype=torch.float32).reshape(shape)

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def virtual_length(self) -> int:
        """Examples that one epoch of training shows, repeats included."""
        return max(1, round(len(self) * self.repeats))

    def bytes_on_device(self, without_images: bool = False) -> int:
        """Bytes of device memory that `to` takes."""
        return sum(t.nbytes for key, t in self.host.items() if not (without_images and key == "image"))

    def to(self, device: torch.device, without_images: bool = False, images_on_host: bool = False) -> None:
        """Move to the device; on the CPU nothing is copied. `refuse_too_large` checks whether it fits.

        Parameters
        ----------
        device : where to.
        without_images : leave the images where they are.
        images_on_host : images of a batch are moved with the batch.
        """
        self.device = device
        keys = [key for key in self.host if not (without_images and key == "image")]
        self.tensors = {key: self.host[key].to(device) for key in keys if not (images_on_host and key == "image")}
        if images_on_host:
            self.tensors["image"] = self.host["image"]
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Order of an epoch: int64 [virtual_length], permutations one after the other, the last one cut."""
        return shuffled(len(self), self.virtual_length, self.name, seed, epoch)

    def batch(self, index: Tensor, draws: StepRandom | None = None) -> Batch:
        """Return the examples `index` (int64 [B]), augmented if `draws` are given.

        Returns
        -------
        dict
            tile: float32 [B, C, H, W], standardised; or features, as `feature_cache` keeps them.
            clean: the same without noise, only if noise was added.
            target: as in the cache.
            log10_rate: float32 [B, 1], if the data set has rates.
            snr_db: float32 [B], if the data set has them.
            index: int64 [B], rows of the split.
        """
        at = index.to(self.device)
        batch = {key: t.index_select(0, at) for key, t in self.tensors.items() if key != "image"}
        batch["index"] = torch.from_numpy(self.chosen)[index.cpu()].to(self.device)
        if "log10_rate" in batch:
            batch["log10_rate"] = batch["log10_rate"].reshape(-1, 1)
            if draws is not None:
                batch["log10_rate"] = self.augmentation.rate(batch["log10_rate"], draws)
        if self.features is not None:
            batch["features"] = self.features.index_select(0, at)
        else:
            batch |= self._tiles(index, draws)
        return batch

    def _tiles(self, index: Tensor, draws: StepRandom | None) -> Batch:
        images = self.tensors["image"]
        kept = images.index_select(0, index.to(images.device)).to(self.device)
        image = kept.float() / 255 if kept.dtype == torch.uint8 else kept.float()
        if draws is not None:
            image = self.augmentation.move(image, draws)
        clean = (image - self._mean) / self._std
        tile = clean if draws is None else self.augmentation.add_noise(clean, draws)
        return {"tile": tile} if tile is clean else {"tile": tile, "clean": clean}

    def batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, Batch]]:
        """All examples in order, not augmented, as (batch index, batch): every world-th batch from the rank-th on."""
        for number, start in enumerate(range(0, len(self), batch_size)):
            if number % world == rank:
                yield number, self.batch(torch.arange(start, min(len(self), start + batch_size)))

    def describe(self) -> dict[str, Any]:
        """Plain types that a run records of the data set and compares when it is resumed."""
        digest = hashlib.sha256(json.dumps(self.note, sort_keys=True, default=str).encode())
        digest.update(self.chosen.tobytes())
        return {
            "name": self.name,
            "examples": len(self),
            "repeats": self.repeats,
            "augmentation": vars(self.augmentation),
            "image": list(self.host["image"].shape[1:]),
            "sha256": digest.hexdigest(),
            **({"subset": self.subset} if self.subset else {}),
        }

    def split_record(self) -> dict[str, Any]:
        """Which examples a run sees: method of the split, rows, and the file of each; plain types."""
        note = self.note if isinstance(self.note, dict) else {}
        target = self.host.get("target")
        counts = np.bincount(target.numpy()).tolist() if target is not None and target.ndim == 1 else None
        return {
            "split": note.get("split"),
            "examples": len(self),
            "examples_per_class": counts,
            "rows": "all" if len(self) == len(self.examples.image) else self.chosen.tolist(),
            "sources": [self.examples.source[i] for i in self.chosen] if self.examples.source else None,
        }


def shuffled(count: int, wanted: int, name: str, seed: int, epoch: int) -> Tensor:
    """Permutations of `count` one after the other, the last one cut: int64 [wanted], a function of (seed, epoch,
    name).
    """
    word = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch, word]).generate_state(1)[0]))
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))])[:wanted]


class Part(NamedTuple):
    """One batch of this process before it is made."""

    examples: DeviceExamples
    """Data set."""
    index: Tensor
    """Rows of its examples, int64 [B]."""


@dataclass
class Loaders:
    """Data sets of a run. There is no place for the test split, on purpose."""

    training: Sequence[DeviceExamples]
    """Data sets that are trained on in turn."""
    validation: Sequence[DeviceExamples] = field(default_factory=tuple)
    """Data sets that select the weights; without any the last weights are kept."""

    def __post_init__(self) -> None:
        for kind in ("training", "validation"):
            names = [examples.name for examples in getattr(self, kind)]
            if len(set(names)) != len(names):
                raise ConfigurationError("data", kind, names, "data sets of different names")
        if not self.training:
            raise ConfigurationError("data", "training", "no data set", "one or more")

    @property
    def all(self) -> list[DeviceExamples]:
        """All data sets."""
        return [*self.training, *self.validation]

    def plan(self, seed: int, epoch: int, batch_size: int, rank: int = 0, world: int = 1) -> list[Part]:
        """Batches of an epoch: the data sets take turns, and one that is used up drops out. A batch is of one data
        set.

        The last batch is filled up from the beginning of the same order, so that shapes are constant and all processes
        have equal parts. A data set smaller than batch_size makes batches of its own size, rounded up to a multiple of
        world.
        """
        if batch_size % world:
            raise ConfigurationError(
                "LoopArgs", "batch_size", batch_size, f"a multiple of {world}, the number of processes"
            )
        queues = [self._parts(examples, seed, epoch, batch_size, rank, world) for examples in self.training]
        plan: list[Part] = []
        for turn in range(max(len(queue) for queue in queues)):
            plan += [queue[turn] for queue in queues if turn < len(queue)]
        return plan

    @staticmethod
    def _parts(examples: DeviceExamples, seed: int, epoch: int, batch_size: int, rank: int, world: int) -> list[Part]:
        order = examples.order(seed, epoch)
        size = min(batch_size, -(-len(order) // world) * world)
        n_batches = -(-len(order) // size)
        order = order.repeat(2)[: n_batches * size].view(n_batches, world, size // world)
        return [Part(examples, order[i, rank]) for i in range(n_batches)]


def refuse_too_large(needed: int, device: torch.device, what: str, free: int | None = None) -> None:
    """Raise ConfigurationError if data take more than SHARE_OF_FREE_MEMORY of the free memory.

    Parameters
    ----------
    needed : bytes.
    device : where the data go.
    what : the data, for the message.
    free : bytes; None: asked of the device, where memory of other processes is not free.
    """
    free = free_memory(device) if free is None else free
    if needed > SHARE_OF_FREE_MEMORY * free:
        raise ConfigurationError(
            what,
            f"memory on {device}",
            f"{needed / 1e9:.2f} GB needed",
            f"at most {SHARE_OF_FREE_MEMORY * free / 1e9:.2f} GB ({SHARE_OF_FREE_MEMORY:.0%} of the {free / 1e9:.2f} GB"
            " that are free): use fewer examples or a device with more",
        )


def free_memory(device: torch.device) -> int:
    """Free bytes of the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def move(sets: list[DeviceExamples], device: torch.device) -> None:
    """Move all data sets to the device. Images that do not fit stay on the host, and go there batch by batch.

    Raises
    ------
    ConfigurationError : not even the rest fits.
    """
    options = {}
    if device.type != "cpu":
        names = ", ".join(f"{e.name} ({e.bytes_on_device() / 1e9:.2f} GB)" for e in sets)
        try:
            refuse_too_large(sum(e.bytes_on_device() for e in sets), device, names)
        except ConfigurationError as error:
            refuse_too_large(sum(e.bytes_on_device(without_images=True) for e in sets), device, names)
            log.warning("images go to %s batch by batch: %s", device, error)
            options = {"images_on_host": True}
    for examples in sets:
        examples.to(device, **options)
