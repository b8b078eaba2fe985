# SPDX-License-Identifier: GPL-3.0-or-later
"""One stream of samples -> emitters, their names, and what happens to them; live and offline alike."""

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
from .images import is_image, mirrored
from .looks import Look, Looker, Namer
from .naming import Budget, add_look, probabilities_of, relabel
from .options import BandOptions
from .pieces import Block, block_of
from .ring import SampleRing
from .rounds import LookRounds, Submit, run_now
from .shadows import is_click, is_faint, is_shadow
from .track import Track
from .tracker import Tracker
from .types import Emitter, Event
from .whole import NAMELESS, SAMPLES, extend, is_uneven, repeats, whole_track

Decide = Callable[[NDArray[np.float64]], tuple[str, float]]
"""Probabilities [labels] -> label and confidence."""

POWER_STEP_DB = 6.0  # that is a change
WIDTH_STEP = 1.5
DWELL_S = 0.5  # from one change of width or power to the next
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
        submit: Submit = run_now,
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
        submit : callable
            Runs a round of looks, at once by default; with `LookThread.submit` beside the detector.

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
        self._whole: Track | None = None
        self._whole_row = 0  # until which the band was last asked about as a whole
        self._whole_known: tuple[NDArray[np.float64] | None, int, str] = (None, 0, "")  # the last sure answer
        self._answered = False  # whether there is news of it
        self._whole_from = 0  # since which nothing was found in the band
        self._whole_wait = 1  # rows until it is again: more each time
        self._looker = Looker(spec, self._rate, self._fft, self.options)
        self._rounds = LookRounds(self._looker, self._ring, self.budget, self.options, self._rows, namer, submit)

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

    def last_looks(self) -> Findings:
        """The rest of the stream, and a last look at every emitter: before `finish`, where looks take their time."""
        findings = Findings()
        made = self._detector.flush()
        if made is not None:
            self._take(block_of(made), findings)
        self._rounds.last([t for t in self._told() if not t.ended], self.samples_in // self._fft, self.samples_in)
        return findings

    def finish(self) -> Findings:
        """The rest of the stream, and the end of every emitter; the analyser is of no use afterwards."""
        findings = self.last_looks()
        self._hear_answers(findings)
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
        self._enter(look.track, probabilities, look.tile.n_samples)

    def _enter(self, track: Track, probabilities: NDArray[np.floating], n_samples: int) -> None:
        add_look(track, probabilities, n_samples)
        relabel(track, self._decide(probabilities_of(track))[0])
        if track is self._whole:
            self._answered = True

    def _hear_answers(self, findings: Findings) -> None:
        for look, probabilities in self._rounds.answers():
            self._enter(look.track, probabilities, look.tile.n_samples)
        findings.looks += self._rounds.unnamed
        self._rounds.unnamed.clear()

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
        self._hear_answers(findings)
        for gone in self._tracker.take(block):
            if gone.told:
                gone.kind = "shadow"
                findings.events.append(self._event("ended", gone.last_row, gone))
        silent = self._tracker.silences(block.stop)
        self._tell(block, findings)
        self._watch_whole(block, findings)
        if self._rounds.is_time(block.stop) or silent:
            here = [track for track in self._told() if not track.ended]
            self._rounds.round(here, block.stop, self._known_to(block.stop), here)
            self._hear_answers(findings)
        for track in silent:
            if track.pending == 0:  # else its last look is still to be answered
                track.ended, track.silent = True, False
                if track.told:
                    self._end(track, findings)
        self._tracker.forget(block.stop)

    def _tell(self, block: Block, findings: Findings) -> None:
        tracks = self._tracker.tracks
        for track in tracks:
            if track.ended or track.told:
                continue
            if is_faint(track) or is_click(track, self._fft) or is_shadow(track, tracks):
                continue
            if (track.last_row - track.first_row) * self._fft / self._rate < self.options.dwell_s:
                continue
            self._mark_image(track, tracks)
            track.told, track.told_row = True, block.stop
            track.told_width, track.told_db = track.width, self._levels(track)[1]
            findings.events.append(self._event("appeared", track.first_row, track))
        for track in self._told():
            changes = () if track.ended else self._changes(track, block.stop)
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
        if not (is_uneven(block) or repeats(self._ring.samples(stop - SAMPLES, stop))):
            self._drop_whole(findings)
            return
        self._whole_row = block.stop
        self._whole_wait = min(2 * self._whole_wait, self._rows(self.options.relook_s))
        if self._whole is None:
            self._whole = whole_track(self._tracker.number(), block, self._whole_from)
        self._whole.log_mean, self._whole.n_looks = None, 0  # the last answer counts alone
        self._rounds.look([self._whole], block.stop, self._known_to(block.stop), ())
        self._hear_answers(findings)

    def _tell_whole(self, findings: Findings) -> None:
        """Whether the model knows what fills the band."""
        whole = self._whole
        if whole is None or whole.n_looks == 0:
            return
        label, confidence = self._decide(probabilities_of(whole))
        whole.label = label
        if label in NAMELESS or confidence is None or confidence < SURE:
            whole.log_mean, whole.n_looks, whole.label = self._whole_known  # as it ends, it is what it was
            self._drop_whole(findings)
            return
        self._whole_known = whole.log_mean, whole.n_looks, label
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
        if track.n_looks:
            track.label = self._decide(probabilities_of(track))[0]
        changes = self._changes(track)
        if changes:
            findings.events.append(self._event("changed", track.last_row, track, changes))
        findings.events.append(self._event("ended", track.last_row, track))

    def _changes(self, track: Track, row: int | None = None) -> tuple[str, ...]:
        """What is no longer as it was told; row: now, if width and power are to wait for DWELL_S."""
        power_db = self._levels(track)[1]
        changes = []
        if track.label != track.told_label:
            changes.append("label")
        if row is None or row - track.told_row >= self._rows(DWELL_S):
            if not 1 / WIDTH_STEP < track.width / track.told_width < WIDTH_STEP:
                changes.append("width")
            if abs(power_db - track.told_db) > POWER_STEP_DB:
                changes.append("power")
        if changes:
            track.told_label = track.label
        if "width" in changes or "power" in changes:
            track.told_width, track.told_db = track.width, power_db
            track.told_row = track.told_row if row is None else row
        return tuple(changes)

    def _mark_image(self, track: Track, tracks: Sequence[Track]) -> None:
        if mirrored(track, tracks, self._fft) is not None and is_image(track, self._ring, self._rate, self._fft):
            track.kind = "image"

    def _known_to(self, row: int) -> int:
        """Sample up to which a row that is the last one speaks of the stream."""
        return min(row * self._fft + self._fft // 2, self.samples_in)

    def _told(self) -> list[Track]:
        return [track for track in self._tracker.tracks if track.told]

    def _rows(self, seconds: float) -> int:
        return max(1, round(seconds * self._rate / self._fft))

    def _levels(self, track: Track) -> tuple[float, float]:
        snr, power = track.levels()
        return 10 * math.log10(max(snr, 1e-12)), 10 * math.log10(max(power, 1e-30))

    def _confidence(self, track: Track) -> float | None:
        """Of the label that is out, which may not be the most probable one for a moment."""
        if track.n_looks == 0:
            return None
        probabilities = probabilities_of(track)
        if track.label in self._labels and track.label != UNKNOWN:
            return float(probabilities[self._labels.index(track.label)])
        return self._decide(probabilities)[1]

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
        snr_db, power_db = self._levels(track)
        return Emitter(
            number=track.number,
            kind=track.kind,
            label=track.label,
            confidence=self._confidence(track),
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
