# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a slot starts, by its known pilots, and how far the carriers are apart, by its prefixes."""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .._kernels import waveform_correlation
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError
from ..types import Samples

SEARCH_FALSE_ALARM = 1e-12  # for each sample: at 1.44 MS/s of noise once in a week
TRACK_FALSE_ALARM = 1e-3  # for each slot, where the place is known
TERMS_LIMIT = 256  # that are summed
EARLIER = 0.3  # a path before the slot's start counts from this part of the strongest one's power
LATER = 0.1  # the start moves on when all paths up to it are below this part: less than EARLIER, so that it settles
PART_OF_USUAL = 0.5  # a slot has its pilots from this part of the metric that slots had until now
STRETCHES = 8  # of a slot's length, whose metrics are also averaged where one alone does not reach the threshold
MEMORY = 0.9  # of the running means, from slot to slot: the last ten count
OFFSET_MEMORY = 0.99  # an oscillator drifts slowly, and one slot's prefixes are few
OFFSET_SLOTS = 70  # before an offset is believed: half of the running mean
OFFSET_COHERENCE = 0.02  # of prefixes and ends of symbols, which is the SNR where that is low: below it is noise


@lru_cache  # a search asks for few different ones, over and over
def threshold_over_mean(terms: int, false_alarm: float) -> float:
    """What the mean of `terms` exponential variables of mean 1 exceeds with the probability `false_alarm`.

    The share of white noise's power that lies in one of n dimensions is below such a variable over n - 1, and so is
    the mean of shares. More than 256 terms count as 256, which is above what they need.
    """
    terms = min(terms, TERMS_LIMIT)
    low, high = 0.0, terms + 100.0 + 40.0 * math.sqrt(terms)
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(terms))
        low, high = (middle, high) if tail > false_alarm else (low, middle)
    return high / terms


def reach_samples(spec: OFDMSpec) -> int:
    """How far around a slot's start paths are looked for: the pilots' shortest prefix, or what the comb tells apart."""
    prefix = min(spec.prefix_samples[symbol] for symbol in spec.pilot_symbols)
    return max(0, min(prefix, (spec.fft_size // spec.pilot_step - 1) // 2))


class PilotSearch:
    """Looks for the start of a slot with no idea where it is.

    The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power that has the
    shape of the pilot symbol (0 to 1): phases of antennas and symbols do not matter, nor does an antenna's gain.
    threshold: of the last search's metric, from how much it scattered: noise that is one in all antennas, as another
    transmitter's signal is, needs a higher one than noise of their own; either passes it once in 1e12 samples.
    Where successive searches stay below it, the mean of up to 8 of them is looked at too.

    Raises ConfigurationError where even noise of their own resembles the pilots too often.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        bins = spec.bins[spec.pilot_subcarriers]
        spectra = np.zeros((len(spec.pilot_symbols), spec.fft_size), np.complex128)
        spectra[:, bins] = spec.pilots
        self._waveforms = np.fft.ifft(spectra).astype(np.complex64)
        self._starts = [int(spec.symbol_starts[symbol]) for symbol in spec.pilot_symbols]
        self._fft_size = spec.fft_size
        self._reach = reach_samples(spec)
        self._terms = spec.antennas * len(self._starts)
        # power in the band only, as a receiver's filter leaves of noise: fewer dimensions than samples
        self._mean_of_noise = 1 / (spec.subcarriers - 1) if spec.subcarriers > 1 else 1.0
        terms = [n * self._terms for n in range(1, STRETCHES + 1)]
        self._lowest = [self._mean_of_noise * threshold_over_mean(n, SEARCH_FALSE_ALARM) for n in terms]
        self.threshold = self._lowest[0]
        if self.threshold >= 1:
            expected = "more antennas, pilot symbols or subcarriers, or sync by tag"
            found = f"{self._terms} pilot symbols of {spec.subcarriers} subcarriers, which noise resembles too often"
            raise ConfigurationError("slots", "sync", found, expected)
        self.span_samples = self._starts[-1] + spec.fft_size  # from a slot's start to the end of its last pilots
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=STRETCHES)

    def find(self, samples: Samples) -> tuple[int | None, float]:
        """The slot start in samples complex64 [A, n], None where it is not found; the metric there.

        Starts 0 to n - span_samples are tried. Of the paths around the strongest, the first that counts is the start.
        Successive searches must be of adjoining starts, a slot's length of them; any other number begins anew.
        """
        metric = self._metric(samples)
        if self._recent and self._recent[-1].size != metric.size:
            self._recent.clear()
        self._recent.append(metric)
        for n in sorted({len(self._recent), 1}, reverse=True):
            mean = np.sum([*self._recent][-n:], axis=0) / n
            peak = int(np.argmax(mean))
            self.threshold = self._lowest[n - 1]
            if mean[peak] >= self.threshold:
                self.threshold = self._threshold(mean, peak, n * self._terms)
            if mean[peak] >= self.threshold:
                self._recent.clear()
                return self._first_path(mean, peak), float(mean[peak])
        return None, float(mean[peak])

    def _threshold(self, metric: NDArray[np.float64], peak: int, terms: int) -> float:
        distance = np.abs(np.arange(metric.size) - peak)
        apart = np.minimum(distance, metric.size - distance) > self._fft_size  # the next slot's start is a slot away
        rest = metric[apart] if apart.any() else np.zeros(1)
        mean, variance = float(rest.mean()), float(rest.var())
        independent = terms if variance == 0 else min(terms, max(1, int(mean**2 / variance)))
        return max(mean, self._mean_of_noise) * threshold_over_mean(independent, SEARCH_FALSE_ALARM)

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

    def _first_path(self, metric: NDArray[np.float64], peak: int) -> int:
        above = metric - np.median(metric)
        around = above[max(0, peak - self._reach) : peak + 1]
        return peak - (around.size - 1) + int(np.argmax(around >= EARLIER * around[-1]))


class PilotTracker:
    """Follows the start of slots from one to the next, by the delays that the pilots of each slot show.

    The metric is PilotSearch's, with the pilots' subcarriers alone and in a window of the prefix's length around the
    start. threshold: noise passes it in one slot of a thousand; and it is half of what the metric was until now, so
    that the data of a slot elsewhere, alike in all antennas, does not pass for pilots. metric: of the last slot.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        self._reach = reach_samples(spec)
        delays = np.arange(-self._reach, self._reach + 1)
        frequencies = spec.frequencies[spec.pilot_subcarriers]
        turns = np.outer(frequencies, delays) / spec.fft_size
        self._steering = np.exp(2j * np.pi * turns).astype(np.complex64)
        self._conjugates = spec.pilots.conj()
        over = threshold_over_mean(spec.antennas * len(spec.pilot_symbols), TRACK_FALSE_ALARM / delays.size)
        # with a handful of pilots even a perfect channel would not reach it
        self.threshold = self._lowest = min(0.9, over / max(1, len(frequencies) - 1))
        self.metric = self._usual = 0.0
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
        kept = 0.0 if self._profile is None else MEMORY
        self._profile = profile if self._profile is None else kept * self._profile + (1 - kept) * profile
        self._usual = kept * self._usual + (1 - kept) * self.metric
        self.threshold = max(self._lowest, PART_OF_USUAL * self._usual)
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

    Unambiguous within half the subcarrier spacing; prefixes that echoes have reached count like the others. The mean
    over the last hundred slots or so: its standard deviation is 15 Hz at 0 dB and 90 Hz at -10 dB in the paper's
    numerology, and after the first slot ten times as much.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        lengths = zip(spec.symbol_starts, spec.prefix_samples)
        self._prefixes = np.concatenate([np.arange(start - n, start) for start, n in lengths])
        self._fft_size = spec.fft_size
        self._spacing_hz = spec.spacing_hz
        self._mean: complex = 0.0
        self._slots = 0

    def take(self, samples: Samples) -> None:
        """Lets one slot, complex64 [A, slot_samples], enter the running mean; a silent one does not."""
        before, after = samples[:, self._prefixes], samples[:, self._prefixes + self._fft_size]
        power = math.sqrt(np.vdot(before, before).real) * math.sqrt(np.vdot(after, after).real)
        if power > 0:
            self._mean = OFFSET_MEMORY * self._mean + (1 - OFFSET_MEMORY) * complex(np.vdot(before, after)) / power
            self._slots += 1

    def corrected(self, samples: Samples) -> Samples:
        """A slot, complex64 [A, n], turned back by the offset; the phase of its first sample stays."""
        if self.hz is None:
            return samples
        turns = self.hz / (self._spacing_hz * self._fft_size) * np.arange(samples.shape[1])
        return samples * np.exp(-2j * np.pi * turns).astype(np.complex64)

    @property
    def hz(self) -> float | None:
        """The received carrier above the expected one, in Hz; None before the first slot or with no prefixes."""
        return float(np.angle(self._mean)) / (2 * math.pi) * self._spacing_hz if self._mean else None

    @property
    def settled(self) -> bool:
        """Whether enough slots, and more than noise, have been seen to believe it."""
        whole = 1 - OFFSET_MEMORY**self._slots  # what the mean is of a constant 1
        return self._slots >= OFFSET_SLOTS and abs(self._mean) >= OFFSET_COHERENCE * whole
