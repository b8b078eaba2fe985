# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole recording through the same analysis as a live stream, and its boxes as SigMF annotations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, InputError
from ..iqfile import Recording
from ..pipeline import Pipeline
from ..types import Tile
from .analyser import BandAnalyser
from .options import BandOptions
from .types import Emitter, Event

BATCH_TILES = 8


class PipelineNamer:
    """A pipeline as the analyser's namer; used by one thread at a time."""

    def __init__(self, pipeline: Pipeline, batch_tiles: int = BATCH_TILES) -> None:
        """pipeline: without a power gate, since what was found is loud; raises ConfigurationError otherwise."""
        if pipeline.gate.gate_db is not None:
            raise ConfigurationError("band", "gate_db", pipeline.gate.gate_db, "None: what is found is not gated")
        self._pipeline = pipeline
        self._batch = batch_tiles
        self.labels = tuple(pipeline.bundle.spec.head.labels)

    def __call__(self, tiles: Sequence[Tile]) -> NDArray[np.floating]:
        """Probabilities float64 [n, labels] of the tiles; raises EngineError."""
        found: list[list[float]] = []
        for first in range(0, len(tiles), self._batch):
            for prediction in self._pipeline.predict(tiles[first : first + self._batch]):
                found.append([prediction.probabilities[label] for label in self.labels])
        return np.array(found, np.float64).reshape(len(tiles), len(self.labels))


def analyse_recording(recording: Recording, pipeline: Pipeline, options: BandOptions | None = None) -> Iterator[Event]:
    """What happens in a recording, as it becomes known; each of its segments is a stream of its own.

    pipeline: without a power gate. Raises InputError where the sample rate is not known, EngineError.
    """
    if not recording.rate_hz > 0:
        raise InputError(recording.path, "rate_hz", "nothing", "a sample rate, without which there are no frequencies")
    namer = PipelineNamer(pipeline)
    options = options or BandOptions()
    options = replace(options, least_rate_hz=max(options.least_rate_hz, pipeline.bundle.spec.rates_hz[0]))
    starts = [segment.start_sample for segment in recording.segments]
    for segment, stop in zip(recording.segments, [*starts[1:], recording.n_samples], strict=True):
        analyser = BandAnalyser(
            pipeline.stream_spec,
            namer.labels,
            recording.rate_hz,
            segment.centre_hz,
            segment.time,
            segment.start_sample,
            namer,
            options,
        )
        for block in recording.blocks(start=segment.start_sample, stop=stop):
            yield from analyser.push(block).events
        yield from analyser.finish().events


def boxes(events: Iterable[Event]) -> list[Emitter]:
    """The signals among the emitters that have ended, each as it was at its end, in the order of their beginnings."""
    ended = [event.emitter for event in events if event.happening == "ended"]
    return sorted(
        (emitter for emitter in ended if emitter.kind in ("signal", "whole")),
        key=lambda emitter: (emitter.start_sample, emitter.low_hz),
    )


def annotation(emitter: Emitter, bundle_id: str) -> dict[str, Any]:
    """One SigMF annotation: the emitter's box, its label and how sure that is.

    The edges are absolute; where the band's middle is not known, they count from it. What nobody has looked at has no
    label.
    """
    middle = emitter.centre_hz or 0.0
    named = emitter.confidence is not None
    sure = f"confidence {emitter.confidence:.3f}, mean of {_tiles(emitter.n_looks)}" if named else "not looked at"
    box: dict[str, Any] = {
        "core:sample_start": emitter.start_sample,
        "core:sample_count": emitter.n_samples,
        "core:freq_lower_edge": middle + emitter.low_hz,
        "core:freq_upper_edge": middle + emitter.high_hz,
        "core:comment": f"{sure}; {emitter.snr_db:.1f} dB over the noise, {_bursts(emitter)}",
        "core:generator": f"wavesfm {bundle_id}",
    }
    if named:
        box["core:label"] = emitter.label
    return box


def _tiles(count: int) -> str:
    return "1 tile" if count == 1 else f"{count} tiles"


def _bursts(emitter: Emitter) -> str:
    if emitter.n_bursts == 1:
        return "1 burst"
    return f"{emitter.n_bursts} bursts, on the air for {100 * emitter.duty:.0f} %"
