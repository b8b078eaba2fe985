# SPDX-License-Identifier: GPL-3.0-or-later
"""Files appear whole or not at all, with the right permissions, at the place that a link names."""

import os
import stat
from pathlib import Path

import pytest
from wavesfm_core.atomic_file import atomic_path, write_atomically


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_replaces_the_contents_and_leaves_no_scratch_file(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old\r\n")
    write_atomically(path, b"new \xff")
    assert path.read_bytes() == b"new \xff"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as scratch:
        scratch.write_bytes(b"ne")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_missing_directory_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a", b"")


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "a") == 0o640


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o604)
    write_atomically(path, b"new")
    assert _mode(path) == 0o604


def test_a_given_mode_wins_and_holds_while_the_file_is_written(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o666)
    with atomic_path(path, mode=0o600) as scratch:
        assert _mode(scratch) == 0o600
    assert _mode(path) == 0o600


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_is_followed_only_where_asked_for(tmp_path, follow_links):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to("real/a")
    write_atomically(link, b"new", follow_links=follow_links)
    assert link.is_symlink() == follow_links
    assert link.read_bytes() == b"new"
    assert target.read_bytes() == (b"new" if follow_links else b"old")


def test_a_long_name_leaves_room_for_the_scratch_file(tmp_path):
    path = tmp_path / ("ä" * 127)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"
