# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that the fields of a specification or the options of a call must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from .errors import ConfigurationError, WavesfmError

SHOWN_LIMIT = 60  # characters of a value in an error

Rules: TypeAlias = Mapping[str, tuple[bool, str]]
"""By the name of a field: whether its value is right, and what is expected of it in words."""


def require_rules(where: object, values: object, rules: Rules, error: type[WavesfmError] = ConfigurationError) -> None:
    """Raise an error for the first field whose rule does not hold.

    Parameters
    ----------
    where : object
        File or object that the error names.
    values : object or Mapping
        What the fields belong to: read as attributes, or as items of a mapping.
    rules : Rules
        The rules, in the order in which they are checked.
    error : type of WavesfmError
        Class of the error.

    Raises
    ------
    WavesfmError
        Of class `error`: names `where`, the field, its value (at most SHOWN_LIMIT characters) and what is expected.
    """
    for name, (holds, expected) in rules.items():
        if not holds:
            value = values[name] if isinstance(values, Mapping) else getattr(values, name)
            raise error(where, name, shown(value), expected)


def shown(value: object) -> str:
    """The value as an error shows it: its repr, cut to SHOWN_LIMIT characters; "nothing" for an empty tuple."""
    text = "nothing" if value == () else repr(value)
    return text if len(text) <= SHOWN_LIMIT else text[: SHOWN_LIMIT - 3] + "..."
