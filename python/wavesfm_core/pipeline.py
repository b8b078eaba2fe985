# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles or arrays to answers of the model: gate, engine, head. No threads, no GNU Radio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle.bundle import Bundle, bundle_inputs
from .bundle.image_spec import ImageSpec
from .bundle.spectrogram_spec import SpectrogramSpec
from .engines import Engine, EngineChange, open_engine
from .engines.shared import EngineLease, acquire
from .engines.verify import verify_engine
from .errors import ConfigurationError, InputError
from .heads import ClassificationHead, Head, make_head
from .preprocess.power_gate import DEFAULT_ASK_EVERY, DEFAULT_GATE_DB, PowerGate
from .preprocess.thinning import Asked, Thinning
from .preprocess.tile import prepare
from .preprocess.tile_stream import StreamAccounts, TileStream
from .recordings.iqstream import IQStream
from .recordings.recording import Recording, check_rate
from .recordings.tiles import cut_tiles, new_stream
from .types import Estimate, Prediction, Samples, Tensor, Tile


class Pipeline:
    """A bundle ready to classify one stream of tiles, or to estimate from arrays; used by one thread at a time.

    `open` is the usual constructor. A bundle of spectrograms takes IQ (`predict`, `classify`, `classify_recording`), a
    bundle of images takes arrays (`estimate`); the other calls raise ConfigurationError.

    Parameters
    ----------
    bundle : Bundle
        The model and its contract.
    engine : Engine
        Runs the model.
    head : Head
        Outputs to answers; a classification's `threshold` may be set while running.
    gate : PowerGate
        Holds back tiles of known noise; its `gate_db` and `ask_every` may be set while running. It is not asked about
        arrays.
    opener : callable or None
        Opens the engine again, for `reopen`; None: a closed pipeline stays closed.
    thinning : Thinning or None
        Finds tiles that did not change since the engine was asked; None: there are none.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        head: Head,
        gate: PowerGate,
        opener: Callable[[], Engine] | None = None,
        thinning: Thinning | None = None,
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.head = head
        self.gate = gate
        self.thinning = thinning or Thinning()
        self._opener = opener
        self._closed = False
        self._stream: TileStream | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: str = "auto",
        gate_db: float | None = DEFAULT_GATE_DB,
        threshold: float | None = None,
        threads: int = 0,
        replay: bool = True,
        precision: str = "auto",
        device_id: int = 0,
        on_change: Callable[[EngineChange], object] | None = None,
        ask_every: int = DEFAULT_ASK_EVERY,
        shared: bool = False,
        ask_again_s: float = 0.0,
    ) -> Pipeline:
        """Open the bundle at `path` and, unless `replay` is off, replay its golden tiles.

        device, threads, precision, device_id, on_change: see `open_engine`; gate_db: None for no power gate, nothing to
        a bundle of images; threshold: None for the bundle's; shared: use one engine together with other pipelines of
        this process that were opened alike, see `engines.shared`; ask_again_s: see `Thinning`. Raises BundleError,
        EngineError or ConfigurationError.
        """
        bundle = Bundle.open(path)
        head = make_head(bundle.spec.head, bundle.id, threshold, bundle.spec.rates_hz)
        preprocess = bundle.spec.preprocess
        geometry = preprocess if isinstance(preprocess, SpectrogramSpec) else None
        gate = PowerGate(gate_db, geometry, bundle.spec.head.labels, ask_every)

        def opened(listener: Callable[[EngineChange], object] | None) -> Engine:
            engine = open_engine(bundle, device, threads, precision, device_id, listener)
            return verify_engine(bundle, engine) if replay else engine

        def opener() -> Engine:
            if not shared:
                return opened(on_change)
            options = (bundle.path.resolve(), bundle.id, device, threads, precision, device_id, replay)
            return acquire((*options, on_change is None), opened, on_change)

        return cls(bundle, opener(), head, gate, opener, Thinning(ask_again_s, geometry))

    def close(self) -> None:
        """Free the engine. Not while a call runs; a second call does nothing."""
        self._closed = True
        self.engine.close()

    def abandon(self) -> None:
        """Give up an engine that does not return: `reopen` opens another one."""
        self._closed = True
        if isinstance(self.engine, EngineLease):
            self.engine.abandon()

    def reopen(self) -> None:
        """Open the engine again after `close`; without a `close` do nothing. Raises as `open` does."""
        if self._closed and self._opener is not None:
            self.engine = self._opener()
            self._closed = False

    @property
    def stream_accounts(self) -> StreamAccounts:
        """Counts of the samples of the last `classify` or `classify_recording`, up to now."""
        return StreamAccounts() if self._stream is None else self._stream.accounts

    @property
    def stream_spec(self) -> SpectrogramSpec:
        """Preprocessing of IQ; raises ConfigurationError for a bundle that takes no IQ."""
        return self._streaming()[0]

    def _streaming(self) -> tuple[SpectrogramSpec, ClassificationHead]:
        preprocess = self.bundle.preprocess_as(SpectrogramSpec, "IQ is to be read")
        assert isinstance(self.head, ClassificationHead)  # the only task of spectrograms
        return preprocess, self.head

    def predict(self, tiles: Sequence[Tile]) -> list[Prediction]:
        """One prediction for each tile, in order.

        The gate keeps tiles of known noise from the engine, the thinning those that did not change. The gate needs
        some answers before it can decide on the next tile, so that a batch may be inferred in several parts; how tiles
        are cut into batches changes no answer.

        Raises
        ------
        EngineError
            When the engine fails; no tile of the batch has an answer then.
        """
        _, head = self._streaming()
        answers: dict[int, Prediction] = {}
        waiting: list[tuple[int, float, Asked | None]] = []  # place in `tiles`, margin in dB, note of the thinning
        repeats: list[tuple[int, Asked]] = []

        def infer() -> None:
            if not waiting:
                return
            passed = [tiles[place] for place, _, _ in waiting]
            predictions = head.predict(self._infer(passed), passed, [margin_db for _, margin_db, _ in waiting])
            self.gate.learn(predictions)
            for (place, _, asked), prediction in zip(waiting, predictions, strict=True):
                answers[place] = prediction
                if asked is not None:
                    asked.label = prediction.label
            waiting.clear()

        try:
            for place, tile in enumerate(tiles):
                if (earlier := self.thinning.earlier(tile)) is not None:
                    repeats.append((place, earlier))
                    continue
                held, margin_db = self.gate.judge(tile, infer)
                if held:
                    answers[place] = head.held_back(tile, margin_db)
                else:
                    waiting.append((place, margin_db, self.thinning.ask(tile)))
            infer()
        finally:  # there are none but after a failure
            self.gate.forget_unanswered()
            self.thinning.forget_unanswered()
        for place, earlier in repeats:
            assert earlier.label is not None
            tile = tiles[place]
            answers[place] = head.held_back(tile, tile.peak_db - tile.floor_db, earlier.label)
        return [answers[place] for place in range(len(tiles))]

    @property
    def classification_head(self) -> ClassificationHead:
        """The head; ConfigurationError for a bundle that takes no IQ."""
        return self._streaming()[1]

    def probabilities(self, tiles: Sequence[Tile]) -> NDArray[np.float64]:
        """Calibrated probabilities [n, labels] of n tiles at any sample rates, without the power gate.

        Raises
        ------
        EngineError
            When the engine fails.
        """
        return self.classification_head.probabilities(self._infer(tiles))

    def _infer(self, tiles: Sequence[Tile]) -> Tensor:
        spec = self.bundle.spec
        inputs = bundle_inputs(spec, np.stack([tile.data for tile in tiles]), [tile.rate_hz for tile in tiles])
        return self.engine.run(inputs)[spec.outputs[0].name]

    def estimate(self, arrays: Sequence[Tensor], batch_tiles: int = 8) -> list[Estimate]:
        """Answers for arrays, of a bundle of images.

        Parameters
        ----------
        arrays : sequence of ndarray float32 [C, rows, columns]
        batch_tiles : int
            Most arrays that the engine takes at once.

        Returns
        -------
        list
            In order, by the bundle's task: Prediction (at sample 0), PositionEstimate or ChannelEstimate.

        Raises
        ------
        InputError
            For an array of another type or shape; its index is named.
        EngineError
        ConfigurationError
            For a bundle of another kind. For pilot grids there is `channel.pipeline.ChannelPipeline`.
        """
        preprocess = self.bundle.preprocess_as(ImageSpec, "arrays are to be read")
        _check_batch(batch_tiles)
        estimates: list[Estimate] = []
        for first in range(0, len(arrays), batch_tiles):
            batch = arrays[first : first + batch_tiles]
            tiles = [Tile(prepare(a, preprocess, f"array {first + i}"), 0, 0) for i, a in enumerate(batch)]
            estimates += self.head.predict(self._infer(tiles), tiles)
        return estimates

    def classify(
        self, samples: Samples, rate_hz: float = 0.0, centre_hz: float | None = None, batch_tiles: int = 8
    ) -> list[Prediction]:
        """Predictions of all tiles of a stream.

        Parameters
        ----------
        samples : ndarray of complex64 [n]
            The whole stream; what is left after the last full tile becomes a partial one.
        rate_hz : float
            Sample rate; 0 when unknown.
        centre_hz : float or None
            Centre frequency; None when unknown.
        batch_tiles : int
            Most tiles that the engine takes at once.

        Raises
        ------
        InputError
            When there are too few samples for a partial tile.
        EngineError
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype != np.complex64:
            raise InputError("samples", "type", f"{samples.dtype} {samples.shape}", "complex64 [n]")
        rate_hz = check_rate("samples", rate_hz)
        spec = self.stream_spec
        self.gate.reset()
        self.thinning.reset()
        stream = self._stream = TileStream(spec, rate_hz, centre_hz)
        tiles = stream.push(samples) + stream.finish()
        self._refuse_none(len(tiles), "samples", samples.size)
        return list(self._in_batches(iter(tiles), batch_tiles))

    def classify_recording(self, recording: Recording | IQStream, batch_tiles: int = 8) -> Iterator[Prediction]:
        """Predictions of a whole recording as they are made, in order.

        A segment (SigMF capture) starts a new tile where its frequency differs or its time jumps. `stream_accounts`
        has the counts of samples.

        Raises
        ------
        InputError
            When the recording is too short for even a partial tile.
        EngineError
        """
        self.gate.reset()
        self.thinning.reset()
        count = 0
        for prediction in self._in_batches(self._tiles(recording), batch_tiles):
            count += 1
            yield prediction
        self._refuse_none(count, recording.path, self.stream_accounts.samples_in)

    def _tiles(self, recording: Recording | IQStream) -> Iterator[Tile]:
        self._stream = new_stream(recording, self.stream_spec)
        yield from cut_tiles(recording, self._stream)

    def _in_batches(self, tiles: Iterator[Tile], batch_tiles: int) -> Iterator[Prediction]:
        _check_batch(batch_tiles)
        batch: list[Tile] = []
        for tile in tiles:
            batch.append(tile)
            if len(batch) == batch_tiles:
                yield from self.predict(batch)
                batch = []
        if batch:
            yield from self.predict(batch)

    def _refuse_none(self, count: int, where: object, n_samples: int) -> None:
        if count == 0:
            least, silent = self.stream_spec.min_samples, self.stream_accounts.samples_silent
            found = f"{n_samples} samples" + (f", {silent} of them digital silence" if silent else "")
            raise InputError(where, "length", found, f"at least {least}, this model's shortest tile")


def _check_batch(batch_tiles: int) -> None:
    if batch_tiles < 1:
        raise ConfigurationError("pipeline", "batch_tiles", batch_tiles, "1 or more")
