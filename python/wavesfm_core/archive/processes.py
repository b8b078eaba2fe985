# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from .job import ArchiveJob
from .results import RecordingResult
from .schedule import Death
from .worker import ArchiveWorker

CONTEXT = multiprocessing.get_context("spawn")  # runtimes have threads, which a fork does not copy


class ProcessCrew:
    """See `Crew`. A worker ends at once when this process ends, however it ends.

    Parameters
    ----------
    job : ArchiveJob
        The job.
    size : int
        Processes, started when they are needed.
    """

    def __init__(self, job: ArchiveJob, size: int) -> None:
        self._job = job
        self.size = size
        self._workers: dict[int, tuple[SpawnProcess, Connection]] = {}

    def start(self, slot: int, recording: str) -> None:
        """See `Crew.start`."""
        if slot not in self._workers:
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(self._job, there), name=f"wavesfm-archive-{slot}")
            process.start()
            there.close()  # so that the end of the process ends the pipe
            self._workers[slot] = process, here
        try:
            self._workers[slot][1].send(recording)
        except OSError:  # it died between two recordings: `wait` sees the end of the pipe
            return

    def wait(self) -> list[tuple[int, RecordingResult | Death]]:
        """See `Crew.wait`."""
        slots = {connection: slot for slot, (_, connection) in self._workers.items()}
        outcomes: list[tuple[int, RecordingResult | Death]] = []
        for connection in wait(list(slots)):
            assert isinstance(connection, Connection)
            slot = slots[connection]
            try:
                outcomes.append((slot, connection.recv()))
            except (EOFError, OSError):
                outcomes.append((slot, self._bury(slot)))
        return outcomes

    def close(self) -> None:
        """See `Crew.close`."""
        for process, connection in self._workers.values():
            connection.close()
            process.kill()
        for process, _ in self._workers.values():
            process.join()
        self._workers.clear()

    def _bury(self, slot: int) -> Death:
        process, connection = self._workers.pop(slot)
        connection.close()
        process.join()
        code = process.exitcode or 0
        return Death(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")


def _serve(job: ArchiveJob, connection: Connection) -> None:
    """A worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = ArchiveWorker(job)
    while True:
        try:
            recording = connection.recv()
        except EOFError:
            return
        connection.send(worker.work(recording))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
