# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels of recordings: SigMF annotations, one folder a label, or a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.folders import find_recordings
from wavesfm_core.recordings.labelled_boxes import LabelledBox, annotated_boxes, make_box
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.recordings.sigmf_meta import ARCHIVE, META

from .boxes import TEST, TRAIN, Box, Collected, Source
from .detected import detected_boxes

TABLE = ("file", "label")
OPTIONAL = ("start", "count", "low_hz", "high_hz", "group", "split", "rate_hz", "format", "centre_hz")
TABLE_LIMIT_BYTES = 64 << 20
MODEL_GENERATOR = "wavesfm "
"""Start of core:generator of boxes that `wavesfm annotate` wrote."""


def collect(path: Path, spec: SpectrogramSpec) -> Collected:
    """Read the labels of a folder or a table.

    Parameters
    ----------
    path : a .csv table with the columns of TABLE and any of OPTIONAL; or a folder of SigMF recordings with labelled
        annotations; or a folder with one folder of recordings for each label.
    spec : tiles of the network; recordings without boxes are searched for signals that fill such tiles.

    Raises
    ------
    InputError : no such path, or a label, box or recording that is wrong.
    """
    if path.is_file():
        return read_table(path, spec)
    if not path.is_dir():
        raise InputError(path, "path", "nothing", "a folder of recordings, or a .csv table of labels")
    annotated = _read_annotated(path)
    return annotated if annotated.boxes else _read_folders(path, spec, annotated)


def _read_annotated(root: Path) -> Collected:
    """Annotations of the SigMF recordings below a folder. A recording's group is its sub-folder, or itself."""
    boxes: list[Box] = []
    without, n_unlabelled, n_of_model = [], 0, 0
    for path in _recordings(root):
        if not path.name.endswith((META, ARCHIVE)):
            continue
        source = Source(path, _name(path, root))
        with source.open() as recording:
            found, unlabelled = annotated_boxes(recording)
        n_unlabelled += unlabelled
        n_of_model += sum(box.generator.startswith(MODEL_GENERATOR) for box in found)
        without += [] if found else [source.name]
        boxes += [_box(source, box, _group(path, root)) for box in found]
    notes = []
    if boxes and without:
        notes.append(f"Recordings without a labelled annotation, left out: {', '.join(without)}.")
    if n_unlabelled:
        notes.append(f"Annotations without core:label, left out: {n_unlabelled}.")
    if n_of_model:
        notes.append(f"Boxes whose label a model gave (core:generator {MODEL_GENERATOR}...): {n_of_model}.")
    return Collected(tuple(boxes), tuple(notes))


def _read_folders(root: Path, spec: SpectrogramSpec, annotated: Collected) -> Collected:
    """One folder a label. A folder within it is one group; a recording directly in it is a group of its own."""
    boxes: list[Box] = []
    loose, empty = [], []
    for path in _recordings(root):
        label, *rest = path.relative_to(root).parts
        if not rest:
            loose.append(path)
            continue
        source = Source(path, _name(path, root))
        group = "/".join((label, rest[0])) if len(rest) > 1 else source.name
        with source.open() as recording:
            found = detected_boxes(recording, label, spec)
        empty += [] if found else [source.name]
        boxes += [_box(source, box, group) for box in found]
    if not boxes and loose:
        of_sigmf = loose[0].name.endswith((META, ARCHIVE))
        field = "annotations" if of_sigmf else "label"
        raise InputError(loose[0], field, "none with core:label" if of_sigmf else "none", _expected(root))
    notes = list(annotated.notes)
    if loose:
        notes.append(f"Recordings in no label's folder, left out: {', '.join(path.name for path in loose)}.")
    if empty:
        notes.append(f"Recordings too short for a tile, left out: {', '.join(empty)}.")
    return Collected(tuple(boxes), tuple(notes))


def _expected(root: Path) -> str:
    return f"annotations with core:label, a folder for each label in {root.name}, or a .csv table"


def read_table(path: Path, spec: SpectrogramSpec) -> Collected:
    """A table of labels, see `collect`. Files are relative to the table's folder.

    Without start the whole recording has the label and is searched for signals; without low_hz and high_hz a box spans
    the band.
    """
    if path.stat().st_size > TABLE_LIMIT_BYTES:
        raise InputError(path, "size", f"{path.stat().st_size} bytes", f"at most {TABLE_LIMIT_BYTES}")
    boxes: list[Box] = []
    empty = []
    for line, row in read_rows(path, TABLE, OPTIONAL):
        source, group, side = _row_source(path, line, row)
        field = f"line {line}"
        label = row["label"]
        with source.open() as recording:
            if row["start"]:
                found = [_row_box(path, field, label, row, recording)]
            else:
                found = detected_boxes(recording, label, spec)
        empty += [] if found else [source.name]
        boxes += [_box(source, box, group, side, field) for box in found]
    notes = [f"Recordings too short for a tile, left out: {', '.join(empty)}."] if empty else []
    return Collected(tuple(boxes), tuple(notes))


def read_rows(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a .csv table by column, stripped, "" for what is not there, with their numbers.

    Raises
    ------
    InputError : no text, a column that is missing or unknown, a line without a needed value.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            columns = [(name or "").strip() for name in lines.fieldnames or ()]
            wrong = [c for c in needed if c not in columns] or [c for c in columns if c not in (*needed, *optional)]
            if wrong:
                expected = f"{', '.join(needed)} and any of {', '.join(optional)}"
                raise InputError(path, f"column {wrong[0]!r}", ", ".join(columns)[:160] or "an empty file", expected)
            lines.fieldnames = columns
            for values in lines:
                row = {name: (values.get(name) or "").strip() for name in (*needed, *optional)}
                if None in values or not all(row[name] for name in needed):
                    raise InputError(path, f"line {lines.line_num}", repr(values)[:120], f"a {' and a '.join(needed)}")
                yield lines.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(path, "contents", str(error)[:120], "comma-separated text in UTF-8") from None


def number(path: Path, field: str, text: str) -> float | None:
    """A finite number; None for ""; raises InputError."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(path, field, repr(text), "a number")
    return value


def _row_source(path: Path, line: int, row: dict[str, str]) -> tuple[Source, str, str]:
    """Recording, group and side of a line."""
    field = f"line {line}"
    if row["split"] not in ("", TRAIN, TEST):
        raise InputError(path, f"{field}, split", repr(row["split"]), f"{TRAIN}, {TEST} or nothing")
    rate_hz, centre_hz = (number(path, f"{field}, {name}", row[name]) for name in ("rate_hz", "centre_hz"))
    source = Source(path.parent / row["file"], row["file"], rate_hz, row["format"] or None, centre_hz)
    return source, row["group"] or row["file"], row["split"]


def _row_box(path: Path, field: str, label: str, row: dict[str, str], recording: Recording) -> LabelledBox:
    start, count, low_hz, high_hz = (
        number(path, f"{field}, {name}", row[name]) for name in ("start", "count", "low_hz", "high_hz")
    )
    if (low_hz is None) != (high_hz is None):
        raise InputError(path, f"{field}, low_hz and high_hz", "one of them", "both or none")
    stop = recording.n_samples if count is None else int((start or 0) + count)
    return make_box(recording, label, int(start or 0), stop, low_hz, high_hz, f"{field} of {path.name},")


def _recordings(root: Path) -> list[Path]:
    return [Path(path) for path in find_recordings([root])]


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _group(path: Path, root: Path) -> str:
    """The folder of a recording, unless that is the root: then the recording itself."""
    below = path.relative_to(root)
    return below.parent.as_posix() if len(below.parts) > 1 else below.as_posix()


def _box(source: Source, box: LabelledBox, group: str, side: str = "", field: str = "") -> Box:
    return Box(
        source, box.label, box.start_sample, box.stop_sample, box.low_hz, box.high_hz, group, field or box.field, side
    )
