# SPDX-License-Identifier: GPL-3.0-or-later
"""Views of signals as a detector and a zoom hand them on, and whole bands, deterministic from (seed, index).

A zoomed view is one region of a wider recording: mixed to the centre and decimated to 1.3 to 10 times its width, with
the decimator's roll-off, with errors of the detector in centre and width, and at times only a piece of the signal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from . import CLASSES, LABELS
from .artefacts import apply_artefacts, draw_artefacts, one_edge
from .base import IQ, Emission, SignalClass, SilentWindow, View
from .channel import draw_reception, receive
from .dataset import Example, make_example
from .outlier_carriers import log_uniform
from .outliers import HELD_OUT, TRAINING, UNKNOWN, WEIGHTS
from .regions import Region, find_region, piece_of
from .visibility import raised_snr_db

ALL_LABELS = (*LABELS, UNKNOWN)
KINDS = ("whole", "zoom")
LEAST_RATE_HZ = 8e3
NATIVE_SAMPLES = 800_000  # of an emission, before it is cut and decimated
SLOW_HZ = 400e3  # native rate below which emissions are long more often
OVERSIZE = 40.0  # most times a burst's width that its rate may be, to have samples enough

# Rates beyond the classes' own: one channel recorded by itself, and wide receivers.
MORE_VIEWS: dict[str, tuple[View, ...]] = {
    "noise": (View(20e3, 250e3, 1), View(25e6, 56e6, 0.3)),
    "ads-b": (View(20e6, 56e6),),
    "cellular": (View(1.4e6, 2.4e6, 2), View(25e6, 56e6), View(12e6, 15e6, 2)),
    "gsm": (View(0.24e6, 0.28e6, 2), View(10e6, 25e6)),
    "wifi": (View(25e6, 56e6), View(18e6, 25e6)),
    "bluetooth": (View(1.5e6, 4e6), View(25e6, 56e6, 0.5)),
    "zigbee": (View(2e6, 4e6), View(20e6, 56e6, 0.5)),
    "lora": (View(0.125e6, 0.25e6), View(2.4e6, 8e6, 0.5)),
    "ook-ism": (View(48e3, 250e3, 2), View(0.4e6, 1.1e6), View(2.4e6, 8e6, 0.3)),
    "fsk-ism": (View(48e3, 250e3, 2), View(0.3e6, 1.1e6), View(2.4e6, 8e6, 0.3)),
    "wbfm": (View(40e3, 130e3, 1.2), View(130e3, 250e3, 2), View(0.3e6, 0.9e6)),
    "nfm-voice": (View(20e3, 60e3, 2), View(60e3, 250e3), View(1e6, 2.4e6, 0.3)),
    "am-voice": (View(20e3, 60e3, 2), View(60e3, 250e3), View(1e6, 2.4e6, 0.3)),
    "dab": (View(10e6, 25e6, 0.4), View(1.8e6, 2.4e6, 0.6)),
    "dvb-t": (View(20e6, 56e6, 0.5), View(7e6, 10e6)),
    "ais": (View(40e3, 250e3, 2), View(1e6, 2.4e6, 0.3)),
    "dmr": (View(20e3, 60e3, 2), View(60e3, 250e3), View(0.5e6, 1e6, 0.3)),
    "pocsag": (View(20e3, 60e3, 2), View(60e3, 250e3), View(1e6, 2.4e6, 0.3)),
    "ax25-packet": (View(20e3, 60e3, 2), View(60e3, 250e3), View(0.5e6, 1e6, 0.3)),
    "radiosonde": (View(20e3, 60e3), View(60e3, 250e3, 2), View(1e6, 2.4e6, 0.3)),
}
# Rates of the receiver whose recording a zoomed view is cut from, low for narrow signals, to have seconds of them.
ZOOM_VIEWS: dict[str, tuple[View, ...]] = {
    "noise": (View(8e3, 12e6),),
    "ads-b": (View(2.4e6, 20e6),),
    "cellular": (View(0.5e6, 2.4e6), View(2.4e6, 30e6)),
    "gsm": (View(0.5e6, 4e6),),
    "wifi": (View(20e6, 56e6),),
    "bluetooth": (View(2e6, 20e6),),
    "zigbee": (View(4e6, 20e6),),
    "lora": (View(0.25e6, 1e6),),
    "ook-ism": (View(0.1e6, 1.1e6, 2), View(1.1e6, 2.4e6)),
    "fsk-ism": (View(0.15e6, 1.1e6, 3), View(1.1e6, 2.4e6)),
    "wbfm": (View(0.3e6, 3.2e6),),
    "nfm-voice": (View(60e3, 300e3),),
    "am-voice": (View(60e3, 300e3),),
    "dab": (View(1.8e6, 8e6),),
    "dvb-t": (View(8e6, 25e6),),
    "ais": (View(60e3, 300e3),),
    "dmr": (View(60e3, 300e3),),
    "pocsag": (View(60e3, 300e3),),
    "ax25-packet": (View(60e3, 300e3),),
    "radiosonde": (View(60e3, 300e3),),
}
# Shortest recordings in seconds of zoomed views: a single burst, or as much of a voice as a third of a second.
ZOOM_SHORTEST_S = {
    "nfm-voice": 0.3, "am-voice": 0.3, "ook-ism": 0.03, "fsk-ism": 0.01, "ais": 0.03, "dmr": 0.06, "pocsag": 0.1,
    "ax25-packet": 0.15, "radiosonde": 0.15, "wbfm": 0.05, "lora": 0.02, "dab": 0.01, "dvb-t": 0.005, "gsm": 0.003,
}  # fmt: skip
TURNS = {label: 1.0 for label in LABELS} | {
    "noise": 3.2, "cellular": 1.2, "bluetooth": 1.2, "ook-ism": 1.3, "fsk-ism": 1.4, "nfm-voice": 1.3,
    "am-voice": 1.3, "dmr": 1.2, "ax25-packet": 1.2, "radiosonde": 1.2, "wbfm": 1.2, UNKNOWN: 5.0,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What an example will be, known before it is made: its label, kind (one of KINDS) and class or family."""

    label: str
    kind: str
    family: str


@dataclass(frozen=True)
class ViewDataset:
    """Endless labelled views; `[index]` depends on (seed, index) alone.

    zoom_share: of the examples that are zoomed views; the others are whole bands. families: of outliers, by name;
    drawn: labels to draw from, with their TURNS; none: all. snr_db: a range, or None for the default mixture.
    held_out: outliers are drawn from the families that are kept from training.
    """

    seed: int
    tile_samples: int
    min_samples: int
    zoom_share: float = 0.6
    snr_db: tuple[float, float] | None = None
    drawn: tuple[str, ...] = ()
    held_out: bool = False

    labels = ALL_LABELS

    def plan(self, index: int) -> Plan:
        """What example `index` will be."""
        return self._plan(np.random.default_rng([self.seed, index]))

    def _plan(self, rng: np.random.Generator) -> Plan:
        names = self.drawn or ALL_LABELS
        weights = np.array([TURNS[name] for name in names])
        label = str(names[int(rng.choice(len(names), p=weights / weights.sum()))])
        kind = "zoom" if rng.random() < self.zoom_share else "whole"
        family = label
        if label == UNKNOWN:
            pool = list(HELD_OUT if self.held_out else TRAINING)
            odds = np.array([1.0 if self.held_out else WEIGHTS[name] for name in pool])
            family = pool[int(rng.choice(len(pool), p=odds / odds.sum()))]
        return Plan(label, kind, family)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, index])
        plan = self._plan(rng)
        signal = CLASSES.get(plan.family) or TRAINING.get(plan.family) or HELD_OUT[plan.family]
        snr_db = _draw_snr(rng, plan.kind) if self.snr_db is None else float(rng.uniform(*self.snr_db))
        visible = self.snr_db is None
        for _ in range(20):
            try:
                if plan.kind == "zoom":
                    example = zoomed(rng, signal, snr_db, self.tile_samples, self.min_samples, visible)
                else:
                    example = whole(rng, signal, snr_db, self.tile_samples, self.min_samples, visible)
                return replace(example, label=plan.label)
            except (SilentWindow, ValueError):
                continue
        raise SilentWindow(f"{plan.family}: found 20 silent draws, expected a signal")


def _draw_snr(rng: np.random.Generator, kind: str) -> float:
    kinds = rng.random()
    if kind == "whole":
        return float(rng.uniform(30, 75) if kinds < 0.2 else rng.uniform(-5, 30))
    return float(rng.uniform(3, 20) if kinds < 0.68 else rng.uniform(-3, 3) if kinds < 0.76 else rng.uniform(20, 45))


def _draw_samples(rng: np.random.Generator, low: int, high: int, full_share: float) -> int:
    return high if rng.random() < full_share else int(log_uniform(rng, low, max(high, low + 1)))


def whole(
    rng: np.random.Generator,
    signal: SignalClass,
    snr_db: float,
    tile_samples: int,
    min_samples: int,
    visible: bool = False,
) -> Example:
    """A whole band with the signal somewhere in it, the receiver's artefacts, and its DC taken out in two of three."""
    views = (*signal.views, *MORE_VIEWS.get(signal.label, ())) if rng.random() < 0.45 else signal.views
    if rng.random() < 0.3 and signal.label in MORE_VIEWS:
        views = MORE_VIEWS[signal.label]
    rate_hz = replace(signal, views=views).draw_rate(rng)
    n_samples = _draw_samples(rng, min_samples, tile_samples, 0.3)
    if signal.label not in CLASSES:
        n_samples = min(n_samples, NATIVE_SAMPLES)
    example = make_example(rng, signal, n_samples, snr_db, rate_hz, tile_samples, visible)
    busy = 1.0
    if signal.label == "noise":  # half of the empty bands are plain
        busy = 3.0 if rng.random() < 0.5 else 0.1
    artefacts = draw_artefacts(rng, busy, keep=(-0.4, 0.4))
    noise_power = _noise_power(example.iq)
    iq = apply_artefacts(rng, example.iq, artefacts, noise_power)
    if rng.random() < 0.25:  # a direct-conversion receiver's line
        iq = iq + np.complex64(np.sqrt(noise_power * 10 ** rng.uniform(-2.5, 1.5)) * np.exp(2j * np.pi * rng.random()))
    if rng.random() < 0.65:
        iq = iq - iq.mean()
    return replace(example, iq=np.ascontiguousarray(iq, np.complex64))


def _noise_power(iq: IQ) -> float:
    """A low estimate of the noise per sample: a quarter of the way up the spectrum's bins."""
    frames = iq[: len(iq) // 256 * 256].reshape(-1, 256)[:400]
    power = np.mean(np.abs(fft.fft(frames, axis=1)) ** 2, axis=0) / 256
    return float(np.quantile(power, 0.25)) + 1e-20


def zoomed(
    rng: np.random.Generator,
    signal: SignalClass,
    snr_db: float,
    tile_samples: int,
    min_samples: int,
    visible: bool = False,
) -> Example:
    """One region of the signal, as a detector finds it in a wider recording, mixed to the centre and decimated."""
    if signal.label == "noise":
        return _zoomed_noise(rng, snr_db, tile_samples, min_samples)
    native_hz = replace(signal, views=ZOOM_VIEWS.get(signal.label, signal.views)).draw_rate(rng)
    shortest_s = ZOOM_SHORTEST_S.get(signal.label, 0.0)
    longest_s = max(NATIVE_SAMPLES / native_hz, shortest_s)
    duration_s = log_uniform(rng, 3 * min_samples / native_hz, longest_s)
    if native_hz < SLOW_HZ and rng.random() < 0.35:  # slow signals show their structure in seconds
        duration_s = longest_s * rng.uniform(0.3, 1)
    duration_s = min(max(duration_s, shortest_s), 16.0)
    emission = signal.make(rng, duration_s * 1.02 + 1e-5, native_hz)
    region = find_region(rng, emission, snr_db)
    if rng.random() < 0.1:
        region = piece_of(rng, region)
    width_hz = region.high_hz - region.low_hz
    factor = log_uniform(rng, 5, 10) if rng.random() < 0.12 else log_uniform(rng, 1.3, 5)
    least_hz = LEAST_RATE_HZ if rng.random() < 0.3 else log_uniform(rng, LEAST_RATE_HZ, 5 * LEAST_RATE_HZ)
    rate_hz = max(width_hz * factor * log_uniform(rng, 0.85, 1.2), least_hz)
    rate_hz, start_s, n_samples = _window(rng, region, rate_hz, width_hz, shortest_s, tile_samples, min_samples)
    cut = _cut(emission, start_s, n_samples / rate_hz * 1.01 + 1e-5, region)
    centre_hz = (region.low_hz + region.high_hz) / 2 + rng.uniform(-0.1, 0.1) * width_hz
    cut = replace(cut, occupied_hz=width_hz)
    if visible:
        snr_db = raised_snr_db(cut, snr_db, rate_hz, n_samples)
    return _seen(rng, signal, cut, -centre_hz, rate_hz, n_samples, snr_db)


def _seen(rng, signal, emission: Emission, offset_hz: float, rate_hz: float, n_samples: int, snr_db: float) -> Example:
    """Through the path and the decimator: no DC of its own, few artefacts but the edges."""
    usual = draw_reception(rng, rate_hz, snr_db)
    reception = replace(
        usual,
        offset_hz=offset_hz,
        drift_hz=usual.drift_hz * 0.3,
        rolloff=float(rng.uniform(0.03, 0.3)) if rng.random() < 0.85 else 0.0,
        edge_db=float(rng.uniform(6, 80)),
        bits=usual.bits if rng.random() < 0.2 else 0,
        dc_db=-np.inf,
        image_db=usual.image_db if rng.random() < 0.3 else np.inf,
        cubic_db=usual.cubic_db if rng.random() < 0.2 else np.inf,
        squelch_s=usual.squelch_s if rng.random() < 0.4 else 0.0,
        neighbours=_beside(rng, emission, rate_hz, n_samples) if rng.random() < 0.25 else (),
    )
    iq = receive(rng, emission, reception, rate_hz, n_samples)
    half = min(0.55 * emission.occupied_hz / rate_hz, 0.49)
    artefacts = draw_artefacts(rng, 1.0, zoomed=True, keep=(-half, half))
    iq = apply_artefacts(rng, iq, artefacts, _noise_power(iq))
    if rng.random() < 0.12:
        iq = iq - iq.mean()
    return Example(np.ascontiguousarray(iq, np.complex64), rate_hz, signal.label, snr_db, reception)


def _beside(rng: np.random.Generator, emission: Emission, rate_hz: float, n_samples: int) -> tuple:
    """A neighbour at the view's edge, of any class that fits there, up to 15 dB stronger."""
    duration_s = n_samples / rate_hz * 1.01 + 1e-5
    names = [n for n, views in ZOOM_VIEWS.items() if n != "noise" and views[0].low_hz < 6 * rate_hz]
    names = [n for n in names if duration_s * ZOOM_VIEWS[n][0].low_hz < NATIVE_SAMPLES]
    if not names:
        return ()
    name = names[int(rng.integers(len(names)))]
    try:
        other = CLASSES[name].make(rng, duration_s, max(rate_hz, ZOOM_VIEWS[name][0].low_hz))
    except (SilentWindow, ValueError):
        return ()
    density_db = 10 * np.log10(other.occupied_hz / emission.occupied_hz)
    place_hz = rng.choice([-1, 1]) * (rate_hz * rng.uniform(0.42, 0.62) + other.occupied_hz / 2 * rng.uniform(0.2, 1))
    return ((other, float(place_hz), float(density_db + rng.uniform(-15, 15))),)


def _window(
    rng, region: Region, rate_hz: float, width_hz: float, shortest_s: float, tile_samples: int, min_samples: int
) -> tuple[float, float, int]:
    """Rate, start in seconds and number of samples: a short burst gets a higher rate, or what is around it."""
    length_s = region.stop_s - region.start_s
    if length_s * rate_hz < min_samples and rng.random() < 0.6:
        rate_hz = min(min_samples / length_s * rng.uniform(0.8, 1.3), OVERSIZE * width_hz)
    span_s = max(length_s * (1 + rng.uniform(0, 0.2)), min_samples * 1.02 / rate_hz)
    start_s = region.start_s - rng.random() * (span_s - length_s)
    n_samples = int(min(span_s * rate_hz, tile_samples))
    if rng.random() < 0.5:
        least = max(min_samples, min(int(shortest_s * rate_hz), n_samples))
        n_samples = int(log_uniform(rng, least, max(n_samples, least + 1)))
    n_samples = max(n_samples, min_samples)
    spare_s = span_s - n_samples / rate_hz
    if spare_s > 0:  # somewhere in the region, around a time at which something is on the air
        wanted_s = region.anchor_s - rng.uniform(0.05, 0.95) * n_samples / rate_hz
        start_s = float(np.clip(wanted_s, start_s, start_s + spare_s))
    return rate_hz, start_s, n_samples


def _cut(emission: Emission, start_s: float, duration_s: float, region: Region) -> Emission:
    """The emission from start_s on, zeros where it has nothing, scaled to mean power 1 in the region."""
    first, count = int(start_s * emission.rate_hz), int(np.ceil(duration_s * emission.rate_hz)) + 2
    out = np.zeros(count, np.complex64)
    low, high = max(first, 0), min(first + count, len(emission.iq))
    if low < high:
        out[low - first : high - first] = emission.iq[low:high]
    if not out.any():
        raise SilentWindow("zoomed: found only zeros, expected a signal")
    return replace(emission, iq=out / np.float32(np.sqrt(region.power)))


def _zoomed_noise(rng: np.random.Generator, snr_db: float, tile_samples: int, min_samples: int) -> Example:
    """What a detector finds where nothing is: lines, pedestals, slopes, combs, steps, or nothing at all."""
    rate_hz = log_uniform(rng, LEAST_RATE_HZ, 30e6)
    n_samples = _draw_samples(rng, min_samples, tile_samples, 0.1)
    signal = CLASSES["noise"]
    kind = rng.random()
    duration_s = n_samples / rate_hz * 1.01 + 1e-5
    emission = Emission(np.zeros(int(duration_s * rate_hz) + 2, np.complex64), rate_hz, rate_hz, placed=True)
    if kind < 0.25:
        emission = signal.make(rng, duration_s, rate_hz)
    elif kind < 0.55:  # a carrier that stands in the centre of its view
        turns = np.cumsum(rng.normal(0, 10 ** rng.uniform(-7, -4.5), len(emission.iq)))
        emission = Emission(np.exp(2j * np.pi * turns).astype(np.complex64), rate_hz, rate_hz / 512)
        snr_db = float(rng.uniform(0, 40))
    example = _seen(rng, signal, emission, rate_hz * rng.normal(0, 0.02), rate_hz, n_samples, snr_db)
    if 0.25 <= kind < 0.55 and rng.random() < 0.6:
        return example
    if rng.random() < 0.45:  # a false alarm of the detector in plain noise
        return example
    artefacts = one_edge(rng, draw_artefacts(rng, 4.0, zoomed=True))
    return replace(example, iq=apply_artefacts(rng, example.iq, artefacts, _noise_power(example.iq)))


def view_dataset(name: str, seed: int, tile_samples: int, min_samples: int, drawn: tuple[str, ...] = ()) -> ViewDataset:
    """The data set of one of `wavesfm-train tiles --views`: mixed, whole, zoom, or held-out (unknown families only).

    Raises ValueError for another name.
    """
    shares = {"mixed": 0.6, "whole": 0.0, "zoom": 1.0, "held-out": 0.6}
    if name not in shares:
        raise ValueError(f"views: found {name!r}, expected one of {', '.join(shares)}")
    held_out = name == "held-out"
    drawn = (UNKNOWN,) if held_out else drawn
    return ViewDataset(seed, tile_samples, min_samples, shares[name], drawn=drawn, held_out=held_out)
