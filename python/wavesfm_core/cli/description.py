# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of `wavesfm info` on a bundle's task and inputs."""

from __future__ import annotations

from ..bundle.spec import BundleSpec, HeadSpec


def head_rows(head: HeadSpec) -> dict[str, str]:
    """Rows on the task and its outputs, by title."""
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
    """Rows on a bundle's inputs, by title."""
    preprocess, rows = spec.preprocess, {}
    if "log10_rate" in preprocess.side_inputs:
        low, high = spec.rates_hz
        rows["trained at"] = f"{low / 1e6:g} to {high / 1e6:g} MS/s"
    rows |= preprocess.input_rows()
    if preprocess.has_covariances:
        rows["covariances"] = spec.covariances or "none"
    return rows | {"preprocess": preprocess.steps()}
