# SPDX-License-Identifier: GPL-3.0-or-later
"""SigMF annotations of a whole session: gathered in a journal, finalised once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ...atomic_file import write_atomically
from ...recordings.sigmf_writer import Capture, NewRecording, box_annotation
from ...types import StreamTime
from ..bus import Record

JOURNAL = ".journal"
MOST_ANNOTATIONS = 200_000  # what viewers still open


class SigMFAnnotations:
    """Metadata without samples: a capture for each tuning, an annotation for each emitter that has ended.

    While the session runs, each is a line of the journal PATH.journal, which survives a crash. `finalise` writes the
    metadata from it, whole or not at all, and removes it.

    Parameters
    ----------
    path : str
        The .sigmf-meta file. A journal that an earlier session left is finalised with this one.
    """

    kinds = frozenset({"event"})

    def __init__(self, path: str) -> None:
        self.name = f"annotations {path}"
        self._path = Path(path)
        self._journal = Path(path + JOURNAL)
        self._file: IO[str] | None = None

    def connect(self) -> None:
        """See `Output.connect`."""
        self._file = self._journal.open("a", encoding="utf-8")

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        assert self._file is not None
        values = record.values
        if values["event"] != "ended" or values["kind"] not in ("signal", "whole"):
            return
        line = json.dumps({**values, "run": record.run}) + "\n"
        position = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
        except OSError:
            self._file.truncate(position)  # no half lines: the record is sent again
            raise

    def close(self) -> None:
        """See `Output.close`. The journal stays until `finalise`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def finalise(self) -> bool:
        """Write the metadata and remove the journal; after `close`. False if nothing was gathered. Raises OSError."""
        boxes = self._read()
        if not boxes:
            self._journal.unlink(missing_ok=True)
            return False
        first = boxes[0]
        captures, tuning = [Capture(0, first["centre_hz"])], first["centre_hz"]
        for box in sorted(boxes, key=lambda each: each["start_sample"]):
            if box["centre_hz"] != tuning and box["start_sample"] > captures[-1].start_sample:
                tuning = box["centre_hz"]
                captures.append(Capture(box["start_sample"], tuning, _time(box)))
        new = NewRecording(
            (),
            "cf32",
            first["rate_hz"],
            captures,
            [annotation_of(box) for box in boxes],
            "annotations of a live session, without samples",
            {"core:metadata_only": True},
        )
        write_atomically(self._path, new.metadata())
        self._journal.unlink(missing_ok=True)
        return True

    def _read(self) -> list[dict[str, Any]]:
        """Lines of the journal; a last line that a crash has cut is left out."""
        boxes: list[dict[str, Any]] = []
        if not self._journal.exists():
            return boxes
        with self._journal.open(encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n") or len(boxes) >= MOST_ANNOTATIONS:
                    break
                boxes.append(json.loads(line))
        return boxes


def annotation_of(box: Mapping[str, Any], first_sample: int = 0) -> dict[str, Any]:
    """The annotation of an emitter as `Emitter.as_dict` has it; first_sample: of the recording, in the stream."""
    offset_hz = box["centre_hz"] or 0.0
    confidence = "" if box["confidence"] is None else f"confidence {box['confidence']:.3f}; "
    comment = f"{confidence}{box['snr_db']:.1f} dB over noise; bursts: {box['n_bursts']}; emitter {box['emitter']}"
    start = max(0, box["start_sample"] - first_sample)
    count = max(1, box["start_sample"] + box["n_samples"] - first_sample - start)
    edges = offset_hz + box["low_hz"], offset_hz + box["high_hz"]
    return box_annotation(start, count, edges, box["label"] or "signal", comment)


def _time(box: Mapping[str, Any]) -> StreamTime | None:
    time = box["time"]
    return None if time is None else StreamTime(time["full_s"], time["frac_s"])
