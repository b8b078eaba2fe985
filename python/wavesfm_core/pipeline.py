# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiles or arrays in, what the model says of them out: gate, engine, head. No threads, no GNU Radio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .bundle.bundle import Bundle, bundle_inputs
from .bundle.spec import ImageSpec, SpectrogramSpec
from .engines import Engine, EngineChange, open_engine
from .engines.verify import proven
from .errors import ConfigurationError, InputError
from .heads import ClassificationHead, Head, make_head
from .preprocess.power_gate import DEFAULT_GATE_DB, PowerGate
from .preprocess.tile import prepare
from .preprocess.tile_stream import TileStream
from .recordings.iqstream import IQStream
from .recordings.recording import Recording, check_rate
from .recordings.tiles import cut_tiles, new_stream
from .types import Estimate, Prediction, Samples, Tensor, Tile

log = logging.getLogger(__name__)


class Pipeline:
    """A bundle ready to classify one stream of tiles, or to estimate from arrays; used by one thread at a time.

    A bundle of spectrograms takes IQ (`predict`, `classify`, `classify_recording`), a bundle of images takes arrays
    (`estimate`); another kind is refused with ConfigurationError.
    bundle, engine, head, gate: its parts; `head.threshold` (of classification) and `gate.gate_db` may be set while
    running. The gate holds back no arrays.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, head: Head, gate: PowerGate, opener: Callable[[], Engine] | None = None
    ) -> None:
        """`open` is the way in; opener: what `reopen` calls, None: a closed pipeline stays closed."""
        self.bundle = bundle
        self.engine = engine
        self.head = head
        self.gate = gate
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
    ) -> Pipeline:
        """Open the bundle at `path` and, unless `replay` is off, replay its golden tiles.

        device, threads, precision, device_id, on_change: see `open_engine`; gate_db: None for no power gate, nothing to
        a bundle of images; threshold: None for the bundle's. Raises BundleError, EngineError or ConfigurationError.
        """
        bundle = Bundle.open(path)
        head = make_head(bundle.spec.head, bundle.id, threshold)
        preprocess = bundle.spec.preprocess
        gate = PowerGate(gate_db, preprocess if isinstance(preprocess, SpectrogramSpec) else None)

        def opener() -> Engine:
            engine = open_engine(bundle, device, threads, precision, device_id, on_change)
            return proven(bundle, engine) if replay else engine

        return cls(bundle, opener(), head, gate, opener)

    def close(self) -> None:
        """Free the engine, while no call is under way; closing twice does no harm."""
        self._closed = True
        self.engine.close()

    def reopen(self) -> None:
        """After `close`: the engine anew, as it was opened; otherwise nothing. Raises as `open` does."""
        if self._closed and self._opener is not None:
            self.engine = self._opener()
            self._closed = False

    @property
    def stream_accounts(self):  # TEMPORARY until sense is merged
        from types import SimpleNamespace

        skipped = self._stream.samples_skipped
        return SimpleNamespace(
            samples_in=self._stream.samples_in,
            samples_skipped=skipped,
            skipped_end=skipped,
            skipped_retune=0,
            skipped_gap=0,
            skipped_silence=0,
            samples_silent=0,
            samples_nonfinite=0,
        )

    @property
    def stream_spec(self) -> SpectrogramSpec:
        """How IQ becomes this bundle's tiles; ConfigurationError for a bundle of images, which takes no IQ."""
        return self._streaming()[0]

    def _streaming(self) -> tuple[SpectrogramSpec, ClassificationHead]:
        spec = self.bundle.spec
        if isinstance(spec.preprocess, SpectrogramSpec) and isinstance(self.head, ClassificationHead):
            return spec.preprocess, self.head
        found = f"a model for {spec.head.task} from arrays of {spec.preprocess.tile_shape[0]} channels"
        raise ConfigurationError(self.bundle.path, "preprocess", found, "one for spectrograms, since IQ is to be read")

    def predict(self, tiles: Sequence[Tile]) -> list[Prediction]:
        """One prediction for each tile, in order; the gate keeps quiet tiles from the engine. Raises EngineError."""
        _, head = self._streaming()
        passed = [self.gate.passes(tile) for tile in tiles]
        loud = [tile for tile, passes in zip(tiles, passed, strict=True) if passes]
        inferred = iter(head.predict(self._infer(loud), loud) if loud else [])
        return [next(inferred) if passes else head.no_signal(tile) for tile, passes in zip(tiles, passed, strict=True)]

    def _infer(self, tiles: Sequence[Tile]) -> Tensor:
        spec = self.bundle.spec
        inputs = bundle_inputs(spec, np.stack([tile.data for tile in tiles]), [tile.rate_hz for tile in tiles])
        return self.engine.run(inputs)[spec.outputs[0].name]

    def estimate(self, arrays: Sequence[Tensor], batch_tiles: int = 8) -> list[Estimate]:
        """What the model says of each array float32 [C, rows, columns], in order; for bundles of images.

        Predictions (whose places in a stream are 0), PositionEstimates or ChannelEstimates, by the bundle's task.
        Raises InputError naming the array (the first is 0), EngineError, and ConfigurationError for a bundle of
        another kind (for pilot grids there is `channel.pipeline.ChannelPipeline`).
        """
        preprocess = self.bundle.spec.preprocess
        if not isinstance(preprocess, ImageSpec):
            expected = "one for images, since arrays are to be read"
            raise ConfigurationError(self.bundle.path, "preprocess", f"a model for {preprocess.kind}s", expected)
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
        """Predictions of all tiles of samples [n], taken as a stream of its own; a shorter rest is a partial tile.

        rate_hz: 0 when unknown. Raises InputError when there are too few samples for even a partial tile, EngineError.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype != np.complex64:
            raise InputError("samples", "type", f"{samples.dtype} {samples.shape}", "complex64 [n]")
        rate_hz = check_rate("samples", rate_hz)
        spec = self.stream_spec
        self.gate.reset()
        stream = TileStream(spec, rate_hz, centre_hz)
        tiles = stream.push(samples) + stream.finish()
        self._refuse_none(len(tiles), "samples", samples.size)
        return list(self._in_batches(iter(tiles), batch_tiles))

    def classify_recording(self, recording: Recording | IQStream, batch_tiles: int = 8) -> Iterator[Prediction]:
        """Predictions of a whole recording as they are made, in order; each of its segments starts a new tile.

        Raises InputError when it is too short for even a partial tile, EngineError.
        """
        self.gate.reset()
        count = 0
        for prediction in self._in_batches(self._tiles(recording), batch_tiles):
            count += 1
            yield prediction
        self._refuse_none(count, recording.path, self._stream.samples_in if self._stream else 0)

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
            least = self.stream_spec.min_samples
            raise InputError(where, "length", f"{n_samples} samples", f"at least {least}, this model's shortest tile")


def _check_batch(batch_tiles: int) -> None:
    if batch_tiles < 1:
        raise ConfigurationError("pipeline", "batch_tiles", batch_tiles, "1 or more")
