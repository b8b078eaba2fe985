# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model that knows UNKNOWN does on views: accuracy, rejection of held-out families, calibration, recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.heads import softmax
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.tile import prepare
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.types import UNKNOWN

from ..data.tile_dataset import Tiles, read_shard_note, read_shards
from ..signals.views import view_dataset
from .evaluate_recordings import OPEN_TASK_FILE, ManifestRow, read_manifest
from .evaluate_tiles import tile_logits
from .open_set import auroc, calibration_error, false_positives, rejection_scores, threshold_for
from .zoomed_recordings import fills_band, regions, zoom

CLEAR_DB = 5.0  # of the signals that scores are compared on
FACTORS = (1.6, 3.0)  # rates of zoomed views over their width
SPAN_S = 0.3  # of the pieces in which a recording is looked at
MOST_PIECES = 3
UNDOCUMENTED_RATE_HZ = 1e6


class View(NamedTuple):
    """A tile of a recording: its picture as in `Tiles`, log10 of its rate, and "whole" or "zoom"."""

    picture: NDArray[np.uint8]
    log10_rate: float
    kind: str


def answers(logits: NDArray, pipeline: Pipeline) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Label indices [N] and confidences [N] as the bundle's head answers them; UNKNOWN has the index of its label."""
    head = pipeline.bundle.spec.head
    p = softmax(np.asarray(logits, np.float64) / head.temperature)
    found = p.argmax(axis=1)
    if UNKNOWN in head.labels:
        at = head.labels.index(UNKNOWN)
        found = np.where((p[:, at] >= head.unknown_from) | (p.max(axis=1) < head.threshold), at, found)
    return found, p.max(axis=1)


def held_out_report(pipeline: Pipeline, known_tiles: Path, held_out: Path, max_tiles: int | None = None) -> dict:
    """AUROC and false positives at 95 % recall of each score, families that training never saw against the classes.

    Over tiles of CLEAR_DB and more. by_family: share called UNKNOWN, and what the others are mostly called.
    """
    labels = pipeline.bundle.spec.head.labels
    known, strange = read_shards(known_tiles, max_tiles), read_shards(held_out, max_tiles)
    logits, others = tile_logits(pipeline, known), tile_logits(pipeline, strange)
    clear = (known.snr_db >= CLEAR_DB) & (known.label != labels.index(UNKNOWN))
    seen = strange.snr_db >= CLEAR_DB
    ours, theirs = rejection_scores(logits[clear], labels), rejection_scores(others[seen], labels)
    found, _ = answers(others, pipeline)
    return {
        "known": int(clear.sum()),
        "unknown": int(seen.sum()),
        "scores": {
            name: {
                "auroc": round(auroc(ours[name], theirs[name]), 4),
                "false_positives_95": round(false_positives(ours[name], theirs[name]), 4),
                "unknown_rejected_at_5": round(float(np.mean(theirs[name] > threshold_for(ours[name]))), 4),
            }
            for name in ours
        },
        "called_unknown": round(float(np.mean(found[seen] == labels.index(UNKNOWN))), 4),
        "by_family": _by_family(held_out, found, seen, labels),
    }


def _by_family(directory: Path, found: NDArray, seen: NDArray, labels: Sequence[str]) -> dict[str, Any]:
    spec = SpectrogramSpec()
    data = view_dataset("held-out", read_shard_note(directory)["seed"], spec.tile_samples, spec.min_samples)
    family = np.array([data.plan(index).family for index in range(len(found))])
    report = {}
    for name in sorted(set(family)):
        called = [labels[k] for k in found[(family == name) & seen]]
        share = called.count(UNKNOWN) / max(1, len(called))
        wrong = Counter(label for label in called if label != UNKNOWN).most_common(3)
        report[name] = {"tiles": len(called), "called_unknown": round(share, 3), "else": dict(wrong)}
    return report


def views_report(pipeline: Pipeline, directory: Path, max_tiles: int | None = None) -> dict[str, Any]:
    """Accuracy by class at 10 dB and better, calibration error, and the share of known signals called UNKNOWN."""
    labels = pipeline.bundle.spec.head.labels
    tiles: Tiles = read_shards(directory, max_tiles)
    found, confidence = answers(tile_logits(pipeline, tiles), pipeline)
    right, clear = found == tiles.label, tiles.snr_db >= 10
    at = labels.index(UNKNOWN) if UNKNOWN in labels else -1
    known = (tiles.label != at) & (tiles.snr_db >= CLEAR_DB)

    def mean(where: NDArray[np.bool_]) -> float | None:
        shares = [right[where & (tiles.label == k)].mean() for k in np.unique(tiles.label[where])]
        return round(float(np.mean(shares)), 4) if shares else None

    return {
        "n_tiles": len(tiles),
        "mean_class_accuracy_10db": mean(clear),
        "mean_class_accuracy_5_to_10db": mean((tiles.snr_db >= 5) & (tiles.snr_db < 10)),
        "mean_class_accuracy_0_to_5db": mean((tiles.snr_db >= 0) & (tiles.snr_db < 5)),
        "class_accuracy_10db": {
            labels[k]: round(float(right[clear & (tiles.label == k)].mean()), 3) for k in np.unique(tiles.label[clear])
        },
        "calibration_error": round(calibration_error(confidence, right), 4),
        "known_called_unknown": round(float(np.mean(found[known] == at)), 4),
    }


def views_of(row: ManifestRow, spec: SpectrogramSpec) -> Iterator[View]:
    """Tiles of a recording: whole ones with their mean removed, and zoomed ones of pieces of SPAN_S."""
    plain = spec.unscaled()

    def view(iq: NDArray, rate_hz: float, kind: str) -> View:
        tile = prepare(np.ascontiguousarray(iq, np.complex64), plain)[0]
        return View(np.rint(tile * 255).astype(np.uint8), float(np.log10(rate_hz)) if rate_hz else 0.0, kind)

    with open_recording(row.path, rate_hz=row.rate_hz or None, sample_format=row.sample_format) as recording:
        iq = np.concatenate(list(recording.blocks(stop=min(recording.n_samples, 5 * spec.tile_samples))))
    for first in range(0, len(iq) - spec.min_samples + 1, spec.tile_samples):
        piece = iq[first : first + spec.tile_samples]
        yield view(piece - piece.mean(), row.rate_hz, "whole")
    rate_hz = row.rate_hz or UNDOCUMENTED_RATE_HZ
    span = max(int(SPAN_S * rate_hz), spec.min_samples) if row.rate_hz else len(iq)
    for first in range(0, min(len(iq) - spec.min_samples + 1, MOST_PIECES * span), span):
        piece = iq[first : first + span]
        for region in regions(piece, rate_hz):
            if fills_band(region, rate_hz):
                continue
            for factor in FACTORS:
                cut, new_hz = zoom(piece, rate_hz, region, factor, spec.min_samples, spec.tile_samples)
                if len(cut) >= spec.min_samples:
                    yield view(cut, new_hz if row.rate_hz else 0.0, "zoom")


def recordings_report(pipeline: Pipeline, manifest: Path) -> dict[str, Any]:
    """Whole and zoomed views of real recordings: by recording and class, calibration error, unknown against known.

    A recording's label is that of its views' mean probabilities, at the head's thresholds.
    """
    spec = pipeline.stream_spec
    head = pipeline.bundle.spec.head
    files, tiles_right, confidences = [], [], []
    for row in read_manifest(manifest, OPEN_TASK_FILE):
        views = list(views_of(row, spec))
        for kind in ("whole", "zoom"):
            mine = [view for view in views if view.kind == kind]
            if not mine:
                continue
            n = len(mine)
            tiles = Tiles(
                np.stack([view.picture for view in mine]),
                np.zeros(n, np.int64),
                np.array([view.log10_rate for view in mine], np.float32),
                np.zeros(n, np.float32),
                np.zeros(n, np.int32),
            )
            logits = tile_logits(pipeline, tiles)
            found, confidence = answers(logits, pipeline)
            p = softmax(logits.astype(np.float64) / head.temperature).mean(axis=0)
            whole, _ = answers(head.temperature * np.log(p[None] + 1e-12), pipeline)
            right = [head.labels[k] == row.label for k in found]
            tiles_right += right
            confidences += confidence.tolist()
            files.append(
                {
                    "file": str(row.path.relative_to(manifest.parent)),
                    "kind": kind,
                    "label": row.label,
                    "found": head.labels[int(whole[0])],
                    "confidence": round(float(p.max()), 3),
                    "tiles": n,
                    "tiles_right": int(np.sum(right)),
                }
            )
    error = calibration_error(np.array(confidences), np.array(tiles_right, bool))
    return {"calibration_error": round(error, 4), **_summary(files), "files": files}


def _summary(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for kind in ("whole", "zoom"):
        mine = [f for f in files if f["kind"] == kind]
        labels = sorted({f["label"] for f in mine})
        by_class = {
            label: [
                sum(f["found"] == label for f in mine if f["label"] == label),
                sum(f["label"] == label for f in mine),
            ]
            for label in labels
        }
        known = [f for f in mine if f["label"] not in (UNKNOWN, "noise")]
        summary[kind] = {
            "classes": by_class,
            "mean_class_accuracy": round(float(np.mean([a / b for a, b in by_class.values()])), 4)
            if by_class
            else None,
            "known_called_unknown": round(float(np.mean([f["found"] == UNKNOWN for f in known])), 4) if known else None,
        }
    return summary
