# SPDX-License-Identifier: GPL-3.0-or-later
"""Labelled boxes of a user's recordings, and what is refused of them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Recording

log = logging.getLogger(__name__)
OVERLAP = 0.5
"""Share of the smaller of two boxes from which on they count as the same place."""
LEAST_BOXES = 2
"""Boxes of a label below which it is refused."""
ADVISED_BOXES = 5
"""Boxes of a label below which a note advises more."""
ASSUMED_RATE_HZ = 1e6
"""Stands for an unknown sample rate where edges are measured; the network is told that the rate is unknown."""
TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Source:
    """How a recording is opened."""

    path: Path
    """The file, as `open_recording` takes it."""
    name: str
    """Path below the folder, for tables and messages."""
    rate_hz: float | None = None
    """Sample rate in Hz instead of the file's; None: the file's."""
    sample_format: str | None = None
    """Sample format instead of the file's; None: the file's."""
    centre_hz: float | None = None
    """Centre frequency in Hz instead of the file's; None: the file's."""

    def open(self) -> Recording:
        """Open the recording; raises InputError."""
        return open_recording(self.path, self.rate_hz, self.sample_format, self.centre_hz)


@dataclass(frozen=True)
class Box:
    """A labelled part of a recording."""

    source: Source
    """The recording."""
    label: str
    """Name of the signal."""
    start: int
    """First complex sample."""
    stop: int
    """The sample after the last."""
    low_hz: float | None
    """Lower edge in Hz from the middle of the band; None: the whole band."""
    high_hz: float | None
    """Upper edge in Hz from the middle of the band; None: the whole band."""
    group: str
    """Recording, transmitter or site, which must be on one side of the split."""
    field: str
    """Where the label stands, as annotations[3] or line 7."""
    side: str = ""
    """TRAIN or TEST where the user splits; "" otherwise."""

    @property
    def key(self) -> tuple[str, int, int]:
        """What a correction names the box by: file, start and number of samples."""
        return self.source.name, self.start, self.stop - self.start


@dataclass(frozen=True)
class Collected:
    """The boxes of a folder or a table."""

    boxes: tuple[Box, ...]
    """In the order of the files."""
    notes: tuple[str, ...] = ()
    """Sentences about what was assumed, or left out and how often."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Different labels, sorted."""
        return tuple(sorted({box.label for box in self.boxes}))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the recordings, in order."""
        return tuple(dict.fromkeys(box.source.name for box in self.boxes))


def check_boxes(collected: Collected, where: Path, known: Sequence[str] = ()) -> Collected:
    """Refuse boxes that nothing can be learnt from; the notes get what is only doubtful.

    Parameters
    ----------
    collected : the boxes.
    where : folder or table, for messages.
    known : labels that the model has already.

    Raises
    ------
    InputError : no box, one label alone, too few boxes of a label, two labels in one place, one transmitter on both
        sides of the user's split.
    """
    counts = Counter(box.label for box in collected.boxes)
    if not counts:
        raise InputError(where, "labels", "none", "boxes with core:label, one folder a label, or a table of labels")
    if len(counts) + len(set(known) - set(counts)) < 2:
        raise InputError(where, "labels", f"{next(iter(counts))!r} alone", "two or more different labels")
    _refuse_two_labels(collected.boxes)
    for label, count in counts.items():
        if count < LEAST_BOXES:
            first = next(box for box in collected.boxes if box.label == label)
            expected = f"{LEAST_BOXES} or more ({ADVISED_BOXES} advised)"
            raise InputError(first.source.path, f"label {label!r}", f"{count} box in all", expected)
    _refuse_both_sides(collected.boxes)
    few = [f"{label} ({count})" for label, count in counts.items() if count < ADVISED_BOXES]
    notes = [f"Labels of fewer than {ADVISED_BOXES} boxes: {', '.join(few)}."] if few else []
    return Collected(collected.boxes, (*collected.notes, *notes))


def _refuse_two_labels(boxes: Iterable[Box]) -> None:
    by_file: dict[Path, list[Box]] = defaultdict(list)
    for box in boxes:
        by_file[box.source.path].append(box)
    for path, mine in by_file.items():
        for a, b in combinations(mine, 2):
            if a.label != b.label and _shared(a, b) > OVERLAP:
                found = f"{a.label!r} and {b.label!r} ({b.field}) in one place"
                raise InputError(path, f"{a.field}, sample {max(a.start, b.start)}", found, "one label for a box")


def _shared(a: Box, b: Box) -> float:
    """Share of the smaller of two boxes of one recording that lies in the other."""
    time = min(a.stop, b.stop) - max(a.start, b.start)
    if time <= 0:
        return 0.0
    share = time / min(a.stop - a.start, b.stop - b.start)
    if a.low_hz is None or b.low_hz is None or a.high_hz is None or b.high_hz is None:
        return share
    width = min(a.high_hz, b.high_hz) - max(a.low_hz, b.low_hz)
    return share * max(0.0, width) / min(a.high_hz - a.low_hz, b.high_hz - b.low_hz)


def _refuse_both_sides(boxes: Iterable[Box]) -> None:
    seen: dict[str, Box] = {}
    for box in boxes:
        first = seen.setdefault(box.group, box)
        if first.side != box.side:
            found = f"{box.group!r} in {first.side or 'neither'} ({first.field}) and {box.side or 'neither'}"
            expected = f"a transmitter on one side, {TRAIN} or {TEST}"
            raise InputError(box.source.path, f"group, {box.field}", found, expected)
