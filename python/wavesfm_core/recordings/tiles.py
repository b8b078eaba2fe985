# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiles of a recording, as a flowgraph that plays it cuts them."""

from __future__ import annotations

from collections.abc import Iterator

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..preprocess.tile_stream import TileStream
from ..types import Tile
from .iqstream import IQStream
from .recording import Recording


def new_stream(recording: Recording | IQStream, spec: SpectrogramSpec) -> TileStream:
    """A TileStream for the tiles of `recording`, with the rate, frequency, time and number of its first sample."""
    first = recording.segments[0]
    return TileStream(spec, recording.rate_hz, first.centre_hz, first.time, first.start_sample)


def cut_tiles(recording: Recording | IQStream, stream: TileStream) -> Iterator[Tile]:
    """All tiles of a recording, of which `stream` is a `new_stream`.

    A segment starts a new tile where its frequency differs or its time does not follow on.
    """
    segments = recording.segments
    stops = [*(segment.start_sample for segment in segments[1:]), recording.stop_sample]
    for segment, stop in zip(segments, stops, strict=True):
        if segment is not segments[0]:
            yield from stream.retune(centre_hz=segment.centre_hz, time=segment.time)
        for block in recording.blocks(start=segment.start_sample, stop=stop):
            yield from stream.push(block)
    yield from stream.finish()
