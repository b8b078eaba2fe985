# SPDX-License-Identifier: GPL-3.0-or-later
"""NTU-Fi: WiFi CSI amplitudes as MATLAB files, HAR (activities) and HumanID (persons).

References
----------
HAR: Yang et al., 2021, DOI 10.1109/JIOT.2021.3139958.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from wavesfm_core.errors import InputError

from ..formats.matlab import read_variable
from ..tasks import Task
from .base import (
    Array,
    OneShape,
    Raw,
    files_below,
    generator_note,
    label_index,
    published_split,
    require_options,
)

SUBCARRIERS = 114
_LABEL = re.compile(r"([A-Za-z]+)")


def read_amplitudes(path: Path, antennas: int, same: OneShape) -> Array:
    """Amplitudes of one recording.

    Parameters
    ----------
    path : MATLAB file with `CSIamp` (antennas * 114, packets).
    antennas : number of antennas.
    same : checks that all files have one number of packets.

    Returns
    -------
    float32 [antennas, 114, packets].
    """
    amplitudes = read_variable(path, "CSIamp", (antennas * SUBCARRIERS, None))
    if amplitudes.dtype.kind == "c":
        raise InputError(path, "CSIamp", "complex numbers", "amplitudes")
    return same(path, amplitudes).reshape(antennas, SUBCARRIERS, -1)


class ActivityReader:
    """`{train_amp,test_amp}/<activity>/<activity><n>.mat`, or all files of a part in one folder.

    The label is the leading letters of the file name; the folder's name must not contradict it. The group is the person
    if a generator's note names one; the published files do not, and have no group.
    """

    name = "ntu_fi_har"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples with published splits; raises InputError for other layouts."""
        require_options(task)
        folder, note = generator_note(root)
        same = OneShape("CSIamp")
        for path in files_below(root, (".mat",), "the .mat files of NTU-Fi HAR"):
            letters = _LABEL.match(path.stem)
            if letters is None:
                raise InputError(path, "name", repr(path.name), "<activity><number>.mat")
            label = label_index(task, letters.group(), path)
            known = {text.casefold() for text in task.labels}
            if path.parent.name.casefold() in known and label_index(task, path.parent.name, path) != label:
                raise InputError(path, "label", f"{letters.group()} in a folder {path.parent.name}", "one of the two")
            array = partial(read_amplitudes, path, task.channels, same)
            about = note.get("examples", {}).get(path.relative_to(folder).as_posix(), {}) if note else {}
            group = f"person {about['person']}" if "person" in about else ""
            yield Raw(array, label, str(path), group, published_split(path, root))


class PersonReader:
    """`{train_amp,test_amp}/<person>/{a,b,c}<n>.mat`; the person is the group, and the label if the task has labels.

    The published names are swapped: test_amp is the larger part (546 of 840 files).
    """

    name = "ntu_fi_humanid"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Examples; files outside a person's folder (as the authors flattened them) have no group."""
        require_options(task)
        same = OneShape("CSIamp")
        for path in files_below(root, (".mat",), "the .mat files of NTU-Fi HumanID"):
            person = path.parent.name if path.parent.name.isdigit() else ""
            label = label_index(task, person, path) if task.labels else None
            array = partial(read_amplitudes, path, task.channels, same)
            yield Raw(array, label, str(path), person, published_split(path, root))


HAR = ActivityReader()
HUMAN_ID = PersonReader()
