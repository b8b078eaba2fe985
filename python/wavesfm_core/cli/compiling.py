# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm compile` and `wavesfm cache`: build TensorRT plans and list the cached ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..bundle.bundle import Bundle
from ..engines import ENGINES, compile_for_cpu, open_engine
from ..engines.int8 import CHANGED_LIMIT, TOLERANCE, Int8Record, clear_int8
from ..engines.tensorrt.calibration import read_tiles
from ..engines.tensorrt.compiler import Plan, compile_bundle
from ..engines.tensorrt.plan_cache import PlanCache, PlanRecord, default_directory
from ..engines.timing import milliseconds_per_tile
from ..errors import ConfigurationError

cache_app = typer.Typer(help="Compiled plans in the cache.", no_args_is_help=True)


def compile_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory of a bundle.")],
    precision: Annotated[str, typer.Option("--precision", help="bf16, fp16, fp32 or int8.")] = "bf16",
    max_batch: Annotated[int | None, typer.Option("--max-batch", metavar="N", help="Largest batch.")] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="SM,...", help="GPUs to compile for, such as sm_86,sm_120, instead of the one present."
        ),
    ] = "",
    portable: Annotated[bool, typer.Option("--portable", help="One plan for GPUs of several kinds.")] = False,
    library: Annotated[str, typer.Option("--library", help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    device_id: Annotated[int, typer.Option("--device-id", help="Which GPU, from 0.")] = 0,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="NPZ", help="tiles (n, C, H, W), and rate_hz (n) if known.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="gpu; or for int8 cpu, openvino or onnxruntime.")] = "gpu",
    force: Annotated[
        bool, typer.Option("--force", help="Keep the plan even if its error is above the tolerance.")
    ] = False,
) -> None:
    """Compile a bundle for an NVIDIA GPU, or in int8 for the CPU, and store the result in the cache."""
    opened, console = Bundle.open(bundle), Console()
    targets = tuple(target.split(",")) if target else ()
    tiles = None if calibration is None else read_tiles(calibration, opened.spec)
    if device != "gpu":
        _check_cpu_options(device, precision, (max_batch, target, portable, force))
        record = compile_for_cpu(opened, device, tiles)
        show_int8(opened, device, record, "golden" if tiles is None else "golden and others", console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=None)
        plan = compile_bundle(
            opened,
            precision,
            max_batch,
            targets,
            portable,
            library,
            lambda phase, done, steps: bar.update(task, description=phase, completed=done, total=max(steps, 1)),
            force=force,
            device_id=device_id,
            calibration=tiles,
        )
    show_plan(plan, console)


def _check_cpu_options(device: str, precision: str, others: Sequence[object]) -> None:
    if device not in ("cpu", *ENGINES):
        raise ConfigurationError("command line", "--device", repr(device), "gpu, cpu, " + ", ".join(ENGINES))
    if precision != "int8":
        raise ConfigurationError("command line", "--precision", precision, f"int8 for device {device}")
    if any(others):
        found = "an option of GPUs"
        raise ConfigurationError("command line", f"--device {device}", found, "--precision and --calibration only")


def show_int8(bundle: Bundle, device: str, record: Int8Record, checked: str, console: Console) -> None:
    """Print a table of the model's accuracy, and of its speed beside the other precisions of this processor."""
    table = Table(show_header=False, title=bundle.id, title_justify="left")
    table.add_row("ranges from", f"{record.calibrated} tiles")
    table.add_row("compared on", f"{record.checked} tiles ({checked})")
    table.add_row("outputs differ by", f"{record.difference:.2%} of the largest, at most {TOLERANCE:.0%}")
    if bundle.spec.head.task == "classification":
        table.add_row("labels changed", f"{record.changed:.1%}, at most {CHANGED_LIMIT:.0%}")
    for precision in ("f32", "auto", "int8"):
        with contextlib.closing(open_engine(bundle, device, threads=1, precision=precision)) as engine:
            table.add_row(f"{milliseconds_per_tile(engine, bundle, 8):.2f} ms per tile", engine.description)
    console.print(table)


def show_plan(plan: Plan, console: Console) -> None:
    """Print a table of the plan's properties."""
    record, key = plan.record, plan.record.key
    origin = "from the cache" if plan.cached else f"built in {record.built_s:.1f} s"
    table = Table(show_header=False, title=record.bundle, title_justify="left")
    rows = {
        "plan": f"{record.n_bytes / 1e6:.1f} MB, {origin}, sha256 {record.sha256[:12]}",
        "for": _where(record),
        "by": f"{key.library} {key.version}",
        "batches": f"1 to {key.maximum}, tuned for {key.preferred}",
        "precision": f"{key.precision}; {_layers(record)}",
        "accuracy": record.accuracy,
        "warnings": "; ".join(record.warnings) or "none",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


@cache_app.command("list")
def list_command() -> None:
    """List the plans in the cache."""
    console, cache = Console(), PlanCache()
    records = cache.records()
    if records:
        table = Table("bundle", "precision", "for", "by", "batch", "MB", "accuracy", title_justify="left")
        for record in records:
            key = record.key
            by, batch = f"{key.library} {key.version}", f"{key.preferred}/{key.maximum}"
            size = f"{record.n_bytes / 1e6:.1f}"
            table.add_row(record.bundle, key.precision, _where(record), by, batch, size, record.accuracy)
        console.print(table)
    total = sum(record.n_bytes for record in records)
    console.print(f"{len(records)} plans, {total / 1e6:.1f} MB in {cache.directory}", highlight=False)


@cache_app.command("clear")
def clear_command() -> None:
    """Remove all plans and int8 models from the cache."""
    cache = PlanCache()
    plans, n_bytes = cache.clear()
    models, model_bytes = clear_int8()
    total = (n_bytes + model_bytes) / 1e6
    text = f"{plans} plans and {models} int8 models, {total:.1f} MB removed from {cache.directory}"
    Console().print(text, highlight=False)


def cached_plans(bundle: Bundle) -> str:
    """The cached plans of a bundle in one line."""
    if not default_directory().is_dir():
        return "none"
    records = [record for record in PlanCache().records() if record.key.model == bundle.spec.sha256]
    return "; ".join(f"{record.key.precision} for {_where(record)}" for record in records) or "none"


def _where(record: PlanRecord) -> str:
    key = record.key
    capabilities = ", ".join(key.capabilities)
    if key.gpu in ("targets", "portable"):
        return capabilities or key.gpu
    return f"{key.gpu} ({capabilities})"


def _layers(record: PlanRecord) -> str:
    """Number of layers by precision, and whether they were read back from the plan."""
    of = "layers of the plan" if record.read_back else "products of the network, not read back"
    return f"{of}: " + ", ".join(f"{n} in {name}" for name, n in sorted(record.layers.items()))
