# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers on the machines of a Ray cluster, which see recordings, bundle and results under the same paths."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..errors import ConfigurationError
from ..packages import install_command
from .job import ArchiveJob
from .results import RecordingResult
from .schedule import Death
from .worker import ArchiveWorker


class RayCrew:
    """See `Crew`. Each recording is a task of one processor, on the machine that Ray chooses.

    Parameters
    ----------
    job : ArchiveJob
        The job.
    address : str
        Address of the cluster, such as "auto" or "host:6379".
    size : int
        Recordings at once; 0: as many as the cluster has processors.

    Raises
    ------
    ConfigurationError
        ray is missing, or there is no cluster at the address.
    """

    def __init__(self, job: ArchiveJob, address: str, size: int = 0) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigurationError("command line", "--ray", error, install_command("ray")) from error
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigurationError("command line", "--ray", f"{address} ({error})"[:300], "a Ray cluster") from error
        self._ray: Any = ray
        self._job = ray.put(job)
        self._task = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._slots: dict[Any, int] = {}
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def start(self, slot: int, recording: str) -> None:
        """See `Crew.start`."""
        self._slots[self._task.remote(self._job, recording)] = slot

    def wait(self) -> list[tuple[int, RecordingResult | Death]]:
        """See `Crew.wait`."""
        ready, _ = self._ray.wait(list(self._slots), num_returns=1)
        outcomes: list[tuple[int, RecordingResult | Death]] = []
        for task in ready:
            slot = self._slots.pop(task)
            try:
                outcomes.append((slot, self._ray.get(task)))
            except self._ray.exceptions.RayError as error:
                outcomes.append((slot, Death(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])))
        return outcomes

    def close(self) -> None:
        """See `Crew.close`."""
        for task in self._slots:
            self._ray.cancel(task, force=True)
        self._slots.clear()
        self._ray.shutdown()


@lru_cache(maxsize=1)
def _worker(job: ArchiveJob) -> ArchiveWorker:
    """The worker of this process: Ray gives further tasks to the same process."""
    return ArchiveWorker(job)


def _work(job: ArchiveJob, recording: str) -> RecordingResult:
    return _worker(job).work(recording)
