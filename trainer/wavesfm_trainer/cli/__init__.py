# SPDX-License-Identifier: GPL-3.0-or-later
"""The `wavesfm-train` command."""

from __future__ import annotations

import typer
from rich.console import Console
from wavesfm_core.errors import WavesfmError

from . import channels, data, learning, models, results, teaching, tiles

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pre-train, fine-tune, evaluate and export WavesFM models.",
)
for command in (channels.channels, channels.grids, channels.walk, channels.covariances, channels.reference):
    data.app.command()(command)
app.add_typer(data.app, name="data")
app.command()(tiles.tiles)
app.command("scene-tiles")(tiles.scene_tiles)
app.command()(tiles.geometry)
app.command()(learning.pretrain)
app.command()(learning.finetune)
app.command()(teaching.teach)
app.command("train-channels")(learning.train_channels)
app.command()(results.evaluate)
app.command("compare-channels")(results.compare_channels)
app.command("evaluate-open")(results.evaluate_open)
app.command("evaluate-scenes")(results.evaluate_scenes)
app.command()(results.calibrate)
app.command()(results.report)
app.command()(results.bench)
app.command("import")(models.import_weights)
app.command("import-bundle")(models.import_bundle)
app.command()(models.average)
app.command()(models.export)


def main() -> None:
    """Run the command. WavesfmError and OSError are printed as one line; exit status 2."""
    try:
        app()
    except WavesfmError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except OSError as error:
        refusal = WavesfmError(error.filename or "disk", "file", error.strerror or error, "room, and the right to it")
        Console(stderr=True).print(f"error: {refusal}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
