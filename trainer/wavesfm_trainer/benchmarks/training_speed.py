# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed of pre-training and of each way of fine-tuning, against a plain float32 loop measured in the same run.

This trainer's side is `TrainingLoop`: data on the device, features of frozen blocks computed once, the faster of its
precisions. The plain side (`plain_loop`) trains the same parameters of the same model size on as many samples. The two
take turns, so that other load on the machine affects both, and a ratio is the median over the turns.
"""

from __future__ import annotations

import logging
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from ..data.examples import Examples
from ..models.mae import MaskedAutoencoder
from ..models.task_model import TaskArgs, TaskModel
from ..models.vit import SIZES, EncoderArgs
from ..training.batches import DeviceExamples, Loaders
from ..training.fit import make_fabric
from ..training.loop_args import PRECISIONS, LoopArgs
from ..training.objectives import FinetuneArgs, FinetuneObjective, PretrainObjective
from ..training.training_loop import TrainingLoop
from .plain_loop import LORA_ALPHA, LORA_RANK, HDF5Items, PeerLoop, PlainAutoencoder, PlainTask

log = logging.getLogger(__name__)

# mode -> (what trains, whether features of the frozen part are kept); pre-training has neither
MODES: dict[str, tuple[str, str]] = {
    "pretrain": ("", ""),
    "probe-cached": ("probe", "always"),
    "probe": ("probe", "never"),
    "lora": ("lora", "never"),
    "last-cached": ("last", "always"),
    "all": ("all", "never"),
}
N_LABELS = 20
MEAN, STD = 0.5, 0.25
MOST_STEPS = 4  # of a pass; also sets the number of examples
SHORTEST_S = 0.1  # of a measurement: a shorter pass is run several times
EPOCHS = 100  # over which the cost of computing features once is spread in ratio_with_preparation
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class BenchRow:
    """Measurements of one mode."""

    mode: str
    """One of MODES."""
    size: str
    """Size of the model."""
    image: int
    """Side of a tile in pixels."""
    batch: int
    """Samples of a step."""
    device: str
    """Device."""
    clock: str
    """Clock."""
    repeats: int
    """Measurements of each side."""
    samples: int
    """Samples of a pass, equal on both sides."""
    ours_passes: int
    """This trainer's passes in one measurement; the plain side has 1."""
    ours_samples_per_s: float
    """Median over the repeats."""
    peer_samples_per_s: float
    """Median over the repeats."""
    ratio: float
    """Median of the repeats' ratios."""
    ratio_low: float
    """Lowest of them."""
    ratio_high: float
    """Highest of them."""
    preparation_s_per_sample: float
    """Time to compute the features of the frozen part, once in a run; 0 if none are kept."""
    ratio_with_preparation: float
    """The ratio over a run of 100 epochs with the preparation."""
    precision: str
    """This trainer's precision, the faster one."""
    peer_workers: int
    """DataLoader processes of the plain side, the fastest number."""
    trainable_parameters: int
    """Of this trainer."""
    peer_trainable_parameters: int
    """Of the plain side, the same number."""


@dataclass(frozen=True)
class Setting:
    """What all modes of a bench have in common, see `run_bench`."""

    args: EncoderArgs
    batch: int
    device: str
    clock: str
    repeats: int
    seconds: float  # for one mode
    workers: tuple[int, ...]
    folder: Path


def run_bench(
    seconds: float = 120.0,
    size: str = "nano",
    image: int = 224,
    batch: int = 32,
    device: str = "cpu",
    modes: Sequence[str] = tuple(MODES),
    repeats: int = 5,
    workers: tuple[int, ...] = (0, 2),
    clock: str = "wall",
) -> list[BenchRow]:
    """Measure training speed; one row for each mode.

    Parameters
    ----------
    seconds : approximate duration of all of it; a pass has at least one step, so a slow machine takes longer.
    size, image, batch : model size, side of the tiles and samples of a step, equal on both sides.
    device : "cpu" or "cuda".
    modes : of MODES.
    repeats : measurements of each side.
    workers : numbers of DataLoader processes of the plain side; the fastest is used.
    clock : "wall", or "cpu" for the processor time of this process alone, on a CPU that others use too. Worker
        processes are not in it, so workers must be (0,).

    Raises
    ------
    ConfigurationError : an option out of its range.
    """
    values = {
        "seconds": seconds,
        "size": size,
        "batch": batch,
        "device": device,
        "modes": modes,
        "repeats": repeats,
        "workers": workers,
        "clock": clock,
    }
    rules = {
        "seconds": (0 < seconds < math.inf, "a positive number"),
        "size": (size in SIZES, f"one of {', '.join(SIZES)}"),
        "batch": (batch >= 1, "1 or more"),
        "device": (device == "cpu" or (device == "cuda" and torch.cuda.is_available()), "cpu, or cuda if here"),
        "modes": (len(modes) > 0 and set(modes) <= set(MODES), f"some of {', '.join(MODES)}"),
        "repeats": (repeats >= 1, "1 or more"),
        "workers": (len(workers) > 0 and min(workers) >= 0, "one or more counts, each 0 or more"),
        "clock": (clock in CLOCKS, f"one of {', '.join(CLOCKS)}"),
    }
    require_rules("bench", values, rules)
    if clock == "cpu" and (device != "cpu" or tuple(workers) != (0,)):
        raise ConfigurationError("bench", "clock", "cpu", "wall with device cuda or with worker processes")
    with tempfile.TemporaryDirectory() as folder:
        share = seconds / len(modes)
        encoder = EncoderArgs(size=size, image=image)
        setting = Setting(encoder, batch, device, clock, repeats, share, tuple(workers), Path(folder))
        examples = _write_examples(setting)
        return [_measure(mode, setting, examples) for mode in modes]


def format_rows(rows: Sequence[BenchRow]) -> str:
    """A table for a terminal, one line for each row."""
    head = f"{'mode':<14}{'ours':>10}{'plain':>10}{'ratio':>9}  {'of the repeats':<18}{'with prep.':>10}  precision"
    lines = [head + "  workers"]
    for row in rows:
        spread = f"{row.ratio_low:.2f} to {row.ratio_high:.2f}"
        lines.append(
            f"{row.mode:<14}{row.ours_samples_per_s:>10.1f}{row.peer_samples_per_s:>10.1f}{row.ratio:>9.2f}  "
            f"{spread:<18}{row.ratio_with_preparation:>10.2f}  {row.precision:<11}{row.peer_workers:>7}"
        )
    one = rows[0]
    about = f"samples/s ({one.clock} time) of size {one.size}, tiles of {one.image} x {one.image}, batch {one.batch}"
    return "\n".join([*lines, f"{about}, on {one.device}; with prep.: features once in {EPOCHS} epochs"])


def as_json(rows: Sequence[BenchRow]) -> dict[str, Any]:
    """Rows, and the machine that they were measured on, as plain types."""
    machine = {
        "processor": torch.cuda.get_device_name() if rows[0].device == "cuda" else platform.processor(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {"machine": machine, "rows": [asdict(row) for row in rows]}


# data


def _write_examples(setting: Setting) -> Examples:
    """Noise in [0, 1) with labels: in memory as a cache holds it, and float32 in an HDF5 file for the plain side."""
    rng = np.random.default_rng(0)
    n, side = setting.batch * MOST_STEPS, setting.args.image
    image = rng.random((n, 1, side, side), np.float32).astype(np.float16)
    target = rng.integers(0, N_LABELS, n)
    with h5py.File(setting.folder / "examples.h5", "w") as file:
        file["image"], file["target"] = image.astype(np.float32), target
    spec = ImageSpec(1, 0.0, 1.0, (MEAN,), (STD,), height=side, width=side)
    return Examples(image, target, None, None, spec, {"task": "bench"})


# the two sides


class OurLoop:
    """The training loop on the examples, pass by pass; nothing is written or validated."""

    def __init__(self, mode: str, setting: Setting, examples: Examples, steps: int, precision: str) -> None:
        torch.manual_seed(0)
        args = LoopArgs(
            epochs=10_000, batch_size=setting.batch, batches_per_epoch=steps, precision=precision, tensorboard=False
        )
        self.data = DeviceExamples(examples, "bench")
        objective = our_objective(mode, setting.args)
        self.model = objective.model
        fabric = make_fabric(args, 1, setting.device, 1, False)
        run_dir = setting.folder / "run"  # stays empty: only a whole run writes
        self.loop = TrainingLoop(fabric, objective, Loaders([self.data]), args, run_dir, False, {})
        start = CLOCKS[setting.clock]()
        self.loop.set_up()
        _wait(setting.device)
        took = CLOCKS[setting.clock]() - start
        self.preparation_s = took / len(examples) if self.data.features is not None else 0.0

    @property
    def seen(self) -> int:
        """Samples trained on so far."""
        return self.loop.step * self.loop.args.batch_size

    def train_pass(self) -> float:
        """Train on one pass; returns its mean loss."""
        return self.loop.train_pass()


def our_objective(mode: str, args: EncoderArgs) -> PretrainObjective | FinetuneObjective:
    """Model and loss of a mode, as a run has them."""
    trainable, cache = MODES[mode]
    if not trainable:
        return PretrainObjective(MaskedAutoencoder(args))
    task = TaskArgs(n_outputs=N_LABELS, trainable=trainable, lora_rank=LORA_RANK, lora_alpha=LORA_ALPHA)
    model = TaskModel(args, task)
    model.pretrained = True  # random weights are as fast; no warning that they are
    head = HeadSpec("classification", tuple(f"class {i}" for i in range(N_LABELS)))
    return FinetuneObjective(model, head, FinetuneArgs(cache_prefix=cache))


def peer_model(mode: str, args: EncoderArgs) -> PlainAutoencoder | PlainTask:
    """The plain side's model of a mode."""
    trainable, _ = MODES[mode]
    return PlainTask(args, N_LABELS, trainable) if trainable else PlainAutoencoder(args)


def _peer(mode: str, setting: Setting, steps: int, workers: int) -> PeerLoop:
    torch.manual_seed(0)
    keys = ("image", "target") if MODES[mode][0] else ("image",)
    items = HDF5Items(setting.folder / "examples.h5", keys, MEAN, STD)
    model = peer_model(mode, setting.args)
    return PeerLoop(model, items, setting.batch, setting.batch * steps, workers, setting.device)


# measuring


def _measure(mode: str, setting: Setting, examples: Examples) -> BenchRow:
    steps = _steps_that_fit(mode, setting)
    peers = {count: _peer(mode, setting, steps, count) for count in setting.workers}
    workers, peer = _fastest(peers, setting)
    ours = {name: OurLoop(mode, setting, examples, steps, name) for name in PRECISIONS}
    precision, our = _fastest(ours, setting)
    passes = max(1, min(10_000, math.ceil(SHORTEST_S / max(1e-6, _timed(our.train_pass, setting)))))
    samples = steps * setting.batch
    our_s, peer_s = [], []
    for turn in range(setting.repeats):
        both = [(our_s, our, passes), (peer_s, peer, 1)]
        for times, side, count in both if turn % 2 else reversed(both):
            before = side.seen
            times.append(_timed(side.train_pass, setting, count) / count)
            assert side.seen - before == count * samples, "the two sides did not see the same number of samples"
    row = _row(mode, setting, our_s, peer_s, samples, our.preparation_s)
    log.info("%s: %.2f times the plain loop", mode, row["ratio"])
    return BenchRow(
        **row,
        ours_passes=passes,
        precision=precision,
        peer_workers=workers,
        trainable_parameters=_n_trainable(our.model),
        peer_trainable_parameters=_n_trainable(peer.model),
    )


def _steps_that_fit(mode: str, setting: Setting) -> int:
    """Steps of a pass, 1 to MOST_STEPS, from the duration of one of the plain side, which takes most of the time."""
    probe = _peer(mode, setting, 1, 0)
    probe.train_pass()
    one_s = _timed(probe.train_pass, setting)
    passes = 2 * setting.repeats + 2 * len(setting.workers)  # at worst, this side takes as long as the plain one
    return max(1, min(MOST_STEPS, int(setting.seconds / (passes * one_s))))


def _fastest(sides: dict[Any, Any], setting: Setting) -> tuple[Any, Any]:
    """The side whose second pass is the fastest, with its name."""
    took = {}
    for name, side in sides.items():
        side.train_pass()
        took[name] = _timed(side.train_pass, setting)
    name = min(took, key=took.__getitem__)
    return name, sides[name]


def _timed(run: Callable[[], Any], setting: Setting, times: int = 1) -> float:
    clock = CLOCKS[setting.clock]
    _wait(setting.device)
    start = clock()
    for _ in range(times):
        run()
    _wait(setting.device)
    return clock() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _row(
    mode: str, setting: Setting, our_s: list[float], peer_s: list[float], samples: int, preparation_s: float
) -> dict[str, Any]:
    ratios = [peer / our for our, peer in zip(our_s, peer_s)]
    with_preparation = [p / (o + preparation_s * samples / EPOCHS) for o, p in zip(our_s, peer_s)]
    return {
        "mode": mode,
        "size": setting.args.size,
        "image": setting.args.image,
        "batch": setting.batch,
        "device": setting.device,
        "clock": setting.clock,
        "repeats": setting.repeats,
        "samples": samples,
        "ours_samples_per_s": samples / statistics.median(our_s),
        "peer_samples_per_s": samples / statistics.median(peer_s),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "preparation_s_per_sample": preparation_s,
        "ratio_with_preparation": statistics.median(with_preparation),
    }


def _n_trainable(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
