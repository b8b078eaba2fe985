"""README.md of a bundle: what it does, what it was trained on, how good it is, and where it must not be trusted."""

from __future__ import annotations

import json
import math
from typing import Any

from wavesfm_core.spec import BundleSpec, HeadSpec, ImageSpec, SpectrogramSpec

from .runs_format import Evaluation
from .task_model import TaskArgs
from .trained import TrainedTask

WHAT = {
    "classification": "Names one of {n} classes, with probabilities.",
    "position": "Estimates a position along {axes} in metres.",
    "channel": "Estimates a MIMO-OFDM channel, complex [{grid}] (antennas, symbols, subcarriers).",
}
LIMITS = {
    "classification": "It answers with one of its labels whatever it sees; a threshold on the confidence turns weak "
    'answers into "unknown".',
    "position": "It was trained between {corners}; what it says of a place outside is a guess, and so is what it says "
    "of another site or another set of base stations.",
    "channel": "It knows the pilots, the grid and the signal-to-noise ratios that it was trained with, and no others.",
}


def make_card(
    trained: TrainedTask,
    learnt: TaskArgs,
    spec: BundleSpec,
    arithmetic: str,
    engine: str,
    golden_of: str,
    evaluation: Evaluation | None,
) -> str:
    """The card's Markdown.

    learnt: what was trained, as it was before adapters were merged; engine: which gave torch's numbers; golden_of: what
    the golden tiles are of; evaluation: of the run, None where there is none.
    """
    head = spec.head
    parts = [
        f"# {spec.name}",
        WHAT[head.task].format(n=len(head.labels), axes=", ".join(head.axes), grid=" x ".join(map(str, head.grid))),
        _table(trained, spec, arithmetic),
        f"**Training data.** {spec.training_data}{_split(trained)}",
        f"**Training.** {_training(trained, learnt)}",
        f"**How good.** {_figures(evaluation)}",
        f"**What it is not for.** {_limits(spec.head)} {_range(spec)}",
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
    if isinstance(spec.preprocess, SpectrogramSpec):
        low, high = (rate / 1e6 for rate in spec.rates_hz)
        rows += [("a tile", f"{spec.preprocess.tile_samples} samples"), ("rates", f"{low:g} to {high:g} MS/s")]
    rows.append(("licence", spec.licence))
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("B" if n == -1 else str(n) for n in shape) + "]"


def _split(trained: TrainedTask) -> str:
    """How the run's data were split, from its own record; no paths, which are the training machine's."""
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


def _training(trained: TrainedTask, learnt: TaskArgs) -> str:
    how = {
        "probe": "the head only",
        "last": f"the last {learnt.last_blocks} blocks and the head",
        "lora": f"adapters of rank {learnt.lora_rank} (alpha {learnt.lora_alpha:g}) and the head, merged here",
        "all": "all weights",
    }[learnt.trainable]
    start = "from pre-trained weights" if trained.model.pretrained else "from scratch"
    args: dict[str, Any] = trained.config.get("args") or {}
    options = ", ".join(f"{name} {args[name]}" for name in ("epochs", "batch_size", "lr", "seed") if name in args)
    return f"Trained {start}: {how}{f' ({options})' if options else ''}."


def _figures(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not evaluated: the run it is from has no evaluation.json."
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


def _range(spec: BundleSpec) -> str:
    preprocess = spec.preprocess
    if isinstance(preprocess, ImageSpec):
        unit = " dB" if preprocess.decibel_floor is not None else ""
        return f"Arrays in training lay between {preprocess.low:g} and {preprocess.high:g}{unit}."
    return "It gives one answer for a tile with several signals."
