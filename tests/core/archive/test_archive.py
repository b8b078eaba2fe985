# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings shared out to processes: each once, results whole, and a run that goes on after any process was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.archive_reading import WatchedReading, opened, processes
from wavesfm_core.archive.job import ArchiveJob
from wavesfm_core.archive.processes import ProcessCrew
from wavesfm_core.archive.results import opened_results, read_result, record_path
from wavesfm_core.archive.schedule import ArchiveSummary, Death, run_archive
from wavesfm_core.archive.worker import ArchiveWorker
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.errors import ConfigurationError, EngineError

Tone = Callable[..., np.ndarray]
PROGRAM = """
import contextlib, sys
sys.path[:0] = {path!r}
from pathlib import Path
from support.archive_reading import WatchedReading
from wavesfm_core.archive.job import ArchiveJob
from wavesfm_core.archive.processes import ProcessCrew
from wavesfm_core.archive.results import opened_results
from wavesfm_core.archive.schedule import run_archive

if __name__ == "__main__":
    job = ArchiveJob(
        "classify", Path({model!r}), {bundle_id!r}, Path({results!r}), WatchedReading({folder!r}),
        device="onnxruntime", detect="off",
    )
    with opened_results(job), contextlib.closing(ProcessCrew(job, 2)) as crew:
        run_archive(job, {recordings!r}, crew)
"""


@pytest.fixture()
def make_job(fake_bundle: Path, tmp_path: Path) -> Callable[..., ArchiveJob]:
    """make_job(**changes) -> a job whose reading watches."""

    def make(**changes: Any) -> ArchiveJob:
        reading = WatchedReading(str(tmp_path))
        options = {"device": "onnxruntime", "detect": "off", "reading": reading, "results": tmp_path / "results"}
        return ArchiveJob(
            **{
                "action": "classify",
                "model": fake_bundle,
                "bundle_id": Bundle.open(fake_bundle).id,
                **options,
                **changes,
            }
        )

    return make


@pytest.fixture()
def recordings(tmp_path: Path, tone: Tone) -> Callable[..., list[str]]:
    """recordings(*names) -> paths of recordings of a carrier below the centre."""
    samples = tone(-0.2, 3 * 2048).tobytes()

    def make(*names: str) -> list[str]:
        paths = [tmp_path / f"{name}.cf32" for name in names]
        for path in paths:
            path.write_bytes(samples if "short" not in path.name else samples[:80])
        return [str(path) for path in paths]

    return make


class HereCrew:
    """Workers in this process; `deaths` has the recordings at which one dies."""

    size = 2

    def __init__(self, job: ArchiveJob, deaths: tuple[str, ...] = ()) -> None:
        self._worker, self._deaths = ArchiveWorker(job), deaths
        self._running: dict[int, str] = {}
        self.closed = False

    def start(self, slot: int, recording: str) -> None:
        assert slot not in self._running
        self._running[slot] = recording

    def wait(self) -> list[tuple[int, Any]]:
        slot, recording = self._running.popitem()
        if any(name in recording for name in self._deaths):
            return [(slot, Death("killed by a test"))]
        return [(slot, self._worker.work(recording))]

    def close(self) -> None:
        self._worker.close()


def run(job: ArchiveJob, paths: list[str], crew: Any = HereCrew) -> ArchiveSummary:
    with opened_results(job), contextlib.closing(crew(job)) as workers:
        return run_archive(job, paths, workers)


def names(summary: ArchiveSummary) -> list[str]:
    return sorted(Path(result.recording).stem for result in summary.results)


def test_each_recording_gets_a_record_and_its_predictions(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path
) -> None:
    job, paths = make_job(), recordings("a", "b")
    summary = run(job, [*paths, paths[0]])
    assert names(summary) == ["a", "b"] and summary.failed == []
    result = read_result(job.results, paths[0])
    assert result is not None
    assert (result.state, result.label, result.tiles, result.n_samples) == ("done", "left", 3, 6144)
    assert [finding["label"] for finding in result.findings] == ["left"]
    lines = record_path(job.results, paths[0]).with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["start_sample"] for line in lines] == [0, 2048, 4096]
    assert opened(tmp_path) == ["b.cf32", "a.cf32"]


def test_a_second_run_does_nothing_again_but_what_failed(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path, tone: Tone
) -> None:
    job, paths = make_job(), recordings("a", "short")
    first = run(job, paths)
    (failure,) = first.failed
    assert failure.recording == paths[1] and "found 10 samples" in failure.error
    Path(paths[1]).write_bytes(tone(0.3, 2048).tobytes())
    second = run(job, [*paths, *recordings("new")])
    assert (second.done_before, second.failed, names(second)) == (1, [], ["a", "new", "short"])
    assert sorted(opened(tmp_path)) == ["a.cf32", "new.cf32", "short.cf32", "short.cf32"]


def test_a_record_that_is_no_record_is_made_again(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]]
) -> None:
    job, paths = make_job(), recordings("a", "b", "c")
    run(job, paths)
    record_path(job.results, paths[0]).write_text('{"state": "done"}')
    record_path(job.results, paths[1]).write_text("[" * 100000)
    record_path(job.results, paths[2]).write_bytes(b"\xff\x00")
    assert run(job, paths).done_before == 0


def test_a_recording_at_which_workers_die_costs_only_itself(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]]
) -> None:
    job, paths = make_job(), recordings("a", "deadly", "b")
    summary = run(job, paths, lambda job: HereCrew(job, ("deadly",)))
    assert summary.worker_deaths == 2
    assert [result.error for result in summary.failed] == ["2 workers ended at this recording: killed by a test"]
    assert names(summary) == ["a", "b", "deadly"]


def test_workers_that_only_die_end_the_run(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]]
) -> None:
    job, paths = make_job(), recordings(*(f"deadly{i}" for i in range(20)))
    with pytest.raises(EngineError, match=r"workers: found 12 deaths in a row \(killed by a test\)"):
        run(job, paths, lambda job: HereCrew(job, ("deadly",)))


def test_processes_that_are_killed(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path
) -> None:
    job, paths = make_job(), recordings("a", "once", "b", "deadly", "short", "c")
    summary = run(job, paths, lambda job: ProcessCrew(job, 2))
    assert names(summary) == ["a", "b", "c", "deadly", "once", "short"]
    failed = {Path(result.recording).stem: result.error for result in summary.failed}
    assert failed.keys() == {"deadly", "short"}
    assert failed["deadly"] == "2 workers ended at this recording: killed by SIGKILL"
    assert summary.worker_deaths == 3
    assert sorted(opened(tmp_path)) == sorted(
        f"{name}.cf32" for name in ("a", "b", "c", "deadly", "deadly", "once", "once", "short")
    )
    assert os.getpid() not in processes(tmp_path)


def test_a_run_that_was_killed_goes_on(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path
) -> None:
    job, paths = make_job(), recordings("a", "b", "wait1", "wait2", "c")
    values = {"model": str(job.model), "bundle_id": job.bundle_id, "results": str(job.results), "recordings": paths}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(path=sys.path, folder=str(tmp_path), **values))
    process = subprocess.Popen([sys.executable, str(program)])
    try:
        while len(opened(tmp_path)) < 4:  # both workers wait now
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(ConfigurationError, match="found a run that is under way"), opened_results(job):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for pid in processes(tmp_path):  # the workers end with it
        while _alive(pid):
            time.sleep(0.02)
    (tmp_path / "go").touch()
    summary = run(job, paths)
    assert (summary.done_before, summary.failed, names(summary)) == (2, [], ["a", "b", "c", "wait1", "wait2"])
    assert opened(tmp_path).count("a.cf32") == opened(tmp_path).count("b.cf32") == opened(tmp_path).count("c.cf32") == 1
    left = [path.name for path in (job.results / "recordings").iterdir() if path.suffix not in (".json", ".jsonl")]
    assert left == []


def _alive(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to be noted as ended does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_another_job_is_not_continued(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path
) -> None:
    run(make_job(), recordings("a"))
    with pytest.raises(ConfigurationError, match=r"manifest\.json: job threshold: found None, expected 0\.5"):
        run(make_job(threshold=0.5), recordings("a"))
    assert run(make_job(threads=3, precision="f32"), recordings("a")).done_before == 1
    (tmp_path / "results" / "manifest.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"manifest\.json: contents: found no manifest"):
        run(make_job(), recordings("a"))


def test_another_bundle_at_the_same_place_is_refused(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]]
) -> None:
    summary = run(make_job(bundle_id="fake@0"), recordings("a"))
    assert "id: found fake@" in summary.failed[0].error


def test_a_folder_that_cannot_be_written(make_job: Callable[..., ArchiveJob], tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ConfigurationError, match="results: found"), opened_results(make_job()):
        pass


def test_annotations_are_written(
    make_job: Callable[..., ArchiveJob], recordings: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    paths = recordings("a", "b")
    beside = run(make_job(action="annotate"), paths)
    assert [Path(each.annotated).name for each in beside.results] == ["b.sigmf-meta", "a.sigmf-meta"]
    assert json.loads((tmp_path / "a.sigmf-meta").read_text())["annotations"][0]["core:label"] == "left"
    job = make_job(action="annotate", annotations=tmp_path / "out", results=tmp_path / "others")
    assert {Path(each.annotated).parent for each in run(job, paths).results} == {tmp_path / "out"}
