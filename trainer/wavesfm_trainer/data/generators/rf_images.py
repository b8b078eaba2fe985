# SPDX-License-Identifier: GPL-3.0-or-later
"""RF pictures: coloured waterfalls of twenty kinds of signal, as saved by receiver software.

Layout: one folder of `<label>_<n>.png`, RGB, 256 x 256, time downwards, frequency to the right; labels as published,
including capitals. The classes are imbalanced by up to ten to one; the published counts are unknown and these shares
are assumed. The pictures are made by `wavesfm_trainer.signals`, its channel, and core's preprocessing;
`published_signals` maps labels to classes. Every picture is a separate recording, while several published pictures
are of one capture.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.tile import prepare

from ...signals.dataset import make_example
from .output import finish, for_each, rng_for, start
from .published_signals import SIGNALS

# mean 0 and std 1: tiles in [0, 1], for the colour map
SPEC = SpectrogramSpec(
    frames_averaged=1, rows_per_tile=256, height=256, width=256, low_db=-15.0, high_db=45.0, mean=0.0, std=1.0
)
COLOURS = np.rint(255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).astype(np.uint8)
SNR_DB = (3.0, 35.0)
SILENT_DRAWS = 20
SHARES = {
    "ads-b": 6, "airband": 8, "ais": 4, "automatic-picture-transmission": 3, "bluetooth": 10, "cellular": 10,
    "digital-audio-broadcasting": 4, "digital-speech-decoder": 6, "fm": 10, "lora": 5, "morse": 4, "on-off-keying": 6,
    "packet": 4, "pocsag": 4, "Radioteletype": 3, "remote-keyless-entry": 5, "RS41-Radiosonde": 3, "sstv": 2, "vor": 1,
    "wifi": 10,
}  # fmt: skip


def counts(count: int) -> dict[str, int]:
    """Pictures per label according to SHARES, at least one each, `count` in total (count >= 20)."""
    spare, total = count - len(SHARES), sum(SHARES.values())
    edges = np.floor(np.cumsum([0, *SHARES.values()]) * (spare / total) + 1e-9).astype(int)
    return {label: 1 + int(n) for label, n in zip(SHARES, np.diff(edges), strict=True)}


def picture(seed: int, label: str, number: int) -> np.ndarray:
    """Picture `number` of a label: uint8 [256, 256, 3].

    A recording that was cut around its bursts may have too few samples outside digital silence; it is drawn again.
    """
    rng = rng_for(seed, tuple(SHARES).index(label), number)
    signal = SIGNALS[label]
    snr_db = float(rng.uniform(*SNR_DB))
    longest = max(SPEC.tile_samples, int(signal.shortest_s * signal.views[0].low_hz))
    for _ in range(SILENT_DRAWS):
        example = make_example(rng, signal, SPEC.tile_samples, snr_db, most_samples=longest)
        try:
            tile = prepare(example.iq[: SPEC.tile_samples], SPEC)[0]
        except InputError:
            continue
        return COLOURS[np.clip(np.rint(tile * 255), 0, 255).astype(np.uint8)]
    raise InputError(f"picture {number} of {label}", "samples", f"digital silence in {SILENT_DRAWS} draws", "a signal")


def _write(directory: Path, seed: int, label: str, number: int) -> None:
    Image.fromarray(picture(seed, label, number)).save(directory / f"{label}_{number}.png")


def generate(directory: Path, count: int, seed: int, jobs: int = 1) -> None:
    """Write `count` pictures (20 or more; published: about 3,620) in `jobs` processes.

    Raises
    ------
    ConfigurationError : too few pictures, or a directory that is not empty.
    """
    directory = start(directory, count, len(SHARES), "one of each label")
    wanted = counts(count)
    for_each(_write, ((directory, seed, label, n) for label, of in wanted.items() for n in range(of)), jobs)
    settings = {"count": count, "per_label": wanted, "snr_db": list(SNR_DB), "preprocess": asdict(SPEC)}
    finish(directory, "rf_images", seed, settings)
