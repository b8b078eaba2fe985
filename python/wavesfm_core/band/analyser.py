# SPDX-License-Identifier: GPL-3.0-or-later
"""One stream of samples -> emitters, their names, and what happens to them; live and offline alike, no threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError, InputError
from ..types import UNKNOWN, Samples, StreamTime
from .looks import READY_SAMPLES, Look, Looker, Namer
from .naming import Budget, add_look, probabilities_of
from .options import BandOptions
from .pieces import Block, block_of
from .ring import SampleRing
from .shadows import is_click, is_faint, is_shadow
from .track import Track
from .tracker import Tracker
from .types import Emitter, Event
from .whole import NAMELESS, SAMPLES, extend, is_uneven, repeats, whole_track

Decide = Callable[[NDArray[np.float64]], tuple[str, float]]
"""Probabilities [labels] -> label and confidence."""

ROUND_S = 0.2  # from one round of looks to the next, which share their transforms
PATIENCE_S = 0.3  # for READY_SAMPLES; then a tile is made of what there is
LINE_S = 0.5  # until a line is examined again
APART_S = 0.15  # between the first looks at one emitter
POWER_STEP_DB = 6.0  # that is a change
WIDTH_STEP = 1.5
SURE = 0.5  # confidence from which on the whole band is given a label


@dataclass
class Findings:
    """What came of some samples.

    Attributes
    ----------
    events : list of Event
        In the order in which they became known.
    looks : list of Look
        Tiles for the engine where no namer was given; their answers go to `BandAnalyser.named`.
    """

    events: list[Event] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


class BandAnalyser:
    """Finds emitters in a stream, has them named, and tells what happens to them.

    Attributes
    ----------
    samples_in : int
        Samples pushed.
    n_nonfinite : int
        Of those, the ones that were NaN or infinite and were taken as zero.
    budget : Budget
        How many emitters were due for a look, and how many had to wait.
    """

    def __init__(
        self,
        spec: SpectrogramSpec,
        labels: Sequence[str],
        rate_hz: float,
        centre_hz: float | None = None,
        time: StreamTime | None = None,
        start_sample: int = 0,
        namer: Namer | None = None,
        options: BandOptions | None = None,
        decide: Decide | None = None,
    ) -> None:
        """A fresh stream.

        Parameters
        ----------
        spec : SpectrogramSpec
            Of the bundle's tiles.
        labels : sequence of str
            Of the bundle.
        rate_hz : float
            Sample rate, known and positive.
        centre_hz : float, optional
            The band's middle in Hz.
        time : StreamTime, optional
            Of the first sample.
        start_sample : int
            Place in the stream of the first sample.
        namer : callable, optional
            Tiles -> probabilities [n, labels]. Without one, `Findings.looks` has the tiles.
        options : BandOptions, optional
            None for the defaults.
        decide : callable, optional
            Probabilities [labels] -> label and confidence. By default the most probable label.

        Raises
        ------
        ConfigurationError
            For a rate that is unknown.
        """
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise ConfigurationError("band", "rate_hz", rate_hz, "a positive sample rate in Hz")
        self.options = options or BandOptions()
        self.samples_in = 0
        self.n_nonfinite = 0
        self.budget = Budget(self.options)
        self._labels = tuple(labels)
        self._namer = namer
        self._decide = decide or self._most_probable
        self._rate = float(rate_hz)
        self._centre = centre_hz
        self._time = time
        self._first = start_sample
        self._fft = self.options.bins(rate_hz)
        self._detector = self.options.make_detector(rate_hz)
        self._ring = SampleRing(self.options.ring_bytes, 2 * self._fft * self.options.block_rows)
        self._tracker = Tracker(
            self._fft, self._rows(self.options.hold_s), self._rows(self.options.memory_s), self.options.most_emitters
        )
        self._round_row = -self._rows(ROUND_S)  # of the last round of looks
        self._whole: Track | None = None
        self._whole_row = 0  # until which the band was last asked about as a whole
        self._whole_known: tuple[NDArray[np.float64] | None, int] = (None, 0)  # the last sure answer
        self._answered = False  # whether there is news of it
        self._whole_from = 0  # since which nothing was found in the band
        self._whole_wait = 1  # rows until it is again: more each time
        self._looker = Looker(spec, self._rate, self._fft, self.options)

    def push(self, samples: NDArray[Any]) -> Findings:
        """Takes complex64 [n] in and returns what became known; raises InputError for another type or shape."""
        if not isinstance(samples, np.ndarray) or samples.dtype != np.complex64 or samples.ndim != 1:
            found = getattr(samples, "dtype", type(samples).__name__)
            raise InputError("band", "samples", found, "a vector of complex64")
        findings = Findings()
        samples = np.ascontiguousarray(samples)
        each = self._fft * self.options.block_rows  # so that what a look sees does not depend on the chunks
        at = 0
        while at < samples.size:
            count = min(each - self.samples_in % each, samples.size - at)
            self._push(samples[at : at + count], findings)
            at += count
        return findings

    def finish(self) -> Findings:
        """The rest of the stream, and the end of every emitter; the analyser is of no use afterwards."""
        findings = Findings()
        made = self._detector.flush()
        if made is not None:
            self._take(block_of(made), findings)
        row = self.samples_in // self._fft
        due = [track for track in self._told() if not track.ended and self._wants_last_look(track)]
        self._look(self.budget.spend(sorted(due, key=lambda track: track.n_looks)), row, findings)
        for track in self._told():
            if not track.ended:
                track.ended = True
                self._end(track, findings)
        if self._answered:
            self._tell_whole(findings)
        self._drop_whole(findings)
        return findings

    def named(self, look: Look, probabilities: NDArray[np.floating]) -> None:
        """What the engine says of a tile, probabilities [labels]; its events come with the next samples."""
        if probabilities.shape != (len(self._labels),):
            raise InputError("band", "probabilities", probabilities.shape, f"[{len(self._labels)}]")
        add_look(look.track, probabilities)
        if look.track is self._whole:
            self._answered = True

    def emitters(self) -> list[Emitter]:
        """All that are known and told of, as they are now, in the order of their numbers."""
        return [self._emitter(track) for track in sorted(self._told(), key=lambda track: track.number)]

    def _push(self, samples: Samples, findings: Findings) -> None:
        self.samples_in += samples.size
        self._ring.push(samples)
        for made in self._detector.push(samples):
            self._take(block_of(made), findings)

    def _take(self, block: Block, findings: Findings) -> None:
        self.n_nonfinite += block.n_nonfinite
        self.budget.earn((block.stop - block.start) * self._fft / self._rate)
        for gone in self._tracker.take(block):
            if gone.told:
                gone.kind = "shadow"
                findings.events.append(self._event("ended", gone.last_row, gone))
        ends = self._tracker.expired(block.stop)
        self._tell(block, findings)
        self._watch_whole(block, findings)
        if block.stop - self._round_row >= self._rows(ROUND_S) or ends:
            self._look_round(block.stop, ends, findings)
        for track in ends:
            if track.told:
                self._end(track, findings)

    def _look_round(self, row: int, ends: Sequence[Track], findings: Findings) -> None:
        """Those due for a look, together: they share a transform."""
        here = [track for track in self._told() if track in ends or not track.ended]
        due = [track for track in here if self._is_due(track, row, 1.0)]
        if due:  # those that would be due soon cost less now
            self._round_row = row
            due = [track for track in here if self._is_due(track, row, 0.5)]
        due.sort(key=lambda track: (track.n_looks, -track.cells))
        self._look(self.budget.spend(due), row, findings)

    def _tell(self, block: Block, findings: Findings) -> None:
        tracks = self._tracker.tracks
        for track in tracks:
            if track.ended or track.told:
                continue
            if is_faint(track) or is_click(track, self._fft) or is_shadow(track, tracks):
                continue
            if (track.last_row - track.first_row) * self._fft / self._rate < self.options.dwell_s:
                continue
            track.told = True
            track.told_width, track.told_db = track.width, self._levels(track)[1]
            findings.events.append(self._event("appeared", track.first_row, track))
        for track in self._told():
            changes = () if track.ended else self._changes(track)
            if changes:
                findings.events.append(self._event("changed", block.stop, track, changes))

    def _watch_whole(self, block: Block, findings: Findings) -> None:
        """What fills the band is asked about now and then, while nothing is found in it and it is more than noise."""
        found = any(track.told and not track.ended and track.kind == "signal" for track in self._tracker.tracks)
        if self._answered:
            self._answered = False
            self._tell_whole(findings)
        if found:
            self._drop_whole(findings)
            self._whole_from = block.stop
            return
        if self._whole is not None and self._whole.told:
            extend(self._whole, block)
        if block.stop - self._whole_row < self._whole_wait:
            return
        stop = min(block.stop * self._fft, self.samples_in)
        if not (is_uneven(block) or repeats(self._ring.span(stop - SAMPLES, stop))):
            self._drop_whole(findings)
            return
        self._whole_row = block.stop
        self._whole_wait = min(2 * self._whole_wait, self._rows(self.options.relook_s))
        if self._whole is None:
            self._whole = whole_track(self._tracker.number(), block, self._whole_from)
        self._whole.log_sum, self._whole.n_looks = None, 0  # the last answer counts alone
        self._look([self._whole], block.stop, findings)

    def _tell_whole(self, findings: Findings) -> None:
        """Whether the model knows what fills the band."""
        whole = self._whole
        if whole is None or whole.n_looks == 0:
            return
        label, confidence = self._label(whole)
        if label in NAMELESS or confidence is None or confidence < SURE:
            whole.log_sum, whole.n_looks = self._whole_known  # as it ends, it is what it was
            self._drop_whole(findings)
            return
        self._whole_known = whole.log_sum, whole.n_looks
        if not whole.told:
            whole.told, whole.told_label = True, label
            findings.events.append(self._event("appeared", whole.first_row, whole))

    def _drop_whole(self, findings: Findings) -> None:
        if self._whole is not None and self._whole.told:
            findings.events.append(self._event("ended", self._whole.last_row, self._whole))
        self._whole = None

    def _end(self, track: Track, findings: Findings) -> None:
        if track.kind == "signal" and (is_faint(track) or is_shadow(track, self._tracker.tracks)):
            track.kind = "shadow"
        changes = self._changes(track)
        if changes:
            findings.events.append(self._event("changed", track.last_row, track, changes))
        findings.events.append(self._event("ended", track.last_row, track))

    def _changes(self, track: Track) -> tuple[str, ...]:
        label, power_db = self._label(track)[0], self._levels(track)[1]
        changes = []
        if label != track.told_label:
            changes.append("label")
        if not 1 / WIDTH_STEP < track.width / track.told_width < WIDTH_STEP:
            changes.append("width")
        if abs(power_db - track.told_db) > POWER_STEP_DB:
            changes.append("power")
        if changes:
            track.told_label, track.told_width, track.told_db = label, track.width, power_db
        return tuple(changes)

    def _is_due(self, track: Track, row: int, share: float) -> bool:
        """Whether it is to be looked at at this row; share: of relook_s that must have gone by."""
        if track.kind == "line":  # a carrier may begin to carry something
            fresh = track.last_row > track.looked_row and not track.ended
            return fresh and row - track.looked_row > self._rows(LINE_S)
        if track.kind != "signal":
            return False
        if track.n_looks == 0:
            ready = self._looker.samples_ready(track, row) >= READY_SAMPLES
            return ready or track.ended or row - track.first_row > self._rows(PATIENCE_S)
        if track.last_row <= track.looked_row:
            return False
        since = row - track.looked_row
        if track.n_looks < self.options.looks_per_emitter:
            return since > self._rows(APART_S * 2.0 ** (track.n_looks - 1))
        return since > self._rows(share * self.options.relook_s)

    def _wants_last_look(self, track: Track) -> bool:
        if track.kind not in ("signal", "line") or track.n_looks >= self.options.looks_per_emitter:
            return False
        fresh = track.last_row - max(track.looked_row, track.first_row)
        return track.n_looks == 0 or fresh > (track.last_row - track.first_row) / 4

    def _look(self, tracks: Sequence[Track], row: int, findings: Findings) -> None:
        if not tracks:
            return
        stop = min(row * self._fft + self._fft // 2, self.samples_in)
        looks = self._looker.looks(self._ring, tracks, stop, self._told())
        for track in tracks:
            track.looked_row = row
        looks = [look for look in looks if look.track.kind != "line"]
        if self._namer is None:
            findings.looks += looks
        elif looks:
            answers = self._namer([look.tile for look in looks])
            for look, answer in zip(looks, answers, strict=True):
                self.named(look, answer)

    def _told(self) -> list[Track]:
        return [track for track in self._tracker.tracks if track.told]

    def _rows(self, seconds: float) -> int:
        return max(1, round(seconds * self._rate / self._fft))

    def _levels(self, track: Track) -> tuple[float, float]:
        snr, power = track.levels()
        return 10 * math.log10(max(snr, 1e-12)), 10 * math.log10(max(power, 1e-30))

    def _label(self, track: Track) -> tuple[str, float | None]:
        probabilities = probabilities_of(track)
        if probabilities.size == 0:
            return "", None
        return self._decide(probabilities)

    def _most_probable(self, probabilities: NDArray[np.float64]) -> tuple[str, float]:
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        return self._labels[best] if confidence >= self.options.threshold else UNKNOWN, confidence

    def _place(self, row: int) -> int:
        """The stream's sample at which a row begins: the middle of its first frame's rise."""
        return self._first + min(row * self._fft + self._fft // 4, self.samples_in)

    def _time_of(self, sample: int) -> StreamTime | None:
        return None if self._time is None else self._time.advanced((sample - self._first) / self._rate)

    def _event(self, happening: str, row: int, track: Track, changes: tuple[str, ...] = ()) -> Event:
        sample = self._place(row)
        return Event(happening, sample, self._time_of(sample), changes, self._emitter(track))

    def _emitter(self, track: Track) -> Emitter:
        start, stop = self._place(track.first_row), self._place(track.last_row)
        low_hz, high_hz = self._looker.edges(track)
        label, confidence = self._label(track)
        snr_db, power_db = self._levels(track)
        return Emitter(
            number=track.number,
            kind=track.kind,
            label=label,
            confidence=confidence,
            probabilities=dict(zip(self._labels, map(float, probabilities_of(track)))),
            n_looks=track.n_looks,
            start_sample=start,
            n_samples=stop - start,
            low_hz=low_hz,
            high_hz=high_hz,
            centre_hz=self._centre,
            time=self._time_of(start),
            rate_hz=self._rate,
            snr_db=snr_db,
            power_db=power_db,
            n_bursts=track.n_bursts,
            duty=track.rows_on / max(track.last_row - track.first_row, 1),
        )
