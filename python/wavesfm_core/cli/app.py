# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands info, check, estimate and bench, and where the others are registered."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..bundle.bundle import Bundle
from ..engines import available_engines, open_engine
from ..engines.verify import replay_golden
from ..errors import ConfigurationError, EngineError
from ..packages import install_command
from .benchmarks import PEER, bench_channel, bench_engines, bench_spectrogram
from .classifying import annotate_command, classify_command
from .compiling import cache_app, cached_plans, compile_command
from .description import head_rows, input_rows
from .history import history_command
from .json_output import json_lines, write_line
from .live import live_command
from .options import Device, DeviceId, Precision, Threads
from .serving import export_repository_command

app = typer.Typer(
    help="Classify radio signals in IQ recordings; estimate channels of OFDM slots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("classify")(classify_command)
app.command("annotate")(annotate_command)
app.command("live")(live_command)
app.command("history")(history_command)
app.command("compile")(compile_command)
app.command("export-repository")(export_repository_command)
app.add_typer(cache_app, name="cache")

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory of a bundle.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"wavesfm {__version__}\n")
        raise typer.Exit()


@app.callback()
def setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Classify radio signals in IQ recordings; estimate channels of OFDM slots."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


@app.command()
def info(bundle: BundlePath) -> None:
    """Show a bundle's model, task, preprocessing, sample rates and licence."""
    opened = Bundle.open(bundle)
    spec = opened.spec
    table = Table(show_header=False, title=opened.id, title_justify="left")
    rows = {
        **head_rows(spec.head),
        "model": f"{opened.model_path.stat().st_size / 1e6:.1f} MB, sha256 {spec.sha256}",
        "inputs": "; ".join(f"{t.name} {list(t.shape)}" for t in spec.inputs),
        "outputs": "; ".join(f"{t.name} {list(t.shape)}" for t in spec.outputs),
        **input_rows(spec),
        "training data": spec.training_data,
        "licence": spec.licence,
        "versions": ", ".join(f"{name} {version}" for name, version in spec.versions.items()),
        "compiled": cached_plans(opened),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


@app.command()
def check(bundle: BundlePath, threads: Threads = 0) -> None:
    """Check a bundle's files and replay its golden tiles with every installed engine."""
    opened = Bundle.open(bundle)
    engines = available_engines()
    if not engines:
        raise EngineError("check", "engines", "none installed", "one: " + install_command("onnxruntime"))
    table = Table("engine", "tiles", "prepare differs by", "engine differs by", title=opened.id, title_justify="left")
    for name in engines:
        with contextlib.closing(open_engine(opened, name, threads)) as engine:
            report = replay_golden(opened, engine)
        prepare = f"{report.prepare_difference:.2g} of {report.prepare_tolerance:.2g}"
        outputs = f"{report.engine_difference:.2g} of {report.engine_tolerance:.2g}"
        table.add_row(report.engine, str(report.tiles), prepare, outputs)
    console = Console()
    console.print(table)
    console.print("the bundle is whole", highlight=False)


@app.command()
def estimate(
    bundle: BundlePath,
    grids: Annotated[Path, typer.Argument(metavar="FILE", help="An npz with y_rg [B, A, S, F] and, if known, h_freq.")],
    method: Annotated[str, typer.Option("--method", help="model, lmmse, lmmse-tf, ls or ls-nearest.")] = "model",
    device: Device = "auto",
    precision: Precision = "auto",
    device_id: DeviceId = 0,
    threads: Threads = 0,
    backing_off: Annotated[
        str,
        typer.Option(
            "--back-off",
            metavar="off|on|DB",
            help="Fall back to ls by the residual; with a number, also from this SNR on.",
        ),
    ] = "off",
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Also write one JSON line for each slot; - for stdout."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the channels as an npz.")
    ] = None,
    covariances: Annotated[
        Path | None,
        typer.Option("--covariances", metavar="FILE", help="Covariances for lmmse instead of the bundle's."),
    ] = None,
) -> None:
    """Estimate the channels of the OFDM slots in a file, and their error where the true channels are known."""
    from ..bundle.covariance import Covariances
    from ..channel.grid_file import read_grids
    from ..channel.pipeline import ChannelPipeline
    from .estimating import back_off, run, save

    if covariances is not None and not method.startswith("lmmse"):
        raise ConfigurationError(
            "command line", "--covariances", f"method {method}", "lmmse or lmmse-tf, which use them"
        )
    console = Console(stderr=json_path == "-")
    pipeline = ChannelPipeline.open(
        bundle,
        method,
        device,
        back_off(backing_off),
        threads,
        precision,
        device_id=device_id,
        covariances=None if covariances is None else Covariances.load(covariances),
    )
    slots = read_grids(grids, pipeline.spec)
    estimates = []
    with contextlib.closing(pipeline), json_lines(json_path) as lines:
        for answer in run(pipeline, slots, console, grids.name):
            if lines is not None:
                write_line(lines, answer if isinstance(answer, dict) else answer.facts())
            if output is not None and not isinstance(answer, dict):
                estimates.append(answer)
    if output is not None:
        save(output, estimates)


@app.command()
def bench(
    model: Annotated[
        Path | None, typer.Option("--model", metavar="BUNDLE", help="Also time the engines of this bundle.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Duration of each measurement.")] = 2.0,
    peer: Annotated[Path, typer.Option("--peer", help="Script that measures GNU Radio's blocks.")] = PEER,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write the figures as JSON.")
    ] = None,
) -> None:
    """Measure kernels, GNU Radio's blocks where installed, engines and channel estimation. Figures are medians."""
    console = Console(stderr=json_path == "-")
    bundle = None if model is None else Bundle.open(model)
    results: dict[str, object] = {"spectrogram": bench_spectrogram(bundle, seconds, console, peer)}
    if bundle is not None:
        results["engines"] = bench_engines(bundle, seconds, console)
        if channel := bench_channel(bundle, seconds, console):
            results["channel"] = channel
    with json_lines(json_path) as lines:
        if lines is not None:
            write_line(lines, results)
