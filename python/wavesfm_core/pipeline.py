"""Tiles in, predictions out: gate, engine, head. No threads, no GNU Radio."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .bundle import Bundle, bundle_inputs, replay_golden
from .engines import Engine, open_engine
from .errors import ConfigurationError, InputError
from .gate import DEFAULT_GATE_DB, PowerGate
from .heads import ClassificationHead
from .iqfile import Recording, check_rate
from .preprocess import TileStream
from .types import Prediction, Samples, Tile

log = logging.getLogger(__name__)


class Pipeline:
    """A bundle ready to classify one stream of tiles; used by one thread at a time.

    bundle, engine, head, gate: its parts; `head.threshold` and `gate.gate_db` may be set while running.
    """

    def __init__(self, bundle: Bundle, engine: Engine, head: ClassificationHead, gate: PowerGate) -> None:
        self.bundle = bundle
        self.engine = engine
        self.head = head
        self.gate = gate

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
    ) -> Pipeline:
        """Open the bundle at `path` and, unless `replay` is off, replay its golden tiles.

        device, threads, precision: see `open_engine`; gate_db: None for no power gate; threshold: None for the
        bundle's. Raises BundleError, EngineError or ConfigurationError.
        """
        bundle = Bundle.open(path)
        head = ClassificationHead(bundle.spec.head, bundle.id, threshold)
        gate = PowerGate(gate_db, bundle.spec.preprocess)
        engine = open_engine(bundle, device, threads, precision)
        if replay:
            replay_golden(bundle, engine)
        return cls(bundle, engine, head, gate)

    def predict(self, tiles: Sequence[Tile]) -> list[Prediction]:
        """One prediction for each tile, in order; the gate keeps quiet tiles from the engine. Raises EngineError."""
        passed = [self.gate.passes(tile) for tile in tiles]
        loud = [tile for tile, passes in zip(tiles, passed, strict=True) if passes]
        inferred = iter(self._infer(loud) if loud else [])
        return [
            next(inferred) if passes else self.head.no_signal(tile) for tile, passes in zip(tiles, passed, strict=True)
        ]

    def _infer(self, tiles: list[Tile]) -> list[Prediction]:
        spec = self.bundle.spec
        inputs = bundle_inputs(spec, np.stack([tile.data for tile in tiles]), [tile.rate_hz for tile in tiles])
        return self.head.predict(self.engine.run(inputs)[spec.outputs[0].name], tiles)

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
        self.gate.reset()
        stream = TileStream(self.bundle.spec.preprocess, rate_hz, centre_hz)
        tiles = stream.push(samples) + stream.finish()
        self._refuse_none(len(tiles), "samples", samples.size)
        return list(self._in_batches(iter(tiles), batch_tiles))

    def classify_recording(self, recording: Recording, batch_tiles: int = 8) -> Iterator[Prediction]:
        """Predictions of a whole recording as they are made, in order; each of its segments starts a new tile.

        Raises InputError when it is too short for even a partial tile, EngineError.
        """
        self.gate.reset()
        count = 0
        for prediction in self._in_batches(self._tiles(recording), batch_tiles):
            count += 1
            yield prediction
        self._refuse_none(count, recording.path, recording.n_samples)

    def _tiles(self, recording: Recording) -> Iterator[Tile]:
        starts = [segment.start_sample for segment in recording.segments]
        for segment, stop in zip(recording.segments, [*starts[1:], recording.n_samples], strict=True):
            stream = TileStream(
                self.bundle.spec.preprocess, recording.rate_hz, segment.centre_hz, segment.time, segment.start_sample
            )
            for block in recording.blocks(start=segment.start_sample, stop=stop):
                yield from stream.push(block)
            yield from stream.finish()
            if stream.samples_skipped:
                log.info(
                    "%s: %d samples at the end of a segment are too few for a tile",
                    recording.path,
                    stream.samples_skipped,
                )

    def _in_batches(self, tiles: Iterator[Tile], batch_tiles: int) -> Iterator[Prediction]:
        if batch_tiles < 1:
            raise ConfigurationError("pipeline", "batch_tiles", batch_tiles, "1 or more")
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
            least = self.bundle.spec.preprocess.min_samples
            raise InputError(where, "length", f"{n_samples} samples", f"at least {least}, this model's shortest tile")
