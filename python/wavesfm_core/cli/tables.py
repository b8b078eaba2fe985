# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and notes of `wavesfm classify`, `annotate` and the demo."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ..analysis import Analysis
from ..recordings.findings import Finding
from ..types import UNKNOWN

ROWS_SHOWN = 40
"""Most findings in a table."""


def show_analysis(console: Console, analysis: Analysis, show_all: bool = False) -> None:
    """Print findings, label counts and notes of one recording."""
    show_findings(console, analysis.findings, analysis.rate_hz, analysis.name, show_all)
    show_labels(console, analysis)
    show_notes(console, analysis.notes)


def show_findings(
    console: Console, findings: Sequence[Finding], rate_hz: float, title: str, show_all: bool = False
) -> None:
    """Print a table of findings: time, frequency, label, confidence, tiles."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    timed = any(finding.time for finding in findings)
    numbers = ("start s", "for s") if rate_hz else ("start", "samples")
    for heading in (*numbers, *(["UTC"] if timed else []), "MHz", "kHz", "dB", "found", "conf.", "tiles", "held back"):
        table.add_column(heading, justify="left" if heading == "found" else "right", no_wrap=True)
    shown = findings if show_all else findings[:ROWS_SHOWN]
    for finding in shown:
        table.add_row(*_row(finding, rate_hz, timed))
    console.print(table)
    if len(shown) < len(findings):
        _print(console, f"these are the first {len(shown)} of {len(findings)} findings: --all shows all")


def _row(finding: Finding, rate_hz: float, timed: bool) -> list[str]:
    place = (finding.start_sample, finding.n_samples)
    row = [f"{samples / rate_hz:.3f}" if rate_hz else str(samples) for samples in place]
    if timed:
        row.append("" if finding.time is None else str(finding.time.as_dict()["utc"])[11:23])
    row += _place(finding)
    mark = "?" if finding.rate_note else ""
    row += [finding.label + mark, "" if finding.confidence is None else f"{finding.confidence:.2f}"]
    return [*row, str(finding.tiles), str(finding.held_back or "")]


def _place(finding: Finding) -> list[str]:
    """Middle of the finding in MHz, and its width in kHz and power over noise in dB where it was found in the band."""
    edges = finding.edges_hz()
    if finding.band_hz is None or edges is None:
        return ["" if finding.centre_hz is None else f"{finding.centre_hz / 1e6:.6g}", "", ""]
    middle_hz, width_hz = sum(edges) / 2, edges[1] - edges[0]
    return [f"{middle_hz / 1e6:.7g}", f"{width_hz / 1e3:.3g}", f"{finding.snr_db:.0f}"]


def show_labels(console: Console, analysis: Analysis) -> None:
    """Print a table of labels over all tiles, and the most probable label."""
    summary = analysis.summary
    if not summary.tiles:
        _print(console, "no tile was classified")
        return
    means = summary.probabilities
    table = Table("label", "tiles", "part", "mean probability", title="all tiles", title_justify="left")
    for label, count in summary.counts.most_common():
        mean = "" if label == UNKNOWN or label not in means else f"{means[label]:.3f}"
        table.add_row(label, str(count), f"{count / summary.tiles:.1%}", mean)
    console.print(table)
    _print(console, f"most probable: {verdict(analysis)}")
    if summary.inferred < summary.tiles:
        _print(console, f"tiles held back by the power gate: {summary.tiles - summary.inferred}")
    if summary.partial:
        _print(console, f"partial tiles: {summary.partial}")


def verdict(analysis: Analysis) -> str:
    """The most probable label and its mean probability, with "?" where the sample rate makes it doubtful."""
    summary = analysis.summary
    probability = summary.probabilities.get(summary.label)
    mark = "?" if any(finding.rate_note for finding in analysis.findings) else ""
    return summary.label + mark + ("" if probability is None else f" ({probability:.3f})")


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Print one line for each note."""
    for note in notes:
        _print(console, f"note: {note}")


def show_many(console: Console, analyses: Sequence[Analysis]) -> None:
    """Print a table with one line for each recording, then all notes."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for heading in ("recording", "s", "MS/s", "MHz", "most probable", "tiles", "findings", "notes"):
        left = heading in ("recording", "most probable")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for analysis in analyses:
        duration = "" if analysis.duration_s is None else f"{analysis.duration_s:.3f}"
        rate = f"{analysis.rate_hz / 1e6:g}" if analysis.rate_hz else "unknown"
        centre = "" if analysis.centre_hz is None else f"{analysis.centre_hz / 1e6:.6g}"
        counts = (len(analysis.predictions), len(analysis.findings), len(analysis.notes))
        table.add_row(analysis.name, duration, rate, centre, verdict(analysis), *map(str, counts))
    console.print(table)
    for analysis in analyses:
        show_notes(console, [f"{analysis.name}: {note}" for note in analysis.notes])


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
