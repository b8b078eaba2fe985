# SPDX-License-Identifier: GPL-3.0-or-later
"""Synchronisation of slots: start by known pilots, carrier frequency offset by cyclic prefixes."""

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

SEARCH_FALSE_ALARM = 1e-12
"""False alarm probability of a search for each sample: once in a week of noise at 1.44 MS/s."""
TRACK_FALSE_ALARM = 1e-3
"""False alarm probability of a tracked slot."""
TERMS_LIMIT = 256
"""Most terms of a sum in `threshold_over_mean`."""
EARLIER = 0.3
"""A path before the start of the slot counts from this share of the strongest path's power on."""
LATER = 0.1
"""The start moves later when all paths up to it are below this share; less than EARLIER, so that it settles."""
PART_OF_USUAL = 0.5
"""A slot has its pilots from this share of the mean metric of earlier slots on."""
STRETCHES = 8
"""Most successive searches whose metrics are averaged where one does not reach the threshold."""
MEMORY = 0.9
"""Memory of the running means from slot to slot, about ten slots."""
OFFSET_MEMORY = 0.99
"""Memory of the running mean of the offset: an oscillator drifts slowly, and a slot has few prefixes."""
OFFSET_SLOTS = 70
"""Slots before an offset is reported as settled: half of the running mean."""
OFFSET_COHERENCE = 0.02
"""Least coherence of prefixes and ends of symbols of a settled offset. At low SNR the coherence is the SNR."""


@lru_cache  # a search needs few different values repeatedly
def threshold_over_mean(terms: int, false_alarm: float) -> float:
    """Value that the mean of exponential variables of mean 1 exceeds with a given probability.

    The share of the power of white noise in one of n dimensions is bounded by such a variable over n - 1, and so is the
    mean of such shares.

    Parameters
    ----------
    terms : int
        Number of variables; more than TERMS_LIMIT count as TERMS_LIMIT, which gives a higher value.
    false_alarm : float
        The probability.
    """
    terms = min(terms, TERMS_LIMIT)
    low, high = 0.0, terms + 100.0 + 40.0 * math.sqrt(terms)
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(terms))
        low, high = (middle, high) if tail > false_alarm else (low, middle)
    return high / terms


def reach_samples(spec: OFDMSpec) -> int:
    """Range around the start in which paths lie: the shortest prefix of a pilot symbol, or the comb's range."""
    prefix = min(spec.prefix_samples[symbol] for symbol in spec.pilot_symbols)
    return max(0, min(prefix, (spec.fft_size // spec.pilot_step - 1) // 2))


class PilotSearch:
    """Search for the start of a slot at any sample.

    The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power that has the
    waveform of the pilot symbol (0 to 1). It does not depend on phases of antennas and symbols or gains of antennas.
    Where successive searches stay below the threshold, the mean of up to STRETCHES of them is compared too.

    Raises
    ------
    ConfigurationError
        Too few antennas, pilot symbols or subcarriers: independent noise would resemble the pilots too often.
    """

    threshold: float
    """Threshold of the last search, from the scatter of its metric: noise that is equal in all antennas, as the signal
    of another transmitter, has a higher one than independent noise. Either exceeds it once in 1e12 samples."""
    span_samples: int
    """Samples from the start of a slot to the end of its last pilot symbol."""

    def __init__(self, spec: OFDMSpec) -> None:
        bins = spec.bins[spec.pilot_subcarriers]
        spectra = np.zeros((len(spec.pilot_symbols), spec.fft_size), np.complex128)
        spectra[:, bins] = spec.pilots
        self._waveforms = np.fft.ifft(spectra).astype(np.complex64)
        self._starts = [int(spec.symbol_starts[symbol]) for symbol in spec.pilot_symbols]
        self._fft_size = spec.fft_size
        self._reach = reach_samples(spec)
        self._terms = spec.antennas * len(self._starts)
        # noise in the band only, as behind a receiver's filter: fewer dimensions than samples
        self._mean_of_noise = 1 / (spec.subcarriers - 1) if spec.subcarriers > 1 else 1.0
        terms = [n * self._terms for n in range(1, STRETCHES + 1)]
        self._lowest = [self._mean_of_noise * threshold_over_mean(n, SEARCH_FALSE_ALARM) for n in terms]
        self.threshold = self._lowest[0]
        if self.threshold >= 1:
            expected = "more antennas, pilot symbols or subcarriers, or sync by tag"
            found = f"{self._terms} pilot symbols of {spec.subcarriers} subcarriers, which noise resembles too often"
            raise ConfigurationError("slots", "sync", found, expected)
        self.span_samples = self._starts[-1] + spec.fft_size
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=STRETCHES)

    def find(self, samples: Samples) -> tuple[int | None, float]:
        """Find the start of a slot.

        The start is the first significant path around the strongest one. Successive searches must cover adjoining
        ranges of equal length, one slot each; another length begins anew.

        Parameters
        ----------
        samples : ndarray
            complex64 [A, n]; the starts 0 to n - span_samples are tried.

        Returns
        -------
        start : int or None
            Index of the start; None where it is not found.
        metric : float
            Metric of the best start.
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
        apart = (
            np.minimum(distance, metric.size - distance) > self._fft_size
        )  # the start of the next slot is one slot away
        rest = metric[apart] if apart.any() else np.zeros(1)
        mean, variance = float(rest.mean()), float(rest.var())
        independent = terms if variance == 0 else min(terms, max(1, int(mean**2 / variance)))
        return max(mean, self._mean_of_noise) * threshold_over_mean(independent, SEARCH_FALSE_ALARM)

    def restart(self) -> None:
        """Forget the earlier searches, as the next one does not adjoin them."""
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
    """Track the start from slot to slot by the delays of the pilots.

    The metric is that of PilotSearch on the pilot subcarriers alone, in a window of the prefix's length around the
    start.
    """

    threshold: float
    """Noise exceeds it in one slot of a thousand. It is at least half of the mean metric so far, so that data of
    another slot, equal in all antennas, are not taken for pilots."""
    metric: float
    """Metric of the last slot."""

    def __init__(self, spec: OFDMSpec) -> None:
        self._reach = reach_samples(spec)
        delays = np.arange(-self._reach, self._reach + 1)
        frequencies = spec.frequencies[spec.pilot_subcarriers]
        turns = np.outer(frequencies, delays) / spec.fft_size
        self._steering = np.exp(2j * np.pi * turns).astype(np.complex64)
        self._conjugates = spec.pilots.conj()
        over = threshold_over_mean(spec.antennas * len(spec.pilot_symbols), TRACK_FALSE_ALARM / delays.size)
        # with few pilots even a perfect channel would not reach it
        self.threshold = self._lowest = min(0.9, over / max(1, len(frequencies) - 1))
        self.metric = self._usual = 0.0
        self._profile: NDArray[np.float64] | None = None

    def hit(self, received: NDArray[np.complex64]) -> bool:
        """True if received pilots [A, P, Fp] contain the transmitted ones; their delays then enter the mean."""
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
        """Samples by which the start of the next slot moves, -1, 0 or 1; the running mean moves with it."""
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
    """Carrier frequency offset from the phase between each prefix and the end of its symbol.

    It is unambiguous within half the subcarrier spacing. Prefixes with echoes count like the others. It is a running
    mean over about a hundred slots: in the paper's numerology its standard deviation is 15 Hz at 0 dB and 90 Hz at
    -10 dB, and ten times as much after the first slot.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        lengths = zip(spec.symbol_starts, spec.prefix_samples)
        self._prefixes = np.concatenate([np.arange(start - n, start) for start, n in lengths])
        self._fft_size = spec.fft_size
        self._spacing_hz = spec.spacing_hz
        self._mean: complex = 0.0
        self._slots = 0

    def take(self, samples: Samples) -> None:
        """Update the running mean with a slot, complex64 [A, slot_samples], unless it is silent."""
        before, after = samples[:, self._prefixes], samples[:, self._prefixes + self._fft_size]
        power = math.sqrt(np.vdot(before, before).real) * math.sqrt(np.vdot(after, after).real)
        if power > 0:
            self._mean = OFFSET_MEMORY * self._mean + (1 - OFFSET_MEMORY) * complex(np.vdot(before, after)) / power
            self._slots += 1

    def corrected(self, samples: Samples) -> Samples:
        """Correct a slot, complex64 [A, n], by the offset; the phase of its first sample is kept."""
        if self.hz is None:
            return samples
        turns = self.hz / (self._spacing_hz * self._fft_size) * np.arange(samples.shape[1])
        return samples * np.exp(-2j * np.pi * turns).astype(np.complex64)

    @property
    def hz(self) -> float | None:
        """Offset of the received carrier in Hz; None before the first slot or without prefixes."""
        return float(np.angle(self._mean)) / (2 * math.pi) * self._spacing_hz if self._mean else None

    @property
    def settled(self) -> bool:
        """Whether enough slots with more than noise have entered the mean."""
        whole = 1 - OFFSET_MEMORY**self._slots  # the mean of a constant 1
        return self._slots >= OFFSET_SLOTS and abs(self._mean) >= OFFSET_COHERENCE * whole
