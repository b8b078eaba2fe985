# SPDX-License-Identifier: GPL-3.0-or-later
"""Model card (README.md) of a bundle: purpose, training data, figures of merit and limits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from wavesfm_core.bundle.spec import BundleSpec, HeadSpec

from ..evaluation.compare_estimators import NAME as COMPARISON
from ..evaluation.compare_estimators import read_comparison
from ..evaluation.run_files import Evaluation
from ..evaluation.trained_run import TrainedTask
from ..models.task_model import TaskArgs
from ..report.tables import channel_table

PURPOSE = {
    "classification": "Names one of {n} classes, with probabilities.",
    "position": "Estimates a position along {axes} in metres.",
    "channel": "Estimates a MIMO-OFDM channel, complex [{grid}] (antennas, symbols, subcarriers).",
}
LIMITS = {
    "classification": "It gives one of its labels to every input. With a threshold on the confidence, weak answers "
    'become "unknown".',
    "position": "It was trained between {corners}. Its answers for places outside, for another site or for another set "
    "of base stations are not reliable.",
    "channel": "It supports only the pilots, the grid and the signal-to-noise ratios that it was trained with.",
}


def make_card(
    trained: TrainedTask,
    task_args: TaskArgs | None,
    spec: BundleSpec,
    arithmetic: str,
    engine: str,
    golden_of: str,
    evaluation: Evaluation | None,
) -> str:
    """Write the card.

    Parameters
    ----------
    trained
        The run.
    task_args
        What was trained, before adapters were merged; None for a channel estimator of slots.
    spec
        Contract of the bundle.
    arithmetic
        Description of the graph's arithmetic.
    engine
        Description of the engine that gave torch's outputs.
    golden_of
        Description of the golden inputs.
    evaluation
        Of the run; None if there is none.

    Returns
    -------
    The card in Markdown.
    """
    head = spec.head
    parts = [
        f"# {spec.name}",
        PURPOSE[head.task].format(n=len(head.labels), axes=", ".join(head.axes), grid=" x ".join(map(str, head.grid))),
        _table(trained, spec, arithmetic),
        f"**Training data.** {spec.training_data}{_split(trained)}",
        f"**Training.** {_training(trained, task_args)}",
        f"**How good.** {_compared(trained) or _figures(evaluation)}",
        f"**What it is not for.** {_limits(spec.head)} {spec.preprocess.limits()}",
        f"**Export.** The outputs equal those of the trained model in float32 within {spec.tolerance:.2g} on {engine}, "
        f"alone and in batches. The golden tiles are of {golden_of}.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(trained: TrainedTask, spec: BundleSpec, arithmetic: str) -> str:
    args, head = trained.model.encoder_args, spec.head
    size = args.encoder
    parameters = sum(p.numel() for p in trained.model.parameters()) / 1e6
    model = (
        f"WavesFM encoder `{args.size}`: {size.depth} blocks of width {size.width}, {size.heads} heads, patches of "
        f"{args.patch} x {args.patch}; {parameters:.2f} M parameters"
    )
    rows = [("model", model), ("arithmetic", arithmetic)]
    rows += [("input", f"`{t.name}` float32 {_shape(t.shape)}") for t in spec.inputs]
    rows += [("output", f"`{t.name}` float32 {_shape(t.shape)}") for t in spec.outputs]
    if head.task == "classification":
        rows.append(("labels", ", ".join(head.labels)))
    rows += spec.preprocess.input_rows().items()
    if "log10_rate" in spec.preprocess.side_inputs:
        low, high = (rate / 1e6 for rate in spec.rates_hz)
        rows.append(("rates", f"{low:g} to {high:g} MS/s"))
    rows.append(("licence", spec.licence))
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("B" if n == -1 else str(n) for n in shape) + "]"


def _split(trained: TrainedTask) -> str:
    """How the run's data were split, without paths, which are the training machine's."""
    path = trained.directory / "split.json"
    if not path.is_file():
        return ""
    names = trained.config.get("data", {}).get("training", {})
    sentences = []
    for name, part in json.loads(path.read_text()).items():
        split = part.get("split")
        if name in names and isinstance(split, dict):
            sizes = ", ".join(f"{count} {side}" for side, count in split.get("sizes", {}).items())
            sentences.append(f" Split: {split.get('method')}{f' ({sizes})' if sizes else ''}.")
    return "".join(sentences[:1])


def _training(trained: TrainedTask, task_args: TaskArgs | None) -> str:
    if task_args is None:
        start = "Trained from a start that equals LMMSE in space, time and frequency: all weights"
        slots = next(iter(trained.config.get("data", {}).get("training", {}).values()), {}).get("slots", {})
        snrs = slots.get("snr_db")
        noise = f", at an SNR of {snrs[0]:g} to {snrs[1]:g} dB" if snrs else ""
        return f"{start}{_options(trained)}{noise}. The signal-to-noise ratio measured at the pilots is an input."
    how = {
        "probe": "the head only",
        "last": f"the last {task_args.last_blocks} blocks and the head",
        "lora": f"adapters of rank {task_args.lora_rank} (alpha {task_args.lora_alpha:g}) and the head, merged here",
        "all": "all weights",
    }[task_args.trainable]
    start = "from pre-trained weights" if trained.model.pretrained else "from scratch"
    return f"Trained {start}: {how}{_options(trained)}."


def _options(trained: TrainedTask) -> str:
    args: dict[str, Any] = trained.config.get("args") or {}
    options = ", ".join(f"{name} {args[name]}" for name in ("epochs", "batch_size", "lr", "seed") if name in args)
    return f" ({options})" if options else ""


def _compared(trained: TrainedTask) -> str:
    """The tables of `wavesfm-train compare-channels` in the run's directory; "" if there are none."""
    path = trained.directory / COMPARISON
    if not path.is_file():
        return ""
    parts = []
    for pool in read_comparison(path):
        table = channel_table(pool)
        parts += [f"{table.notes[0]} {table.heads[1][0]}:", replace(table, heads=()).markdown(), *table.notes[1:]]
    return "\n\n".join(parts)


def _figures(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not evaluated: the run has no evaluation.json."
    rows = [
        f"| {name} | {value:.4g} |" if math.isfinite(value) else f"| {name} | - |"
        for name, value in evaluation.metrics.items()
    ]
    interval = evaluation.interval
    spread = f"; 95 % of {evaluation.headline}: {interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
    return f"On the {evaluation.n_samples} examples of the {evaluation.split} split{spread}.\n\n| | |\n|---|---|\n" + (
        "\n".join(rows)
    )


def _limits(head: HeadSpec) -> str:
    corners = ", ".join(f"{a} {low:g} to {high:g} m" for a, low, high in zip(head.axes, head.low_m, head.high_m))
    return LIMITS[head.task].format(corners=corners)
