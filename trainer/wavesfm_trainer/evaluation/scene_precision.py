# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenes of several signals, searched and named with a bundle: counts, and mean average precision over the classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from wavesfm_core.band.types import boxes as signals_of
from wavesfm_core.band_stream import BandStream
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.types import NOISE, UNKNOWN

from .band_scenes import BandScene, Box, Score, Truth, make_band_scene, score
from .zoomed_recordings import regions

CHUNK = 1 << 20
MATCH_IOU = 0.5
REGIONS = 64  # of the energy detector, at most
REGION_BINS = 4096


def area_iou(truth: Truth, box: Box) -> float:
    """Intersection over union of two rectangles of time and frequency."""
    seconds = min(truth.stop_s, box.stop_s) - max(truth.start_s, box.start_s)
    hertz = min(truth.high_hz, box.high_hz) - max(truth.low_hz, box.low_hz)
    if seconds <= 0 or hertz <= 0:
        return 0.0
    areas = [(each.stop_s - each.start_s) * (each.high_hz - each.low_hz) for each in (truth, box)]
    return float(seconds * hertz / (sum(areas) - seconds * hertz))


def average_precision(truths: Sequence[Sequence[Truth]], boxes: Sequence[Sequence[Box]], label: str) -> float:
    """Area under the curve of precision over recall of one class, over several scenes.

    Parameters
    ----------
    truths, boxes : sequence of sequence
        Of each scene. The boxes of the class are matched in the order of falling confidence, each with the truth of
        the class that it overlaps best (`area_iou` of 0.5 and more) and that no other has yet.
    label : str
        The class.

    Returns
    -------
    float
        0 to 1; NaN where no truth is of the class.

    References
    ----------
    Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, section 4.2, with all points of the curve.
    """
    total = sum(truth.label == label for scene in truths for truth in scene)
    if total == 0:
        return float("nan")
    ranked = sorted(
        ((box, k) for k, scene in enumerate(boxes) for box in scene if box.label == label),
        key=lambda pair: -pair[0].confidence,
    )
    taken: set[tuple[int, int]] = set()
    right = np.zeros(len(ranked))
    for place, (box, k) in enumerate(ranked):
        ious = [area_iou(truth, box) if truth.label == label else 0.0 for truth in truths[k]]
        best = int(np.argmax(ious)) if ious else 0
        if ious and ious[best] >= MATCH_IOU and (k, best) not in taken:
            taken.add((k, best))
            right[place] = 1
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * right).sum() / total)


def mean_average_precision(
    truths: Sequence[Sequence[Truth]], boxes: Sequence[Sequence[Box]]
) -> tuple[float, dict[str, float]]:
    """Mean over the classes that occur, and each of them; see `average_precision`."""
    labels = sorted({truth.label for scene in truths for truth in scene})
    of_class = {label: average_precision(truths, boxes, label) for label in labels}
    return (float(np.mean(list(of_class.values()))) if of_class else float("nan")), of_class


def searched_boxes(pipeline: Pipeline, scene: BandScene) -> list[Box]:
    """What the search of the band finds in a scene, named by the pipeline."""
    stream = BandStream(pipeline, scene.rate_hz)
    events = []
    for at in range(0, len(scene.iq), CHUNK):
        events += stream.push(scene.iq[at : at + CHUNK])
    events += stream.finish()
    return [
        Box(
            each.label,
            each.start_sample / scene.rate_hz,
            (each.start_sample + each.n_samples) / scene.rate_hz,
            each.low_hz,
            each.high_hz,
            each.confidence or 0.0,
        )
        for each in signals_of(events)
        if each.label != NOISE
    ]


def whole_band_boxes(pipeline: Pipeline, scene: BandScene) -> list[Box]:
    """What an energy detector finds in a scene; each box gets the label of the whole band at its middle."""
    tiles = [
        (each.start_sample / scene.rate_hz, each.label, each.confidence or 0.0)
        for each in pipeline.classify(scene.iq, scene.rate_hz)
    ]
    found = []
    for region in regions(scene.iq, scene.rate_hz, REGIONS, REGION_BINS):
        start_s, stop_s = region.start / scene.rate_hz, region.stop / scene.rate_hz
        before = [tile for tile in tiles if tile[0] <= (start_s + stop_s) / 2]
        _, label, confidence = before[-1] if before else (0.0, UNKNOWN, 0.0)
        found.append(Box(label, start_s, stop_s, region.low_hz, region.high_hz, confidence))
    return found


def scenes_report(pipeline: Pipeline, seeds: Iterable[int], **scene_options: Any) -> dict[str, Any]:
    """Counts of `band_scenes.score` and mean average precision over scenes, for the search and for the peer.

    Parameters
    ----------
    pipeline : Pipeline
        Of a bundle for spectrograms.
    seeds : iterable of int
        One scene each.
    scene_options
        Of `make_band_scene`.
    """
    truths: list[Sequence[Truth]] = []
    boxes: dict[str, list[Sequence[Box]]] = {"search": [], "energy": []}
    counts = Score()
    for seed in seeds:
        scene = make_band_scene(seed, **scene_options)
        truths.append(scene.truths)
        boxes["search"].append(searched_boxes(pipeline, scene))
        boxes["energy"].append(whole_band_boxes(pipeline, scene))
        counts = counts + score(scene.truths, boxes["search"][-1])
    mean, of_class = mean_average_precision(truths, boxes["search"])
    return {
        "counts": asdict(counts),
        "map_50": mean,
        "average_precision_50": of_class,
        "map_50_energy_detector_whole_band_label": mean_average_precision(truths, boxes["energy"])[0],
    }
