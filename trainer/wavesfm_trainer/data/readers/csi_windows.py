# SPDX-License-Identifier: GPL-3.0-or-later
"""What readers of real CSI captures share: time windows of amplitudes, and labels and sessions in file names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError, InputError

from .base import files_below

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 30
SESSION_GAP_S = 60
_UNIX_SECONDS = re.compile(r"_(\d{10})(?!\d)")


Settings = TypeVar("Settings")


def with_options(settings: Settings, task: Task) -> Settings:
    """A dataclass of settings with the fields that `task.options` sets.

    Raises
    ------
    ConfigurationError : an unknown option, or a value that is not a positive number.
    """
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}  # type: ignore[arg-type]
    known = {key: value for key, value in known.items() if isinstance(value, int | float)}
    for key, value in task.options.items():
        if key not in known:
            raise ConfigurationError(
                f"task {task.name}", f"options.{key}", "no such option", f"one of {', '.join(known)}"
            )
        whole = isinstance(known[key], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
            expected = "a whole number above 0" if whole else "a number above 0"
            raise ConfigurationError(f"task {task.name}", f"options.{key}", repr(value)[:60], expected)
    return replace(settings, **task.options)  # type: ignore[type-var]


@dataclass(frozen=True)
class Windows:
    """How packets become windows on a uniform time grid, side by side without overlap.

    Raises
    ------
    ConfigurationError : a value that is not positive, or a window of less than two points.
    """

    seconds: float = 2.0
    """Length of a window in seconds."""
    rate_hz: float = 100.0
    """Points per second."""
    max_gap_s: float = 0.25
    """Packets further apart than this, or out of order, end a run; no window crosses the break."""

    def __post_init__(self) -> None:
        rules = {name: (getattr(self, name) > 0, "a positive number") for name in ("seconds", "rate_hz", "max_gap_s")}
        require_rules("windows", self, rules)
        if self.points < 2:
            raise ConfigurationError("windows", "seconds", self.seconds, f"at least two points at {self.rate_hz} Hz")

    @property
    def points(self) -> int:
        """Points of a window."""
        return round(self.seconds * self.rate_hz)

    def cut(self, amplitude: NDArray[np.float32], time_s: NDArray[np.float64]) -> tuple[list[NDArray[np.float32]], int]:
        """Windows of a recording, interpolated linearly between packets.

        Parameters
        ----------
        amplitude : float32 [P, C, R].
        time_s : [P], reception times in seconds.

        Returns
        -------
        The windows, float32 [C, R, points], and the number of packets in none of them: the rest of a run, repeated time
        stamps, and runs shorter than a window.
        """
        step_s = np.diff(time_s)
        breaks = np.flatnonzero((step_s < 0) | (step_s > self.max_gap_s)) + 1
        windows: list[NDArray[np.float32]] = []
        used = 0
        for run in np.split(np.arange(len(time_s)), breaks):
            run = run[np.r_[True, np.diff(time_s[run]) > 0]] if len(run) else run
            found = self._cut_run(amplitude[run], time_s[run])
            windows += found
            if found:
                end_s = time_s[run[0]] + len(found) * self.seconds
                used += int(np.searchsorted(time_s[run], end_s - 1e-9))
        return windows, len(time_s) - used

    def _cut_run(self, amplitude: NDArray[np.float32], time_s: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        if len(time_s) < 2:
            return []
        # The last point of a window is one step before its end; 1e-6 absorbs the rounding of microseconds.
        count = int((time_s[-1] - time_s[0] + 1 / self.rate_hz) / self.seconds + 1e-6)
        if not count:
            return []
        grid_s = time_s[0] + np.arange(count * self.points) / self.rate_hz
        right = np.clip(np.searchsorted(time_s, grid_s), 1, len(time_s) - 1)
        share = (grid_s - time_s[right - 1]) / (time_s[right] - time_s[right - 1])
        share = np.clip(share, 0, 1).astype(np.float32)[:, None, None]
        even = (1 - share) * amplitude[right - 1] + share * amplitude[right]
        return [np.ascontiguousarray(part.transpose(1, 2, 0), np.float32) for part in np.split(even, count)]


def unit_power(amplitude: NDArray[np.float32], per_packet: bool) -> NDArray[np.float32]:
    """Divide amplitudes [P, C, R] by their root mean square.

    Parameters
    ----------
    amplitude : float32 [P, C, R].
    per_packet : True: of each packet, for a receiver whose gain moves and is not recorded (its steps would look like
        motion). False: of the whole recording, for a locked gain, which keeps fading that is common to all subcarriers.
    """
    axes = (1, 2) if per_packet else None
    rms = np.sqrt(np.mean(np.square(amplitude), axis=axes, keepdims=True))
    return (amplitude / rms).astype(np.float32)


def unwrap_us(ticks: Sequence[int]) -> NDArray[np.float64]:
    """Seconds since the first tick of a 32-bit microsecond counter that wraps; a step back stays a step back."""
    steps = np.diff(np.asarray(ticks, np.int64))
    steps = (steps + (1 << 31)) % (1 << 32) - (1 << 31)
    return np.r_[0, np.cumsum(steps)] / 1e6


def recordings(root: Path, suffix: str) -> list[Path]:
    """Files at or below `root` with the suffix, sorted.

    Raises
    ------
    InputError : no such file, or one larger than MAX_FILE_BYTES.
    """
    paths = files_below(root, (suffix,), f"{suffix} files")
    for path in paths:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(path, "size", f"{path.stat().st_size} bytes", f"at most {MAX_FILE_BYTES}")
    return paths


def name_below(path: Path, root: Path) -> str:
    """The path relative to `root` with forward slashes; the file's name if `root` is the file."""
    return path.name if path == root else path.relative_to(root).as_posix()


def labelled(paths: Sequence[Path], root: Path, labels: Sequence[str]) -> dict[Path, int]:
    """Class of every path whose folder or file name contains a label as a word; hyphens of the label are ignored.

    "brush-teeth" is found in "august/brushteeth_1597160009.dat". Files without a label are dropped with a warning.

    Raises
    ------
    InputError : two labels in one name, or a label without any file.
    """
    found: dict[Path, int] = {}
    left_out = []
    for path in paths:
        words = re.split(r"[^0-9a-z]+", name_below(path, root).lower())
        classes = [i for i, label in enumerate(labels) if re.sub(r"[^0-9a-z]", "", label.lower()) in words]
        if len(classes) > 1:
            raise InputError(path, "label", " and ".join(labels[i] for i in classes), "one label in the name")
        if classes:
            found[path] = classes[0]
        else:
            left_out.append(path.name)
    for i, label in enumerate(labels):
        if i not in found.values():
            raise InputError(root, "label " + label, "no recording of that name", "at least one")
    if left_out:
        log.warning("%s: %d recordings have no label of the task: %s", root, len(left_out), ", ".join(left_out))
    return found


def sessions(targets: Mapping[Path, int | None]) -> dict[Path, str]:
    """Group of every path: recordings of one target whose names end in Unix times less than SESSION_GAP_S apart.

    Pieces of one activity show the same person at the same place and must be on one side of a split. A name without a
    time is a separate group.

    Parameters
    ----------
    targets : class of every path.
    """
    groups = {path: path.stem for path in targets}
    timed = [(int(found[1]), path) for path in targets if (found := _UNIX_SECONDS.search(path.stem))]
    last: dict[int | None, tuple[int, str]] = {}
    for start_s, path in sorted(timed):
        previous_s, group = last.get(targets[path], (-SESSION_GAP_S, ""))
        if start_s - previous_s >= SESSION_GAP_S:
            group = path.stem
        groups[path] = group
        last[targets[path]] = start_s, group
    return groups
