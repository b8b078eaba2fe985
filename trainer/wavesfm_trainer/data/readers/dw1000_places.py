# SPDX-License-Identifier: GPL-3.0-or-later
"""Which anchor and tag a UWB log was made between, and where they stood."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from wavesfm_core.errors import InputError

_NOTE = re.compile(
    r"anchor (?P<anchor>\d+) at \['(?P<ax>[-0-9.]+)', '(?P<ay>[-0-9.]+)'\] m, "
    r"tag (?P<tag>\d+) at \['(?P<tx>[-0-9.]+)', '(?P<ty>[-0-9.]+)'\] m"
)


@dataclass(frozen=True)
class Place:
    """Where an anchor or a tag stood: its name in the tables, and x and y in metres."""

    name: str
    xy_m: tuple[float, float]

    @property
    def order(self) -> tuple[int, str]:
        """Numbers by value, other names after them."""
        return (int(self.name), "") if self.name.isdigit() else (1 << 62, self.name)


@dataclass(frozen=True)
class Link:
    """One log: its name without suffix, between which places, and its label (line of sight or not; "" unknown)."""

    log: str
    anchor: Place
    tag: Place
    label: str = ""


def read_links(root: Path) -> dict[str, Link]:
    """Links by log name, from the tables beside the logs.

    pairs.csv (file_number, anchor_location, tag_location), anchors.csv and tags.csv (location, x, y) and, if there,
    labels.csv (file_id, label) in root or root/results; or else a manifest.csv (file, label, notes) in root or its
    parent whose notes say "anchor 1 at ['7.76', '8.1'] m, tag 1 at ['7.87', '5.61'] m". InputError: none of them,
    missing columns, a place that is not listed, coordinates that are no numbers.
    """
    for folder in (root, root / "results"):
        if (folder / "pairs.csv").is_file():
            return _from_tables(folder)
    for folder in (root, root.parent):
        for name in ("manifest.csv", "MANIFEST.csv"):
            if (folder / name).is_file():
                return _from_manifest(folder / name)
    raise InputError(root, "pairs.csv", "nothing", "pairs.csv, anchors.csv and tags.csv, or a manifest.csv")


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(path, "file", "nothing", f"a table of {', '.join(columns)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise InputError(path, "columns", found, ", ".join(columns) + " among them")
            return [{key: (row[key] or "").strip() for key in columns} for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(path, "file", error, "comma-separated lines") from None


def _places(path: Path) -> dict[str, Place]:
    return {r["location"]: _place(path, r["location"], r["x"], r["y"]) for r in _rows(path, ("location", "x", "y"))}


def _place(path: Path, name: str, x: str, y: str) -> Place:
    try:
        xy_m = float(x), float(y)
    except ValueError:
        raise InputError(path, f"location {name}", f"x {x!r}, y {y!r}", "two numbers in metres") from None
    if not all(map(math.isfinite, xy_m)):
        raise InputError(path, f"location {name}", f"x {x}, y {y}", "finite numbers in metres")
    return Place(name, xy_m)


def _from_tables(folder: Path) -> dict[str, Link]:
    pairs = folder / "pairs.csv"
    anchors, tags = _places(folder / "anchors.csv"), _places(folder / "tags.csv")
    labels = {}
    if (folder / "labels.csv").is_file():
        labels = {row["file_id"]: row["label"] for row in _rows(folder / "labels.csv", ("file_id", "label"))}
    links = {}
    for row in _rows(pairs, ("file_number", "anchor_location", "tag_location")):
        for key, table in (("anchor_location", anchors), ("tag_location", tags)):
            if row[key] not in table:
                raise InputError(pairs, f"{key} of {row['file_number']}", row[key], f"one of {', '.join(table)}")
        name = row["file_number"]
        links[name] = Link(name, anchors[row["anchor_location"]], tags[row["tag_location"]], labels.get(name, ""))
    return links


def _from_manifest(path: Path) -> dict[str, Link]:
    links = {}
    for row in _rows(path, ("file", "label", "notes")):
        if note := _NOTE.search(row["notes"]):
            anchor = _place(path, note["anchor"], note["ax"], note["ay"])
            tag = _place(path, note["tag"], note["tx"], note["ty"])
            name = Path(row["file"]).stem
            links[name] = Link(name, anchor, tag, row["label"])
    if not links:
        raise InputError(path, "notes", "no anchor and tag", "anchor N at [x, y] m, tag N at [x, y] m")
    return links
