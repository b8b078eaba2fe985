# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements and tables of `wavesfm bench`."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..bench import chain_rate, demodulation_rate, estimation_rate, slot_rate, spectrogram_rate
from ..bundle.bundle import Bundle
from ..bundle.ofdm_spec import OFDMSpec
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..bundle.spectrogram_spec import SpectrogramSpec
from ..channel.pipeline import METHODS, ChannelPipeline
from ..engines import ENGINES, available_engines, open_engine
from ..engines.timing import milliseconds_per_tile
from ..errors import ConfigurationError, EngineError
from ..packages import install_command

log = logging.getLogger(__name__)

PEER = Path("apps") / "bench_gnuradio.py"  # relative to the root of the repository
PEER_TIMEOUT_S = 300
# the usual chain of GNU Radio blocks: FFT of 1024, no overlap, mean of 4 powers, dB
PEER_SPEC = SpectrogramSpec(fft_size=1024, hop_samples=1024, frames_averaged=4, rows_per_tile=224)


def bench_spectrogram(
    bundle: Bundle | None, seconds: float, console: Console, peer: Path = PEER
) -> list[dict[str, object]]:
    """Measure the kernel, and GNU Radio's chain with the script `peer`. Prints a table and returns its rows."""
    figures: list[tuple[str, float | None]] = [
        ("wavesfm kernel, FFT 1024, mean of 4", spectrogram_rate(PEER_SPEC, seconds)),
        ("GNU Radio blocks, FFT 1024, mean of 4", _peer_rate(peer, seconds)),
    ]
    if bundle is not None and isinstance(spec := bundle.spec.preprocess, SpectrogramSpec):
        name = f"wavesfm kernel, {bundle.spec.name}'s tiles (FFT {spec.fft_size}, mean of {spec.frames_averaged})"
        figures.append((name, spectrogram_rate(spec, seconds)))
    base = figures[0][1]
    chain = figures[1][1]
    table = Table("spectrogram, one thread", "MS/s", title="samples to tiles", title_justify="left")
    for name, rate in figures:
        table.add_row(name, "not measured" if rate is None else f"{rate:.1f}")
    console.print(table)
    if base and chain:
        console.print(f"the kernel is {base / chain:.2f} times as fast as GNU Radio's blocks", highlight=False)
    return [{"name": name, "msamples_per_s": rate} for name, rate in figures]


def bench_engines(bundle: Bundle, seconds: float, console: Console) -> list[dict[str, object]]:
    """Time every installed engine at batch 1 and 8, on the CPU with 1 and 2 threads.

    Prints a table and returns its rows. MS/s are given for bundles of spectrograms only.
    """
    rows: list[dict[str, object]] = []
    stride = bundle.spec.preprocess.stride_samples
    table = Table("engine", "batch", "ms per tile", "tiles/s", "MS/s", title=bundle.id, title_justify="left")
    for name in available_engines():
        for threads in (1, 2) if name in ENGINES else (0,):
            # on a processor without bf16 both are f32: measured once
            engines = [open_engine(bundle, name, threads, precision) for precision in ("auto", "f32")]
            for engine in {engine.description: engine for engine in engines}.values():
                for batch in (1, 8):
                    ms = milliseconds_per_tile(engine, bundle, batch, seconds)
                    msps = "" if stride is None else f"{stride / ms / 1e3:.1f}"
                    table.add_row(engine.description, str(batch), f"{ms:.2f}", f"{1e3 / ms:.0f}", msps)
                    rows.append({"engine": engine.description, "threads": threads, "batch": batch, "ms_per_tile": ms})
            for engine in engines:
                engine.close()
    if not rows:
        raise EngineError("bench", "engines", "none installed", "one: " + install_command("onnxruntime"))
    console.print(table)
    return rows


def bench_channel(bundle: Bundle, seconds: float, console: Console) -> list[dict[str, object]]:
    """Measure a bundle of pilot grids: kernel, streams to grids, and each method from grids and from samples.

    Prints a table and returns its rows; an empty list for another bundle. Methods without covariances are left out.
    """
    if not isinstance(spec := bundle.spec.preprocess, PilotGridSpec):
        return []
    numerology = spec.numerology
    figures = [
        ("kernel: samples to grids", demodulation_rate(numerology, seconds)),
        ("streams to grids, starts by tags", slot_rate(numerology, seconds, "tag")),
        ("streams to grids, starts by pilots", _by_pilots(numerology, seconds)),
    ]
    for method in METHODS:
        if bundle.spec.covariances or not method.startswith("lmmse"):
            pipeline = ChannelPipeline.open(bundle.path, method)
            figures.append((f"{method}: grids to channels, batch 8", estimation_rate(pipeline, seconds)))
            figures.append((f"{method}: samples to channels", chain_rate(pipeline, seconds)))
    table = Table("channel estimation, one thread", "slots/s", title=bundle.id, title_justify="left")
    for name, rate in figures:
        table.add_row(name, "not measured" if rate is None else f"{rate:.0f}")
    console.print(table)
    return [{"name": name, "slots_per_s": rate} for name, rate in figures]


def _by_pilots(numerology: OFDMSpec, seconds: float) -> float | None:
    try:
        return slot_rate(numerology, seconds, "pilots")
    except ConfigurationError as error:  # too few pilots for a search
        log.warning("starts by pilots were not measured: %s", error)
        return None


def _peer_rate(script: Path, seconds: float) -> float | None:
    """MS/s of GNU Radio's chain in a subprocess, None where it is not installed."""
    if not script.is_file():
        return None
    spec = dataclasses.asdict(PEER_SPEC)
    command = [
        sys.executable,
        str(script),
        "--fft-size",
        str(spec["fft_size"]),
        "--averaged",
        str(spec["frames_averaged"]),
        "--seconds",
        str(seconds),
        "--json",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PEER_TIMEOUT_S, check=True)
        return float(json.loads(done.stdout.strip().splitlines()[-1])["msamples_per_s"])
    except (subprocess.SubprocessError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        log.warning("GNU Radio's chain was not measured: %s", error)
        return None
