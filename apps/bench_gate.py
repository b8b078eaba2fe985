#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten minutes of every signal class and of noise before the power gate: what it holds back. Prints a table.

The time is simulated. For each class, rate and signal-to-noise ratio a few tiles are generated (one transmission, cut
into tiles as a stream is, with white noise), prepared and classified once. A run then draws from these tiles at random,
one for each tile of the stream, and gives the gate the tile's figures, with the scatter that white noise has from tile
to tile, and the model's answer for that tile. So the gate's code runs for every tile, the model once for each
generated tile. The signal-to-noise ratio is that in the occupied bandwidth while the transmitter is on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import PowerGate
from wavesfm_core.preprocess.tile_signature import (
    SIGMAS,
    Signature,
    Tolerances,
    length_class,
    signature,
    tolerances,
)
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.types import NOISE, Prediction, Tile
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals.base import SignalClass, SilentWindow

SNRS_DB = (3.0, 10.0, 30.0)
MINUTES = 10.0
TILES = 6  # generated of each signal
NOISE_TILES = 32  # generated of noise alone
NOISE_TILES_BEFORE = 8  # and of noise before a signal
NOISE_BEFORE_S = 60.0
AMPLITUDE = 1e-3
NARROW = 0.3  # of the rate: a band narrower than that is placed beside 0 Hz, at OFFSET of the rate
OFFSET = 0.11


@dataclass(frozen=True)
class Sample:
    """A generated tile with its figures and the model's answer."""

    tile: Tile
    seen: Signature
    answer: Prediction


@dataclass(frozen=True)
class Run:
    """One simulated stretch of a stream."""

    label: str
    """Class of the signal."""
    rate_hz: float
    """Sample rate."""
    snr_db: float
    """In the occupied bandwidth; NaN for noise."""
    after_noise: bool
    """True when noise came before the signal."""
    tiles: int
    """Tiles of the stretch."""
    held: int
    """Tiles held back."""
    named: float
    """Share of the tiles in which the model names a signal, were it asked for each."""
    held_after_naming: int
    """Tiles held back after the model first named a signal."""
    hidden: int
    """Of these, tiles in which the model would have named a signal."""


def rates_hz(signal: SignalClass) -> tuple[float, float, float]:
    """Narrowest, usual (middle of the view of most weight) and widest rate of a class."""
    usual = max(signal.views, key=lambda view: view.weight)
    lowest, highest = min(view.low_hz for view in signal.views), max(view.high_hz for view in signal.views)
    return lowest, float(np.sqrt(usual.low_hz * usual.high_hz)), highest


def transmission(signal: SignalClass, rate_hz: float, n_samples: int, seed: int) -> tuple[NDArray[np.complex64], float]:
    """Samples of mean power 1 while on, complex64 [n_samples], and the occupied bandwidth in Hz."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        try:
            emission = signal.make(rng, 1.02 * n_samples / rate_hz, rate_hz)
            break
        except SilentWindow:
            continue
    iq = _resampled(emission.iq, emission.rate_hz, rate_hz)[:n_samples]
    if not emission.placed and emission.occupied_hz < NARROW * rate_hz:
        iq = iq * np.exp(2j * np.pi * OFFSET * np.arange(iq.size))
    return iq.astype(np.complex64), min(emission.occupied_hz, rate_hz)


def _resampled(iq: NDArray[np.complex64], from_hz: float, to_hz: float) -> NDArray[np.complexfloating]:
    if abs(from_hz - to_hz) < 1:
        return iq
    count = round(iq.size * to_hz / from_hz)
    spectrum, kept = np.fft.fft(iq), min(iq.size, count) // 2
    out = np.zeros(count, complex)
    out[:kept], out[-kept:] = spectrum[:kept], spectrum[-kept:]
    return np.fft.ifft(out) * (count / iq.size)


def white_noise(n_samples: int, seed: int) -> NDArray[np.complex64]:
    """White noise of power 1, complex64 [n_samples]."""
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((n_samples, 2), dtype=np.float32) * np.float32(0.5**0.5)
    return parts.view(np.complex64).ravel()


def samples_of(pipeline: Pipeline, iq: NDArray[np.complex64], rate_hz: float) -> list[Sample]:
    """All full tiles of a stream, with figures and answers."""
    spec = pipeline.stream_spec
    tiles = TileStream(spec, rate_hz, 100e6).push((iq * np.float32(AMPLITUDE)).astype(np.complex64))
    gate_db, pipeline.gate.gate_db = pipeline.gate.gate_db, None
    answers = pipeline.predict(tiles)
    pipeline.gate.gate_db = gate_db
    return [Sample(tile, signature(tile, spec), answer) for tile, answer in zip(tiles, answers, strict=True)]


class Simulation:
    """A gate that sees a stream of tiles drawn from samples."""

    def __init__(self, spec: SpectrogramSpec, labels: Sequence[str], rate_hz: float, seed: int) -> None:
        self._gate = PowerGate(spec=spec, labels=labels)
        self._limits = tolerances(spec, length_class(spec, spec.tile_samples))
        self._stride_s = spec.stride_samples / rate_hz
        self._stride, self._start = spec.stride_samples, 0
        self._rng = np.random.default_rng(seed)

    def play(self, samples: Sequence[Sample], seconds: float) -> Iterable[tuple[bool, bool]]:
        """Whether each tile was held back, and whether the model names a signal in it."""
        for _ in range(max(1, round(seconds / self._stride_s))):
            sample = samples[self._rng.integers(len(samples))]
            tile = dataclasses.replace(sample.tile, start_sample=self._start)
            self._start += self._stride
            held = self._gate.judge_signature(tile, scattered(sample.seen, self._limits, self._rng)).held
            if not held:
                self._gate.learn([dataclasses.replace(sample.answer, start_sample=tile.start_sample)])
            yield held, sample.answer.label != NOISE


def scattered(seen: Signature, limits: Tolerances, rng: np.random.Generator) -> Signature:
    """The figures of another tile of the same content: what white noise scatters is drawn anew."""
    columns = rng.standard_normal(seen.columns.size, dtype=np.float32) * np.float32(limits.column / SIGMAS)
    return Signature(
        n_samples=seen.n_samples,
        level=seen.level,
        floor=seen.floor,
        peak=seen.peak + rng.normal() * limits.peak / SIGMAS,
        shape=[s + rng.normal() * limit / SIGMAS for s, limit in zip(seen.shape, limits.shape, strict=True)],
        columns=seen.columns + columns,
    )


def run_noise(pipeline: Pipeline, noise: Sequence[Sample], rate_hz: float, seconds: float, label: str = NOISE) -> Run:
    """Noise alone."""
    simulation = Simulation(pipeline.stream_spec, pipeline.bundle.spec.head.labels, rate_hz, seed=1)
    return _run(label, rate_hz, float("nan"), False, list(simulation.play(noise, seconds)))


def run_signal(
    pipeline: Pipeline, label: str, rate_hz: float, snr_db: float, noise: Sequence[Sample], seconds: float
) -> list[Run]:
    """A signal always on, from the first sample and after noise."""
    n_samples = TILES * pipeline.stream_spec.tile_samples
    iq, occupied_hz = transmission(CLASSES[label], rate_hz, n_samples, seed=3)
    # noise of power 1 in the whole rate: the signal's power is that of the noise in its band, times the ratio
    amplitude = np.float32(np.sqrt(10 ** (snr_db / 10) * occupied_hz / rate_hz))
    samples = samples_of(pipeline, iq * amplitude + white_noise(iq.size, seed=5), rate_hz)
    runs = []
    for after_noise in (False, True):
        simulation = Simulation(pipeline.stream_spec, pipeline.bundle.spec.head.labels, rate_hz, seed=2)
        if after_noise:
            list(simulation.play(noise, NOISE_BEFORE_S))
        runs.append(_run(label, rate_hz, snr_db, after_noise, list(simulation.play(samples, seconds))))
    return runs


def _run(label: str, rate_hz: float, snr_db: float, after_noise: bool, tiles: list[tuple[bool, bool]]) -> Run:
    held, named = np.array(tiles, bool).T
    first = np.flatnonzero(named & ~held)
    after = np.arange(held.size) > (first[0] if first.size else held.size)
    return Run(
        label=label,
        rate_hz=rate_hz,
        snr_db=snr_db,
        after_noise=after_noise,
        tiles=held.size,
        held=int(held.sum()),
        named=float(named.mean()),
        held_after_naming=int((held & after).sum()),
        hidden=int((held & after & named).sum()),
    )


def measure(pipeline: Pipeline, labels: Sequence[str], seconds: float, snrs_db: Sequence[float] = SNRS_DB) -> list[Run]:
    """All runs of some classes, each after the noise of its rates."""
    runs = []
    for label in labels:
        for rate_hz in rates_hz(CLASSES[label]):
            count = NOISE_TILES if label == NOISE else NOISE_TILES_BEFORE
            noise = samples_of(pipeline, white_noise(count * pipeline.stream_spec.tile_samples, seed=7), rate_hz)
            if label == NOISE:
                runs.append(run_noise(pipeline, noise, rate_hz, seconds))
                continue
            for snr_db in snrs_db:
                runs += run_signal(pipeline, label, rate_hz, snr_db, noise, seconds)
    return runs


def table(runs: Sequence[Run]) -> Table:
    """A line for each class and signal-to-noise ratio: sums over rates and orders, and the least share named."""
    made = Table("class", "SNR, dB", "MS/s", "tiles", "named", "held after naming", "of these named", "not inferred")
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.label, run.snr_db if run.label != NOISE else run.rate_hz), []).append(run)
    for (label, _), group in groups.items():
        tiles, held = sum(run.tiles for run in group), sum(run.held for run in group)
        shares = sorted(f"{run.rate_hz / 1e6:.3g}" for run in {run.rate_hz: run for run in group}.values())
        made.add_row(
            label,
            "" if np.isnan(group[0].snr_db) else f"{group[0].snr_db:g}",
            " ".join(sorted(shares, key=float)),
            str(tiles),
            " to ".join(f"{share:.0%}" for share in sorted({min(r.named for r in group), max(r.named for r in group)})),
            str(sum(run.held_after_naming for run in group)),
            str(sum(run.hidden for run in group)),
            f"{held / tiles:.1%}",
        )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit status 1 where a requirement does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "rf20-nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--classes", nargs="*", choices=list(CLASSES), default=list(CLASSES))
    options = parser.parse_args(arguments)
    pipeline = Pipeline.open(options.model, options.device)
    runs = measure(pipeline, options.classes, 60 * options.minutes)
    console = Console(width=120)
    console.print(table(runs))
    hidden = sum(run.hidden for run in runs)
    noise = [run.held / run.tiles for run in runs if run.label == NOISE]
    console.print(f"{pipeline.bundle.id}: {hidden} tiles with a signal hidden after it was named", highlight=False)
    if noise:
        console.print(f"noise: {min(noise):.1%} or more of the tiles not inferred", highlight=False)
    return int(hidden > 0 or min(noise, default=1.0) < 0.9)


if __name__ == "__main__":
    sys.exit(main())
