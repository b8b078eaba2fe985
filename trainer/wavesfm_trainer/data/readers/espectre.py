# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of ESPectre's .npz recordings: CSI of ESP32 chips in a room that is still or has somebody moving."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.npz import read_npz
from wavesfm_core.errors import InputError

from .base import Raw, label_index
from .csi_windows import Windows, name_below, recordings, unit_power, with_options

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

BINS = 64
# Used subcarriers of a 20 MHz HT channel. 0 is empty, and the ESP32 overwrites 0 and 1.
SUBCARRIERS = np.r_[-28:0, 2:29]
_GUARD = np.arange(30, 35)
_KEYS = ("csi_data", "num_subcarriers", "label", "chip", "collected_at", "duration_ms", "gain_locked")


@dataclass(frozen=True)
class EspectreRecording:
    """One recording."""

    amplitude: NDArray[np.float32]
    """float32 [P, 1, 55], amplitude over SUBCARRIERS in the chip's units."""
    time_s: NDArray[np.float64]
    """[P], time of the packets in seconds."""
    label: str
    """Label in the file."""
    chip: str
    """Type of the chip."""
    day: str
    """Date of the recording, as YYYY-MM-DD."""
    gain_locked: bool
    """Whether the receiver's gain was constant."""


def read_recording(path: Path) -> EspectreRecording:
    """Read an .npz of csi_data int8 [P, 128] (imaginary, real part of 64 bins) and scalars, without pickle.

    The bins are in FFT order (ESP32, S3, C3) or ascending (C5, C6); the empty guard band tells which. The file has no
    time stamps: packets are spread evenly over duration_ms.

    Raises
    ------
    InputError : no .npz file, missing keys, other shapes or types, or no guard band.
    """
    values = _load(path)
    csi, duration_ms = values["csi_data"], float(values["duration_ms"])
    if csi.dtype != np.int8 or csi.ndim != 2 or csi.shape[1] != 2 * BINS or len(csi) < 2:
        raise InputError(path, "csi_data", f"{csi.dtype} {list(csi.shape)}", f"int8 [packets, {2 * BINS}]")
    if int(values["num_subcarriers"]) != BINS:
        raise InputError(path, "num_subcarriers", int(values["num_subcarriers"]), str(BINS))
    if not 0 < duration_ms < 1e9:
        raise InputError(path, "duration_ms", duration_ms, "a positive number")
    bins = np.hypot(csi[:, 1::2].astype(np.float32), csi[:, 0::2].astype(np.float32))
    shifted = np.fft.fftshift(bins, axes=1)
    in_fft_order, from_the_lowest = not bins[:, _GUARD].any(), not shifted[:, _GUARD].any()
    if in_fft_order == from_the_lowest:
        found = "no guard band" if not in_fft_order else "nothing around the carrier"
        raise InputError(path, "csi_data", found, "five empty bins where the band ends, in one of two orders")
    if in_fft_order:
        bins = shifted
    amplitude = bins[:, None, SUBCARRIERS + BINS // 2]
    return EspectreRecording(
        amplitude=amplitude,
        time_s=np.linspace(0, duration_ms / 1e3, len(csi)),
        label=str(values["label"]),
        chip=str(values["chip"]),
        day=str(values["collected_at"])[:10],
        gain_locked=bool(values["gain_locked"]),
    )


def _load(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_npz(path, _KEYS)
    for key in _KEYS[1:]:
        if values[key].size != 1:
            raise InputError(path, key, f"shape {list(values[key].shape)}", "one value")
    for key in ("num_subcarriers", "duration_ms", "gain_locked"):
        if values[key].dtype.kind not in "iufb":
            raise InputError(path, key, values[key].dtype, "a number")
    return {key: value if key == "csi_data" else value.reshape(()).item() for key, value in values.items()}


@dataclass(frozen=True)
class Espectre:
    """Windows float32 [1, 55, W] of amplitudes with a root mean square of 1 (see `unit_power`).

    The target is the file's label, which must be one of the task's; pre-training has none. The group is chip and day,
    so that still and moving parts of one placement stay together. `task.options` may set fields of `Windows`.
    """

    name: str = "espectre"
    """Name of the reader in a task file."""
    windows: Windows = field(default_factory=lambda: Windows(seconds=2.0))
    """Length and rate of the windows."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window below `root`; raises InputError for a file without one."""
        if task.channels != 1:
            raise InputError(root, "channels", task.channels, "1, the antenna of an ESP32")
        cutter = with_options(self.windows, task)
        for path in recordings(root, ".npz"):
            capture = read_recording(path)
            target = None
            if task.kind == "classification":
                target = label_index(task, capture.label, path)
            powered = capture.amplitude.any(axis=(1, 2))
            amplitude = unit_power(capture.amplitude[powered], per_packet=not capture.gain_locked)
            windows, n_left = cutter.cut(amplitude, capture.time_s[powered])
            log.info("%s: %d windows, %d packets in none, %d empty", path, len(windows), n_left, (~powered).sum())
            if not windows:
                raise InputError(path, "duration_ms", f"{capture.time_s[-1]} s", f"at least {cutter.seconds} s")
            for i, window in enumerate(windows):
                source = f"{name_below(path, root)}[{i}]"
                yield Raw(window, target, source, f"{capture.chip} {capture.day}")


READER = Espectre()
