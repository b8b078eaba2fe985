# SPDX-License-Identifier: GPL-3.0-or-later
"""The power gate: tiles that look like those which the model called noise are not inferred."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..bundle.spectrogram_spec import SpectrogramSpec
from ..errors import ConfigurationError
from ..types import NOISE, Prediction, StreamTime, Tile
from .tile_signature import Signature, Tolerances, alike, comparable, length_class, signature, tolerances

# With two frames to a row, noise alone peaks 4.5 dB over its median in a full tile; the weakest of some fifty real
# recordings of signals peaks at 9.6 dB.
DEFAULT_GATE_DB = 8.5
DEFAULT_ASK_EVERY = 16
NOISE_MARGIN_DB = 1.0  # the gate's limit is at least so far over what white noise shows in the tile's geometry
ANSWERS = 4  # noise answers for tiles of one kind before tiles like them are held back
ANSWERS_AFTER_SIGNAL = 256  # the same once the model has named a signal in a tile of the kind
NAMED_FACTOR = 2.0  # a named signal is recognised within so many tolerances
MEMORY_S = 600.0  # a kind that no answer has confirmed for so long is forgotten
TUNINGS = 1024  # remembered; the one not visited for longest is forgotten
KINDS = 16  # of tiles, remembered for each tuning
UNLEARNT = 64  # most answers that wait to be learnt
AVERAGED = 16  # tiles over which the mean of a kind runs


class Judgement(NamedTuple):
    """The gate's decision on one tile."""

    held: bool
    """True: not to be inferred, the answer is noise."""
    margin_db: float
    """The tile's peak over the noise floor known for its tuning, or over its own floor."""


@dataclass(slots=True)
class _Kind:
    """Tiles of one tuning that look alike, and the model's answers for them."""

    mean: Signature
    last_s: float
    tiles: int = 1
    noise_answers: int = 0
    needed: int = ANSWERS

    @property
    def is_noise(self) -> bool:
        """Whether tiles of this kind may be held back."""
        return self.noise_answers >= self.needed

    @property
    def is_signal(self) -> bool:
        """Whether the model named a signal in such a tile, and has not called enough of them noise since."""
        return self.needed > ANSWERS and not self.is_noise

    @property
    def factor(self) -> float:
        """Tolerances within which a tile is of this kind."""
        return NAMED_FACTOR if self.is_signal else 1.0

    def include(self, seen: Signature) -> None:
        """Move the running mean towards another tile."""
        self.tiles += 1
        self.mean = self.mean.moved_towards(seen, 1 / min(self.tiles, AVERAGED))


@dataclass(slots=True)
class _Tuning:
    """What is known of one rate and centre frequency."""

    kinds: list[_Kind] = field(default_factory=list)  # the last confirmed one is last
    candidates: int = 0  # tiles that could be held back


@dataclass(slots=True)
class _Asked:
    """A tile that went to the model; noise: its answer, None when it is neither noise nor a signal."""

    start_sample: int
    tuning: _Tuning
    seen: Signature
    limits: Tolerances
    answered: bool = False
    noise: bool | None = None


class PowerGate:
    """Hold back tiles that look like tiles of the same tuning which the model called noise.

    The gate learns from the model's answers alone. A tile is held back when all of these hold:

    - the model called at least 4 tiles that look like it noise, at this sample rate and centre frequency and within the
      last 600 s. Look alike: mean power within 1 dB, the spectrum, its steps in time and its bursts within 6 standard
      deviations of those of white noise (see `tile_signature`);
    - the model named a signal in no such tile, or called 256 of them noise since;
    - its peak is less than `gate_db` over the floor of that noise;
    - it is not the `ask_every`-th of such tiles: that one is inferred all the same.

    So a signal is asked about for as long as it lasts, and a band that changes in any way is asked about. Tiles too
    short to tell noise from a signal are never held back, and with a bundle that has no label "noise" no tile is.
    Decisions depend on the sequence of tiles only and not on how it is cut into batches. Memory is kept for 1024
    tunings, so that a scanner that comes back does not begin anew.

    Parameters
    ----------
    gate_db : float or None
        Peak over the noise floor in dB from which no tile is held back; None: off. The limit is at least 1 dB over
        what white noise shows in the tile's geometry.
    spec : SpectrogramSpec or None
        Geometry of the tiles; None: no tile is held back.
    labels : sequence of str
        Labels of the bundle.
    ask_every : int
        Every so manieth tile that could be held back is inferred.

    Raises
    ------
    ConfigurationError
        For a value out of range.
    """

    def __init__(
        self,
        gate_db: float | None = DEFAULT_GATE_DB,
        spec: SpectrogramSpec | None = None,
        labels: Sequence[str] = (NOISE,),
        ask_every: int = DEFAULT_ASK_EVERY,
    ) -> None:
        self.gate_db = gate_db
        self.ask_every = ask_every
        self._spec = spec if NOISE in labels else None
        self.reset()

    @property
    def gate_db(self) -> float | None:
        """dB over the noise floor, None for off; may be set at any time. ConfigurationError for NaN or less than 0."""
        return self._gate_db

    @gate_db.setter
    def gate_db(self, value: float | None) -> None:
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigurationError("power gate", "gate_db", value, "a number of dB, 0 or more, or None for off")
        self._gate_db = None if value is None else float(value)

    @property
    def ask_every(self) -> int:
        """Every so manieth tile that could be held back is inferred; may be set at any time."""
        return self._ask_every

    @ask_every.setter
    def ask_every(self, value: int) -> None:
        if value < 1:
            raise ConfigurationError("power gate", "ask_every", value, "1 or more")
        self._ask_every = int(value)

    def reset(self) -> None:
        """Forget everything, for a new stream."""
        self._tunings: OrderedDict[tuple[float, int | None], _Tuning] = OrderedDict()
        self._asked: deque[_Asked] = deque()
        self._now_s = 0.0
        self._last: tuple[int, StreamTime | None] | None = None

    def judge(self, tile: Tile, answer: Callable[[], None] = lambda: None) -> Judgement:
        """Decide on the next tile of the stream.

        Parameters
        ----------
        tile : Tile
            Tiles come in the order of the stream.
        answer : callable
            Called when the decision needs the answers for all tiles passed so far: it runs the model on those that
            wait and hands the predictions to `learn`.
        """
        self._advance(tile)
        gate_db = self._gate_db  # read once: another thread may set it
        spec = self._spec
        if gate_db is None or spec is None:
            return Judgement(False, tile.peak_db - tile.floor_db)
        return self.judge_signature(tile, signature(tile, spec), answer)

    def judge_signature(self, tile: Tile, seen: Signature, answer: Callable[[], None] = lambda: None) -> Judgement:
        """`judge` of a tile whose signature is known already."""
        assert self._spec is not None
        limits = tolerances(self._spec, length_class(self._spec, tile.n_samples))
        tuning = self._tuning(tile)
        kind, named = self._find(tuning, seen, limits)
        held = self._holds(tile, kind, named, limits)
        if held or self._may_matter(tuning, named):
            if any(not asked.answered for asked in self._asked):
                answer()
            self._learn_answers()
            kind, named = self._find(tuning, seen, limits)
            held = self._holds(tile, kind, named, limits)
        if held:
            tuning.candidates += 1
            held = tuning.candidates % self._ask_every != 0
        if not held:
            self._asked.append(_Asked(tile.start_sample, tuning, seen, limits))
        return Judgement(held, tile.peak_db - self._floor_db(tile, kind, tuning))

    def learn(self, predictions: Sequence[Prediction]) -> None:
        """Take in the model's answers for the tiles that were passed."""
        waiting = {asked.start_sample: asked for asked in self._asked if not asked.answered}
        for prediction in predictions:
            if (asked := waiting.get(prediction.start_sample)) is not None:
                asked.answered, asked.noise = True, _is_noise(prediction)

    def forget_unanswered(self) -> None:
        """After a failure: no answers will come for the tiles that wait for one."""
        self._asked = deque(asked for asked in self._asked if asked.answered)

    def _advance(self, tile: Tile) -> None:
        """Move the gate's time to the tile's end: by absolute time where it is known, else by samples."""
        rate_hz = tile.rate_hz or 1e6
        if self._last is not None:
            sample, time = self._last
            by_samples_s = max(0, tile.start_sample - sample) / rate_hz
            known = time is not None and tile.time is not None
            self._now_s += max(0.0, tile.time.seconds_after(time)) if known else by_samples_s  # type: ignore[union-attr,arg-type]
        self._last = tile.start_sample, tile.time

    def _tuning(self, tile: Tile) -> _Tuning:
        # a thousandth of the band is far less than a column of a tile
        step_hz = tile.rate_hz / 1000 or 1.0
        centre = None if tile.centre_hz is None else round(tile.centre_hz / step_hz)
        key = (float(f"{tile.rate_hz:.6g}"), centre)
        tuning = self._tunings.setdefault(key, _Tuning())
        self._tunings.move_to_end(key)
        if len(self._tunings) > TUNINGS:
            self._tunings.popitem(last=False)
        return tuning

    def _find(self, tuning: _Tuning, seen: Signature, limits: Tolerances) -> tuple[_Kind | None, bool]:
        """The kind of noise that a tile looks like, and whether it looks like one that is not known as noise."""
        tuning.kinds = [kind for kind in tuning.kinds if self._now_s - kind.last_s <= MEMORY_S]
        noise, named = None, False
        for kind in reversed(tuning.kinds):
            if alike(seen, kind.mean, limits, kind.factor):
                named = named or kind.is_signal
                noise = kind if noise is None and kind.is_noise else noise
        return noise, named

    def _holds(self, tile: Tile, kind: _Kind | None, named: bool, limits: Tolerances) -> bool:
        gate_db = self._gate_db
        if gate_db is None or kind is None or named or not comparable(limits):
            return False
        return tile.peak_db - kind.mean.floor < max(gate_db, limits.noise_peak + NOISE_MARGIN_DB)

    def _may_matter(self, tuning: _Tuning, named: bool) -> bool:
        """Whether answers that are not learnt yet could hold the next tile back (or are too many to keep)."""
        waiting = sum(asked.tuning is tuning for asked in self._asked)
        return len(self._asked) >= UNLEARNT or (waiting >= ANSWERS and not named)

    def _learn_answers(self) -> None:
        while self._asked and self._asked[0].answered:
            asked = self._asked.popleft()
            if asked.noise is not None:
                (self._learn_noise if asked.noise else self._learn_signal)(asked)

    def _learn_noise(self, asked: _Asked) -> None:
        kinds = asked.tuning.kinds
        doubted = False
        for kind in kinds:
            if alike(asked.seen, kind.mean, asked.limits, kind.factor):
                doubted = doubted or kind.is_signal
                kind.noise_answers += 1
        like = [kind for kind in kinds if alike(asked.seen, kind.mean, asked.limits)]
        if like:
            nearest = min(like, key=lambda kind: abs(kind.mean.level - asked.seen.level))
            nearest.include(asked.seen)
            nearest.last_s = self._now_s
            kinds.remove(nearest)
            kinds.append(nearest)
            return
        needed = ANSWERS_AFTER_SIGNAL if doubted else ANSWERS
        self._remember(asked.tuning, _Kind(asked.seen, self._now_s, noise_answers=1, needed=needed))

    def _learn_signal(self, asked: _Asked) -> None:
        kinds = asked.tuning.kinds
        like = [kind for kind in kinds if alike(asked.seen, kind.mean, asked.limits, NAMED_FACTOR)]
        for kind in like:
            kind.noise_answers, kind.needed = 0, ANSWERS_AFTER_SIGNAL
            kind.last_s = self._now_s
        if not any(alike(asked.seen, kind.mean, asked.limits) for kind in like):
            self._remember(asked.tuning, _Kind(asked.seen, self._now_s, needed=ANSWERS_AFTER_SIGNAL))

    def _remember(self, tuning: _Tuning, kind: _Kind) -> None:
        if len(tuning.kinds) >= KINDS:
            tuning.kinds.remove(min(tuning.kinds, key=lambda each: (each.is_noise, each.last_s)))
        tuning.kinds.append(kind)

    def _floor_db(self, tile: Tile, kind: _Kind | None, tuning: _Tuning) -> float:
        known = kind or next((each for each in reversed(tuning.kinds) if each.is_noise), None)
        return tile.floor_db if known is None else known.mean.floor


def _is_noise(prediction: Prediction) -> bool | None:
    """True for noise, False for a signal, None for noise below the threshold of confidence."""
    if prediction.label == NOISE:
        return True
    probabilities = prediction.probabilities
    return None if max(probabilities, key=lambda label: probabilities[label]) == NOISE else False
