# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm-train data channels`, `grids`, `walk`, `covariances` and `reference`: simulated uplinks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .field_help import field_help

if TYPE_CHECKING:
    from ..data.generators.channels import Scenario

console = Console()
Count = Annotated[int, typer.Option(min=1, help="Number of slots.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Numerology = Annotated[str, typer.Option(help="A numerology's name (paper, nr106) or .yml file.")]
Model = Annotated[str, typer.Option(help=field_help("data.generators.channels", "Scenario", "model"))]
Speed = Annotated[
    float, typer.Option(help=field_help("data.generators.channels", "Scenario", "speed_m_per_s") + " In m/s.")
]
DelaySpread = Annotated[
    float | None, typer.Option(help=field_help("data.generators.channels", "Scenario", "delay_spread_s") + " In ns.")
]


def _scenario(model: str, speed: float, delay_spread_ns: float | None) -> Scenario:
    from ..data.generators.channels import Scenario

    return Scenario(model, speed, None if delay_spread_ns is None else delay_spread_ns / 1e9)


def channels(
    out: Annotated[Path, typer.Argument(help="The .h5 file to write.")],
    count: Count,
    seed: Seed = 0,
    numerology: Numerology = "paper",
    scenario: Model = "umi",
    speed: Speed = 3.0,
    delay_spread: DelaySpread = None,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Simulate channels (no noise, mean power 1) into one file."""
    from ..data.channel_pool import write_pool
    from ..data.numerologies import read_numerology

    chosen = _scenario(scenario, speed, delay_spread)
    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        line = bar.add_task(scenario)

        def advance(done: int, total: int) -> None:
            bar.update(line, completed=done, total=total)

        write_pool(out, count, seed, chosen, read_numerology(numerology), processes, advance)
    console.print(f"{count} channels of {scenario} in {out}", highlight=False)


def grids(
    directory: Path,
    count: Count,
    seed: Seed = 0,
    numerology: Numerology = "paper",
    scenario: Model = "umi",
    speed: Speed = 3.0,
    delay_spread: DelaySpread = None,
) -> None:
    """Simulate slots (sent, received, channel, SNR -10 to 20 dB) in the published .npz layout."""
    from ..data.generators import sionna_grids
    from ..data.numerologies import read_numerology

    chosen = _scenario(scenario, speed, delay_spread)
    sionna_grids.generate(directory, count, seed, scenario=chosen, spec=read_numerology(numerology))
    console.print(f"{count} slots of {scenario} in {directory}", highlight=False)


def walk(
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    slots: Annotated[int, typer.Option(min=1, help="Number of consecutive slots.")],
    seed: Seed = 0,
    numerology: Numerology = "paper",
    scenario: Model = "umi",
    speed: Speed = 3.0,
    delay_spread: DelaySpread = None,
) -> None:
    """Simulate one moving user's channel over consecutive slots, for the uplink simulator of the radio side."""
    from wavesfm_core.channel.uplink import save_channels

    from ..data.generators.channels import moving_user
    from ..data.numerologies import read_numerology

    spec = read_numerology(numerology)
    save_channels(out, moving_user(seed, slots, _scenario(scenario, speed, delay_spread), spec), spec)
    console.print(f"{slots} slots of {scenario} at {speed:g} m/s in {out}", highlight=False)


def covariances(
    pool: Annotated[Path, typer.Argument(help="A file of `data channels`.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    count: Annotated[int | None, typer.Option(min=1, help="Use the first channels only, as many as this.")] = None,
) -> None:
    """Learn the covariances in space, time and frequency that LMMSE needs."""
    from ..data.channel_pool import ChannelPool
    from ..evaluation.linear_baselines import learn_covariances

    channels = ChannelPool(pool)
    learn_covariances(channels, count).save(out)
    console.print(f"covariances of {min(count or len(channels), len(channels))} channels in {out}", highlight=False)


def reference(
    learn: Annotated[Path, typer.Argument(help="A file of `data channels` to learn the covariances from.")],
    test: Annotated[Path, typer.Argument(help="Another file of `data channels`, to estimate.")],
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON too.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
) -> None:
    """NMSE over SNR of LS and LMMSE with ideal average covariances, the reference of every estimator."""
    import dataclasses
    import json

    from wavesfm_core.atomic_file import write_atomically

    from ..data.channel_pool import ChannelPool
    from ..evaluation.linear_baselines import reference_table

    reference = reference_table(ChannelPool(learn), ChannelPool(test), seed)
    table = Table("NMSE in dB at SNR", *(f"{snr_db:g}" for snr_db in reference.snrs_db))
    for name, values in reference.nmse_db.items():
        table.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(table)
    if out is not None:
        write_atomically(out, json.dumps(dataclasses.asdict(reference), indent=1) + "\n")
