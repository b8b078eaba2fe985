# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of DecaRanging logs: UWB channel impulse responses of DW1000 radios between anchors and tags."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .base import Raw, label_index
from .csi_windows import name_below, recordings, with_options

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

TAP_M = 299_792_458 / (2 * 499.2e6)  # light in one tap of the accumulator, half a chip
MAX_TAPS = 1016
_POLL = re.compile(r"21 [0-9A-F]{2} Rx time = ")
_RECEIVED = re.compile(r"RX OK .*HLP\(([0-9.]+)\), PSC\(([0-9]+)\)")
_ACCUMULATOR = re.compile(r"Accum Len ([0-9]{1,9})\s*$")
_DISTANCE = re.compile(r"Anchor ToF: .*Dist: (-?[0-9.]+) m ")
_NOTE = re.compile(
    r"anchor (?P<anchor>\d+) at \['(?P<ax>[-0-9.]+)', '(?P<ay>[-0-9.]+)'\] m, "
    r"tag (?P<tag>\d+) at \['(?P<tx>[-0-9.]+)', '(?P<ty>[-0-9.]+)'\] m"
)


@dataclass(frozen=True)
class Response:
    """One impulse response."""

    magnitude: NDArray[np.float32]
    """float32 [taps], magnitude per accumulated preamble symbol."""
    first_path: float
    """Tap of the first path, with a fraction."""


@dataclass(frozen=True)
class Exchange:
    """One two-way ranging."""

    range_m: float
    """Measured distance in metres."""
    responses: tuple[Response, ...]
    """Impulse responses of the poll and final messages."""

    def profile(self, grid_m: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean magnitude at path lengths `grid_m`; the first path is at the measured distance."""
        rows = [
            np.interp((grid_m - self.range_m) / TAP_M + r.first_path, np.arange(len(r.magnitude)), r.magnitude, 0, 0)
            for r in self.responses
        ]
        return np.mean(rows, axis=0).astype(np.float32)


def read_exchanges(path: Path) -> tuple[list[Exchange], dict[str, int]]:
    """Exchanges of a log in order, and the number of dropped responses by reason.

    Failed receptions and responses that are cut short or have no distance are dropped and counted.

    Raises
    ------
    InputError : an accumulator length outside 1 to 1016, a first path outside the accumulator, or no exchange.
    """
    exchanges: list[Exchange] = []
    left_out: Counter[str] = Counter()
    pending: list[Response] = []
    received: tuple[float, int] | None = None
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if found := _RECEIVED.match(line):
                received = float(found[1]), int(found[2])
            elif found := _ACCUMULATOR.match(line):
                response = _response(path, int(found[1]), received, lines)
                if isinstance(response, str):
                    left_out[response] += 1
                else:
                    pending.append(response)
                received = None
            elif _POLL.match(line):
                left_out["responses without a distance"] += len(pending)
                pending = []
            elif (found := _DISTANCE.match(line)) and pending:
                exchanges.append(Exchange(float(found[1]), tuple(pending)))
                pending = []
    left_out["responses without a distance"] += len(pending)
    if not exchanges:
        raise InputError(path, "exchanges", "none with an impulse response and a distance", "a DecaRanging log")
    return exchanges, {reason: n for reason, n in left_out.items() if n}


def _response(path: Path, n_taps: int, received: tuple[float, int] | None, lines: Iterator[str]) -> Response | str:
    """The response in the next n_taps lines "real, imaginary", or why it is dropped."""
    if not 1 <= n_taps <= MAX_TAPS:
        raise InputError(path, "Accum Len", n_taps, f"1 to {MAX_TAPS}")
    block = list(islice(lines, n_taps))
    try:
        values = np.array(",".join(block).split(","), dtype=np.float32)
    except ValueError:
        return "responses cut short"
    if len(values) != 2 * n_taps:
        return "responses cut short"
    if received is None or received[1] == 0:
        return "failed receptions"
    if not 0 <= received[0] < n_taps:
        raise InputError(path, "HLP", received[0], f"a tap of the accumulator, 0 to {n_taps - 1}")
    return Response(np.hypot(values[0::2], values[1::2]) / np.float32(received[1]), received[0])


@dataclass(frozen=True)
class Place:
    """The position of an anchor or a tag."""

    name: str
    """Name in the tables."""
    xy_m: tuple[float, float]
    """x and y in metres."""

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: numbers by value, then other names."""
        return (int(self.name), "") if self.name.isdigit() else (1 << 62, self.name)


@dataclass(frozen=True)
class Link:
    """The anchor and the tag of one log."""

    log: str
    """Name of the log without suffix."""
    anchor: Place
    """Position of the anchor."""
    tag: Place
    """Position of the tag."""
    label: str = ""
    """Line of sight or not; "" unknown."""


def read_links(root: Path) -> dict[str, Link]:
    """Links by log name, from the tables beside the logs.

    Read are pairs.csv (file_number, anchor_location, tag_location), anchors.csv and tags.csv (location, x, y) and, if
    present, labels.csv (file_id, label) in root or root/results. Otherwise a manifest.csv (file, label, notes) in root
    or its parent is read, whose notes have the form "anchor 1 at ['7.76', '8.1'] m, tag 1 at ['7.87', '5.61'] m".

    Raises
    ------
    InputError : no table, missing columns, a place that is not listed, or coordinates that are not finite numbers.
    """
    for folder in (root, root / "results"):
        if (folder / "pairs.csv").is_file():
            return _from_tables(folder)
    for folder in (root, root.parent):
        for name in ("manifest.csv", "MANIFEST.csv"):
            if (folder / name).is_file():
                return _from_manifest(folder / name)
    raise InputError(root, "pairs.csv", "nothing", "pairs.csv, anchors.csv and tags.csv, or a manifest.csv")


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
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
    return {r["location"]: _place(path, r["location"], r["x"], r["y"]) for r in _table(path, ("location", "x", "y"))}


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
        labels = {row["file_id"]: row["label"] for row in _table(folder / "labels.csv", ("file_id", "label"))}
    links = {}
    for row in _table(pairs, ("file_number", "anchor_location", "tag_location")):
        for key, table in (("anchor_location", anchors), ("tag_location", tags)):
            if row[key] not in table:
                raise InputError(pairs, f"{key} of {row['file_number']}", row[key], f"one of {', '.join(table)}")
        name = row["file_number"]
        links[name] = Link(name, anchors[row["anchor_location"]], tags[row["tag_location"]], labels.get(name, ""))
    return links


def _from_manifest(path: Path) -> dict[str, Link]:
    links = {}
    for row in _table(path, ("file", "label", "notes")):
        if note := _NOTE.search(row["notes"]):
            anchor = _place(path, note["anchor"], note["ax"], note["ay"])
            tag = _place(path, note["tag"], note["tx"], note["ty"])
            name = Path(row["file"]).stem
            links[name] = Link(name, anchor, tag, row["label"])
    if not links:
        raise InputError(path, "notes", "no anchor and tag", "anchor N at [x, y] m, tag N at [x, y] m")
    return links


@dataclass(frozen=True)
class Dw1000:
    """Impulse responses over absolute path length: `exchanges` rows of each anchor, `columns` of `step_m` metres.

    Position: float32 [1, anchors * exchanges, columns], anchors by name; the rows of an anchor that did not range with
    this tag are zero. The target is x and y of the tag in metres, float32. Classification: float32 [1, exchanges,
    columns] of one link; the target is its label (line of sight or not). Pre-training: as for positions, without a
    target. The group is the tag's place. `task.options` may set exchanges, columns and step_m.

    The magnitude is per accumulated preamble symbol, so that it does not depend on the length of the preamble. The
    first path is at the measured distance, so that a column has the same meaning for every anchor.
    """

    name: str = "dw1000"
    """Name of the reader in a task file."""
    exchanges: int = 7
    """Exchanges of a sample."""
    columns: int = 224
    """Columns of a sample."""
    step_m: float = 0.15
    """Path length of a column in metres."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every sample below `root`; raises InputError for damaged logs and tables."""
        return with_options(self, task)._read(root, task)

    def _read(self, root: Path, task: Task) -> Iterator[Raw]:
        if task.channels != 1:
            raise InputError(root, "channels", task.channels, "1, the magnitude of the impulse responses")
        links = read_links(root)
        paths = recordings(root, ".log")
        unknown = [path.name for path in paths if path.stem not in links]
        if unknown:
            raise InputError(root, "logs", ", ".join(unknown), "logs with a row in the table of pairs")
        anchors = sorted({link.anchor for link in links.values()}, key=lambda place: place.order)
        of_tag: dict[Place, dict[Place, Path]] = {}
        for path in paths:
            of_tag.setdefault(links[path.stem].tag, {})[links[path.stem].anchor] = path
        for tag in sorted(of_tag, key=lambda place: place.order):
            rows = {anchor: self._rows(path) for anchor, path in of_tag[tag].items()}
            names = {anchor: name_below(path, root) for anchor, path in of_tag[tag].items()}
            if task.kind == "classification":
                for anchor, blocks in rows.items():
                    path, link = of_tag[tag][anchor], links[of_tag[tag][anchor].stem]
                    yield from self._links(blocks, names[anchor], label_index(task, link.label, path), tag)
            else:
                target = np.array(tag.xy_m, np.float32) if task.kind == "position" else None
                yield from self._fixes(rows, names, anchors, target, tag)

    def _rows(self, path: Path) -> NDArray[np.float32]:
        """Profiles float32 [samples, exchanges, columns] of a log; a rest that fills no sample is dropped."""
        found, left_out = read_exchanges(path)
        count = len(found) // self.exchanges
        if not count:
            raise InputError(path, "exchanges", len(found), f"at least {self.exchanges}")
        if left_out:
            log.warning("%s: left out: %s", path, left_out)
        log.info("%s: %d exchanges, %d at the end fill no sample", path, len(found), len(found) % self.exchanges)
        grid_m = np.arange(self.columns) * self.step_m
        rows = np.stack([exchange.profile(grid_m) for exchange in found[: count * self.exchanges]])
        return rows.reshape(count, self.exchanges, self.columns)

    def _fixes(
        self,
        rows: dict[Place, NDArray[np.float32]],
        names: dict[Place, str],
        anchors: list[Place],
        target: NDArray[np.float32] | None,
        tag: Place,
    ) -> Iterator[Raw]:
        count = min(len(blocks) for blocks in rows.values())
        log.info(
            "tag %s: %d samples, %d of single anchors unused",
            tag.name,
            count,
            sum(map(len, rows.values())) - count * len(rows),
        )
        silent = np.zeros((self.exchanges, self.columns), np.float32)
        for i in range(count):
            image = np.concatenate([rows[a][i] if a in rows else silent for a in anchors])
            yield Raw(
                image[None], target, f"{'+'.join(names[a] for a in anchors if a in names)}[{i}]", f"tag {tag.name}"
            )

    def _links(self, blocks: NDArray[np.float32], name: str, target: int, tag: Place) -> Iterator[Raw]:
        for i, block in enumerate(blocks):
            yield Raw(block[None], target, f"{name}[{i}]", f"tag {tag.name}")


READER = Dw1000()
