"""Where a slot starts, by its known pilots, and how far the carriers are apart, by its prefixes."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from .._kernels import waveform_correlation
from ..errors import ConfigurationError
from ..types import Samples
from .numerology import OFDMSpec

SEARCH_FALSE_ALARM = 1e-12  # for each sample: at 1.44 MS/s of noise once in a week
TRACK_FALSE_ALARM = 1e-3  # for each slot, where the place is known
EARLIER = 0.3  # a path before the slot's start counts from this part of the strongest one's power
LATER = 0.1  # the start moves on when all paths up to it are below this part: less than EARLIER, so that it settles
STRETCHES = 8  # of a slot's length, whose metrics are also averaged where one alone does not reach the threshold
MEMORY = 0.9  # of the running means, from slot to slot: the last ten count


def metric_threshold(terms: int, freedom: int, false_alarm: float) -> float:
    """The metric that white noise exceeds with at most the probability `false_alarm`.

    The metric is the mean of `terms` shares of power in one of `freedom` dimensions. For noise each share is below an
    exponential variable of mean 1 / (freedom - 1), and their sum below a gamma variable. May be more than 1, which is
    never reached.
    """
    if freedom < 2:
        return math.inf
    low, high = 0.0, terms + 100.0 + 40.0 * math.sqrt(terms)
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(terms))
        low, high = (middle, high) if tail > false_alarm else (low, middle)
    return high / terms / (freedom - 1)


def reach_samples(spec: OFDMSpec) -> int:
    """How far around a slot's start paths are looked for: the pilots' shortest prefix, or what the comb tells apart."""
    prefix = min(spec.prefix_samples[symbol] for symbol in spec.pilot_symbols)
    return max(0, min(prefix, (spec.fft_size // spec.pilot_step - 1) // 2))


class PilotSearch:
    """Looks for the start of a slot with no idea where it is.

    The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power that has the
    shape of the pilot symbol (0 to 1): phases of antennas and symbols do not matter, nor does an antenna's gain.
    threshold: of the metric; noise passes it once in 1e12 samples. Where successive searches stay below it, the mean of
    up to 8 of them counts too, with the lower threshold that noise allows it. Raises ConfigurationError where no
    threshold keeps noise out.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        bins = spec.bins[spec.pilot_subcarriers]
        spectra = np.zeros((len(spec.pilot_symbols), spec.fft_size), np.complex128)
        spectra[:, bins] = spec.pilots
        self._waveforms = np.fft.ifft(spectra).astype(np.complex64)
        self._starts = [int(spec.symbol_starts[symbol]) for symbol in spec.pilot_symbols]
        self._fft_size = spec.fft_size
        self._reach = reach_samples(spec)
        terms = spec.antennas * len(self._starts)
        # power in the band only, as a receiver's filter leaves of noise: fewer dimensions than samples
        self._thresholds = [
            metric_threshold(n * terms, spec.subcarriers, SEARCH_FALSE_ALARM) for n in range(1, STRETCHES + 1)
        ]
        self.threshold = self._thresholds[0]
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=STRETCHES)
        if self.threshold >= 1:
            expected = "more antennas, pilot symbols or subcarriers, or sync by tag"
            found = f"{terms} pilot symbols of {spec.subcarriers} subcarriers, which noise resembles too often"
            raise ConfigurationError("slots", "sync", found, expected)
        self.span_samples = self._starts[-1] + spec.fft_size  # from a slot's start to the end of its last pilots

    def find(self, samples: Samples) -> tuple[int | None, float]:
        """The slot start in samples complex64 [A, n], None where it is not found; the metric there.

        Starts 0 to n - span_samples are tried. Of the paths around the strongest, the first that counts is the start.
        Successive searches must be of adjoining starts, a slot's length of them; any other number begins anew.
        """
        metric = self._metric(samples)
        if self._recent and self._recent[-1].size != metric.size:
            self._recent.clear()
        self._recent.append(metric)
        for n in sorted({1, len(self._recent)}):
            mean = np.mean([*self._recent][-n:], axis=0)
            if mean.max() >= self._thresholds[n - 1]:
                self._recent.clear()
                return self._first_path(mean), float(mean.max())
        return None, float(metric.max())

    def restart(self) -> None:
        """The next search does not adjoin the last one."""
        self._recent.clear()

    def _metric(self, samples: Samples) -> NDArray[np.float64]:
        starts = samples.shape[1] - self.span_samples + 1
        metric = np.zeros(starts)
        for waveform, begin in zip(self._waveforms, self._starts):
            window = samples[:, begin : begin + starts + self._fft_size - 1]
            metric += waveform_correlation(np.ascontiguousarray(window), waveform)
        return metric / len(self._starts)

    def _first_path(self, metric: NDArray[np.float64]) -> int:
        peak = int(np.argmax(metric))
        above = metric - np.median(metric)
        around = above[max(0, peak - self._reach) : peak + 1]
        return peak - (around.size - 1) + int(np.argmax(around >= EARLIER * around[-1]))


class PilotTracker:
    """Follows the start of slots from one to the next, by the delays that the pilots of each slot show.

    The metric is PilotSearch's, with the pilots' subcarriers alone and in a window of the prefix's length around the
    start. threshold: noise passes it in one slot of a thousand. metric: of the last slot.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        self._reach = reach_samples(spec)
        delays = np.arange(-self._reach, self._reach + 1)
        frequencies = spec.frequencies[spec.pilot_subcarriers]
        turns = np.outer(frequencies, delays) / spec.fft_size
        self._steering = np.exp(2j * np.pi * turns).astype(np.complex64)
        self._conjugates = spec.pilots.conj()
        terms = spec.antennas * len(spec.pilot_symbols)
        threshold = metric_threshold(terms, len(frequencies), TRACK_FALSE_ALARM / delays.size)
        self.threshold = min(threshold, 0.99)  # with a handful of pilots even a perfect channel would miss it
        self.metric = 0.0
        self._profile: NDArray[np.float64] | None = None

    def hit(self, received: NDArray[np.complex64]) -> bool:
        """Whether the pilots sent are in those received, complex64 [A, P, Fp]; then their delays enter the mean."""
        rows = (received * self._conjugates).reshape(-1, received.shape[-1])
        power = np.square(np.abs(rows), dtype=np.float64).sum(axis=1)
        shares = np.square(np.abs(rows @ self._steering), dtype=np.float64)
        shares /= np.where(power > 0, power, np.inf)[:, None] * rows.shape[1]
        profile = shares.mean(axis=0)
        self.metric = float(profile.max())
        if self.metric < self.threshold:
            return False
        self._profile = profile if self._profile is None else MEMORY * self._profile + (1 - MEMORY) * profile
        return True

    def step(self) -> int:
        """By how many samples the next slot's start must move: -1, 0 or 1; the running mean moves with it."""
        if self._profile is None or self._reach == 0:
            return 0
        above = self._profile - np.sort(self._profile)[self._profile.size // 4]
        strongest = above.max()
        if (above[: self._reach] > EARLIER * strongest).any():
            move = -1
        elif (above[: self._reach + 1] < LATER * strongest).all():
            move = 1
        else:
            return 0
        self._profile = np.roll(self._profile, -move)
        return move


class CarrierOffset:
    """Carrier frequency offset, from what each prefix and the end of its symbol differ by in phase.

    Unambiguous within half the subcarrier spacing; prefixes that echoes have reached count like the others.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        lengths = zip(spec.symbol_starts, spec.prefix_samples)
        self._prefixes = np.concatenate([np.arange(start - n, start) for start, n in lengths])
        self._fft_size = spec.fft_size
        self._spacing_hz = spec.spacing_hz
        self._mean: complex = 0.0

    def take(self, samples: Samples) -> None:
        """Lets one slot, complex64 [A, slot_samples], enter the running mean; a silent one does not."""
        before, after = samples[:, self._prefixes], samples[:, self._prefixes + self._fft_size]
        power = math.sqrt(np.vdot(before, before).real) * math.sqrt(np.vdot(after, after).real)
        if power > 0:
            self._mean = MEMORY * self._mean + (1 - MEMORY) * complex(np.vdot(before, after)) / power

    @property
    def hz(self) -> float | None:
        """The received carrier above the expected one, in Hz; None before the first slot or with no prefixes."""
        return float(np.angle(self._mean)) / (2 * math.pi) * self._spacing_hz if self._mean else None
