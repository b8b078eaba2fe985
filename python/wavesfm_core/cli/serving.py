# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm export-repository`: a bundle for a model server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..bundle.bundle import Bundle
from ..engines.kserve.repository import RepositoryOptions, export_repository

DEFAULTS = RepositoryOptions()


def export_repository_command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory of a bundle.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Model repository; made if it does not exist.")],
    name: Annotated[str, typer.Option("--name", help="Name on the server instead of the bundle's.")] = DEFAULTS.name,
    version: Annotated[int, typer.Option("--version", metavar="N", help="Version of the model.")] = DEFAULTS.version,
    max_batch: Annotated[
        int, typer.Option("--max-batch", metavar="N", help="Most tiles of a batch.")
    ] = DEFAULTS.max_batch,
    queue_delay_us: Annotated[
        int, typer.Option("--queue-delay-us", metavar="US", help="How long a batch waits for further requests.")
    ] = DEFAULTS.queue_delay_us,
    device: Annotated[
        str, typer.Option("--device", help="Where the server runs the model: auto, cpu or gpu.")
    ] = DEFAULTS.device,
) -> None:
    """Write a model repository of NVIDIA Triton, which `--device kserve://HOST:PORT/MODEL` then uses."""
    options = RepositoryOptions(name, version, max_batch, queue_delay_us, device)
    folder = export_repository(Bundle.open(bundle), output, options)
    Console().print(f"model repository in {escape(str(output))}: {folder.name}, version {version}", soft_wrap=True)
