# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine for several pipelines: opened once, batches mixed, each lease with its own answers and errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.known_engines import KnownEngine
from support.waiting import LONG_S, until
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines import EngineChange
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.shared import EngineLease, acquire, close_all, engine_failures
from wavesfm_core.engines.standby import StandbyEngine
from wavesfm_core.errors import EngineError
from wavesfm_core.pipeline import Pipeline


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture()
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


class HeldEngine(FakeEngine):
    """Waits in each run until `go` is set."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.go, self.inside = threading.Event(), threading.Event()

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.inside.set()
        assert self.go.wait(LONG_S)
        return super().run(inputs)


def inputs(bundle: Bundle, values: list[float]) -> dict[str, np.ndarray]:
    arrays = {}
    for tensor in bundle.spec.inputs:
        shape = (len(values), *tensor.shape[1:])
        arrays[tensor.name] = np.broadcast_to(
            np.array(values, np.float32).reshape(-1, *[1] * (len(shape) - 1)), shape
        ).copy()
    return arrays


def run_beside(lease: EngineLease, batch: dict[str, np.ndarray]) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(lease.run(batch))
        except EngineError as error:
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


def test_equal_keys_share_an_engine_and_the_last_lease_closes_it(bundle: Bundle) -> None:
    opened: list[FakeEngine] = []

    def opener(on_change: object) -> FakeEngine:
        opened.append(FakeEngine(bundle))
        return opened[-1]

    first, second, other = acquire("a", opener), acquire("a", opener), acquire("b", opener)
    assert len(opened) == 2 and first.engine is second.engine is not other.engine
    first.close()
    first.close()
    assert not opened[0].closed
    with pytest.raises(EngineError, match="closed"):
        first.run(inputs(bundle, [1.0]))
    second.close()
    assert opened[0].closed and not opened[1].closed
    assert acquire("a", opener).engine is opened[2]


def test_batches_that_wait_are_mixed_and_each_gets_its_own(bundle: Bundle) -> None:
    engine = HeldEngine(bundle)
    leases = [acquire("a", lambda _: engine) for _ in range(3)]
    batches = [inputs(bundle, values) for values in ([1.0], [2.0, 3.0], [4.0, 5.0, 6.0])]
    alone = [FakeEngine(bundle).run(batch) for batch in batches]
    threads = [run_beside(leases[0], batches[0])]
    assert engine.inside.wait(LONG_S)
    threads += [run_beside(lease, batch) for lease, batch in zip(leases[1:], batches[1:])]
    until(lambda: len(leases[0]._shared._requests) >= 2)
    engine.go.set()
    for (thread, answers), expected in zip(threads, alone):
        thread.join(LONG_S)
        for name, output in expected.items():
            np.testing.assert_array_equal(answers[0][name], output)  # type: ignore[index]
    assert engine.calls == [1, 5]


def test_a_bad_batch_fails_alone(bundle: Bundle) -> None:
    engine = HeldEngine(bundle)
    leases = [acquire("a", lambda _: engine) for _ in range(3)]
    good, bad = inputs(bundle, [1.0]), {name: a.astype(np.float64) for name, a in inputs(bundle, [2.0]).items()}
    threads = [run_beside(leases[0], good)]
    assert engine.inside.wait(LONG_S)
    threads += [run_beside(leases[1], bad), run_beside(leases[2], good)]
    until(lambda: len(leases[0]._shared._requests) >= 2)
    engine.go.set()
    for thread, _ in threads:
        thread.join(LONG_S)
    assert isinstance(threads[1][1][0], EngineError)
    assert isinstance(threads[2][1][0], dict) and isinstance(threads[0][1][0], dict)


def test_an_engine_that_hangs_is_given_up(bundle: Bundle) -> None:
    hanging, fresh = HeldEngine(bundle), FakeEngine(bundle)
    first, second = acquire("a", lambda _: hanging), acquire("a", lambda _: hanging)
    hung, _ = run_beside(first, inputs(bundle, [1.0]))
    assert hanging.inside.wait(LONG_S)
    waiting, answers = run_beside(second, inputs(bundle, [2.0]))
    first.abandon()
    assert acquire("a", lambda _: fresh).engine is fresh
    second.abandon()
    waiting.join(LONG_S)
    assert isinstance(answers[0], EngineError) and not hanging.closed
    hanging.go.set()
    hung.join(LONG_S)


def test_every_lease_hears_of_a_change(bundle: Bundle) -> None:
    allow = threading.Event()

    def make() -> KnownEngine:
        assert allow.wait(LONG_S)
        return KnownEngine(bundle, "fast", failures={1})

    heard: list[list[EngineChange]] = [[], []]
    leases = [
        acquire("a", lambda on_change: StandbyEngine(bundle, KnownEngine(bundle, "slow"), make, on_change), each.append)
        for each in heard
    ]
    allow.set()
    leases[0].engine._thread.join(LONG_S)  # type: ignore[attr-defined]
    leases[1].run(inputs(bundle, [1.0]))
    assert [[change.now for change in each] for each in heard] == [["slow", "fast", "slow"][1:]] * 2
    assert [engine_failures(lease) for lease in (*leases, None)] == [1, 1, 0]


def test_pipelines_share_only_where_they_ask_for_the_same(fake_bundle: Path) -> None:
    same = [Pipeline.open(fake_bundle, shared=True) for _ in range(2)]
    others = [Pipeline.open(fake_bundle, shared=True, threads=1), Pipeline.open(fake_bundle)]
    engines = [p.engine.engine if isinstance(p.engine, EngineLease) else p.engine for p in (*same, *others)]
    assert engines[0] is engines[1] and len({id(engine) for engine in engines}) == 3
    same[0].close()
    samples = np.ones(2048, np.complex64)
    assert len(same[1].classify(samples)) == 1
    same[0].reopen()
    assert same[0].engine.engine is engines[1]  # type: ignore[attr-defined]
    for pipeline in (*same, *others):
        pipeline.close()
