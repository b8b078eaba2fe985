# SPDX-License-Identifier: GPL-3.0-or-later
"""RF-S: 16 ms crops of wideband captures as power spectrograms, from IQ or from the authors' float TIFFs."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.recordings.iqfile import open_recording

from ..tasks import Task
from .base import Array, Raw, require_options
from .rfs_npy import open_capture

log = logging.getLogger(__name__)
FFT_SIZE, HOP_SAMPLES = 1024, 512
PIXEL_LIMIT = 64 << 20
SAMPLES_LIMIT = 1 << 26  # of one crop
IQ_SUFFIXES = (".sigmf-meta", ".cu8", ".cs8", ".cs16", ".cf32")
TIFF_NAME = re.compile(r"fc_(?P<fc>[\d.]+)MHz_fs_(?P<fs>[\d.]+)MHz_(?P<file>.+)_(?P<crop>\d+)$")


def power_spectrogram(samples: NDArray[np.complex64]) -> Array:
    """Power spectrogram with a Hann window of 1024, hop 512.

    Column i is centred on sample 512 i; samples before the first are zero. The window's sum is 1, so that a tone of
    amplitude 1 on a bin gives 1.

    Parameters
    ----------
    samples : complex64 [n].

    Returns
    -------
    float32 [1, 1024, n // 512], |X|^2, lowest frequency in the first row.
    """
    columns = len(samples) // HOP_SAMPLES
    window = np.hanning(FFT_SIZE + 1)[:-1].astype(np.float32)
    window /= window.sum()
    padded = np.concatenate([np.zeros(FFT_SIZE // 2, np.complex64), samples, np.zeros(FFT_SIZE, np.complex64)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP_SAMPLES][:columns]
    power = np.empty((columns, FFT_SIZE), np.float32)
    for first in range(0, columns, 256):
        spectrum = scipy.fft.fft(frames[first : first + 256] * window)
        power[first : first + 256] = spectrum.real**2 + spectrum.imag**2
    return np.ascontiguousarray(np.fft.fftshift(power, axes=1).T)[None]


def read_tiff(path: Path) -> Array:
    """A float32 TIFF of powers [1024, W] as float32 [1, 1024, W]; raises InputError."""
    try:
        with Image.open(path, formats=("TIFF",)) as picture:
            if picture.mode != "F" or not 0 < picture.width * picture.height <= PIXEL_LIMIT:
                found = f"mode {picture.mode}, {picture.width} x {picture.height}"
                raise InputError(path, "picture", found, f"32-bit floats, at most {PIXEL_LIMIT} pixels")
            return np.asarray(picture, np.float32)[None]
    except InputError:
        raise
    except Exception as error:  # pillow's parser raises many types for a broken file
        raise InputError(path, "contents", f"{type(error).__name__}: {error}"[:160], "a whole float TIFF") from None


class SpectrogramReader:
    """Captures and spectrograms below the root; other files are skipped and counted in the log.

    Captures are the authors' .npy files (see `rfs_npy`), SigMF, and raw IQ whose name contains the rate. The group is
    the capture, for TIFFs too (`fc_<MHz>MHz_fs_<MHz>MHz_<capture>_<crop>.tiff`). Options: crop_s, length of a crop in
    seconds (0.016); keep, share of a capture's crops by a pattern of its name, such as "analog*: 0.05".
    """

    name = "rfs"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Crops of every capture in order; the rest of a capture that is shorter than a crop is dropped."""
        crop_s, keep = _options(task)
        if not root.exists():
            raise InputError(root, "path", "nothing", "captures or spectrograms")
        n_skipped = n_files = 0
        for path in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()):
            suffix = path.suffix.casefold()
            if suffix in (".tif", ".tiff"):
                yield _tiff(path)
            elif suffix == ".npy" or suffix in IQ_SUFFIXES:
                yield from _crops(path, crop_s, _share(path.stem, keep))
            else:
                n_skipped += suffix != ".sigmf-data"
                continue
            n_files += 1
        if n_skipped:
            log.info("%s: %d files skipped, neither captures nor spectrograms", root, n_skipped)
        if not n_files:
            raise InputError(root, "files", "none", f"captures (.npy, {', '.join(IQ_SUFFIXES)}) or float .tiff files")


def _options(task: Task) -> tuple[float, dict[str, float]]:
    require_options(task, "crop_s", "keep")
    crop_s, keep = task.options.get("crop_s", 0.016), task.options.get("keep", {})
    if not isinstance(crop_s, (int, float)) or not 0 < crop_s <= 10:
        raise ConfigurationError(f"task {task.name}", "options: crop_s", crop_s, "above 0 and up to 10 seconds")
    if not isinstance(keep, dict) or not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in keep.values()):
        raise ConfigurationError(f"task {task.name}", "options: keep", keep, "pattern: share from 0 to 1")
    return float(crop_s), keep


def _share(stem: str, keep: dict[str, float]) -> float:
    return next((share for pattern, share in keep.items() if fnmatch(stem, pattern)), 1.0)


def _tiff(path: Path) -> Raw:
    named = TIFF_NAME.match(path.stem)
    rate_hz = float(named["fs"]) * 1e6 if named else 0.0
    group = named["file"] if named else path.stem
    return Raw(partial(read_tiff, path), None, str(path), group, log10_rate=math.log10(rate_hz) if rate_hz else 0.0)


def _crops(path: Path, crop_s: float, share: float) -> Iterator[Raw]:
    if path.suffix.casefold() == ".npy":
        capture = open_capture(path)
        n_samples, rate_hz, load = capture.n_samples, capture.rate_hz, capture.read
    else:
        with open_recording(path) as recording:
            n_samples, rate_hz, load = recording.n_samples, recording.rate_hz, partial(_read_recording, path)
    if not rate_hz:
        raise InputError(path, "sample rate", "none", "one in the metadata or the name (a 16 ms crop needs it)")
    length = round(crop_s * rate_hz)
    if not FFT_SIZE <= length <= SAMPLES_LIMIT:
        raise InputError(path, "sample rate", f"{rate_hz} Hz", f"{FFT_SIZE} to {SAMPLES_LIMIT} samples in a crop")
    if n_samples < length:
        raise InputError(path, "length", f"{n_samples} samples", f"at least one crop of {length}")
    group = path.name.partition(".")[0]
    for crop in range(n_samples // length):
        if math.floor((crop + 1) * share + 1e-9) > math.floor(crop * share + 1e-9):
            array = partial(_load_crop, load, crop * length, length)
            yield Raw(array, None, f"{path}[{crop}]", group, log10_rate=math.log10(rate_hz))


def _load_crop(load, start: int, count: int) -> Array:
    return power_spectrogram(load(start, count))


def _read_recording(path: Path, start: int, count: int) -> NDArray[np.complex64]:
    with open_recording(path) as recording:
        return np.concatenate(list(recording.blocks(start=start, stop=start + count)))


READER = SpectrogramReader()
