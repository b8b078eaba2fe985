#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run live sessions with faults for a time, and check that all accounts close and memory and threads come back.

    apps/live_soak.py models/rf20-nano --seconds 1200 --seed 1

Prints one JSON object. Exit code 0 when everything closed, 1 when not.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from wavesfm_core.band.options import BandOptions
from wavesfm_core.errors import EngineError
from wavesfm_core.live.block import SampleBlock
from wavesfm_core.live.bus import Record
from wavesfm_core.live.config import RecordConfig
from wavesfm_core.live.outputs.base import OutputWorker
from wavesfm_core.live.outputs.history import History
from wavesfm_core.live.outputs.json_lines import JSONLines
from wavesfm_core.live.outputs.webhook import Webhook
from wavesfm_core.live.recorder import TriggerRecorder
from wavesfm_core.live.session import LiveSession
from wavesfm_core.live.sources.simulated import SimulatedRadio
from wavesfm_core.live.sources.waveforms import plant
from wavesfm_core.pipeline import Pipeline

BAND_HZ = (1e9, 1.02e9)
TICK_S = 0.1
FAULTS_PER_S = 0.5
HANG_S = 2.0  # after which an engine is given up here
MOST_GROWTH_BYTES = 150 << 20  # of the resident memory, after the first session
SETTLE_S = 30.0  # for threads that were given up to end
SESSION_S = 120.0
QUOTA_BYTES = 20_000_000
COUNTED = (
    "samples_in",
    "samples_searched",
    "samples_missed",
    "events",
    "hangs",
    "reloads",
    "failures",
    "gaps",
    "retunes",
)


class FaultyRadio(SimulatedRadio):
    """Loses samples, and changes its tuning, when it is asked to."""

    gap = 0

    def blocks(self) -> Iterator[SampleBlock]:
        """See `Source.blocks`."""
        for block in super().blocks():
            gap, self.gap = self.gap, 0
            yield replace(block, lost=gap) if gap else block


class FaultyEngine:
    """A pipeline's engine that raises, or does not return, when it is asked to."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.fails = False
        self.hangs = threading.Event()

    def run(self, inputs: Any) -> Any:
        """See `Engine.run`."""
        while self.hangs.is_set():
            time.sleep(0.01)
        if self.fails:
            self.fails = False
            raise EngineError("soak", "engine", "a fault that was asked for", "none")
        return self._engine.run(inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class FullDisk(JSONLines):
    """JSON lines to a disk that is full while `is_full`."""

    is_full = False

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().send(record)


class SlowOutput:
    """Takes a while for each record."""

    name, kinds = "slow", frozenset({"event", "status", "warning"})

    def connect(self) -> None:
        """See `Output.connect`."""

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        time.sleep(0.05)

    def close(self) -> None:
        """See `Output.close`."""


class Soak:
    """One session after the other, with faults drawn from a seed."""

    def __init__(self, bundle: Path, seed: int, folder: Path, rate_hz: float) -> None:
        self._bundle, self._folder, self._rate_hz = bundle, folder, rate_hz
        self._random = random.Random(seed)
        self._seed = seed
        self.totals: Counter[str] = Counter()
        self.faults: list[str] = []
        self._engines: list[FaultyEngine] = []

    def run(self, seconds: float) -> None:
        """One session: source, outputs, recorder; faults until its end."""
        radio = FaultyRadio(plant(self._seed, *BAND_HZ), 1.01e9, self._rate_hz, self._seed, realtime=True)
        session = LiveSession(radio, self._open, BandOptions(ring_bytes=1 << 26), ring_s=3.0, hang_s=HANG_S)
        dead = socket.create_server(("127.0.0.1", 0))  # accepts and never answers
        disk = FullDisk(str(self._folder / "events.jsonl"), most_bytes=1 << 20, keep=2)
        url = f"http://127.0.0.1:{dead.getsockname()[1]}/"
        outputs = [disk, SlowOutput(), History(str(self._folder / "history.sqlite")), Webhook(url, timeout_s=0.5)]
        workers = [OutputWorker(output, 50) for output in outputs]
        for worker in workers:
            session.bus.add(worker.take)
        config = RecordConfig(
            self._folder / "recordings", ({"power_db": -200.0}, {"every_s": 5.0}), 0.2, 0.3, 20_000_000
        )
        recorder = TriggerRecorder(session, config)
        thread = threading.Thread(target=session.run)
        thread.start()
        try:
            self._disturb(session, radio, disk, seconds)
        finally:
            for engine in self._engines:
                engine.hangs.clear()
            session.stop()
            thread.join()
            recorder.close()
            for worker in workers:
                worker.close()
            dead.close()
            self._engines.clear()
        self._close_accounts(session, recorder, workers)

    def _open(self) -> Pipeline:
        pipeline = Pipeline.open(self._bundle, "cpu", None, threads=1)
        engine = FaultyEngine(pipeline.engine)
        pipeline.engine = engine  # type: ignore[assignment]
        self._engines.append(engine)
        return pipeline

    def _disturb(self, session: LiveSession, radio: FaultyRadio, disk: FullDisk, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        actions: dict[str, Callable[[], object]] = {
            "retunes": lambda: radio.tune(self._random.uniform(*BAND_HZ)),
            "gaps": lambda: setattr(radio, "gap", self._random.randrange(1, 100_000)),
            "engine faults": lambda: setattr(self._engines[-1], "fails", True),
            "engine hangs": lambda: self._engines[-1].hangs.set(),
            "reloads": lambda: session.reload(self._open),
            "disk full": lambda: setattr(disk, "is_full", not disk.is_full),
        }
        weights = [8, 8, 4, 1, 1, 4]
        while time.monotonic() < end_s:
            if self._random.random() < FAULTS_PER_S * TICK_S:
                (name,) = self._random.choices(list(actions), weights)
                actions[name]()
                self.totals[f"asked: {name}"] += 1
            session.watch()
            session.refresh()
            session.bus.publish("status", {})
            for engine in self._engines[:-1]:
                engine.hangs.clear()  # given up: its thread may end
            time.sleep(TICK_S)

    def _close_accounts(self, session: LiveSession, recorder: TriggerRecorder, workers: list[OutputWorker]) -> None:
        accounts = session.accounts
        if not (accounts.closes() and accounts.samples_waiting == 0):
            self.faults.append(f"samples: {accounts}")
        if not (recorder.accounts.closes() and recorder.accounts.waiting == 0):
            self.faults.append(f"recorder: {recorder.accounts}")
        self.faults += [f"{w.output.name}: {w.accounts}" for w in workers if not w.accounts.closes()]
        size = sum(path.stat().st_size for path in (self._folder / "recordings").iterdir())
        if size > 20_000_000:
            self.faults.append(f"recordings: {size} bytes in a quota of 20000000")
        for name in (
            "samples_in",
            "samples_searched",
            "samples_missed",
            "events",
            "hangs",
            "reloads",
            "failures",
            "gaps",
        ):
            self.totals[name] += getattr(accounts, name)
        self.totals["recordings"] += recorder.accounts.written


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def soak(bundle: Path, seconds: float, seed: int, rate_hz: float, session_s: float = SESSION_S) -> dict[str, Any]:
    """Run sessions for `seconds`; returns totals and the list of faults, empty when everything closed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Soak(bundle, seed, Path(folder), rate_hz)
        end_s = time.monotonic() + seconds
        threads = memory = 0
        while (left_s := end_s - time.monotonic()) > 0 or not run.totals["sessions"]:
            run.run(max(0.5, min(session_s, left_s)))
            run.totals["sessions"] += 1
            gc.collect()
            if not memory:
                threads, memory = _settled_threads(threading.active_count()), resident_bytes()
        now = _settled_threads(threads)
        growth = resident_bytes() - memory
        if now > threads:
            run.faults.append(f"threads: {now} after the last session, {threads} after the first")
        if growth > MOST_GROWTH_BYTES:
            run.faults.append(f"memory: grew by {growth} bytes after the first session")
        return {"totals": dict(run.totals), "threads": now, "growth_bytes": growth, "faults": run.faults}


def _settled_threads(expected: int) -> int:
    """Threads, once those that were given up have ended."""
    end_s = time.monotonic() + SETTLE_S
    while threading.active_count() > expected and time.monotonic() < end_s:
        time.sleep(0.05)
    return threading.active_count()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2.4e6, help="sample rate in Hz")
    options = parser.parse_args()
    result = soak(options.bundle, options.seconds, options.seed, options.rate)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
