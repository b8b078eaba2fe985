# SPDX-License-Identifier: GPL-3.0-or-later
"""Cache of compiled plans for one user. Loading a plan executes code in it, so each is verified first.

A plan suits one GPU, driver, library and version, so it is never shipped. Beside each plan lies a record with its key
and sha256, in a directory that belongs to this user and that nobody else can write to.
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
from ...hashing import json_sha256

log = logging.getLogger(__name__)

DIRECTORY = "gr-wavesfm"
PLAN, RECORD, LOCK = ".plan", ".json", "lock"
RECORD_LIMIT, PLAN_LIMIT = 1 << 20, 16 << 30
"""Most bytes of a record and of a plan."""
AHEAD = ("portable", "targets")
"""Values of `PlanKey.gpu` for plans that were built ahead, without the GPU that runs them."""
BATCHES = ("preferred", "maximum")
CALIBRATION = ("calibration",)
_PLACE = ("gpu", "capabilities", "driver")
_MAKERS = ("version", "driver", "recipe")  # a plan is stale where one of these has changed


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on: plans with different keys are different plans."""

    model: str
    """sha256 of the bundle's ONNX file."""
    library: str
    """Name of the library that built the plan."""
    version: str
    """Version of the library."""
    gpu: str
    """Name of the GPU, "portable", or "targets" for a plan that was built for compute capabilities."""
    capabilities: tuple[str, ...]
    """Compute capabilities (sm_89) of the GPU or of the targets; empty for "portable"."""
    driver: str
    """Version of the NVIDIA driver; "" without one."""
    precision: str
    """One of `precisions.PRECISIONS`."""
    preferred: int
    """Batch for which the profile is tuned."""
    maximum: int
    """Largest batch of the profile."""
    recipe: str
    """`compiler.RECIPE` of the build."""
    calibration: str = ""
    """Digest of the tiles that calibrated int8; "" for the bundle's golden tiles."""

    @property
    def digest(self) -> str:
        """Name of the plan's files."""
        return json_sha256(dataclasses.asdict(self))[:32]

    def matches(self, other: PlanKey, free: Collection[str] = ()) -> bool:
        """True if the keys are equal, ignoring the fields `free`."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in free}) == other

    def serves(self, other: PlanKey, free: Collection[str] = ()) -> bool:
        """True if a portable or multi-target plan with this key can run on the GPU of `other`, ignoring `free`."""
        covers = self.gpu == "portable" or (self.gpu == "targets" and set(other.capabilities) <= set(self.capabilities))
        return covers and other.gpu not in AHEAD and self.matches(other, (*free, *_PLACE))


@dataclass(frozen=True)
class PlanRecord:
    """Record beside a plan."""

    key: PlanKey
    """Key of the plan."""
    sha256: str
    """sha256 of the plan's bytes."""
    n_bytes: int
    """Size of the plan."""
    bundle: str
    """Id of the bundle."""
    built_s: float
    """Duration of the build in seconds."""
    layers: dict[str, int]
    """Number of layers by precision: of the plan if `read_back`, else the matrix products of the network."""
    accuracy: str
    """Accuracy against the ONNX reference, in a sentence."""
    warnings: tuple[str, ...] = field(default_factory=tuple)
    """Warnings of the library."""
    read_back: bool = False
    """Whether `layers` was read from the plan."""
    forced: bool = False
    """Whether the plan is kept although its accuracy is too low."""


class PlanCache:
    """Plans and their records in a directory.

    Parameters
    ----------
    directory : Path, optional
        Created with mode 0700. Default: gr-wavesfm under XDG_CACHE_HOME, or under ~/.cache.

    Raises
    ------
    ConfigurationError
        The directory cannot be created, belongs to another user, or can be written to by others.
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
        """The plan of a key, if its bytes match its record; else None.

        Parameters
        ----------
        key : PlanKey
            Key of the plan.
        quiet : bool
            Do not log why a plan that is present is not used.
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
        """The plan of a key, ignoring the fields `free`: the one that was stored or found last, or None.

        Parameters
        ----------
        key : PlanKey
            Key of the plan.
        quiet : bool
            As in `load`.
        free : collection of str
            Fields in which the plan's key may differ.
        forced : bool
            Accept a plan that is kept although its accuracy is too low.
        """
        records = [record for record in self.records(quiet=True) if record.key.matches(key, free)]
        if not records:
            return self.load(key, quiet)  # the record is missing, or `load` logs what is wrong with it
        for record in reversed(records):
            if record.forced and not forced:
                self._passed_over(record.key, "its accuracy is too low, it was kept by force", quiet)
            elif found := self.load(record.key, quiet):
                with contextlib.suppress(OSError):
                    os.utime(self._path(record.key.digest, RECORD))
                return found
        return None

    def ahead(
        self, key: PlanKey, free: Collection[str] = (), forced: bool = False
    ) -> Iterator[tuple[bytes, PlanRecord]]:
        """Plans that were built ahead and can run on the GPU of a key, as in `find`; the latest first."""
        for record in reversed(self.records(quiet=True)):
            if record.key.serves(key, free) and (forced or not record.forced) and (found := self.load(record.key)):
                yield found

    def _load(self, key: PlanKey) -> tuple[bytes, PlanRecord]:
        record = self._record(key.digest)
        if record.key != key:
            raise ValueError("its record is of another key")
        try:
            plan = read_own(self._path(key.digest, PLAN), PLAN_LIMIT)
        except FileNotFoundError:
            raise ValueError("only its record is present") from None
        if len(plan) != record.n_bytes:
            raise ValueError(f"{len(plan)} bytes, {record.n_bytes} on record")
        if hashlib.sha256(plan).hexdigest() != record.sha256:
            raise ValueError("its sha256 is not the one on record")
        return plan, record

    def _record(self, digest: str) -> PlanRecord:
        path = self._path(digest, RECORD)
        values = json.loads(read_own(path, RECORD_LIMIT))
        record = from_dict(PlanRecord, values, path.name)
        if record.key.digest != digest:
            raise ValueError("its record is of another key")
        return record

    def store(self, plan: bytes, record: PlanRecord) -> PlanRecord:
        """Write a plan and its record.

        Returns the record with sha256 and size. Raises ConfigurationError where they cannot be written.
        """
        record = dataclasses.replace(record, sha256=hashlib.sha256(plan).hexdigest(), n_bytes=len(plan))
        text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n"
        digest = record.key.digest
        with self._errors("plan", f"{len(plan)} bytes that can be written"):
            # the plan first: with the old record it only fails the check of its sha256
            write_atomically(self._path(digest, PLAN), plan, mode=0o600)
            write_atomically(self._path(digest, RECORD), text, mode=0o600)
        return record

    def discard(self, key: PlanKey, why: str) -> None:
        """Remove a plan that is intact but useless and log why; the caller holds the lock."""
        self._passed_over(key, why)
        with self._errors("plan", "files that can be removed"):
            for suffix in (RECORD, PLAN):
                self._path(key.digest, suffix).unlink(missing_ok=True)

    def discard_stale(self, key: PlanKey) -> None:
        """Remove plans of the same model and GPU from another version, driver or recipe, whatever their profile."""
        free = (*BATCHES, *CALIBRATION)
        for record in self.records(quiet=True):
            old = record.key
            if old.matches(key, (*free, *_MAKERS)) and not old.matches(key, free):
                changed = [name for name in (*_MAKERS, *free) if getattr(old, name) != getattr(key, name)]
                differences = (f"{name} {getattr(old, name)!r}, now {getattr(key, name)!r}" for name in changed)
                self.discard(old, "it is of " + "; ".join(differences))

    def records(self, quiet: bool = False) -> list[PlanRecord]:
        """Records of all plans, in the order in which they were stored or found last.

        A record that cannot be read is left out, and logged unless `quiet`.
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
        """Remove all plans, records and scratch files; returns the number of plans and the bytes of all files."""
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
        """Lock of one builder at a time: kernels that are timed side by side are timed wrongly.

        Threads of one process wait for each other too. Raises ConfigurationError where the lock cannot be taken.
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
            os.close(descriptor)  # releases the lock, as the end of the process does

    def _path(self, digest: str, suffix: str) -> Path:
        return self.directory / (digest + suffix)

    @contextlib.contextmanager
    def _errors(self, field: str, expected: str) -> Iterator[None]:
        """Turn OSErrors into ConfigurationErrors."""
        try:
            yield
        except OSError as error:
            raise ConfigurationError(self.directory, field, error.strerror or str(error), expected) from error

    def _refused(self, found: str, expected: str) -> ConfigurationError:
        return ConfigurationError(self.directory, "plan cache", found, expected)


def default_directory() -> Path:
    """The directory gr-wavesfm under XDG_CACHE_HOME, if that is an absolute path, else under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / DIRECTORY


def read_own(path: Path, limit: int) -> bytes:
    """Bytes of a file; raises ValueError unless it is a plain file of this user that others cannot write to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise ValueError("it is not a file that only this user can write to")
        if facts.st_size > limit:
            raise ValueError(f"{facts.st_size} bytes, more than {limit}")
        return file.read()


def _age(path: Path) -> tuple[Any, ...]:
    try:
        return path.lstat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
