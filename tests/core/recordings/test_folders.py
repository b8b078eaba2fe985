# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders: every recording once, in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.folders import find_recordings


def test_a_folder(tmp_path: Path) -> None:
    meta = {"global": {"core:dataset": "b.cs8"}}
    files = {
        "b.sigmf-meta": json.dumps(meta), "b.cs8": "", "b.sigmf-data": "", "a.CU8": "", "c.wav": "", "notes.txt": "",
        "deep/d.cfile": "", "deep/x.sigmf-meta": "no json", "deep/x.sigmf-data": "", "e.sigmf": "",
        "f.C16": "", "f.TXT": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [str(Path(path).relative_to(tmp_path)) for path in find_recordings([tmp_path])]
    assert found == ["a.CU8", "b.sigmf-meta", "c.wav", "e.sigmf", "f.C16", "deep/d.cfile", "deep/x.sigmf-meta"]
    assert find_recordings([tmp_path / "notes.txt", "-"]) == [tmp_path / "notes.txt", "-"]


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="folder: found no recording"):
        find_recordings([tmp_path])
