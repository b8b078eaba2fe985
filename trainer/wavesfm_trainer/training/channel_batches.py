# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots for a channel estimator: channels of a pool, with new noise each time they are shown."""

from __future__ import annotations

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
from wavesfm_core.checks import require_rules
from wavesfm_core.hashing import json_sha256
from wavesfm_core.preprocess.pilot_grid import SNR_LIMITS_DB, at_pilots, noise_modes

from ..data.channel_pool import ChannelPool
from ..models.step_random import StepRandom
from .batches import Batch, shuffled

READ_AT_ONCE = 256
VALIDATION_STEP = 2**31 + 2**22  # beyond every training step, so that the noise differs from that of training


@dataclass(frozen=True)
class SlotArgs:
    """Signal-to-noise ratios of the slots."""

    snr_db: tuple[float, float] = (-11.0, 21.0)
    """Range in dB; training draws uniformly from it."""
    validation_snr_db: tuple[float, ...] = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
    """SNRs in dB at which each validation slot is shown once."""
    validation_slots: int = 1024
    """Validation slots, the pool's first ones."""

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
        require_rules("SlotArgs", self, rules)


class PilotObserver:
    """Core's `observe` in torch: noise is measured in the modes beyond the delays within the cyclic prefix."""

    def __init__(self, spec: OFDMSpec) -> None:
        modes = noise_modes(spec)
        self.modes = torch.from_numpy(
            np.block([[modes.real, modes.imag], [-modes.imag, modes.real]]).astype(np.float32)
        )
        self.shares = tuple(10 ** (limit / 10) for limit in SNR_LIMITS_DB)

    def to(self, device: torch.device) -> None:
        """Move the constants."""
        self.modes = self.modes.to(device)

    def __call__(self, ls: Tensor) -> tuple[Tensor, Tensor]:
        """Measure power and signal-to-noise ratio.

        Parameters
        ----------
        ls : least squares at the pilots, float32 [B, A, P, 2, Fp] (real and imaginary part).

        Returns
        -------
        Mean power [B], and SNR in dB [B].
        """
        power = 2 * ls.square().flatten(1).mean(dim=1)
        noise_part = ls.flatten(3) @ self.modes
        low, high = self.shares
        noise = (2 * noise_part.square().flatten(1).mean(dim=1)).maximum(power / high)
        signal = (power - noise).maximum(noise * low)
        return power, 10 * torch.log10(signal / noise)


class ChannelExamples:
    """The channels of one pool in memory, as float16; has the interface of DeviceExamples.

    For training: the channels at the pilots, with a new SNR, noise and common phase each time. With `grids`: whole
    channels, and the same noise each time. A channel has mean power 1, so its noise power is 1 over the SNR.

    Parameters
    ----------
    pool : channels.
    name : for messages and records.
    args : SNRs.
    seed : of the validation's noise.
    grids : keep whole channels.
    count : number of channels, the pool's first ones; None: all.
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
        self._pilots = _PilotIndex.of(pool.spec)

    def __len__(self) -> int:
        return self.count

    @property
    def virtual_length(self) -> int:
        """Slots that one epoch of training shows."""
        return len(self)

    def bytes_on_device(self, without_images: bool = False) -> int:
        """Bytes of device memory that `to` takes."""
        return sum(tensor.nbytes for tensor in self.host.values())

    def to(self, device: torch.device, without_images: bool = False) -> None:
        """Move to the device; on the CPU nothing is copied."""
        self.device = device
        self.tensors = {name: tensor.to(device) for name, tensor in self.host.items()}
        self.observer.to(device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Order of an epoch: int64 [virtual_length], a permutation that depends on (seed, epoch, name)."""
        return shuffled(len(self), self.virtual_length, self.name, seed, epoch)

    def batch(self, index: Tensor, draws: StepRandom) -> Batch:
        """Return the slots `index` (int64 [B]) for training, all float32.

        Returns
        -------
        dict
            tile, snr_db: [B, 2 P, A, Fp] and [B, 1], equal to core's `prepare` and `observe`.
            pilots: [B, 2 P, A, Fp], channel at the pilots in the tile's units.
            power: [B], power of that unit.
            noise: [B], true noise power over the channel's.
        """
        pilots = self.tensors["channel"].index_select(0, index.to(self.device)).float()
        drawn = draws.rand(len(index), 2)
        low, high = self.args.snr_db
        pilots = _rotated(pilots, 2 * math.pi * drawn[:, 0])
        return self._slots(pilots, low + (high - low) * drawn[:, 1], draws)

    def _slots(self, pilots: Tensor, snr_db: Tensor, draws: StepRandom) -> Batch:
        """Observe channels at the pilots [B, A, P, 2, Fp] at the true SNRs [B]."""
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
        """All slots in order at each SNR of the validation, as (batch index, batch); the same each time.

        Every world-th batch from the rank-th on. Beside the tensors of `batch`, a batch has target [B, 2, A, S * F],
        the channel in the tile's units, and at, int64 [B], the index of the SNR.
        """
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
        """Plain types that a run records of the pool and compares when it is resumed."""
        digest = json_sha256(self.note)
        pool = {"name": self.name, "examples": len(self), "scenario": self.note["scenario"], "sha256": digest}
        return {**pool, "slots": asdict(self.args), **({"seed": self.seed} if self.grids else {})}

    def split_record(self) -> dict[str, Any]:
        """Which channels a run sees."""
        return {"examples": len(self), "rows": "all" if self.grids else "at the pilots", **self.note}


@dataclass(frozen=True, eq=False)
class _PilotIndex:
    """Position of the pilots in a grid [B, A, S, 2, F]."""

    symbols: list[int]
    first: int
    step: int

    @classmethod
    def of(cls, spec: OFDMSpec) -> _PilotIndex:
        return cls(list(spec.pilot_symbols), spec.pilot_offset, spec.pilot_step)

    def of_grid(self, channel: Tensor) -> Tensor:
        return channel[:, :, self.symbols, :, self.first :: self.step]


def _read(pool: ChannelPool, count: int, whole: bool) -> NDArray[np.float16]:
    """Channels, or their values at the pilots, float16 [count, A, S or P, 2, F or Fp]."""
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


def _rotated(pilots: Tensor, phase: Tensor) -> Tensor:
    """[B, A, P, 2, Fp] times exp(j phase), phase [B]."""
    cosine, sine = (f(phase)[:, None, None, None] for f in (torch.cos, torch.sin))
    real, imaginary = pilots[:, :, :, 0], pilots[:, :, :, 1]
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=3)


def _tile(pilots: Tensor) -> Tensor:
    """[B, A, P, 2, Fp] -> [B, 2 P, A, Fp]."""
    return pilots.permute(0, 2, 3, 1, 4).flatten(1, 2)
