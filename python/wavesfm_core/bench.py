# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of preprocessing and channel estimation on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from .bundle.ofdm_spec import OFDMSpec
from .bundle.spectrogram_spec import SpectrogramSpec
from .channel.pipeline import ChannelPipeline
from .channel.slots import SlotStream, make_demodulator
from .channel.uplink import UplinkSource
from .preprocess.spectrogram import make_tiler
from .types import Samples, Slot

RUNS = 5
CHUNK_SAMPLES = 262_144
SLOTS = 16
"""Slots that are pushed repeatedly."""
BATCH_SLOTS = 8
"""Slots that are estimated together."""


def spectrogram_rate(spec: SpectrogramSpec, seconds: float = 2.0) -> float:
    """Throughput of the spectrogram kernel on one thread in MS/s, the median of 5 runs in `seconds`.

    The input is white noise in chunks of 262,144 samples, which stay in the cache as those of a live source do.
    """
    chunk = noise(CHUNK_SAMPLES)
    tiler = make_tiler(spec)
    return _rate(lambda: tiler.push(chunk), seconds) * chunk.size / 1e6


def demodulation_rate(spec: OFDMSpec, seconds: float = 2.0) -> float:
    """Throughput of the OFDM demodulator on one thread in slots/s, the median of 5 runs in `seconds`."""
    samples = noise(spec.antennas * spec.slot_samples).reshape(spec.antennas, -1)
    demodulator = make_demodulator(spec)
    return _rate(lambda: demodulator.demodulate(samples), seconds)


def slot_rate(spec: OFDMSpec, seconds: float = 2.0, sync: str = "pilots") -> float:
    """Throughput of SlotStream on one thread in slots/s, the median of 5 runs in `seconds`.

    With "pilots" the start is tracked from slot to slot, with "tag" each slot is marked. The input is 16 slots of QPSK
    at an SNR of 20 dB over a flat channel, pushed repeatedly, one slot at a time.
    """
    return _rate(_receiver(spec, sync), seconds) * SLOTS


def estimation_rate(pipeline: ChannelPipeline, seconds: float = 2.0) -> float:
    """Throughput of a pipeline from grids to channels in slots/s, in batches of 8, the median of 5 runs."""
    slots = _receiver(pipeline.spec, "tag")()
    return _rate(lambda: _estimate(pipeline, slots), seconds) * len(slots)


def chain_rate(pipeline: ChannelPipeline, seconds: float = 2.0) -> float:
    """Throughput from samples to channels in slots/s, the median of 5 runs in `seconds`.

    One thread runs `slot_rate` with marked slots and `estimation_rate` in turn; an engine may use further threads.
    """
    receive = _receiver(pipeline.spec, "tag")
    return _rate(lambda: _estimate(pipeline, receive()), seconds) * SLOTS


def _estimate(pipeline: ChannelPipeline, slots: list[Slot]) -> None:
    for first in range(0, len(slots), BATCH_SLOTS):
        pipeline.predict(slots[first : first + BATCH_SLOTS])


def _receiver(spec: OFDMSpec, sync: str) -> Callable[[], list[Slot]]:
    """A function that pushes SLOTS more slots of samples through a stream and returns the grids."""
    flat = np.ones((1, *spec.grid_shape), np.complex64)
    source = UplinkSource(spec, flat)
    slots = [source.slot().samples for _ in range(SLOTS)]
    stream = SlotStream(spec, sync)
    start = 0

    def receive() -> list[Slot]:
        nonlocal start
        received: list[Slot] = []
        for samples in slots:
            if sync == "tag":
                stream.mark(start)
            received += stream.push(samples)
            start += spec.slot_samples
        return received

    return receive


def _rate(work: Callable[[], object], seconds: float) -> float:
    """Calls per second, the median of RUNS runs."""
    work()  # creates plans and tables, and touches memory, before the clock starts
    rates = []
    for _ in range(RUNS):
        start = time.perf_counter()
        calls = 0
        while (elapsed := time.perf_counter() - start) < seconds / RUNS or calls == 0:
            work()
            calls += 1
        rates.append(calls / elapsed)
    return statistics.median(rates)


def noise(n: int, seed: int = 0) -> Samples:
    """White Gaussian noise, complex64 [n], of unit power."""
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return np.ascontiguousarray(parts * np.float32(0.5**0.5)).view(np.complex64).ravel()
