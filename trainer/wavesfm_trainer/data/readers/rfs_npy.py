# SPDX-License-Identifier: GPL-3.0-or-later
"""The authors' capture files: three consecutive .npy records with I and Q, an unused array, and a description.

The description is an array of pickled Python objects, which is never unpickled. Centre frequency and rate are read from
a JSON file of the same name, or from the record's opcodes, where a plain number follows each of the two names.
"""

from __future__ import annotations

import json
import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

NAMES = ("center_freq", "effective_sample_rate")
DESCRIPTION_LIMIT = 1 << 20
NUMBERS = ("BINFLOAT", "FLOAT", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4")
MEMO = ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT")


@dataclass(frozen=True)
class NpyCapture:
    """A capture whose samples stay on disk."""

    path: Path
    """Of the file."""
    samples: NDArray
    """I and Q, [2, N], memory-mapped."""
    rate_hz: float
    """Sample rate."""
    centre_hz: float
    """Centre frequency."""

    @property
    def n_samples(self) -> int:
        """Samples of the capture."""
        return self.samples.shape[1]

    def read(self, start: int, count: int) -> NDArray[np.complex64]:
        """complex64 [count] from sample `start`; integers are scaled to a full scale of 1."""
        part = self.samples[:, start : start + count]
        scale = 1.0 / -float(np.iinfo(part.dtype).min) if part.dtype.kind == "i" else 1.0
        return ((part[0] + 1j * part[1]) * scale).astype(np.complex64)


def open_capture(path: Path) -> NpyCapture:
    """Check the records of a capture and map its samples; raises InputError."""
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(path, file, "record 1")
            offset = file.tell()
            if len(shape) != 2 or shape[0] != 2 or dtype.kind not in "fi":
                raise InputError(path, "record 1", f"{dtype} {list(shape)}", "real numbers [2, N]: I and Q")
            nbytes = dtype.itemsize * shape[0] * shape[1]
            if not 0 < nbytes <= path.stat().st_size - offset:
                raise InputError(path, "record 1", f"{nbytes} bytes claimed", "as many as the file has")
            file.seek(offset + nbytes)
            centre_hz, rate_hz = _describe(path, file)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(path, "contents", f"unreadable ({error})"[:160], "a capture of three .npy records") from None
    order = "F" if fortran else "C"
    samples = np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)
    return NpyCapture(path, samples, rate_hz, centre_hz)


def _header(path: Path, file: IO[bytes], record: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise InputError(path, record, f".npy version {version}", "1.0 or 2.0")
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)


def _describe(path: Path, file: IO[bytes]) -> tuple[float, float]:
    side = path.with_suffix(".json")
    if side.is_file():
        try:
            values = json.loads(side.read_text(encoding="utf-8")) if side.stat().st_size < DESCRIPTION_LIMIT else None
        except (ValueError, RecursionError) as error:
            raise InputError(side, "contents", str(error)[:160], "JSON") from None
        return _checked(side, values if isinstance(values, dict) else {})
    for record in ("record 2", "record 3"):
        shape, _, dtype = _header(path, file, record)
        if dtype.hasobject:
            return _checked(path, _numbers_behind_names(file.read(DESCRIPTION_LIMIT)))
        file.seek(file.tell() + dtype.itemsize * math.prod(shape))
    return _checked(path, {})


def _checked(path: Path, values: dict) -> tuple[float, float]:
    numbers = []
    for name in NAMES:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
            how = (
                f"a number of Hz (write {path.stem}.json beside it: {{" + ", ".join(f'"{n}": ...' for n in NAMES) + "})"
            )
            raise InputError(path, name, "nothing" if value is None else value, how)
        numbers.append(float(value))
    return numbers[0], numbers[1]


def _numbers_behind_names(data: bytes) -> dict[str, float]:
    """Plain numbers that directly follow one of NAMES among the opcodes; nothing is built or called."""
    found: dict[str, float] = {}
    name = ""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in NUMBERS and name:
                found[name] = float(argument)
            if opcode.name not in MEMO:
                name = argument if isinstance(argument, str) and argument in NAMES else ""
    except (ValueError, OverflowError):
        return {}
    return found
