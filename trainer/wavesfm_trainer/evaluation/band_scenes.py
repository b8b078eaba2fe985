# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes of several signals side by side in one band, with the truth of each, and the score of boxes drawn in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import scipy.fft as fft
from numpy.typing import NDArray

from ..signals import CLASSES
from ..signals.base import IQ, Emission, SilentWindow

LABELS = (
    "ads-b", "cellular", "gsm", "bluetooth", "zigbee", "lora", "ook-ism", "fsk-ism", "wbfm", "nfm-voice", "am-voice",
    "dab", "ais", "dmr", "pocsag", "ax25-packet", "radiosonde",
)  # fmt: skip
DRAWS = 40
GUARD = 0.15  # of both widths together, at least 15 kHz
LEAST_GUARD_HZ = 15e3
USED = 0.92  # of the band, between the receiver's edges
WIDEST = 0.25  # of the band, of one signal
OUTSIDE = 0.005  # of the power, on either side of the true edges
OUTSIDE_OF_CARRIER = 0.0005  # where most of the power is a carrier, which says nothing of the width
QUIET = 1e-3  # of the mean power on the air: below it nothing is sent
IOU = 0.3
EDGE = 0.1
TIME_S = 2e-3


@dataclass(frozen=True)
class Truth:
    """One signal: label, start_s to stop_s, low_hz to high_hz (99 % of its power), snr_db there while on the air."""

    label: str
    start_s: float
    stop_s: float
    low_hz: float
    high_hz: float
    snr_db: float


@dataclass(frozen=True)
class Box:
    """What a program found: label ("" for none), start_s to stop_s, low_hz to high_hz from the middle of the band.

    confidence: of the label, 0 to 1; it only orders the boxes for the average precision.
    """

    label: str
    start_s: float
    stop_s: float
    low_hz: float
    high_hz: float
    confidence: float = 1.0


@dataclass(frozen=True)
class BandScene:
    """iq: complex64 [n] at rate_hz, full scale 1; truths: what is in it, by rising frequency."""

    iq: IQ
    rate_hz: float
    truths: tuple[Truth, ...]


def make_band_scene(
    seed: int,
    rate_hz: float = 20e6,
    duration_s: float = 0.5,
    count: int = 10,
    snr_db: tuple[float, float] = (10.0, 30.0),
    labels: Sequence[str] = LABELS,
) -> BandScene:
    """Up to `count` signals that share neither time nor frequency, in noise through a receiver that rolls off.

    Deterministic from the arguments. Each signal's class, place, time on the air and SNR are drawn; those that hop over
    the band or fill a quarter of it are left out. The receiver takes up to 6 dB off the band's ends and has a DC line.
    """
    rng = np.random.default_rng([seed, 7])
    n = fft.next_fast_len(int(duration_s * rate_hz))
    spectrum = np.zeros(n, np.complex64)
    truths: list[Truth] = []
    for _ in range(4 * count):
        if len(truths) == count:
            break
        truth = _add(rng, spectrum, rate_hz, n, str(rng.choice(list(labels))), float(rng.uniform(*snr_db)), truths)
        if truth is not None:
            truths.append(truth)
    spectrum.view(np.float32)[:] += np.float32(np.sqrt(n / 2)) * rng.standard_normal(2 * n, dtype=np.float32)
    frequency = np.abs(fft.fftfreq(n))
    spectrum *= (10 ** (-6 / 20 * np.clip((frequency - 0.44) / 0.06, 0, 1) ** 2)).astype(np.float32)
    iq = fft.ifft(spectrum, overwrite_x=True) + np.complex64(0.1 * np.exp(2j * np.pi * rng.random()))
    iq *= np.float32(0.25 / np.abs(iq).max() ** 0.5 / max(1.0, np.abs(iq).max() ** 0.5))
    iq = np.round(iq.view(np.float32) * 2048) / np.float32(2048)
    return BandScene(iq.view(np.complex64), rate_hz, tuple(sorted(truths, key=lambda truth: truth.low_hz)))


def _add(
    rng: np.random.Generator,
    spectrum: NDArray[np.complex64],
    rate_hz: float,
    n: int,
    label: str,
    snr_db: float,
    others: Sequence[Truth],
) -> Truth | None:
    """Puts one signal of unit noise per sample at its SNR into the spectrum; None where it found no place."""
    length_s = n / rate_hz
    signal = CLASSES[label]
    on_s = float(min(length_s, max(signal.shortest_s, rng.uniform(0.2, 1.0) * length_s)))
    start_s = float(rng.uniform(0, length_s - on_s)) if rng.random() < 0.6 else 0.0
    emission = _emission(rng, label, on_s, rate_hz)
    if emission is None:
        return None
    native = round(n * emission.rate_hz / rate_hz)
    at = min(round(start_s * emission.rate_hz), native - 1)
    iq = np.zeros(native, np.complex64)
    piece = emission.iq[: min(round(on_s * emission.rate_hz), native - at)]
    iq[at : at + len(piece)] = piece
    power = iq.real**2 + iq.imag**2
    active = np.flatnonzero(power > QUIET * power[power > 0].mean()) if power.any() else np.zeros(0, int)
    if active.size == 0:
        return None
    bins = fft.fft(iq) * np.float32(n / native)
    low, high = edges(bins, emission.rate_hz, OUTSIDE if label != "am-voice" else OUTSIDE_OF_CARRIER)
    centre_hz = place(rng, low, high, rate_hz, others)
    if centre_hz is None:
        return None
    on_air = float(power[power > QUIET * power[active].mean()].mean())
    gain = np.sqrt(10 ** (snr_db / 10) * (high - low) / rate_hz / on_air)
    lay(spectrum, bins * np.float32(gain), round(centre_hz * n / rate_hz))
    times = active[0] / emission.rate_hz, (active[-1] + 1) / emission.rate_hz
    return Truth(label, float(times[0]), float(times[1]), centre_hz + low, centre_hz + high, snr_db)


def _emission(rng: np.random.Generator, label: str, on_s: float, rate_hz: float) -> Emission | None:
    """One that does not hop over the band, seen as a receiver of a few times its width would."""
    signal = CLASSES[label]
    for _ in range(DRAWS):
        view_hz = min(signal.draw_rate(rng), rate_hz)
        try:
            emission = signal.make(rng, on_s * 1.01 + 1e-5, view_hz)
        except SilentWindow:
            continue
        if not emission.placed and emission.occupied_hz <= min(WIDEST * rate_hz, 0.95 * view_hz):
            return emission
    return None


def edges(bins: NDArray[np.complex64], rate_hz: float, outside: float) -> tuple[float, float]:
    """Low and high edge in Hz of a spectrum [n], a share `outside` of its power beyond each."""
    power = fft.fftshift(np.abs(bins).astype(np.float64) ** 2)
    share = np.cumsum(power) / power.sum()
    low, high = np.searchsorted(share, [outside, 1 - outside])
    return tuple((np.array([low, high + 1]) / len(bins) - 0.5) * rate_hz)  # type: ignore[return-value]


def place(rng: np.random.Generator, low: float, high: float, rate_hz: float, others: Sequence[Truth]) -> float | None:
    """A centre in Hz at which a band from low to high Hz keeps its distance from the others; None after DRAWS draws."""
    reach = USED * rate_hz / 2
    if high - low > 2 * reach:
        return None
    for _ in range(DRAWS):
        centre = float(rng.uniform(-reach - low, reach - high))
        clear = True
        for other in others:
            guard = max(LEAST_GUARD_HZ, GUARD * (high - low + other.high_hz - other.low_hz))
            clear = clear and (centre + low > other.high_hz + guard or centre + high < other.low_hz - guard)
        if clear:
            return centre
    return None


def lay(spectrum: NDArray[np.complex64], bins: NDArray[np.complex64], shift: int) -> None:
    """Adds the bins of a slower signal, moved up by `shift`; what would lie beyond the band is left out."""
    n, native = len(spectrum), len(bins)
    k = np.arange(max(-(native // 2), -(n // 2) - shift), min((native + 1) // 2, (n + 1) // 2 - shift))
    spectrum[(k + shift) % n] += bins[k % native]


@dataclass(frozen=True)
class Score:
    """Counts over scenes.

    truths, boxes; found (a box of frequency IoU 0.3 and more while it is on the air); named (the label of the boxes
    that cover most of it is its own); false (boxes of which less than 30 % lies in any truth, widened by a fifth);
    edged and timed: found ones whose best box has both edges within a tenth of the width, both times within 2 ms.
    """

    truths: int = 0
    found: int = 0
    named: int = 0
    boxes: int = 0
    false: int = 0
    edged: int = 0
    timed: int = 0

    def __add__(self, other: Score) -> Score:
        mine, theirs = asdict(self), asdict(other)
        return Score(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Match:
    """A truth and the boxes that found it."""

    truth: Truth
    boxes: tuple[Box, ...]
    """Those of frequency IoU 0.3 and more while it is on the air, the one that fits best first; empty: not found."""
    label: str
    """The label of the boxes that cover most of it, "" where it was not found."""

    @property
    def named(self) -> bool:
        """Whether it was found, and by its name."""
        return bool(self.boxes) and self.label == self.truth.label


def match(truth: Truth, boxes: Sequence[Box]) -> Match:
    """The boxes of a scene that found one of its signals."""
    touching = [(box, *_overlap(truth, box)) for box in boxes]
    touching = [(box, dt, iou) for box, dt, iou in touching if dt > 0 and iou >= IOU]
    cover: dict[str, float] = {}
    for box, dt, _ in touching:
        cover[box.label] = cover.get(box.label, 0.0) + dt * (box.high_hz - box.low_hz)
    ordered = sorted(touching, key=lambda each: -each[1] * each[2])
    label = max(cover, key=lambda name: cover[name], default="")
    return Match(truth, tuple(box for box, _, _ in ordered), label)


def false_boxes(truths: Sequence[Truth], boxes: Sequence[Box]) -> list[Box]:
    """Boxes of which less than 30 % lies in any truth."""
    return [box for box in boxes if max((_inside(truth, box) for truth in truths), default=0.0) < 0.3]


def score(truths: Sequence[Truth], boxes: Sequence[Box]) -> Score:
    """Boxes against the truth of one scene."""
    edged = timed = 0
    matches = [each for truth in truths if (each := match(truth, boxes)).boxes]
    for truth, touching in ((each.truth, each.boxes) for each in matches):
        width = truth.high_hz - truth.low_hz
        best = touching[0]
        edged += max(abs(best.low_hz - truth.low_hz), abs(best.high_hz - truth.high_hz)) <= EDGE * width
        start, stop = min(box.start_s for box in touching), max(box.stop_s for box in touching)
        timed += max(abs(start - truth.start_s), abs(stop - truth.stop_s)) <= TIME_S
    named, false = sum(each.named for each in matches), len(false_boxes(truths, boxes))
    return Score(len(truths), len(matches), named, len(boxes), false, int(edged), int(timed))


def _overlap(truth: Truth, box: Box) -> tuple[float, float]:
    """(Seconds together, IoU of the bands)."""
    both = min(box.high_hz, truth.high_hz) - max(box.low_hz, truth.low_hz)
    either = max(box.high_hz, truth.high_hz) - min(box.low_hz, truth.low_hz)
    return min(box.stop_s, truth.stop_s) - max(box.start_s, truth.start_s), both / either


def _inside(truth: Truth, box: Box) -> float:
    """Share of a box's area within a truth whose band is a fifth wider on either side."""
    more = 0.2 * (truth.high_hz - truth.low_hz)
    both = min(box.high_hz, truth.high_hz + more) - max(box.low_hz, truth.low_hz - more)
    seconds = min(box.stop_s, truth.stop_s + TIME_S) - max(box.start_s, truth.start_s - TIME_S)
    return max(0.0, both) * max(0.0, seconds) / max((box.stop_s - box.start_s) * (box.high_hz - box.low_hz), 1e-12)
