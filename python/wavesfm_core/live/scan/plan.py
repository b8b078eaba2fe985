# SPDX-License-Identifier: GPL-3.0-or-later
"""A scan plan: which tunings are visited, for how long, and which come first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ..yaml_file import faults, load_yaml, schema

SCHEMA = "scan/plan.schema.json"
MOST_TUNINGS = 10_000


@dataclass(frozen=True)
class Tuning:
    """One place of a scan."""

    centre_hz: float
    """Centre frequency in Hz."""
    rate_hz: float
    """Sample rate in Hz."""
    dwell_s: float = 0.2
    """Seconds of samples of one visit."""
    priority: float = 1.0
    """How often it is visited, relative to others."""
    usable: float = 0.8
    """Share of the band, around its middle, that is taken for found and observed."""

    @property
    def low_hz(self) -> float:
        """Lower edge of what is usable."""
        return self.centre_hz - self.usable * self.rate_hz / 2

    @property
    def high_hz(self) -> float:
        """Upper edge of what is usable."""
        return self.centre_hz + self.usable * self.rate_hz / 2


@dataclass(frozen=True)
class ScanPlan:
    """All tunings of a scan, and the grid of its heat map."""

    tunings: tuple[Tuning, ...]
    """At least one, by rising frequency."""
    bin_hz: float = 100e3
    """Width of a column of the heat map."""
    slot_s: float = 60.0
    """Time of a row of the heat map."""


def load_plan(path: Path) -> ScanPlan:
    """Read a plan; raises the first ConfigurationError of `plan_faults`."""
    values = load_yaml(path)
    if found := plan_faults(values, path):
        raise found[0]
    return _build(values, path)


def plan_faults(values: Any, where: object) -> list[ConfigurationError]:
    """One error for each fault of a plan as YAML has it."""
    if found := faults(where, values, schema(SCHEMA)):
        return found
    try:
        _build(values, where)
    except ConfigurationError as error:
        return [error]
    return []


def _build(values: Mapping[str, Any], where: object) -> ScanPlan:
    tunings = [Tuning(**each) for each in values.get("tunings", ())]
    for number, each in enumerate(values.get("ranges", ())):
        tunings += _steps(each, where, f"ranges.{number}")
    if not 1 <= len(tunings) <= MOST_TUNINGS:
        raise ConfigurationError(where, "tunings", len(tunings), f"1 to {MOST_TUNINGS}, with those of the ranges")
    grid = {name: float(values[name]) for name in ("bin_hz", "slot_s") if name in values}
    return ScanPlan(tuple(sorted(tunings, key=lambda tuning: tuning.centre_hz)), **grid)


def _steps(values: Mapping[str, Any], where: object, place: str) -> list[Tuning]:
    """Tunings whose usable parts cover a range."""
    low_hz, high_hz = values["low_hz"], values["high_hz"]
    if not low_hz < high_hz:
        raise ConfigurationError(where, f"{place}.high_hz", high_hz, f"more than low_hz, {low_hz}")
    rest = {name: values[name] for name in ("dwell_s", "priority", "usable") if name in values}
    step_hz = rest.get("usable", Tuning.usable) * values["rate_hz"]
    count = math.ceil((high_hz - low_hz) / step_hz)
    if count > MOST_TUNINGS:
        raise ConfigurationError(where, f"{place}.rate_hz", values["rate_hz"], f"a rate for {MOST_TUNINGS} tunings")
    first_hz = (low_hz + high_hz) / 2 - (count - 1) / 2 * step_hz
    return [Tuning(first_hz + i * step_hz, values["rate_hz"], **rest) for i in range(count)]
