# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of spectrograms in the layout of CommRad RF: `<label>_<anything>.<suffix>`, all in one folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from wavesfm_core.errors import InputError

from ..tasks import Task
from .base import Array, Raw, files_below, label_index, published_split, require_options

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
PIXEL_LIMIT = 64 << 20
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def read_picture(path: Path) -> Array:
    """A picture as grey values, rotated by 90 degrees counterclockwise.

    Returns
    -------
    float32 [1, R, W] in [0, 1].

    Raises
    ------
    InputError : no picture, a damaged one, or too many pixels.
    """
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as picture:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            width, height = picture.size
            if not 0 < width * height <= PIXEL_LIMIT:
                raise InputError(path, "size", f"{width} x {height}", f"at most {PIXEL_LIMIT} pixels")
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    except InputError:
        raise
    except Exception as error:  # pillow's parsers raise many types for a broken file
        raise InputError(path, "contents", f"{type(error).__name__}: {error}"[:160], "a whole picture") from None
    return np.ascontiguousarray(np.rot90(pixels @ GREY))[None]


class PictureReader:
    """Pictures whose label is the file's name up to the first "_", or the folder's name if that is a label.

    The layout does not tell which pictures are of one capture, so there are no groups.
    """

    name = "rf_images"

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every picture below `root`; raises InputError for a name without a label."""
        require_options(task)
        folders = {label.casefold() for label in task.labels}
        for path in files_below(root, SUFFIXES, "pictures named <label>_<anything>.png"):
            own_folder = path.parent.name.casefold() in folders
            label = path.parent.name if own_folder else path.name.partition("_")[0]
            target = label_index(task, label, path)
            yield Raw(partial(read_picture, path), target, str(path), published_split=published_split(path, root))


READER = PictureReader()
