# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of teaching."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from .adapters import AdapterOptions

METHODS = ("head", "lora")


@dataclass(frozen=True)
class TeachOptions:
    """How labels are taught.

    Raises
    ------
    ConfigurationError : a value outside its range, or a contradiction; the error names the field.
    """

    method: str = "head"
    """What is fitted: "head" (a linear head on the frozen encoder) or "lora" (adapters and head)."""
    extend: bool = False
    """Keep the labels of the start and add the new ones."""
    unknown: bool = True
    """Learn noise and foreign signals from generated ones, so that they are not named; not with `extend`."""
    views: int = 8
    """Drawn views of each box that are learnt from; more for labels of few boxes."""
    seed: int = 0
    """Seed of views, generated signals and adapters."""
    name: str = ""
    """Name of the model; "": the name of its directory."""
    licence: str = "not stated"
    """Licence of the weights, for the bundle."""
    corrections: Path | None = None
    """Table of corrected labels, as the report writes it."""
    report: Path | None = None
    """Folder of the report; None: beside the bundle, its name and "-report"."""
    adapters: AdapterOptions = field(default_factory=AdapterOptions)
    """Training of the adapters, with method "lora"."""

    def __post_init__(self) -> None:
        rules = {
            "method": (self.method in METHODS, f"one of {', '.join(METHODS)}"),
            "views": (1 <= self.views <= 200, "1 to 200"),
            "seed": (0 <= self.seed < 2**31, "0 to 2^31 - 1"),
        }
        require_rules("teach", self, rules)
        if not self.licence.strip():
            raise ConfigurationError("teach", "licence", "nothing", "what the bundle's user must know")
