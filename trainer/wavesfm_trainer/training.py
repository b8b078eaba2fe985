"""The supervised loop on Lightning: tiles in memory, Muon and AdamW, cosine, patch dropping, averaged weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from wavesfm_core.errors import ConfigurationError, InputError

from .metrics import class_accuracy, confusion_matrix
from .model import SIZES, ViT
from .tiles import Tiles, read_cache, read_note, statistics

FREQUENCY_ROLL = 12  # pixels


@dataclass(frozen=True)
class TrainArgs:
    """Options of a supervised run.

    size: one of model.SIZES; batch_size, lr, weight_decay, warmup_steps, label_smoothing, drop_path as usual.
    max_steps and max_minutes: whichever is reached first ends the run, and the cosine follows the further of the two.
    keep: (share of the run, share of patches kept) pairs in order; the last stage should keep all patches.
    unknown_rate: probability with which a tile's sample rate is hidden; validation_tiles: how many are watched.
    seed: of everything drawn while training. processes: on this machine's CPU, each with batch_size tiles a step and
        gradients averaged (DDP); they keep step by step count, so max_minutes must be left alone.
    """

    size: str = "nano"
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    label_smoothing: float = 0.05
    drop_path: float = 0.05
    max_steps: int = 10000
    max_minutes: float = 1e9
    steps_per_epoch: int = 200
    keep: tuple[tuple[float, float], ...] = ((0.75, 0.25), (0.93, 0.5), (1.0, 1.0))
    unknown_rate: float = 0.1
    validation_tiles: int = 400
    ema_decay: float = 0.998
    seed: int = 1
    precision: str = "bf16-mixed"
    processes: int = 1

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigurationError("TrainArgs", "size", self.size, f"one of {', '.join(SIZES)}")
        if self.max_steps < 1 or self.batch_size < 1:
            raise ConfigurationError(
                "TrainArgs", "max_steps, batch_size", (self.max_steps, self.batch_size), "1 or more"
            )
        if self.processes < 1 or (self.processes > 1 and self.max_minutes < 1e9):
            raise ConfigurationError("TrainArgs", "processes", self.processes, "1, or more without max_minutes")
        until = [stage[0] for stage in self.keep]
        if not until or until[-1] != 1.0 or until != sorted(until) or until[0] <= 0:
            raise ConfigurationError("TrainArgs", "keep", self.keep, "stages in order that end at 1.0 of the run")
        if not all(0 < share <= 1 for _, share in self.keep):
            raise ConfigurationError("TrainArgs", "keep", self.keep, "shares of patches above 0 and up to 1")


class TileBatches(Dataset):
    """Batches of tiles as tensors; augmented while training, with the rate hidden or blurred."""

    def __init__(self, tiles: Tiles, mean: float, std: float, unknown_rate: float = 0.0, augment: bool = False) -> None:
        self.tiles, self.mean, self.std = tiles, mean, std
        self.unknown_rate, self.augment = unknown_rate, augment

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        at = np.asarray(indices)
        picture = torch.from_numpy(self.tiles.picture[at]).float()[:, None] / 255
        rate = torch.from_numpy(self.tiles.log10_rate[at])[:, None].clone()
        if self.augment:
            picture = augmented(picture)
            rate += 0.01 * torch.randn_like(rate)
            rate[torch.rand(len(at)) < self.unknown_rate] = 0.0
        tile = (picture - self.mean) / self.std
        return {"tile": tile, "log10_rate": rate, "label": torch.from_numpy(self.tiles.label[at])}


def augmented(picture: Tensor) -> Tensor:
    """Pictures [B, 1, H, W] in [0, 1], each mirrored in frequency and rolled in time with even odds, slightly noisy.

    All are shifted a little in frequency: a tuning error, and a narrow signal is seen at every place in a patch.
    """
    count, _, height, width = picture.shape
    mirror = torch.rand(count) < 0.5
    picture[mirror] = picture[mirror].flip(-1)
    later = torch.randint(height, (count, 1)) * (torch.rand(count, 1) < 0.5)
    higher = torch.randint(-FREQUENCY_ROLL, FREQUENCY_ROLL + 1, (count, 1))
    row = (torch.arange(height) - later) % height
    column = (torch.arange(width) - higher) % width
    picture = picture[torch.arange(count)[:, None, None], 0, row[:, :, None], column[:, None, :]][:, None]
    return picture + 0.01 * torch.randn_like(picture)


class Classifier(L.LightningModule):
    """ViT with cross-entropy; logs the loss while training, mean class accuracy on validation."""

    def __init__(self, args: TrainArgs, n_labels: int) -> None:
        super().__init__()
        self.args, self.n_labels = args, n_labels
        self.model = ViT(SIZES[args.size], n_labels, drop_path=args.drop_path)
        self.started_s = time.monotonic()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        torch.manual_seed(self.args.seed + self.global_rank)  # each process draws its own tiles

    def progress(self) -> float:
        """How far the run is, 0 to 1, by steps or by the clock, whichever is further."""
        by_clock = (time.monotonic() - self.started_s) / 60 / self.args.max_minutes
        return min(1.0, max(self.global_step / self.args.max_steps, by_clock))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        progress = self.progress()
        self.model.keep = next(keep for until, keep in self.args.keep if progress <= until)
        logits = self.model(batch["tile"], batch["log10_rate"])
        loss = F.cross_entropy(logits.float(), batch["label"], label_smoothing=self.args.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {self.global_step}: loss: found {loss.item()}, expected a finite number")
        self.log("train_loss", loss, prog_bar=True)
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here and not as the Trainer's option, which refuses fused optimizers even where nothing is unscaled.
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)

    def on_train_batch_end(self, *_: object) -> None:
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.seen.append((self.model(batch["tile"], batch["log10_rate"]).argmax(1), batch["label"]))

    def on_validation_epoch_end(self) -> None:
        predicted, label = (torch.cat(column).numpy() for column in zip(*self.seen, strict=True))
        self.seen.clear()
        counted = torch.from_numpy(confusion_matrix(label, predicted, self.n_labels))
        total = self.all_gather(counted).reshape(-1, self.n_labels, self.n_labels).sum(0).numpy()
        self.log("val_accuracy", float(np.nanmean(class_accuracy(total))), prog_bar=True, rank_zero_only=True)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = muon(self.model, self.args.lr, self.args.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _scale(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.args.warmup_steps)
        return warm * max(0.005, 0.5 * (1 + np.cos(np.pi * self.progress())))


class Together(torch.optim.Optimizer):
    """Several optimizers of different parameters behind the interface of one."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        super().__init__([{"params": group["params"]} for part in parts for group in part.param_groups], {})
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]  # theirs: a schedule reaches both

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss


def muon(model: ViT, lr: float, weight_decay: float) -> Together:
    """Muon for the matrices of the blocks, AdamW for the rest; no weight decay where there is one dimension only.

    Muon (K. Jordan et al., 2024), scaled to the update size of AdamW, learns these signals far faster in equal time.
    """
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return Together(
        [
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True),
        ]
    )


class GrowingTiles(L.LightningDataModule):
    """Training tiles from a cache that may still be growing: read again at each epoch."""

    def __init__(self, cache: Path, validation: Tiles, args: TrainArgs, mean: float, std: float) -> None:
        super().__init__()
        self.cache, self.args, self.mean, self.std = cache, args, mean, std
        self.validation = TileBatches(validation, mean, std)
        self.n_shards, self.tiles = 0, None

    def train_dataloader(self) -> DataLoader:
        n_shards = len(list(self.cache.glob("shard-*.npz")))
        if n_shards != self.n_shards:
            self.tiles, self.n_shards = read_cache(self.cache), n_shards
        data = TileBatches(self.tiles, self.mean, self.std, self.args.unknown_rate, augment=True)
        n_draws = self.args.steps_per_epoch * self.args.batch_size
        sampler = RandomSampler(data, replacement=n_draws > len(data), num_samples=n_draws)
        return DataLoader(data, self.args.batch_size, sampler=sampler, collate_fn=_as_is)

    def val_dataloader(self) -> DataLoader:
        own = range(self.trainer.global_rank, len(self.validation), self.trainer.world_size)
        return DataLoader(self.validation, 100, sampler=own, collate_fn=_as_is)


def _as_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


class KeepWeights(Callback):
    """After each validation, writes the weights (the averaged ones, which are swapped in) to the run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_validation_epoch_end(self, trainer: L.Trainer, module: Classifier) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            save_weights(module.model, self.directory / "model.safetensors")


def save_weights(model: ViT, path: Path) -> None:
    """Write a model's weights atomically as safetensors."""
    partial = path.with_suffix(".tmp")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, partial)
    partial.replace(path)


def train(cache: Path, validation: Path, run: Path, args: TrainArgs, start_from: Path | None = None) -> Path:
    """Train on one cache, watch another, leave config.json, metrics.csv and model.safetensors in `run`."""
    L.seed_everything(args.seed, verbose=False)
    note = read_note(cache)
    if (watched := read_note(validation)["labels"]) != note["labels"]:
        raise InputError(validation, "labels", watched, f"{note['labels']}, those of {cache}")
    mean, std = statistics(read_cache(cache))
    note["spec"] |= {"mean": round(mean, 4), "std": round(std, 4)}
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({"args": asdict(args), **note}, indent=1))
    module = Classifier(args, len(note["labels"]))
    if start_from is not None:
        module.model.load_state_dict(load_file(start_from))
    data = GrowingTiles(
        cache, read_cache(validation, args.validation_tiles), args, note["spec"]["mean"], note["spec"]["std"]
    )
    trainer = L.Trainer(
        accelerator="auto" if args.processes == 1 else "cpu",
        devices=args.processes,
        strategy="auto" if args.processes == 1 else "ddp",
        use_distributed_sampler=False,
        max_steps=args.max_steps,
        precision=args.precision,
        reload_dataloaders_every_n_epochs=1,
        check_val_every_n_epoch=3,
        num_sanity_val_steps=0,
        callbacks=[KeepWeights(run), EMAWeightAveraging(decay=args.ema_decay)],  # kept before they are swapped back
        logger=CSVLogger(run, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    trainer.fit(module, data)
    trainer.validate(module, data, verbose=False)
    return run
