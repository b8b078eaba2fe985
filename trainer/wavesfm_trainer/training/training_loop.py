# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop on Lightning Fabric. It resumes exactly where it was killed.

Data and random numbers of a step depend on (seed, epoch, batch of the epoch) alone. So a checkpoint holds only the
weights, their averages, the optimiser's state and counters.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ..models import registry
from ..models.run_layout import WEIGHTS
from ..models.step_random import StepRandom
from .batches import Batch, Loaders, Part
from .loop_args import LoopArgs, RunError
from .objectives import Objective, ValidationBatch
from .run_directory import Points, RunDirectory, make_config, progress_bar
from .run_state import pack, unpack
from .schedule import AveragedWeights, lr_factor, make_optimizers, set_lr

log = logging.getLogger(__name__)
CHECK_EVERY = 32
"""Batches between two checks for losses that are not finite, where a check waits for the device."""


class TrainingLoop:
    """One run in one process.

    `run` is a whole run. `set_up` and `train_pass` are for measurements of training alone, which write nothing.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: Objective,
        loaders: Loaders,
        args: LoopArgs,
        run_dir: Path,
        resume: bool,
        config: dict[str, Any],
    ) -> None:
        """Read what is in `run_dir`, and refuse it if it does not suit; parameters as in `fit`."""
        self.fabric, self.objective, self.loaders, self.args = fabric, objective, loaders, args
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.model = objective.model
        self.per_epoch = len(self._plan(0))
        self.steps_per_epoch = -(-self.per_epoch // args.accumulate)
        self.total_steps = args.epochs * self.steps_per_epoch
        self.warmup_steps = round(args.warmup_epochs * self.steps_per_epoch)
        config |= {
            "trainable_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "watched": objective.monitor if loaders.validation else None,
            "mode": objective.mode if loaders.validation else None,
        }
        full = make_config(args, objective.describe(), loaders, config, self.world)
        self.directory = RunDirectory(run_dir, full, resume, writes=self.rank == 0)
        fabric.barrier()  # all processes have read the directory before one writes
        self.points = Points(run_dir, False, 0)
        self.advance = lambda n, text: None
        # counters, which checkpoints hold
        self.epoch = self.batch = self.step = 0
        self.best: float | None = None
        self.best_epoch = self.since_best = 0
        self.finished = False
        self.last_row: dict[str, float] = {}
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=fabric.device)

    def run(self) -> dict[str, Any]:
        """Train to the end, and return what `fit` returns."""
        kept = self.directory.resumed
        if kept is not None and self._is_finished(kept[0]):
            return kept[0]["result"]
        self._require_room(kept is not None)
        self.set_up()
        if kept is not None:
            self._restore(*kept)
        self.directory.start(self.loaders)
        self.points = Points(self.directory.path, self.args.tensorboard and self.rank == 0, self.step)
        show = self.args.progress and self.rank == 0
        with progress_bar(show, self.total_steps, self.step) as self.advance:
            try:
                while not self.finished:
                    self._train_epoch()
                    self._end_epoch()
            finally:
                self.points.close()
        self.fabric.barrier()
        return self._result()

    def _is_finished(self, values: Mapping[str, Any]) -> bool:
        """False if epochs are left; a run that ended early stays finished when it is asked for more of them."""
        ended_early = bool(self.args.patience) and values["since_best"] >= self.args.patience
        return values["finished"] and (ended_early or values["epoch"] >= self.args.epochs)

    def _require_room(self, resumed: bool) -> None:
        """Require room for new weights and state beside the former ones, which a resumed run already has."""
        weights = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        moments = 2 * sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        once = weights + moments + weights * (2 if self.args.ema_decay else 1)
        self.directory.require_room(once if resumed else 2 * once, "weights and state, and their replacements")

    def set_up(self) -> None:
        """Move the model to the device, then the data (so that the free memory is known), then make the optimisers."""
        args = self.args
        if args.compile:
            self.model.compile()
        self.wrapped = self.fabric.setup_module(_Step(self.objective))
        self.objective.prepare(self.loaders, self.fabric.autocast, self.fabric.device)
        if args.compile and getattr(self.objective, "cached", False):  # the model itself is never called then
            self.model.from_prefix = torch.compile(self.model.from_prefix)
        groups = self.objective.parameter_groups(args.lr, args.weight_decay, args.layer_decay)
        self.optimizers = make_optimizers(self.model, groups, args, self.objective.betas)
        self.average = AveragedWeights(self.model, args.ema_decay) if args.ema_decay else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    # training

    def train_pass(self) -> float:
        """Train for one epoch without validation; nothing is written. Returns the mean loss."""
        self.loss_sum.zero_()
        self._train_epoch()
        loss = self._mean_loss()
        self.epoch, self.batch = self.epoch + 1, 0
        return loss

    def _plan(self, epoch: int) -> list[Part]:
        plan = self.loaders.plan(self.args.seed, epoch, self.args.batch_size, self.rank, self.world)
        return plan[: self.args.batches_per_epoch or None]

    def _train_epoch(self) -> None:
        self.model.train()
        plan = self._plan(self.epoch)
        self.epoch_started_s = time.monotonic()
        while self.batch < len(plan):
            group = plan[self.batch : self.batch + self.args.accumulate]
            self._optimiser_step(group)
            if self.args.save_every and self.step % self.args.save_every == 0 and self.batch < len(plan):
                self._check_finite()
                self._save()
        self._check_finite()

    def _optimiser_step(self, group: list[Part]) -> None:
        """Take the mean gradient of the group's batches, clip it, and step every optimiser."""
        self.objective.progress = self.step / self.total_steps
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for place, part in enumerate(group):
            batch = self._make_batch(part)
            with self.fabric.no_backward_sync(self.wrapped, enabled=place < len(group) - 1):
                loss = self.wrapped(batch)
                self.fabric.backward(loss / len(group))
            self._account(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.args.clip) if self.args.clip else None
        factor = lr_factor(self.step, self.warmup_steps, self.total_steps, self.args.min_lr / self.args.lr)
        set_lr(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        if self.step % self.args.log_every == 0 or self.step == 1:
            self._log(loss.detach(), factor, norm)
        self.advance(1, f"epoch {self.epoch + 1}")

    def _make_batch(self, part: Part) -> Batch:
        """Make the next batch; the model continues with the same random numbers."""
        number = self.epoch * self.per_epoch + self.batch
        draws = StepRandom(self.args.seed, number, self.rank, self.world, self.fabric.device)
        self.wrapped.module.draws = draws
        return part.examples.batch(part.index, draws)

    def _account(self, loss: Tensor) -> None:
        """Add a loss up on the device without waiting for it; check it at once where that costs no wait."""
        number = self.epoch * self.per_epoch + self.batch
        bad = (self.first_bad < 0) & ~torch.isfinite(loss)
        self.first_bad = torch.where(bad, torch.full_like(self.first_bad, number), self.first_bad)
        self.loss_sum += loss.double()
        self.batch += 1
        alone_on_cpu = self.world == 1 and self.fabric.device.type == "cpu"
        if alone_on_cpu or self.batch % CHECK_EVERY == 0:
            self._check_finite()

    def _check_finite(self) -> None:
        """Stop every process if any of them had a loss that is not finite; its batch is made again and written."""
        mine = int(self.first_bad)
        # -1 is a process without a bad loss; with max, one of the bad batches is chosen, and its process writes it
        worst = int(self.fabric.all_reduce(self.first_bad.clone(), reduce_op="max")) if self.world > 1 else mine
        if worst < 0:
            return
        epoch, place = divmod(worst, self.per_epoch)
        self.epoch, self.batch = epoch, place
        step = epoch * self.steps_per_epoch + place // self.args.accumulate + 1
        batch = self._make_batch(self._plan(epoch)[place])
        path = self.directory.keep_batch(batch, step, self.rank) if mine == worst else self.directory.path
        self.fabric.barrier()  # the first process to end may end the others
        expected = f"a finite number; its batch is in {path.name}"
        raise RunError(self.directory.path, f"loss at step {step}", "one that is not finite", expected)

    def _log(self, loss: Tensor, factor: float, norm: Tensor | None) -> None:
        if self.points.writer is None:
            return
        values = {"train/loss": float(loss), "train/lr": self.args.lr * factor}
        self.points.add(values | ({} if norm is None else {"train/gradient_norm": float(norm)}), self.step)

    # end of an epoch

    def _end_epoch(self) -> None:
        self.epoch += 1
        seconds = time.monotonic() - self.epoch_started_s
        row: dict[str, float] = {"step": self.step, "epoch": self.epoch, "train_loss": self._mean_loss()}
        # learning rate of the last step, before layer decay
        factor = lr_factor(self.step - 1, self.warmup_steps, self.total_steps, self.args.min_lr / self.args.lr)
        row["lr"] = self.args.lr * factor
        last = self.epoch == self.args.epochs
        due = self.epoch % self.args.validate_every == 0 or last
        with self.average.swapped() if self.average is not None else nullcontext():
            figures = self._validate() if self.loaders.validation and due else {}
            if self._keeps(figures) or (last and self.args.keep == "last"):
                self._write_weights({**row, **figures})
        row |= figures
        self.finished = last or bool(self.args.patience and self.since_best >= self.args.patience)
        self.batch = 0
        self.loss_sum.zero_()
        self.last_row = dict(row)
        self.directory.row(row | {"seconds": round(seconds, 3)})
        self.points.add({name.replace("_", "/", 1): value for name, value in row.items() if "_" in name}, self.step)
        log.info("epoch %d: %s", self.epoch, ", ".join(f"{k} {v:.6g}" for k, v in row.items()))
        self._save()

    def _mean_loss(self) -> float:
        total = self.loss_sum.clone()
        total = self.fabric.all_reduce(total, reduce_op="mean") if self.world > 1 else total
        return float(total) / self.batch

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        self.model.eval()

        def reduce(sums: Tensor) -> Tensor:
            if self.world == 1:
                return sums
            return self.fabric.all_reduce(sums.to(self.fabric.device), reduce_op="sum").cpu()

        with self.fabric.autocast():
            return self.objective.validate(self._validation_batches(), reduce)

    def _validation_batches(self) -> Iterator[ValidationBatch]:
        size = self.args.batch_size
        for examples in self.loaders.validation:
            for number, batch in examples.batches(size, self.rank, self.world):
                yield ValidationBatch(examples.name, number, batch)

    def _keeps(self, figures: Mapping[str, float]) -> bool:
        """True if these weights are the best so far; counts validations without improvement."""
        if not self.loaders.validation:
            self.best_epoch = self.epoch
            return True
        if not figures:
            return False
        value = figures[self.objective.monitor]
        sign = 1 if self.objective.mode == "max" else -1
        if not math.isfinite(value):
            raise RunError(self.directory.path, self.objective.monitor, value, "a finite number")
        if self.best is None or sign * value > sign * self.best:
            self.best, self.best_epoch, self.since_best = value, self.epoch, 0
            return self.args.keep == "best"
        self.since_best += 1
        return False

    def _write_weights(self, row: Mapping[str, float]) -> None:
        if self.rank == 0:
            extra = {**self.objective.extra(self.loaders), "row": dict(row)}
            registry.save(self.directory.path / WEIGHTS, self.model, extra)

    # checkpoints

    def _save(self) -> None:
        """Write a checkpoint; no process goes on before it is on the disk."""
        values = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "loss_sum": self._losses_of_all(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "since_best": self.since_best,
            "finished": self.finished,
            "result": self._result(),
        }
        if self.rank == 0:
            average = self.average.average if self.average is not None else {}
            self.directory.state.save(values, pack(self.model, average, self.optimizers))
        self.fabric.barrier()

    def _losses_of_all(self) -> float:
        """Losses of the epoch so far: sum over batches, mean over processes."""
        return float(
            self.fabric.all_reduce(self.loss_sum.clone(), reduce_op="mean") if self.world > 1 else self.loss_sum
        )

    def _restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        average = self.average.average if self.average is not None else {}
        unpack(self.directory.state.path, tensors, self.model, average, self.optimizers)
        for name in ("epoch", "batch", "step", "best", "best_epoch", "since_best"):
            setattr(self, name, values[name])
        self.loss_sum.fill_(values["loss_sum"])
        log.info("resumed at step %d in epoch %d", self.step, self.epoch + 1)

    def _result(self) -> dict[str, Any]:
        return {
            "run": str(self.directory.path),
            "epochs": self.epoch,
            "steps": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "watched": self.objective.monitor,
            **self.last_row,
        }


class _Step(nn.Module):
    """The training loss as a module, so that DDP and autocast cover all that it calls of the model."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self.objective = objective
        self.draws: StepRandom | None = None

    def forward(self, batch: Batch) -> Tensor:
        return self.objective.training_loss(batch, self.draws)
