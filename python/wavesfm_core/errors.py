# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the project: one sentence that names the file, the field, what was found and what was expected."""

from __future__ import annotations


class WavesfmError(Exception):
    """Base of all errors that a user can cause or correct.

    Parameters
    ----------
    where : object
        File, block or object with the fault.
    field : str
        Part of it.
    found : object
        What is there, in plain words.
    expected : str
        What should be there, in plain words.
    """

    def __init__(self, where: object, field: str, found: object, expected: str) -> None:
        super().__init__(f"{where}: {field}: found {found}, expected {expected}")
        self.where = str(where)
        self.field = field
        self.found = str(found)
        self.expected = expected

    def __reduce__(self) -> tuple[type[WavesfmError], tuple[str, str, str, str]]:
        """Pickled by its four parts: an error of a worker process reaches the process that started it."""
        return type(self), (self.where, self.field, self.found, self.expected)


class BundleError(WavesfmError):
    """A bundle that is incomplete, altered, unsafe, of an unknown schema, or does not reproduce its golden tiles."""


class InputError(WavesfmError):
    """A recording or stream that cannot be read in its declared format."""


class EngineError(WavesfmError):
    """An inference runtime that is missing, refuses the model, or fails while running."""


class ConfigurationError(WavesfmError):
    """A parameter that contradicts another or lies outside its range."""
