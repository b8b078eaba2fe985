# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated radio over a band of a gigahertz, which can be tuned as a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ...band.views import smooth_size
from ...types import Samples, StreamTime
from ..block import SampleBlock, block_samples
from .waveforms import Transmitter

BANK = 1 << 20  # samples of noise that are made once
SETTLE_S = 0.002
EDGE = 0.49  # of the sample rate, from which on the receiver's filter removes a transmitter


class SimulatedRadio:
    """Transmitters and noise at any tuning; each sample is a function of the seed and the time.

    Parameters
    ----------
    transmitters : sequence of Transmitter
        On the air all the time.
    centre_hz, rate_hz : float
        First tuning.
    seed : int
        Of the noise.
    noise_db : float
        Mean power of the noise at 1 MS/s, dB relative to full scale; it follows the sample rate.
    realtime : bool
        Deliver samples at their rate; False: as fast as they are taken, with times of a simulated clock.
    start : StreamTime or None
        Time of the first sample; None for this machine's clock.
    """

    def __init__(
        self,
        transmitters: Sequence[Transmitter],
        centre_hz: float,
        rate_hz: float,
        seed: int = 0,
        noise_db: float = -70.0,
        realtime: bool = False,
        start: StreamTime | None = None,
    ) -> None:
        self.description = f"simulated radio with {len(transmitters)} transmitters"
        self.is_live = realtime
        self._transmitters = tuple(transmitters)
        self._tuning = (centre_hz, rate_hz)
        self._wanted: tuple[float, float] | None = None
        self._lock = threading.Lock()  # guards `_wanted`
        self._noise_db = noise_db
        self._rng = np.random.default_rng([seed, 1])
        bank = self._rng.standard_normal(2 * BANK, np.float32).view(np.complex64)
        self._bank = bank * np.float32(np.sqrt(0.5))
        self._loops: dict[int, Samples] = {}
        self._start = StreamTime(int(time.time()), 0.0) if start is None else start
        self._stopped = threading.Event()
        self.elapsed_s = 0.0

    elapsed_s: float
    """Seconds of the simulated clock since the first sample."""

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`; it ends only after `stop`."""
        began_s = time.monotonic()
        is_new = True
        while not self._stopped.is_set():
            with self._lock:
                wanted, self._wanted = self._wanted, None
            if wanted is not None:
                self._tuning = wanted
                self._loops.clear()
                self.elapsed_s += SETTLE_S
                is_new = True
            centre_hz, rate_hz = self._tuning
            count = block_samples(rate_hz)
            samples = self._render(count)
            time_of_first = self._start.advanced(self.elapsed_s) if is_new else None
            is_new = False
            self.elapsed_s += count / rate_hz
            if self.is_live:
                self._stopped.wait(max(0.0, began_s + self.elapsed_s - time.monotonic()))
            yield SampleBlock.of(samples, rate_hz, centre_hz, time_of_first)

    def tune(self, centre_hz: float, rate_hz: float | None = None) -> None:
        """See `TunableSource.tune`."""
        with self._lock:
            known = self._wanted or self._tuning
            self._wanted = (centre_hz, known[1] if rate_hz is None else rate_hz)

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source.close`."""

    def _render(self, count: int) -> Samples:
        centre_hz, rate_hz = self._tuning
        first = int(self._rng.integers(BANK - count))
        level = np.float32(10 ** (self._noise_db / 20) * np.sqrt(rate_hz / 1e6))
        samples = self._bank[first : first + count] * level
        for number, each in enumerate(self._transmitters):
            if abs(each.centre_hz - centre_hz) + each.width_hz / 2 > EDGE * rate_hz:
                continue
            loop = self._loop(number, each)
            start = int(self.elapsed_s * rate_hz) % len(loop)
            at = 0
            while at < count:
                piece = loop[start : start + count - at]
                samples[at : at + len(piece)] += piece
                at, start = at + len(piece), 0
        return samples

    def _loop(self, number: int, each: Transmitter) -> Samples:
        """The transmitter's loop at the receiver's rate and place, with its power; kept until the next retune."""
        known = self._loops.get(number)
        if known is None:
            centre_hz, rate_hz = self._tuning
            n = smooth_size(round(len(each.loop) * rate_hz / each.rate_hz))  # a fast transform, a little slower loop
            half = min(n, len(each.loop)) // 2
            source = np.fft.fft(each.loop) * (n / len(each.loop))
            target = np.zeros(n, np.complex128)
            shift = round((each.centre_hz - centre_hz) * n / rate_hz)  # whole cycles, so that the loop has no seam
            places = np.arange(-half, half)
            target[(places + shift) % n] = source[places % len(source)]
            known = (np.fft.ifft(target) * 10 ** (each.power_db / 20)).astype(np.complex64)
            self._loops[number] = known
        return known
