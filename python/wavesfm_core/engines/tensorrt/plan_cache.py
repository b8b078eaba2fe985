# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans that were built once, kept for this user: deserialising a plan runs what it holds, so none is taken on trust.

A plan is a local cache, never an artefact: it fits one GPU, driver, library and version. It lies beside a record with
its key and sha256 in a directory that belongs to this user and that nobody else can write to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...atomic_file import write_atomically
from ...bundle.spec import from_dict
from ...errors import ConfigurationError, WavesfmError

log = logging.getLogger(__name__)

DIRECTORY = "gr-wavesfm"
PLAN, RECORD, LOCK = ".plan", ".json", "lock"
RECORD_LIMIT, PLAN_LIMIT = 1 << 20, 16 << 30  # bytes
AHEAD = ("portable", "targets")  # in the place of a GPU's name
BATCHES = ("preferred", "maximum")
CALIBRATION = ("calibration",)
_PLACE = ("gpu", "capabilities", "driver")
_MAKERS = ("version", "driver", "recipe")  # what makes a plan stale where another is there


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on; two that differ in anything are two plans.

    model: sha256 of the bundle's ONNX file; library, version: that built it; gpu: the GPU's name, or "portable", or
    "targets" where it was built for capabilities; capabilities: sm_89 and the like, of the GPU or of the targets, none
    for "portable"; driver: the driver's version, "" where none was there; precision; preferred, maximum: batches of the
    profile; recipe: version of what was done to the model before; calibration: digest of the tiles that int8 was
    calibrated with, "" for the bundle's.
    """

    model: str
    library: str
    version: str
    gpu: str
    capabilities: tuple[str, ...]
    driver: str
    precision: str
    preferred: int
    maximum: int
    recipe: str
    calibration: str = ""

    @property
    def digest(self) -> str:
        """Names its files."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def matches(self, other: PlanKey, free: Collection[str] = ()) -> bool:
        """Whether it is the other, or differs only in the fields `free`."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in free}) == other

    def serves(self, other: PlanKey, free: Collection[str] = ()) -> bool:
        """Whether a plan of this key, built for targets or portable, may run where one of the other key (a GPU's) does,
        from which it differs in no more than the fields `free`."""
        there = self.gpu == "portable" or (self.gpu == "targets" and set(other.capabilities) <= set(self.capabilities))
        return there and other.gpu not in AHEAD and self.matches(other, (*free, *_PLACE))


@dataclass(frozen=True)
class PlanRecord:
    """What is known of a plan: its key, the sha256 and size of its bytes, the bundle, and what its build was like.

    layers: by precision, those of the plan where it was read_back, else the matrix products of the network; accuracy:
    against the ONNX reference, in a sentence; built_s: seconds that it took; warnings: of the library; forced: whether
    it is kept in spite of its accuracy.
    """

    key: PlanKey
    sha256: str
    n_bytes: int
    bundle: str
    built_s: float
    layers: dict[str, int]
    accuracy: str
    warnings: tuple[str, ...] = field(default_factory=tuple)
    read_back: bool = False
    forced: bool = False


class PlanCache:
    """Plans under a directory; None: gr-wavesfm under XDG_CACHE_HOME, or ~/.cache.

    The directory is made with mode 0700. Raises ConfigurationError where it cannot be made, belongs to somebody else,
    or can be written to by others.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = os.lstat(self.directory)
        except OSError as error:
            raise self._refused(error.strerror or str(error), "a directory that can be made") from None
        if not stat.S_ISDIR(facts.st_mode):
            raise self._refused("a link or a file", "a directory")
        if facts.st_uid != os.geteuid():
            raise self._refused(f"owner {facts.st_uid}", f"this user, {os.geteuid()}")
        if facts.st_mode & 0o022:
            found = f"mode {stat.S_IMODE(facts.st_mode):04o}"
            raise self._refused(found, "0700: others may have put plans there, remove it")
        if stat.S_IMODE(facts.st_mode) != 0o700:
            with self._errors("plan cache", "a directory whose mode can be set to 0700"):
                os.chmod(self.directory, 0o700)

    def load(self, key: PlanKey, quiet: bool = False) -> tuple[bytes, PlanRecord] | None:
        """A plan whose bytes are those on record, or None; why one that is there is not taken is logged in one line.

        quiet: without that line, for one who looks again.
        """
        try:
            return self._load(key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, WavesfmError) as error:
            self._passed_over(key, str(error), quiet)
            return None

    def _passed_over(self, key: PlanKey, why: str, quiet: bool = False) -> None:
        log.log(logging.DEBUG if quiet else logging.WARNING, "the plan %s is built anew: %s", key.digest, why)

    def find(
        self, key: PlanKey, quiet: bool = False, free: Collection[str] = (), forced: bool = False
    ) -> tuple[bytes, PlanRecord] | None:
        """The plan of a key, or of one that differs only in the fields `free`: the one that was stored or found last.

        forced: whether one that is kept in spite of its accuracy will do; quiet: see `load`.
        """
        records = [record for record in self.records(quiet=True) if record.key.matches(key, free)]
        if not records:
            return self.load(key, quiet)  # its record is not there, or says why it is not taken
        for record in reversed(records):
            if record.forced and not forced:
                self._passed_over(record.key, "it is kept in spite of its accuracy", quiet)
            elif found := self.load(record.key, quiet):
                with contextlib.suppress(OSError):
                    os.utime(self._path(record.key.digest, RECORD))
                return found
        return None

    def ahead(
        self, key: PlanKey, free: Collection[str] = (), forced: bool = False
    ) -> Iterator[tuple[bytes, PlanRecord]]:
        """The plans that were built ahead and may serve a GPU's key, as in `find`; the last one first."""
        for record in reversed(self.records(quiet=True)):
            if record.key.serves(key, free) and (forced or not record.forced) and (found := self.load(record.key)):
                yield found

    def _load(self, key: PlanKey) -> tuple[bytes, PlanRecord]:
        record = self._record(key.digest)
        if record.key != key:
            raise ValueError("its record is of another key")
        try:
            plan = _read_own(self._path(key.digest, PLAN), PLAN_LIMIT)
        except FileNotFoundError:
            raise ValueError("only its record is there") from None
        if len(plan) != record.n_bytes:
            raise ValueError(f"{len(plan)} bytes, {record.n_bytes} on record")
        if hashlib.sha256(plan).hexdigest() != record.sha256:
            raise ValueError("its sha256 is not the one on record")
        return plan, record

    def _record(self, digest: str) -> PlanRecord:
        path = self._path(digest, RECORD)
        values = json.loads(_read_own(path, RECORD_LIMIT))
        record = from_dict(PlanRecord, values, path.name)
        if record.key.digest != digest:
            raise ValueError("its record is of another key")
        return record

    def store(self, plan: bytes, record: PlanRecord) -> PlanRecord:
        """Keep a plan, whole or not at all; returns the record with its sha256 and size. Raises ConfigurationError."""
        record = dataclasses.replace(record, sha256=hashlib.sha256(plan).hexdigest(), n_bytes=len(plan))
        text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n"
        digest = record.key.digest
        with self._errors("plan", f"{len(plan)} bytes that can be written"):
            # the plan first: a reader who sees it with the old record finds the sha256 wrong, and no more
            write_atomically(self._path(digest, PLAN), plan, mode=0o600)
            write_atomically(self._path(digest, RECORD), text, mode=0o600)
        return record

    def discard(self, key: PlanKey, why: str) -> None:
        """Remove a plan that is whole but of no use, while the lock is held; why is logged in one line."""
        self._passed_over(key, why)
        with self._errors("plan", "files that can be removed"):
            for suffix in (RECORD, PLAN):
                self._path(key.digest, suffix).unlink(missing_ok=True)

    def discard_stale(self, key: PlanKey) -> None:
        """Discard what another version, driver or recipe made of the same for the same GPU, in whatever profile."""
        free = (*BATCHES, *CALIBRATION)
        for record in self.records(quiet=True):
            old = record.key
            if old.matches(key, (*free, *_MAKERS)) and not old.matches(key, free):
                changed = [name for name in (*_MAKERS, *free) if getattr(old, name) != getattr(key, name)]
                said = (f"{name} {getattr(old, name)!r}, now {getattr(key, name)!r}" for name in changed)
                self.discard(old, "it is of " + "; ".join(said))

    def records(self, quiet: bool = False) -> list[PlanRecord]:
        """Of all plans, in the order in which they were stored or found last; one that cannot be read is left out.

        quiet: without a line in the log for each of those.
        """
        found = []
        for path in sorted(self.directory.glob("*" + RECORD), key=_age):
            try:
                found.append(self._record(path.name.removesuffix(RECORD)))
            except (OSError, ValueError, WavesfmError) as error:
                level = logging.DEBUG if quiet else logging.WARNING
                log.log(level, "%s: not a record of a plan: %s", path, error)
        return found

    def clear(self) -> tuple[int, int]:
        """Remove all plans and what is left of writing them; returns how many plans, and bytes of all."""
        plans = n_bytes = 0
        with self.locked(), self._errors("plan", "files that can be removed"):
            for path in self.directory.iterdir():
                if path.suffix in (PLAN, RECORD, ".part"):
                    n_bytes += path.lstat().st_size
                    plans += path.suffix == PLAN
                    path.unlink()
        return plans, n_bytes

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held by one process at a time, while it builds: kernels that are timed side by side are timed wrongly.

        A lock of this process's own thread is waited for like that of another process. Raises ConfigurationError where
        it cannot be had.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with self._errors(LOCK, "a file that can be opened and locked"):
            descriptor = os.open(self.directory / LOCK, flags, 0o600)
        try:
            with self._errors(LOCK, "a file that can be opened and locked"):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.warning("another process builds a plan, waiting for it")
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back, as the end of the process does

    def _path(self, digest: str, suffix: str) -> Path:
        return self.directory / (digest + suffix)

    @contextlib.contextmanager
    def _errors(self, field: str, expected: str) -> Iterator[None]:
        """The system's errors as ConfigurationErrors."""
        try:
            yield
        except OSError as error:
            raise ConfigurationError(self.directory, field, error.strerror or str(error), expected) from error

    def _refused(self, found: str, expected: str) -> ConfigurationError:
        return ConfigurationError(self.directory, "plan cache", found, expected)


def default_directory() -> Path:
    """gr-wavesfm under XDG_CACHE_HOME where that is an absolute path, else under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / DIRECTORY


def _read_own(path: Path, limit: int) -> bytes:
    """A file's bytes; raises ValueError unless it is a plain file of this user that others cannot write to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise ValueError("it is no file that only this user can write to")
        if facts.st_size > limit:
            raise ValueError(f"{facts.st_size} bytes, more than {limit}")
        return file.read()


def _age(path: Path) -> tuple[Any, ...]:
    try:
        return path.lstat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
