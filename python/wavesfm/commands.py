# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands by message: several settings at once, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pmt

# What GNU Radio's UHD and Soapy sources take beside frequency and rate: one message may be sent to them and to us.
RADIO_COMMANDS = frozenset({
    "antenna", "bandwidth", "bw", "chan", "direction", "dsp_freq", "frequency_correction", "gain", "gain_mode", "gpio",
    "iq_balance", "lo_freq", "lo_offset", "mboard", "mtune", "pc_clock_resync", "power_dbm", "reset", "settings", "tag",
    "time", "tune",
})  # fmt: skip


class Setting(NamedTuple):
    """A parameter that a command may change."""

    get: Callable[[], Any]
    set: Callable[[Any], object]


def command_from_pmt(message: Any) -> dict[str, Any]:
    """Return the commands of a dict, or of one pair (name . value), by name; ValueError for anything else."""
    if pmt.is_pair(message) and pmt.is_symbol(pmt.car(message)):
        return {pmt.symbol_to_string(pmt.car(message)): pmt.to_python(pmt.cdr(message))}
    if pmt.is_dict(message) and not pmt.is_null(message):
        commands = pmt.to_python(message)
        if all(isinstance(name, str) for name in commands):
            return dict(commands)
    raise ValueError(f"found {message}, expected a dictionary or a pair (name . value)")


def apply_all(commands: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Change several settings; where one cannot be, those before it are put back.

    Parameters
    ----------
    commands : mapping
        Values by name. Names of RADIO_COMMANDS are passed over.
    settings : mapping
        The settings by name.

    Raises
    ------
    ValueError
        For an unknown name; nothing was changed.
    Exception
        What a setting raised; nothing is changed.
    """
    unknown = [name for name in commands if name not in settings and name not in RADIO_COMMANDS]
    if unknown:
        raise ValueError(f"found {', '.join(unknown)}, expected {', '.join(settings)}")
    changed: list[tuple[Setting, Any]] = []
    try:
        for name, value in commands.items():
            if name in settings:
                setting = settings[name]
                before = setting.get()
                setting.set(value)
                changed.append((setting, before))
    except Exception:
        for setting, before in reversed(changed):
            setting.set(before)
        raise
