# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of live sessions for tests: a pipeline without a model, sources of known blocks, a patient wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import EngineError
from wavesfm_core.live.block import SampleBlock
from wavesfm_core.live.bus import Record
from wavesfm_core.types import Tile

LABELS = ("noise", "narrow", "wide", "unknown")
RATE = 1e6
PATIENCE_S = 120.0  # a slow machine is no fault


class FakePipeline:
    """Names views below 200 kS/s "narrow", from 10 MS/s on "noise", others "wide"; may fail or hang.

    Attributes
    ----------
    hangs : threading.Event
        While it is set, `probabilities` does not return.
    failures_left : int
        Calls that raise EngineError.
    """

    def __init__(self, name: str = "fake-1", failures: int = 0) -> None:
        self.stream_spec = SpectrogramSpec()
        head = SimpleNamespace(labels=LABELS)
        self.bundle = SimpleNamespace(id=name, spec=SimpleNamespace(rates_hz=(20e3, 20e6), head=head))
        self.engine = SimpleNamespace(description="fake engine")
        self.classification_head = SimpleNamespace(labels=LABELS, decide=self._decide)
        self.hangs = threading.Event()
        self.failures_left = failures
        self.closed = self.abandoned = False

    def probabilities(self, tiles: Sequence[Tile]) -> np.ndarray:
        """See `Pipeline.probabilities`."""
        while self.hangs.is_set():
            time.sleep(0.005)
        if self.failures_left:
            self.failures_left -= 1
            raise EngineError("fake", "run", "a failure", "none")
        return np.array([self._answer(tile.rate_hz) for tile in tiles])

    def close(self) -> None:
        """See `Pipeline.close`."""
        self.closed = True

    def abandon(self) -> None:
        """See `Pipeline.abandon`."""
        self.abandoned = True

    @staticmethod
    def _answer(rate_hz: float) -> list[float]:
        if rate_hz < 2e5:
            return [0.1, 0.8, 0.1, 0.0]
        return [0.1, 0.1, 0.8, 0.0] if rate_hz < 1e7 else [0.8, 0.1, 0.1, 0.0]

    @staticmethod
    def _decide(probabilities: np.ndarray) -> tuple[str, float]:
        best = int(probabilities.argmax())
        return LABELS[best], float(probabilities[best])


class ListSource:
    """Delivers known blocks; waits before the block of an index in `gates` until its event is set."""

    def __init__(
        self, blocks: Sequence[SampleBlock], is_live: bool = False, gates: dict[int, threading.Event] | None = None
    ) -> None:
        self.description, self.is_live = "list", is_live
        self._blocks, self._gates = blocks, gates or {}
        self._stopped = threading.Event()
        self.closed = False

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`."""
        for index, block in enumerate(self._blocks):
            gate = self._gates.get(index)
            while gate is not None and not gate.wait(0.01) and not self._stopped.is_set():
                pass
            if self._stopped.is_set():
                return
            yield block

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source.close`."""
        self.closed = True


def noise(n: int, seed: int = 0) -> np.ndarray:
    """complex64 [n] of power 2e-4."""
    parts = np.random.default_rng(seed).standard_normal((n, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel() * np.float32(0.01)


def scene(seconds: float, rate_hz: float = RATE, seed: int = 0) -> np.ndarray:
    """Noise, a wide signal at -300 to -150 kHz throughout, and a narrow one at 200 to 215 kHz in its middle third."""
    n = int(seconds * rate_hz)
    frequencies = np.fft.fftfreq(n) * RATE
    x = noise(n, seed)
    for low_hz, high_hz, gain, part in (
        (-3e5, -1.5e5, 10.0, slice(0, n)),
        (2e5, 2.15e5, 18.0, slice(n // 3, 2 * n // 3)),
    ):
        inside = (frequencies >= low_hz) & (frequencies < high_hz)
        signal = np.fft.ifft(np.where(inside, np.fft.fft(noise(n, seed + 1)), 0)) * gain
        x[part] += signal[part].astype(np.complex64)
    return x


def blocks_of(
    samples: np.ndarray, rate_hz: float = RATE, centre_hz: float | None = 100e6, size: int = 20_000
) -> list[SampleBlock]:
    """Samples as blocks without times."""
    return [SampleBlock.of(samples[at : at + size], rate_hz, centre_hz) for at in range(0, samples.size, size)]


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until a condition holds; it fails only where that does not happen for minutes."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"{what} has not come true"
        time.sleep(0.005)


def record(kind: str = "event", sequence: int = 0, **values: object) -> Record:
    """A record as a session publishes it; an event of an emitter by default."""
    event = {
        "schema": 1,
        "event": "appeared",
        "sample": 1000,
        "time": {"full_s": 1_700_000_000 + sequence, "frac_s": 0.25, "utc": "2023-11-14T22:13:20.250000000Z"},
        "changes": [],
        "emitter": 1,
        "kind": "signal",
        "label": "narrow",
        "confidence": 0.8,
        "probabilities": {"narrow": 0.8, "wide": 0.2},
        "n_looks": 3,
        "start_sample": 1000,
        "n_samples": 5000,
        "low_hz": -1e4,
        "high_hz": 1e4,
        "centre_hz": 100e6,
        "rate_hz": 1e6,
        "snr_db": 12.0,
        "power_db": -40.0,
        "n_bursts": 1,
        "duty": 1.0,
    }
    return Record(kind, {**(event if kind == "event" else {}), **values}, "run", sequence)
