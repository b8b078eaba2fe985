# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots for a channel estimator: channels of a pool, with noise that is drawn anew each time they are seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.preprocess.pilot_grid import SNR_LIMITS_DB, at_pilots, noise_modes

from ..data.channel_pool import ChannelPool
from ..models.step_random import StepRandom
from .batches import Batch, shuffled

READ_AT_ONCE = 256
VALIDATION_STEP = 2**31 + 2**22  # a "step" that no training step reaches, so that the validation's noise is its own


@dataclass(frozen=True)
class SlotArgs:
    """Which slots are seen.

    snr_db: in training, drawn evenly between these two. validation_snr_db: each validation slot is seen once at each of
    these; validation_slots: so many of the pool's first ones.
    """

    snr_db: tuple[float, float] = (-11.0, 21.0)
    validation_snr_db: tuple[float, ...] = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
    validation_slots: int = 1024

    def __post_init__(self) -> None:
        snrs = self.validation_snr_db
        low, high = SNR_LIMITS_DB
        rules = {
            "snr_db": (low <= self.snr_db[0] <= self.snr_db[1] <= high, f"two numbers in order, {low:g} to {high:g}"),
            "validation_snr_db": (
                len(snrs) > 0 and len(set(snrs)) == len(snrs) and all(low <= snr <= high for snr in snrs),
                f"one or more different numbers, {low:g} to {high:g}",
            ),
            "validation_slots": (self.validation_slots >= 1, "1 or more"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigurationError("SlotArgs", name, getattr(self, name), expected)


class PilotObserver:
    """Core's `observe` in torch, for batches of training: noise from the modes that no delay within the prefix
    reaches."""

    def __init__(self, spec: OFDMSpec) -> None:
        modes = noise_modes(spec)
        self.modes = torch.from_numpy(
            np.block([[modes.real, modes.imag], [-modes.imag, modes.real]]).astype(np.float32)
        )
        self.shares = tuple(10 ** (limit / 10) for limit in SNR_LIMITS_DB)

    def to(self, device: torch.device) -> None:
        """Move its constants."""
        self.modes = self.modes.to(device)

    def __call__(self, ls: Tensor) -> tuple[Tensor, Tensor]:
        """Mean power of the least squares float32 [B, A, P, 2, Fp] (real, imaginary), [B], and the SNR in dB, [B]."""
        power = 2 * ls.square().flatten(1).mean(dim=1)
        left = ls.flatten(3) @ self.modes
        low, high = self.shares
        noise = (2 * left.square().flatten(1).mean(dim=1)).maximum(power / high)
        signal = (power - noise).maximum(noise * low)
        return power, 10 * torch.log10(signal / noise)


class ChannelExamples:
    """The channels of one pool in memory, as float16; has what the loop asks of DeviceExamples.

    For training the channels at the pilots, with another SNR, noise and common phase each time; with `grids` the whole
    channels, and noise that is the same each time. name: for messages and records; count: the pool's first so many.
    A channel has mean power 1, so that its noise power is 1 over the SNR.
    """

    def __init__(
        self,
        pool: ChannelPool,
        name: str,
        args: SlotArgs,
        seed: int = 0,
        grids: bool = False,
        count: int | None = None,
    ) -> None:
        self.name, self.args, self.seed, self.grids = name, args, seed, grids
        self.spec: OFDMSpec = pool.spec
        self.note = {
            "numerology": to_dict(pool.spec), "scenario": asdict(pool.scenario), "seed": pool.seed,
        }  # fmt: skip
        self.count = len(pool) if count is None else min(count, len(pool))
        self.device = torch.device("cpu")
        self.observer = PilotObserver(pool.spec)
        self.host = {"channel": torch.from_numpy(_read(pool, self.count, whole=grids))}
        self.tensors = dict(self.host)
        self._pilots = _Places.of(pool.spec)

    def __len__(self) -> int:
        return self.count

    @property
    def virtual_length(self) -> int:
        """Slots that one epoch of training shows."""
        return len(self)

    def bytes_on_device(self, without_images: bool = False) -> int:
        """What `to` takes of the device's memory."""
        return sum(tensor.nbytes for tensor in self.host.values())

    def to(self, device: torch.device, without_images: bool = False) -> None:
        """Move to the device; on the CPU nothing is copied."""
        self.device = device
        self.tensors = {name: tensor.to(device) for name, tensor in self.host.items()}
        self.observer.to(device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """int64 [virtual_length]: a permutation; by (seed, epoch, name) alone."""
        return shuffled(len(self), self.virtual_length, self.name, seed, epoch)

    def batch(self, index: Tensor, draws: StepRandom) -> Batch:
        """The slots `index` (int64 [B]) for training, all float32.

        tile [B, 2 P, A, Fp] and snr_db [B, 1], as core's `prepare` and `observe` give them; pilots [B, 2 P, A, Fp]: the
        channel at the pilots in the units of the tile; power [B], which those units are of; noise [B]: the true noise
        power over the channel's.
        """
        pilots = self.tensors["channel"].index_select(0, index.to(self.device)).float()
        drawn = draws.rand(len(index), 2)
        low, high = self.args.snr_db
        pilots = _turned(pilots, 2 * math.pi * drawn[:, 0])
        return self._slots(pilots, low + (high - low) * drawn[:, 1], draws)

    def _slots(self, pilots: Tensor, snr_db: Tensor, draws: StepRandom) -> Batch:
        """pilots: [B, A, P, 2, Fp]; snr_db [B]: the true one."""
        noise = 10 ** (-snr_db / 10)
        ls = pilots + (noise / 2).sqrt()[:, None, None, None, None] * draws.randn(len(pilots), *pilots.shape[1:])
        power, measured_db = self.observer(ls)
        root = power.sqrt()[:, None, None, None, None]
        return {
            "tile": _tile(ls / root),
            "snr_db": measured_db[:, None],
            "pilots": _tile(pilots / root),
            "power": power,
            "noise": noise,
        }

    def batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of all slots in order at each SNR of the validation, every world-th batch from the rank-th
        on; the same each time. Beside what `batch` gives: target [B, 2, A, S * F], the channel in the units of the
        tile; at int64 [B], which of the SNRs."""
        number = 0
        for at, snr_db in enumerate(self.args.validation_snr_db):
            for start in range(0, len(self), batch_size):
                if number % world == rank:
                    yield number, self._validation(start, min(len(self), start + batch_size), at, snr_db, number)
                number += 1

    def _validation(self, first: int, last: int, at: int, snr_db: float, number: int) -> Batch:
        draws = StepRandom(self.seed, VALIDATION_STEP + number, device=self.device)
        channel = self.tensors["channel"][first:last].float()  # [B, A, S, 2, F]
        pilots = self._pilots.of_grid(channel)
        batch = self._slots(pilots, torch.full((last - first,), snr_db, device=self.device), draws)
        root = batch["power"].sqrt()[:, None, None, None]
        batch["target"] = channel.permute(0, 3, 1, 2, 4).flatten(3) / root
        batch["at"] = torch.full((last - first,), at, device=self.device)
        return batch

    def describe(self) -> dict[str, Any]:
        """What a run records of the pool and compares when it is resumed; plain types for JSON."""
        digest = hashlib.sha256(json.dumps(self.note, sort_keys=True).encode()).hexdigest()
        said = {"name": self.name, "examples": len(self), "scenario": self.note["scenario"], "sha256": digest}
        return {**said, "slots": asdict(self.args), **({"seed": self.seed} if self.grids else {})}

    def split_record(self) -> dict[str, Any]:
        """Which channels a run sees."""
        return {"examples": len(self), "rows": "all" if self.grids else "at the pilots", **self.note}


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the pilots are in a grid [B, A, S, 2, F]."""

    symbols: list[int]
    first: int
    step: int

    @classmethod
    def of(cls, spec: OFDMSpec) -> _Places:
        return cls(list(spec.pilot_symbols), spec.pilot_offset, spec.pilot_step)

    def of_grid(self, channel: Tensor) -> Tensor:
        return channel[:, :, self.symbols, :, self.first :: self.step]


def _read(pool: ChannelPool, count: int, whole: bool) -> NDArray[np.float16]:
    """Channels, or what of them lies at the pilots, as float16 [count, A, S or P, 2, F or Fp]; the pool's own bits."""
    rows: NDArray[np.float16] | None = None
    done = 0
    for grids in pool.batches(READ_AT_ONCE, 0, count):
        kept = grids if whole else at_pilots(grids, pool.spec)
        parts = np.stack([kept.real, kept.imag], axis=3).astype(np.float16)
        if rows is None:
            rows = np.empty((count, *parts.shape[1:]), np.float16)
        rows[done : done + len(parts)] = parts
        done += len(parts)
    assert rows is not None and done == count
    return rows


def _turned(pilots: Tensor, phase: Tensor) -> Tensor:
    """[B, A, P, 2, Fp] times exp(j phase), phase [B]."""
    cosine, sine = (f(phase)[:, None, None, None] for f in (torch.cos, torch.sin))
    real, imaginary = pilots[:, :, :, 0], pilots[:, :, :, 1]
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=3)


def _tile(pilots: Tensor) -> Tensor:
    """[B, A, P, 2, Fp] -> [B, 2 P, A, Fp]."""
    return pilots.permute(0, 2, 3, 1, 4).flatten(1, 2)
