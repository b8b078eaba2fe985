# SPDX-License-Identifier: GPL-3.0-or-later
"""TorchSig data sets on disk: Sig53, its wideband sibling, and what later versions write.

Two layouts: data.h5, whose groups 0, 1, ... have `data` (IQ) and metadata/0, metadata/1, ... with class_name and
snr_db of each signal; and folders NNNNNNNNNN.zarr with IQ [batch, n], whose attributes have the targets of each example
by its number. Earlier versions stored pickles in LMDB, which are programs and are not read.

References
----------
Boegner et al., "Large Scale Radio Frequency Signal Classification", 2022; TorchSig's file handlers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from wavesfm_core.errors import InputError

from ..formats.hdf5_rows import open_hdf5
from ..formats.zarr_rows import ZarrRows
from .base import Array, Raw, label_index
from .csi_windows import with_options
from .iq_pictures import SAMPLES_LIMIT, IqPictures, complex_samples

if TYPE_CHECKING:
    from ..tasks import Task

HDF5, ZARR = "data.h5", ".zarr"
TEXT_LIMIT_BYTES = 4096
"""Of a class name."""


class TorchSigReader:
    """Examples of every data.h5 and every .zarr folder below the root.

    A classification takes examples of one signal alone, and refuses the others: they are of a wideband set, which is
    for pre-training. `task.options` may set fields of `IqPictures`.
    """

    name = "torchsig"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples in order of file and number; raises InputError for other layouts."""
        pictures = with_options(IqPictures(), task)
        if not root.exists():
            raise InputError(root, "path", "nothing", f"{HDF5} or folders that end in {ZARR}")
        files = sorted(root.rglob(HDF5)) if root.is_dir() else [root]
        folders = sorted(path for path in root.rglob(f"*{ZARR}") if path.is_dir())
        if not files and not folders:
            raise InputError(root, "files", "none", f"{HDF5} or folders that end in {ZARR}")
        for path in files:
            yield from _read_hdf5(path, task, pictures)
        for path in folders:
            yield from _read_zarr(path, task, pictures)


def _read_hdf5(path: Path, task: Task, pictures: IqPictures) -> Iterator[Raw]:
    with open_hdf5(path) as file:
        numbers = sorted(int(name) for name in file if name.isdecimal())
        if not numbers:
            raise InputError(path, "groups", ", ".join(sorted(file))[:80] or "none", "0, 1, ... with data and metadata")
        found = []
        for number in numbers[:: pictures.every]:
            source = f"{path}[{number}]"
            data = file[str(number)].get("data")
            if not isinstance(data, h5py.Dataset) or not 0 < data.size <= 2 * SAMPLES_LIMIT:
                raise InputError(source, "data", getattr(data, "shape", "nothing"), f"IQ of up to {SAMPLES_LIMIT}")
            found.append((number, source, _signals(file[str(number)].get("metadata"), source)))
    for number, source, signals in found:
        array = partial(_hdf5_picture, path, number, pictures, source)
        yield _raw(task, pictures, array, source, signals)


def _signals(metadata: Any, source: str) -> list[dict[str, Any]]:
    """class_name, snr_db and sample_rate of each signal of an example, as far as they are there."""
    if not isinstance(metadata, h5py.Group):
        raise InputError(source, "metadata", "nothing", "a group for each signal")
    signals = []
    for name in sorted(metadata):
        group = metadata[name]
        if isinstance(group, h5py.Group):
            signals.append({key: _scalar(group[key], source) for key in _FIELDS if key in group})
    return signals


_FIELDS = ("class_name", "snr_db", "sample_rate")


def _scalar(dataset: Any, source: str) -> Any:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != () or dataset.dtype.itemsize > TEXT_LIMIT_BYTES:
        raise InputError(source, "metadata", "an array", "one value")
    value = dataset[()]
    return value.decode("utf-8", "replace")[:TEXT_LIMIT_BYTES] if isinstance(value, bytes) else value


def _hdf5_picture(path: Path, number: int, pictures: IqPictures, source: str) -> Array:
    with open_hdf5(path) as file:
        try:
            values = np.asarray(file[str(number)]["data"])
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(source, "data", f"unreadable ({error})"[:160], "a whole file") from None
    return pictures.picture(complex_samples(values, source))


def _read_zarr(path: Path, task: Task, pictures: IqPictures) -> Iterator[Raw]:
    rows = ZarrRows(path, 2 * SAMPLES_LIMIT)
    numbers = sorted(int(name) for name in rows.attributes if name.isdecimal())
    if len(numbers) != len(rows):
        raise InputError(path, "attributes", f"{len(numbers)} targets", f"{len(rows)}, one for each example")
    for row in range(0, len(rows), pictures.every):
        source = f"{path}[{row}]"
        signals = _named(rows.attributes[str(numbers[row])])
        yield _raw(task, pictures, partial(_zarr_picture, rows, row, pictures, source), source, signals)


def _named(target: Any) -> list[dict[str, Any]]:
    """Signals of a target of a .zarr folder: a class name, or a list whose first texts and numbers are read.

    The user of TorchSig chooses what a target holds. A text is the class name; a number beside it is not interpreted.
    """
    if isinstance(target, str):
        return [{"class_name": target}]
    if isinstance(target, dict):
        return [{key: target[key] for key in _FIELDS if key in target}]
    if isinstance(target, Sequence):
        if target and isinstance(target[0], Sequence | dict) and not isinstance(target[0], str):
            return [signal for each in target for signal in _named(each)]
        texts = [value for value in target if isinstance(value, str)]
        return [{"class_name": texts[0]}] if texts else [{}]
    return [{}]


def _raw(task: Task, pictures: IqPictures, array: Any, source: str, signals: Sequence[dict[str, Any]]) -> Raw:
    target = None
    if task.kind == "classification":
        if len(signals) != 1:
            expected = "one: examples of several are for pre-training"
            raise InputError(source, "signals", len(signals), expected)
        name = signals[0].get("class_name")
        if not isinstance(name, str):
            raise InputError(source, "class_name", repr(name), "a name in the metadata or the target")
        target = label_index(task, name, source)
    rate_hz, snr_db = (_number(signals, key) for key in ("sample_rate", "snr_db"))
    rate = pictures.log10_rate(0.0 if math.isnan(rate_hz) else rate_hz)
    return Raw(array, target, source, log10_rate=rate, snr_db=snr_db)


def _number(signals: Sequence[dict[str, Any]], key: str) -> float:
    """A figure of an example's only signal; NaN for none, or for several signals."""
    value = signals[0].get(key) if len(signals) == 1 else None
    return float(value) if isinstance(value, int | float | np.number) else math.nan


def _zarr_picture(rows: ZarrRows, row: int, pictures: IqPictures, source: str) -> Array:
    return pictures.picture(complex_samples(rows[row], source))


READER = TorchSigReader()
