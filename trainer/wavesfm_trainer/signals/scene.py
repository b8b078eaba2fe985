# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene: one receiver that steps through bands and stays at each for a tile or two, with the truth of every stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import CLASSES
from .base import IQ, Emission, SignalClass, SilentWindow
from .channel import draw_reception, receive

CENTRES_HZ = {
    "ads-b": 1090e6,
    "cellular": 806e6,
    "gsm": 940e6,
    "bluetooth": 2402e6,
    "lora": 868.1e6,
    "ook-ism": 433.92e6,
    "fsk-ism": 868.3e6,
    "wbfm": 100e6,
    "dab": 225e6,
    "noise": 1250e6,
}
SNR_DB = (15.0, 25.0)
STAY_TILES = (1.2, 2.0)
NOISE_DBFS = -45.0  # per sample, at every stop
SILENT_DRAWS = 50


@dataclass(frozen=True)
class Span:
    """One stop, tuned to centre_hz: a signal for n_samples from start_sample on, at snr_db in its bandwidth."""

    label: str
    start_sample: int
    n_samples: int
    centre_hz: float
    snr_db: float


@dataclass(frozen=True)
class Scene:
    """What the receiver wrote, complex64 [n] at rate_hz with full scale 1, and its stops in order, without gaps."""

    iq: IQ
    rate_hz: float
    spans: tuple[Span, ...]


def labels_at(rate_hz: float) -> tuple[str, ...]:
    """Classes of CENTRES_HZ that receivers usually look at with this sample rate."""
    return tuple(
        label for label in CENTRES_HZ if any(view.low_hz <= rate_hz <= view.high_hz for view in CLASSES[label].views)
    )


def make_scene(
    seed: int, rate_hz: float = 2.048e6, tile_samples: int = 458_752, labels: tuple[str, ...] | None = None
) -> Scene:
    """A stop for each label in an order of the seed's, STAY_TILES tiles of tile_samples long.

    labels: of CENTRES_HZ, None for `labels_at(rate_hz)`. Deterministic from the arguments; a class's stop does not
    depend on which others there are. ValueError for no label, or one that is unknown or not seen at this rate.
    """
    usual = labels_at(rate_hz)
    labels = usual if labels is None else labels
    if not labels or set(labels) - set(usual):
        raise ValueError(f"scene: labels: found {labels}, expected some of {usual} at {rate_hz:g} Hz")
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    pieces, spans, start = [], [], 0
    for label in (labels[i] for i in order):
        rng = np.random.default_rng([seed, 1 + tuple(CENTRES_HZ).index(label)])
        iq, snr_db = _stop(rng, CLASSES[label], rate_hz, int(tile_samples * rng.uniform(*STAY_TILES)))
        pieces.append(iq)
        spans.append(Span(label, start, len(iq), CENTRES_HZ[label], snr_db))
        start += len(iq)
    return Scene(np.concatenate(pieces), rate_hz, tuple(spans))


def _stop(rng: np.random.Generator, signal: SignalClass, rate_hz: float, n_samples: int) -> tuple[IQ, float]:
    """Path and emission are the stop's own; the receiver, with its noise and faults, is the same at all of them."""
    snr_db = float(rng.uniform(*SNR_DB))
    emission = _emission(rng, signal, rate_hz, n_samples)
    room_hz = 0.0 if emission.placed else max(0.0, 0.35 * rate_hz - emission.occupied_hz / 2)
    reception = replace(
        draw_reception(rng, rate_hz, snr_db),
        offset_hz=float(rng.uniform(-room_hz, room_hz)),
        rolloff=0.08,
        edge_db=12.0,
        image_db=45.0,
        dc_db=-25.0,
        gain_steps=(),
        bits=0,
        noise_dbfs=NOISE_DBFS,
        squelch_s=0.0,
    )
    return receive(rng, emission, reception, rate_hz, n_samples), snr_db


def _emission(rng: np.random.Generator, signal: SignalClass, rate_hz: float, n_samples: int) -> Emission:
    duration_s = n_samples / rate_hz * 1.01 + 1e-5  # the channel may round its transforms up
    if signal.label == "noise":  # an empty band, without the artefacts that the class also has
        return Emission(np.zeros(n_samples, np.complex64), rate_hz, rate_hz, placed=True)
    for _ in range(SILENT_DRAWS):
        try:
            return signal.make(rng, duration_s, rate_hz)
        except SilentWindow:
            continue
    raise SilentWindow(f"{signal.label}: found {SILENT_DRAWS} silent draws of {duration_s} s, expected a signal")
