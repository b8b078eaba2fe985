# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans are taken from the cache only where they are this user's, whole, and of the key that is asked for."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.waiting import LONG_S
from wavesfm_core.engines.tensorrt.plan_cache import (
    BATCHES,
    CALIBRATION,
    PlanCache,
    PlanKey,
    PlanRecord,
    default_directory,
)
from wavesfm_core.errors import ConfigurationError

KEY = PlanKey("ab" * 32, "tensorrt_rtx", "1.7", "GPU A", ("sm_89",), "13000", "bf16", 8, 64, "1")
PLAN = b"a plan" * 100


def record(key: PlanKey = KEY) -> PlanRecord:
    return PlanRecord(key, "", 0, "bundle@ab", 1.5, {"bf16": 3}, "2 tiles", ("careful",))


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache" / "gr-wavesfm")


def test_what_is_stored_is_found(cache: PlanCache) -> None:
    assert cache.load(KEY) is None
    stored = cache.store(PLAN, record())
    assert stored.n_bytes == len(PLAN)
    assert PlanCache(cache.directory).load(KEY) == (PLAN, stored)
    assert cache.records() == [stored]


def test_only_this_user_can_read_it(cache: PlanCache) -> None:
    cache.store(PLAN, record())
    with cache.locked():
        pass
    modes = {path.name[-5:]: path.stat().st_mode & 0o777 for path in cache.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3
    assert cache.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(PlanKey)])
def test_every_part_of_the_key_counts(cache: PlanCache, field: str) -> None:
    cache.store(PLAN, record())
    value = getattr(KEY, field)
    other = value + 1 if isinstance(value, int) else ("sm_80",) if isinstance(value, tuple) else value + "x"
    changed = dataclasses.replace(KEY, **{field: other})
    assert changed.digest != KEY.digest
    assert cache.load(changed) is None
    assert cache.find(changed) is None


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def set_field(name: str, value: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), name: value}).encode()


@pytest.mark.parametrize(
    ("suffix", "change", "words"),
    [
        (".plan", lambda data: data[:-1] + b"!", "sha256"),
        (".plan", lambda data: data[:-1], "599 bytes, 600 on record"),
        (".json", lambda data: b"{", "Expecting"),
        (".json", lambda data: b"[]", "an object"),
        (".json", set_field("extra", 1), "extra"),
        (".json", set_field("sha256", "0" * 64), "sha256"),
        (".json", lambda data: data.replace(b"GPU A", b"GPU B"), "another key"),
        (".json", lambda data: b" " * (2 << 20), "more than"),
    ],
)
def test_a_damaged_plan_is_not_taken(
    cache: PlanCache, caplog: pytest.LogCaptureFixture, suffix: str, change: Callable[[bytes], bytes], words: str
) -> None:
    cache.store(PLAN, record())
    damage(cache.directory / (KEY.digest + suffix), change)
    with caplog.at_level(logging.WARNING):
        assert cache.find(KEY, quiet=True) is None
        assert [m for m in caplog.messages if "built anew" in m] == []
        assert cache.load(KEY) is None
        caplog.clear()
        assert cache.find(KEY) is None
    (line,) = caplog.messages
    assert "is built anew" in line
    assert words in line
    stored = cache.store(PLAN, record())
    assert cache.load(KEY) == (PLAN, stored)


@pytest.mark.parametrize(("missing", "lines"), [(".plan", 1), (".json", 0)])
def test_half_an_entry_is_none(cache: PlanCache, missing: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    cache.store(PLAN, record())
    (cache.directory / (KEY.digest + missing)).unlink()
    assert cache.find(KEY) is None
    assert [message.endswith("is built anew: only its record is present") for message in caplog.messages] == [
        True
    ] * lines


def test_links_and_files_of_others_are_not_read(cache: PlanCache, tmp_path: Path) -> None:
    cache.store(PLAN, record())
    path = cache.directory / (KEY.digest + ".plan")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.load(KEY) is None
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    assert cache.load(KEY) is not None
    path.chmod(0o622)
    assert cache.load(KEY) is None


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"plan cache: found mode 0777, expected 0700"):
        PlanCache(directory)
    directory.chmod(0o755)
    assert PlanCache(directory).directory.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(ConfigurationError, match="a link or a file"):
        PlanCache(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="found File exists"):
        PlanCache(tmp_path / "file")


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "gr-wavesfm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "gr-wavesfm"


def test_plans_built_ahead_serve_the_gpus_they_are_for(cache: PlanCache) -> None:
    ahead = dataclasses.replace(KEY, gpu="targets", capabilities=("sm_86", "sm_89"), driver="")
    stored = cache.store(PLAN, record(ahead))
    assert list(cache.ahead(KEY)) == [(PLAN, stored)]
    assert list(cache.ahead(dataclasses.replace(KEY, capabilities=("sm_120",)))) == []
    assert list(cache.ahead(dataclasses.replace(KEY, precision="fp16"))) == []
    assert list(cache.ahead(dataclasses.replace(KEY, maximum=16))) == []
    assert list(cache.ahead(dataclasses.replace(KEY, maximum=16), BATCHES)) == [(PLAN, stored)]
    own = cache.store(b"own", record())
    assert cache.find(KEY) == (b"own", own)
    assert not KEY.serves(dataclasses.replace(KEY, gpu="GPU B"))
    cache.store(PLAN, dataclasses.replace(record(ahead), forced=True))
    assert list(cache.ahead(KEY)) == []
    assert len(list(cache.ahead(KEY, forced=True))) == 1
    portable = dataclasses.replace(KEY, gpu="portable", capabilities=(), driver="")
    assert portable.serves(dataclasses.replace(KEY, capabilities=("sm_120",)))
    assert not ahead.serves(portable)  # which is no GPU


def written(cache: PlanCache, key: PlanKey, seconds: float) -> None:
    os.utime(cache.directory / (key.digest + ".json"), (seconds, seconds))


def test_of_plans_that_differ_in_free_fields_the_last_is_found(cache: PlanCache) -> None:
    tuned = dataclasses.replace(KEY, maximum=16, calibration="c")
    free = (*BATCHES, *CALIBRATION)
    assert cache.find(KEY, free=free) is None
    for i, key in enumerate((KEY, tuned)):
        cache.store(key.calibration.encode(), record(key))
        written(cache, key, i)

    def found(key: PlanKey, *fields: str, forced: bool = False) -> PlanKey | None:
        plan = cache.find(key, free=fields, forced=forced)
        return None if plan is None else plan[1].key

    assert found(dataclasses.replace(KEY, maximum=4), *BATCHES) == KEY
    assert found(dataclasses.replace(KEY, maximum=4), *CALIBRATION) is None
    written(cache, KEY, 0)
    assert found(KEY, *free) == tuned
    written(cache, tuned, 1)
    assert found(KEY) == KEY  # which makes it the last one
    assert found(tuned, *free) == KEY
    cache.store(b"", dataclasses.replace(record(), forced=True))
    assert found(KEY, *free) == tuned
    assert found(KEY) is None
    assert found(KEY, forced=True) == KEY


def test_what_another_version_or_driver_made_is_discarded_with_a_line(
    cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"version": "1.6", "driver": "12000", "recipe": "0"}
    stale = [dataclasses.replace(KEY, **{name: value}) for name, value in changes.items()]
    others = [
        dataclasses.replace(KEY, **change) for change in ({"gpu": "GPU B"}, {"precision": "fp16"}, {"maximum": 9})
    ]
    for key in (*stale, *others, dataclasses.replace(stale[0], maximum=16)):
        cache.store(PLAN, record(key))
    cache.discard_stale(KEY)
    assert {plan.key for plan in cache.records()} == set(others)
    lines = [text for text in caplog.messages if "is built anew" in text]
    assert len(lines) == 4
    for name, value in changes.items():
        assert any(text.endswith(f"it is of {name} {value!r}, now {getattr(KEY, name)!r}") for text in lines)
    assert any(text.endswith("it is of version '1.6', now '1.7'; maximum 16, now 64") for text in lines)


def test_clear_removes_all_but_what_is_not_its_own(cache: PlanCache) -> None:
    cache.store(PLAN, record())
    cache.store(PLAN, record(dataclasses.replace(KEY, precision="fp16")))
    (cache.directory / "left.part").write_bytes(b"123")
    (cache.directory / "notes.txt").write_text("mine")
    plans, n_bytes = cache.clear()
    assert plans == 2
    assert n_bytes > 2 * len(PLAN)
    assert sorted(path.name for path in cache.directory.iterdir()) == ["lock", "notes.txt"]
    assert cache.clear() == (0, 0)


def test_a_full_disk_leaves_what_was_there(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = cache.store(PLAN, record())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="No space left"):
            cache.store(b"another", record())
    assert cache.load(KEY) == (PLAN, stored)
    assert not list(cache.directory.glob("*.part"))


def test_what_the_system_refuses_is_named(cache: PlanCache) -> None:
    (cache.directory / "left.part").mkdir()
    with pytest.raises(ConfigurationError, match="plan: found Is a directory, expected files that can be removed"):
        cache.clear()
    (cache.directory / "lock").unlink()
    (cache.directory / "lock").mkdir()
    with pytest.raises(ConfigurationError, match="lock: found Is a directory, expected a file that can be opened"):
        cache.clear()


def test_records_that_cannot_be_read_are_left_out(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    stored = cache.store(PLAN, record())
    (cache.directory / "other.json").write_text("{}")
    assert cache.records() == [stored]
    assert "other.json" in caplog.text


def hold(directory: Path, held: object, release: object) -> None:
    with PlanCache(directory).locked():
        held.set()  # type: ignore[attr-defined]
        release.wait(LONG_S)  # type: ignore[attr-defined]


def test_the_lock_is_held_by_one_process(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    forking = multiprocessing.get_context("fork")
    held, release = forking.Event(), forking.Event()
    process = forking.Process(target=hold, args=(cache.directory, held, release))
    process.start()
    assert held.wait(LONG_S)
    got = threading.Event()

    def take() -> None:
        with cache.locked():
            got.set()

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=take)
        thread.start()
        while "waiting for it" not in caplog.text:
            assert not got.wait(0.01)
        release.set()
        assert got.wait(LONG_S)
    thread.join()
    process.join()
    assert process.exitcode == 0
