# SPDX-License-Identifier: GPL-3.0-or-later
"""Boxes of recordings that have a label but none: the signals that core's detector finds, or the whole band."""

from __future__ import annotations

import numpy as np
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.types import Emitter, boxes
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.recordings.labelled_boxes import LabelledBox
from wavesfm_core.recordings.recording import Recording

from .boxes import ASSUMED_RATE_HZ

MOST_BOXES = 20
"""Boxes of a recording, at most."""
PIECES = 6
"""Boxes of one emitter, at most: long ones are cut."""
PIECE_SAMPLES = 32768
"""Samples of a view from which on an emitter is cut into several boxes."""
LEAST_ENERGY = 0.03
"""Energy of an emitter over that of the strongest; weaker ones are somebody else's."""
SEARCHED_SAMPLES = 1 << 25
"""Samples of a recording that are searched, from its start."""


def detected_boxes(recording: Recording, label: str, spec: SpectrogramSpec) -> list[LabelledBox]:
    """Boxes of a recording whose label is known as a whole.

    The strongest emitters of the band, long ones in pieces; the whole band in pieces where no emitter is found.

    Parameters
    ----------
    recording : an open one.
    label : of the recording.
    spec : tiles of the network.

    Returns
    -------
    The boxes; none for a recording too short for a tile.
    """
    if recording.n_samples < spec.min_samples:
        return []
    rate_hz = recording.rate_hz or ASSUMED_RATE_HZ
    options = BandOptions()
    emitters = _emitters(recording, rate_hz, spec, options)
    found: list[LabelledBox] = []
    for emitter in emitters:
        width_hz = emitter.high_hz - emitter.low_hz
        if width_hz >= options.whole_share * rate_hz:
            continue
        view_samples = emitter.n_samples * min(1.0, max(options.view_width * width_hz, options.least_rate_hz) / rate_hz)
        spans = _pieces(emitter.start_sample, emitter.n_samples, view_samples)
        edges = emitter.low_hz, emitter.high_hz
        found += [LabelledBox(label, start, stop, *edges, "detected") for start, stop in spans]
    if not found:
        n = min(recording.n_samples, SEARCHED_SAMPLES)
        found = [LabelledBox(label, start, stop, None, None, "whole band") for start, stop in _pieces(0, n, n)]
    rows = np.unique(np.linspace(0, len(found) - 1, min(len(found), MOST_BOXES)).round().astype(int))
    return [found[row] for row in rows]


def _emitters(recording: Recording, rate_hz: float, spec: SpectrogramSpec, options: BandOptions) -> list[Emitter]:
    """Signals of the band in order of time, without those that are far weaker than the strongest."""
    analyser = BandAnalyser(spec, ("signal", "noise"), rate_hz, options=options)
    events = []
    for block in recording.blocks(stop=min(recording.n_samples, SEARCHED_SAMPLES)):
        events += analyser.push(block).events
    events += analyser.finish().events
    signals = [each for each in boxes(events) if each.kind == "signal" and each.n_samples > 0]
    energies = [10 ** (each.power_db / 10) * each.duty * each.n_samples for each in signals]
    least = LEAST_ENERGY * max(energies, default=0.0)
    return [each for each, energy in zip(signals, energies, strict=True) if energy >= least]


def _pieces(start: int, n_samples: int, view_samples: float) -> list[tuple[int, int]]:
    """Spans of equal length, each of PIECE_SAMPLES of a view or more."""
    count = int(np.clip(view_samples // PIECE_SAMPLES, 1, PIECES))
    cuts = np.linspace(start, start + n_samples, count + 1).round().astype(int)
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist()))
