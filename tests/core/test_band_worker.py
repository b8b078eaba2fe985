# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of the band's search: what is dropped is one long gap, and every sample is accounted for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from support.waiting import until
from wavesfm_core import band_worker
from wavesfm_core.band_worker import BandWorker
from wavesfm_core.pipeline import Pipeline


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], threading.Semaphore]:
    """What the worker's thread takes, one item for each release."""
    taken: list[Any] = []
    go = threading.Semaphore(0)

    def take(self: BandWorker, item: Any) -> None:
        go.acquire()
        if isinstance(item, np.ndarray):
            with self._changed:
                self._accounts.samples_waiting -= item.size
        taken.append(item)

    monkeypatch.setattr(BandWorker, "_take", take)
    monkeypatch.setattr(band_worker, "QUEUE_SAMPLES", 4000)
    return taken, go


def test_a_full_queue_drops_until_half_of_it_is_done(held, fake_bundle) -> None:
    taken, go = held
    worker = BandWorker(Pipeline.open(fake_bundle, "onnxruntime"), lambda *_: None, lambda *_: None, 1e6)
    piece = np.zeros(1000, np.complex64)
    try:
        for _ in range(7):  # four are kept, three are dropped
            worker.push(piece, block=False)
        assert worker._accounts.samples_missed == 3000 and worker._accounts.samples_waiting == 4000
        go.release()
        until(lambda: len(taken) == 1)
        worker.push(piece, block=False)  # three quarters wait: still dropped
        assert worker._accounts.samples_missed == 4000
        for _ in range(2):
            go.release()
        until(lambda: len(taken) == 3)
        worker.push(piece, block=False)
        assert worker._accounts.samples_missed == 4000 and worker._accounts.samples_waiting == 2000
        gaps = [item.count for item in worker._queue if isinstance(item, band_worker._Lost)]
        assert gaps == [4000]
    finally:
        for _ in range(20):
            go.release()
        worker.close(30.0)
