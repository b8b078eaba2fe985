# SPDX-License-Identifier: GPL-3.0-or-later
"""One process's part: it opens the model once, and analyses one recording after the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..analysis import Analysis, analyse
from ..errors import BundleError, InputError, WavesfmError
from ..pipeline import Pipeline
from ..recordings.findings import Finding
from ..recordings.iqstream import IQStream
from ..recordings.recording import Recording
from .job import ArchiveJob
from .results import DONE, FAILED, RecordingResult, write_result


class ArchiveWorker:
    """Analyses recordings for a job and writes their results.

    Parameters
    ----------
    job : ArchiveJob
        The job; its model is opened with the first recording.
    """

    def __init__(self, job: ArchiveJob) -> None:
        self._job = job
        self._pipeline: Pipeline | None = None

    def work(self, recording: str) -> RecordingResult:
        """Analyse one recording and write its result. Whatever is wrong with it becomes a failed result."""
        begin_s = time.monotonic()
        path = str(Path(recording).absolute())
        analysis = None
        try:
            analysis, annotated = self._analysed(recording)
            result = _result(path, analysis, annotated)
        except WavesfmError as error:
            result = RecordingResult(path, FAILED, str(error))
        except Exception as error:  # one recording costs only itself
            result = RecordingResult(path, FAILED, f"{type(error).__name__}: {error}"[:1000])
        result.seconds = time.monotonic() - begin_s
        try:
            write_result(self._job.results, result, [] if analysis is None else analysis.predictions)
        except (OSError, ValueError) as error:  # a full disk; the next run does this recording again
            return RecordingResult(path, FAILED, f"its result cannot be written: {error}", seconds=result.seconds)
        return result

    def close(self) -> None:
        """Free the model."""
        if self._pipeline is not None:
            self._pipeline.close()

    def _analysed(self, recording: str) -> tuple[Analysis, str]:
        pipeline = self._opened()
        with self._job.reading.open(recording) as opened:
            if isinstance(opened, IQStream):
                raise InputError(recording, "recording", "a stream, which is read once", "a file")
            analysis = analyse(pipeline, opened, detect=self._job.detect)
            return analysis, self._annotated(opened, analysis)

    def _opened(self) -> Pipeline:
        if self._pipeline is None:
            job = self._job
            pipeline = Pipeline.open(
                job.model,
                job.device,
                job.gate_db,
                job.threshold,
                job.threads,
                precision=job.precision,
                device_id=job.device_id,
            )
            if pipeline.bundle.id != job.bundle_id:
                pipeline.close()
                raise BundleError(job.model, "id", pipeline.bundle.id, f"{job.bundle_id}, with which the run began")
            self._pipeline = pipeline
        return self._pipeline

    def _annotated(self, recording: Recording, analysis: Analysis) -> str:
        if self._job.action != "annotate":
            return ""
        from ..recordings.sigmf_annotations import annotate, annotation_path

        target = annotation_path(recording, self._job.annotations)
        return str(annotate(recording, analysis.findings, target))


def _result(path: str, analysis: Analysis, annotated: str) -> RecordingResult:
    summary = analysis.summary
    return RecordingResult(
        path,
        DONE,
        label=summary.label,
        probability=summary.probabilities.get(summary.label),
        rate_hz=analysis.rate_hz,
        centre_hz=analysis.centre_hz,
        n_samples=analysis.n_samples,
        tiles=len(analysis.predictions),
        findings=[_plain(finding) for finding in analysis.findings],
        notes=analysis.notes,
        engine=analysis.engine,
        annotated=annotated,
    )


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.label,
        "confidence": finding.confidence,
        "start_sample": finding.start_sample,
        "n_samples": finding.n_samples,
        "rate_hz": finding.rate_hz,
        "edges_hz": finding.edges_hz(),
        "time": None if finding.time is None else finding.time.as_dict(),
        "tiles": finding.tiles,
        "held_back": finding.held_back,
        "snr_db": finding.snr_db,
        "n_bursts": finding.n_bursts,
        "rate_note": finding.rate_note,
    }
