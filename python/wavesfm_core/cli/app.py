# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands: each reads its options, calls the library, and prints."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..bundle.bundle import Bundle
from ..engines import available_engines, open_engine
from ..engines.verify import replay_golden
from ..errors import ConfigurationError, EngineError
from ..packages import install_command
from ..pipeline import Pipeline
from ..preprocess.power_gate import DEFAULT_GATE_DB
from ..recordings.iqfile import Recording, open_recording
from ..types import Prediction
from .benchmarks import PEER, bench_channel, bench_engines, bench_spectrogram
from .compiling import cache_app, cached_plans, compile_command
from .description import head_rows, input_rows
from .parsing import gate_db, hertz
from .summary import Summary

app = typer.Typer(
    help="Classify radio signals in IQ recordings; estimate channels of OFDM slots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("compile")(compile_command)
app.add_typer(cache_app, name="cache")

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory of a bundle.")]
RecordingPath = Annotated[Path, typer.Argument(metavar="RECORDING", help="SigMF, .cu8, .cs8, .cs16 or .cf32.")]
Model = Annotated[Path, typer.Option("--model", metavar="BUNDLE", help="Directory of the bundle to use.")]
Rate = Annotated[str | None, typer.Option("--rate", metavar="HZ", help="Sample rate: 1.92e6, 2M, 250k.")]
Format = Annotated[str | None, typer.Option("--format", help="cu8, cs8, cs16 or cf32, where the name does not tell.")]
Centre = Annotated[str | None, typer.Option("--centre", metavar="HZ", help="Centre frequency: 433.92M.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, tensorrt, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, f32, bf16; with TensorRT fp16 or int8.")]
DeviceId = Annotated[int, typer.Option("--device-id", help="Which GPU, from 0.")]
Threads = Annotated[int, typer.Option("--threads", help="Of the engine; 0 for its own choice.")]
Gate = Annotated[str, typer.Option("--gate", metavar="DB|off", help="Power gate, dB over the noise floor.")]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Less confidence than this is 'unknown'.")]


@app.callback()
def setup(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is being done.")] = False) -> None:
    """Classify radio signals in IQ recordings; estimate channels of OFDM slots."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


@app.command()
def info(bundle: BundlePath) -> None:
    """Show what a bundle is: model, task, preprocessing, rates, licence."""
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
    """Check a bundle's files and replay its golden tiles with every engine that is installed."""
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
def classify(
    recording: RecordingPath,
    model: Model,
    rate: Rate = None,
    sample_format: Format = None,
    centre: Centre = None,
    device: Device = "auto",
    precision: Precision = "auto",
    device_id: DeviceId = 0,
    threads: Threads = 0,
    gate: Gate = f"{DEFAULT_GATE_DB:g}",
    threshold: Threshold = None,
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Also write one JSON line for each tile; - for stdout."),
    ] = None,
) -> None:
    """Name the signals in a recording."""
    console = Console(stderr=json_path == "-")
    with _open(recording, rate, sample_format, centre) as opened:
        pipeline = _pipeline(model, device, gate, threshold, threads, precision, device_id)
        with contextlib.closing(pipeline), _lines(json_path) as lines:
            summary = Summary().add(_written(_followed(pipeline, opened, console), lines))
        console.print(f"{pipeline.bundle.id} on {pipeline.engine.description}", highlight=False)
        summary.show(console, opened.path.name)


@app.command()
def annotate(
    recording: RecordingPath,
    model: Model,
    rate: Rate = None,
    sample_format: Format = None,
    centre: Centre = None,
    device: Device = "auto",
    precision: Precision = "auto",
    device_id: DeviceId = 0,
    threads: Threads = 0,
    gate: Gate = f"{DEFAULT_GATE_DB:g}",
    threshold: Threshold = None,
) -> None:
    """Write what was found as SigMF annotations next to the recording."""
    from ..recordings.sigmf_annotations import annotate as write_annotations

    console = Console()
    with _open(recording, rate, sample_format, centre) as opened:
        pipeline = _pipeline(model, device, gate, threshold, threads, precision, device_id)
        with contextlib.closing(pipeline):
            predictions = list(_followed(pipeline, opened, console))
        path = write_annotations(opened, predictions)
    Summary().add(predictions).show(console, opened.path.name)
    console.print(f"annotations in {path}", highlight=False)


@app.command()
def estimate(
    bundle: BundlePath,
    grids: Annotated[Path, typer.Argument(metavar="FILE", help="An npz with y_rg [B, A, S, F], and h_freq if known.")],
    method: Annotated[str, typer.Option("--method", help="model, lmmse, lmmse-tf, ls or ls-nearest.")] = "model",
    device: Device = "auto",
    precision: Precision = "auto",
    device_id: DeviceId = 0,
    threads: Threads = 0,
    backing_off: Annotated[
        str, typer.Option("--back-off", metavar="off|on|DB", help="To ls: by the residual; also from this SNR on.")
    ] = "off",
    json_path: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Also write one JSON line for each slot; - for stdout."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the channels as an npz.")
    ] = None,
    covariances: Annotated[
        Path | None, typer.Option("--covariances", metavar="FILE", help="For lmmse, in place of the bundle's.")
    ] = None,
) -> None:
    """Estimate the channels of the OFDM slots in a file, and how far off they are where the truth is there."""
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
    read = read_grids(grids, pipeline.spec)
    made = []
    with contextlib.closing(pipeline), _lines(json_path) as lines:
        for answer in run(pipeline, read, console, grids.name):
            if lines is not None:
                _write(lines, answer if isinstance(answer, dict) else answer.facts())
            if output is not None and not isinstance(answer, dict):
                made.append(answer)
    if output is not None:
        save(output, made)


@app.command()
def bench(
    model: Annotated[Path | None, typer.Option("--model", metavar="BUNDLE", help="Also time its engines.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="For each figure.")] = 2.0,
    peer: Annotated[Path, typer.Option("--peer", help="The script that measures GNU Radio's own blocks.")] = PEER,
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Also write them as JSON.")] = None,
) -> None:
    """Measure kernels, GNU Radio's own chain where it is installed, engines and channel estimation: medians."""
    console = Console(stderr=json_path == "-")
    bundle = None if model is None else Bundle.open(model)
    results: dict[str, object] = {"spectrogram": bench_spectrogram(bundle, seconds, console, peer)}
    if bundle is not None:
        results["engines"] = bench_engines(bundle, seconds, console)
        if channel := bench_channel(bundle, seconds, console):
            results["channel"] = channel
    with _lines(json_path) as lines:
        if lines is not None:
            _write(lines, results)


def _open(path: Path, rate: str | None, sample_format: str | None, centre: str | None) -> Recording:
    centre_hz = hertz("--centre", centre, allow_negative=True)
    return open_recording(path, hertz("--rate", rate), sample_format, centre_hz)


def _pipeline(
    model: Path, device: str, gate: str, threshold: float | None, threads: int, precision: str, device_id: int
) -> Pipeline:
    pipeline = Pipeline.open(model, device, gate_db(gate), threshold, threads, precision=precision, device_id=device_id)
    _ = pipeline.stream_spec  # a bundle that takes no IQ is refused before a file is written over
    return pipeline


def _followed(pipeline: Pipeline, recording: Recording, console: Console) -> Iterator[Prediction]:
    """The recording's predictions, with a progress bar while they come, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(recording.path.name, total=recording.n_samples)
        for prediction in pipeline.classify_recording(recording):
            progress.update(task, completed=prediction.start_sample + prediction.n_samples)
            yield prediction


def _written(predictions: Iterable[Prediction], lines: IO[str] | None) -> Iterator[Prediction]:
    for prediction in predictions:
        if lines is not None:
            _write(lines, prediction.as_dict())
        yield prediction


def _write(lines: IO[str], values: object) -> None:
    lines.write(json.dumps(values, allow_nan=False) + "\n")
    lines.flush()


@contextlib.contextmanager
def _lines(path: str | None) -> Iterator[IO[str] | None]:
    """Where JSON lines go: nowhere, stdout or a file; raises ConfigurationError for one that cannot be written."""
    try:
        if path is None or path == "-":
            yield None if path is None else sys.stdout
        else:
            with open(path, "w", encoding="utf-8") as file:
                yield file
    except BrokenPipeError:
        raise  # the reader has enough: the command ends quietly
    except OSError as error:
        expected = "a file that can be written"
        raise ConfigurationError(path or "output", "--json", error.strerror or error, expected) from error
