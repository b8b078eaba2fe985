# SPDX-License-Identifier: GPL-3.0-or-later
"""The CPU's engine until the fast one is made, the fast one until it fails, and not one batch lost between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.known_engines import KnownEngine
from support.waiting import LONG_S
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.engines.base import Engine
from wavesfm_core.engines.standby import EngineChange, FastKind, StandbyEngine
from wavesfm_core.errors import BundleError, EngineError


class Scene:
    """A StandbyEngine whose fast engine is made when `allow` is set; `changes` is what it said."""

    def __init__(self, bundle: Bundle, fast: KnownEngine | BaseException, on_change: Any = None) -> None:
        self.bundle, self.fast, self.allow = bundle, fast, threading.Event()
        self.changes: list[EngineChange] = []
        self.cpu = KnownEngine(bundle, "cpu engine")
        self.said = threading.Event()
        self.engine = StandbyEngine(bundle, self.cpu, self._make, on_change or self._hear)

    def _hear(self, change: EngineChange) -> None:
        self.changes.append(change)
        self.said.set()

    def _make(self) -> Engine:
        assert self.allow.wait(LONG_S)
        if isinstance(self.fast, BaseException):
            raise self.fast
        return self.fast

    def made(self) -> Scene:
        """Once the fast engine is made, or could not be."""
        self.allow.set()
        self.engine._thread.join(LONG_S)
        assert not self.engine._thread.is_alive()
        return self

    def run(self, mark: float = 0.0) -> dict[str, np.ndarray]:
        tiles = np.full((2, 1, 224, 224), mark, np.float32)
        return self.engine.run(bundle_inputs(self.bundle.spec, tiles, np.zeros(2)))


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


@pytest.fixture()
def scene(bundle: Bundle) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(fast: Any = None, **options: Any) -> Scene:
        made.append(Scene(bundle, fast or KnownEngine(bundle, "fast engine"), **options))
        return made[-1]

    yield make
    for one in made:
        one.made().engine.close()


def test_the_cpu_serves_until_the_fast_one_is_made_and_no_batch_is_lost(scene: Callable[..., Scene]) -> None:
    s = scene()
    assert (s.engine.state, s.engine.relative_tolerance) == ("compiling", 0.0)
    assert s.engine.description == "cpu engine (the GPU's engine is being compiled)"
    for mark in (1.0, 2.0):
        s.run(mark)
    s.made()
    assert (s.engine.state, s.changes) == ("compiling", [])  # the switch is at the next batch
    for mark in (3.0, 4.0):
        s.run(mark)
    assert (s.engine.state, s.engine.description, s.engine.failures) == ("fast", "fast engine", 0)
    assert s.cpu.batches == [1.0, 2.0]
    assert s.fast.batches[1:] == [3.0, 4.0]  # the first was the golden tiles
    (change,) = s.changes
    assert change == ("cpu engine", "fast engine", s.engine.reason, False)


def test_batches_that_come_while_it_is_made_are_each_run_once(scene: Callable[..., Scene]) -> None:
    s = scene()
    threading.Timer(0.05, s.allow.set).start()
    mark = 0.0
    while s.engine.state == "compiling" and mark < 1e5:
        mark += 1
        s.run(mark)
    assert s.engine.state == "fast"
    assert [*s.cpu.batches, *s.fast.batches[1:]] == [float(i) for i in range(1, int(mark) + 1)]


@pytest.mark.parametrize(
    "failure",
    [EngineError("compiler", "plan", "no memory", "some"), RuntimeError("broken"), SystemExit(3)],
    ids=["engine error", "any exception", "exit"],
)
def test_what_cannot_be_made_is_said_and_the_cpu_goes_on(scene: Callable[..., Scene], failure: Exception) -> None:
    s = scene(failure).made()
    assert s.said.wait(LONG_S)  # said at once, not with the next batch
    s.run(1.0)
    assert (s.engine.state, s.engine.failures, s.cpu.batches) == ("cpu", 1, [1.0])
    assert str(failure) in s.engine.reason and s.engine.reason in s.engine.description
    (change,) = s.changes
    assert change == ("cpu engine", "cpu engine", s.engine.reason, True)


def test_one_that_gives_other_golden_outputs_is_not_taken(scene: Callable[..., Scene], bundle: Bundle) -> None:
    wrong = KnownEngine(bundle, "wrong engine", offset=0.5)
    s = scene(wrong).made()
    s.run()
    assert s.engine.state == "cpu"
    assert "golden stage engine (wrong engine), output logits: found a difference of 0.5" in s.engine.reason
    assert wrong.closed and len(wrong.batches) == 1


def test_one_that_fails_while_running_costs_no_batch(scene: Callable[..., Scene], bundle: Bundle) -> None:
    s = scene(KnownEngine(bundle, "fast engine", failures={2})).made()
    for mark in (1.0, 2.0, 3.0):
        outputs = s.run(mark)
        assert np.isfinite(outputs["logits"]).all()
    assert s.fast.batches[1:] == [1.0]
    assert s.cpu.batches == [2.0, 3.0]  # the batch it failed with, and all that follow
    assert (s.engine.state, s.engine.failures, s.fast.closed) == ("cpu", 1, True)
    assert "scripted failure" in s.engine.reason
    assert [(c.was, c.now, c.failed) for c in s.changes] == [
        ("cpu engine", "fast engine", False),
        ("fast engine", "cpu engine", True),
    ]


def test_outputs_that_are_not_finite_are_a_failure(scene: Callable[..., Scene], bundle: Bundle) -> None:
    s = scene().made()
    s.run(1.0)
    s.fast.offset = np.nan
    assert np.isfinite(s.run(2.0)["logits"]).all()
    assert (s.engine.state, s.cpu.batches) == ("cpu", [2.0])
    assert "NaN or infinity" in s.engine.reason


def test_a_wrong_input_is_not_the_engines_failure(scene: Callable[..., Scene]) -> None:
    s = scene().made()
    s.run()
    with pytest.raises(EngineError, match="input tile"):
        s.engine.run({})
    assert (s.engine.state, s.engine.failures) == ("fast", 0)


def test_an_engine_that_cannot_even_be_closed(scene: Callable[..., Scene], bundle: Bundle) -> None:
    class Stuck(KnownEngine):
        def close(self) -> None:
            raise RuntimeError("the device is gone")

    s = scene(Stuck(bundle, "fast engine", failures={1})).made()
    s.run(1.0)
    assert (s.engine.state, s.cpu.batches) == ("cpu", [1.0])


def test_a_listener_that_raises_harms_nothing(scene: Callable[..., Scene]) -> None:
    def deaf(change: EngineChange) -> None:
        raise ValueError("deaf")

    s = scene(on_change=deaf).made()
    s.run(1.0)
    assert (s.engine.state, s.fast.batches[1:]) == ("fast", [1.0])


def test_close_frees_all_and_a_run_after_it_is_refused(scene: Callable[..., Scene]) -> None:
    s = scene().made()
    s.run()
    s.engine.close()
    s.engine.close()
    assert s.cpu.closed and s.fast.closed
    with pytest.raises(EngineError, match="a closed engine"):
        s.run()


def test_close_before_the_switch_frees_what_was_made(scene: Callable[..., Scene]) -> None:
    s = scene().made()
    s.engine.close()
    assert s.cpu.closed and s.fast.closed


@pytest.mark.parametrize("failure", [None, EngineError("compiler", "plan", "no memory", "some")])
def test_what_is_made_after_close_is_freed_and_nothing_is_said(scene: Callable[..., Scene], failure: Any) -> None:
    s = scene(failure)
    s.engine.close()
    s.made()
    assert s.changes == []
    assert failure is not None or (s.fast.closed and s.fast.batches == [])


def test_it_opens_and_closes_again_and_again_and_leaves_no_thread(bundle: Bundle) -> None:
    before = threading.active_count()
    for _ in range(5):
        s = Scene(bundle, KnownEngine(bundle, "fast engine")).made()
        s.run()
        s.engine.close()
        assert s.cpu.closed and s.fast.closed
    assert threading.active_count() == before


def test_an_engine_that_is_waited_for_is_open_or_refused(bundle: Bundle) -> None:
    cpu, fast = KnownEngine(bundle, "cpu engine"), KnownEngine(bundle, "fast engine")
    engine = StandbyEngine(bundle, cpu, lambda: fast, lambda change: None, wait=True)
    assert len(fast.batches) == 1  # the golden tiles
    engine.close()
    cpu, wrong = KnownEngine(bundle, "cpu engine"), KnownEngine(bundle, "wrong engine", offset=0.5)
    with pytest.raises(BundleError, match="golden stage engine"):
        StandbyEngine(bundle, cpu, lambda: wrong, lambda change: None, wait=True)
    assert cpu.closed and wrong.closed


def test_a_fast_engine_that_failed_is_opened_again(bundle: Bundle) -> None:
    made: list[KnownEngine] = []
    changes: list[EngineChange] = []

    def make() -> Engine:
        if len(made) == 1 and len(refused) < 2:
            refused.append(1)
            raise EngineError("server", "request", "no answer", "one")
        made.append(KnownEngine(bundle, f"fast engine {len(made)}", failures={1} if not made else ()))
        return made[-1]

    refused: list[int] = []
    kind = FastKind("the server", "is being asked", "it answers", reopen_s=0.001, daemon=True)
    inputs = bundle_inputs(bundle.spec, np.zeros((1, 1, 224, 224), np.float32), np.zeros(1))
    engine = StandbyEngine(bundle, KnownEngine(bundle, "cpu engine"), make, changes.append, kind, wait=True)
    engine.run(inputs)
    assert (engine.state, engine.failures) == ("cpu", 1) and "the server failed" in engine.reason
    engine._thread.join()
    engine.run(inputs)
    assert (engine.description, len(refused), engine.failures) == ("fast engine 1", 2, 1)
    assert [change.failed for change in changes] == [False, True, False]
    engine.close()


def test_close_ends_the_attempts_to_open_it_again(bundle: Bundle) -> None:
    def fail() -> Engine:
        raise EngineError("server", "request", "no answer", "one")

    kind = FastKind(reopen_s=3600.0, daemon=True)
    engine = StandbyEngine(bundle, KnownEngine(bundle, "cpu engine"), fail, lambda change: None, kind)
    engine.close()
    engine._thread.join()  # would last an hour
