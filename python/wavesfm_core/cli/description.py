# SPDX-License-Identifier: GPL-3.0-or-later
"""What `wavesfm info` says of a bundle's task and of what goes in, by kind."""

from __future__ import annotations

from ..bundle.spec import BundleSpec, HeadSpec, PilotGridSpec, SpectrogramSpec


def head_rows(head: HeadSpec) -> dict[str, str]:
    """The task and what belongs to it, by title."""
    if head.task == "classification":
        labels = f"{len(head.labels)}: {', '.join(head.labels)}"
        return {"task": head.task, "labels": labels, "threshold": f"{head.threshold:g}"}
    if head.task == "position":
        spans = [f"{a} {low:g} to {high:g} m" for a, low, high in zip(head.axes, head.low_m, head.high_m)]
        return {"task": head.task, "axes": ", ".join(spans)}
    antennas, symbols, subcarriers = head.grid
    grid = f"{antennas} antennas, {symbols} symbols, {subcarriers} subcarriers"
    return {"task": head.task, "grid": grid, "scale": f"{head.scale:g}"}


def input_rows(spec: BundleSpec) -> dict[str, str]:
    """What one tile is made of, and how, by title."""
    preprocess = spec.preprocess
    if isinstance(preprocess, PilotGridSpec):
        return _grid_rows(spec, preprocess)
    steps = ", ".join(f"{name} {value}" for name, value in vars(preprocess).items())
    if isinstance(preprocess, SpectrogramSpec):
        low, high = spec.rates_hz
        return {
            "trained at": f"{low / 1e6:g} to {high / 1e6:g} MS/s",
            "a tile": f"{preprocess.tile_samples} samples, at least {preprocess.min_samples}",
            "preprocess": steps,
        }
    return {"a tile": f"an array [{preprocess.channels}, rows, columns]", "preprocess": steps}


def _grid_rows(spec: BundleSpec, preprocess: PilotGridSpec) -> dict[str, str]:
    numerology, (_, pilots) = preprocess.numerology, preprocess.numerology.pilots.shape
    steps = preprocess.layout
    if preprocess.image is not None:
        steps += ": " + ", ".join(f"{name} {value}" for name, value in vars(preprocess.image).items())
    symbols = ", ".join(map(str, numerology.pilot_symbols))
    return {
        "numerology": f"{numerology.id}: FFT {numerology.fft_size}, {numerology.spacing_hz / 1e3:g} kHz, "
        f"{numerology.rate_hz / 1e6:g} MS/s, {numerology.slot_samples} samples a slot",
        "pilots": f"on symbols {symbols}, {pilots} subcarriers each, every {numerology.pilot_step}. from "
        f"{numerology.pilot_offset} on",
        "covariances": spec.covariances or "none",
        "preprocess": steps,
    }
