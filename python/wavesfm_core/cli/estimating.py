# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm estimate`: channels of the grids in a file, their error against known channels, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ..channel.backoff import BackOff
from ..channel.estimators import LeastSquares
from ..channel.grid_file import GridFile
from ..channel.pipeline import ChannelPipeline
from ..errors import ConfigurationError, InputError, WavesfmError
from ..preprocess.pilot_grid import Grid
from ..types import ChannelEstimate, Slot

BATCH_SLOTS = 32
SNR_STEP_DB = 5
HYSTERESIS_DB = 2.0


def back_off(text: str) -> BackOff | None:
    """The back-off of an option: "off", "on" (by the residual), or a number of dB from which it backs off too.

    Raises ConfigurationError for another text.
    """
    if text in ("off", "on"):
        return BackOff() if text == "on" else None
    try:
        enter_db = float(text)
    except ValueError:
        raise ConfigurationError("command line", "--back-off", repr(text), "off, on or a number of dB") from None
    return BackOff(enter_db, enter_db - HYSTERESIS_DB)


class Errors:
    """Sums of squared errors and of channel power, by measured SNR rounded to SNR_STEP_DB."""

    def __init__(self) -> None:
        self._sums: dict[int, NDArray[np.float64]] = {}

    def add(self, estimate: ChannelEstimate, least_squares: Grid, channel: Grid) -> None:
        """Add one slot."""
        parts = (estimate.channel - channel, least_squares - channel, channel)
        powers = [float(np.mean(np.abs(part).astype(np.float64) ** 2)) for part in parts]
        step = SNR_STEP_DB * round((estimate.snr_db or 0.0) / SNR_STEP_DB)
        self._sums[step] = self._sums.get(step, np.zeros(4)) + np.array([*powers, 1])

    def rows(self) -> list[dict[str, float]]:
        """Rows by rising SNR: snr_db, slots, nmse_db of the method, ls_nmse_db of least squares."""
        return [
            {"snr_db": step, "slots": int(n), "nmse_db": _db(error / power), "ls_nmse_db": _db(ls / power)}
            for step, (error, ls, power, n) in sorted(self._sums.items())
        ]


def estimates(pipeline: ChannelPipeline, grids: GridFile) -> Iterator[tuple[int, ChannelEstimate | WavesfmError]]:
    """Index and estimate (or error) of every slot of the file, in order."""
    samples = pipeline.spec.slot_samples
    for first in range(0, len(grids.received), BATCH_SLOTS):
        batch = grids.received[first : first + BATCH_SLOTS]
        slots = [Slot(grid, (first + i) * samples, samples) for i, grid in enumerate(batch)]
        yield from enumerate(pipeline.predict(slots), first)


def run(
    pipeline: ChannelPipeline, grids: GridFile, console: Console, name: str
) -> Iterator[ChannelEstimate | dict[str, object]]:
    """Yield for each slot its estimate, or a dict of `start_sample` and `error` where there is none.

    At the end a table of errors and the reasons of failed slots are printed.
    """
    errors, fallback = Errors(), LeastSquares(pipeline.spec)
    facts: list[tuple[float, float]] = []
    failures: dict[str, list[str]] = {}  # error texts by the field that is wrong
    unusable = 0
    for i, answer in estimates(pipeline, grids):
        if isinstance(answer, WavesfmError):
            failures.setdefault(answer.field, []).append(str(answer))
            yield {"start_sample": i * pipeline.spec.slot_samples, "error": str(answer)}
            continue
        facts.append((answer.snr_db or 0.0, answer.residual or 0.0))
        if grids.channel is not None:
            if np.isfinite(grids.channel[i]).all() and grids.channel[i].any():
                errors.add(answer, fallback.estimate(grids.received[i : i + 1])[0], grids.channel[i])
            else:
                unusable += 1
        yield answer
    if not facts:
        why = "; ".join(texts[0] for texts in failures.values())
        raise InputError(name, "slots", f"{len(grids.received)}, none that can be estimated ({why})", "at least one")
    _show(pipeline, errors, np.array(facts), console, name)
    for texts in failures.values():
        console.print(f"{len(texts)} slots could not be estimated: {texts[0]}", highlight=False)
    if unusable:
        console.print(
            f"{unusable} slots are not in the errors: their h_freq is not finite or all zero", highlight=False
        )


def _show(
    pipeline: ChannelPipeline,
    errors: Errors,
    facts: NDArray[np.float64],
    console: Console,
    name: str,
) -> None:
    snr_db, residual = np.median(facts, axis=0)
    if rows := errors.rows():
        table = Table(
            "SNR, dB", "slots", f"NMSE {pipeline.method}, dB", "NMSE ls, dB", title=name, title_justify="left"
        )
        for row in rows:
            table.add_row(f"{row['snr_db']:g}", str(row["slots"]), f"{row['nmse_db']:.2f}", f"{row['ls_nmse_db']:.2f}")
        console.print(table)
    summary = f"{len(facts)} slots by {pipeline.method}: median SNR {snr_db:.1f} dB, median residual {residual:.2f}"
    console.print(summary + f", {pipeline.backed_off} backed off to ls", highlight=False)


def save(path: Path, results: list[ChannelEstimate]) -> None:
    """Write an npz: channel [n, A, S, F], and start_sample, snr_db, residual and backed_off, each [n]."""
    arrays = {
        "channel": np.stack([estimate.channel for estimate in results]),
        "start_sample": np.array([estimate.start_sample for estimate in results]),
        "snr_db": np.array([estimate.snr_db for estimate in results]),
        "residual": np.array([estimate.residual for estimate in results]),
        "backed_off": np.array([estimate.backed_off for estimate in results]),
    }
    try:
        with path.open("wb") as file:  # savez would add .npz to a name without it
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types only its flags
    except OSError as error:
        raise ConfigurationError(path, "--output", error.strerror or error, "a file that can be written") from error


def _db(ratio: float) -> float:
    return float(10 * np.log10(max(ratio, 1e-30)))
