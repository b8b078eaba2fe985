# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's accounts close at every moment, under each policy and each failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import LONG_S
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import ConfigurationError, EngineError, WavesfmError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.types import Prediction, Tile
from wavesfm_core.worker import POLICIES, Worker, WorkerOptions

HEAD = ClassificationHead(HeadSpec("classification", ("a", "b")), "fake@1")
DATA = np.zeros((1, 2, 2), np.float32)


def tile(index: int) -> Tile:
    return Tile(DATA, index, 1)


class Pipeline:
    """Holds each batch until `go` is set; every third tile is gated; fails where `error` says."""

    def __init__(self, held: bool = False) -> None:
        self.go = threading.Event()
        self.inside = threading.Event()
        if not held:
            self.go.set()
        self.batches: list[list[int]] = []
        self.error: Callable[[list[Tile]], BaseException | None] = lambda tiles: None

    def predict(self, tiles: list[Tile]) -> list[Prediction]:
        self.batches.append([tile.start_sample for tile in tiles])
        self.inside.set()
        assert self.go.wait(LONG_S)
        if (error := self.error(tiles)) is not None:
            raise error
        scores = np.zeros((1, 2), np.float32)
        return [HEAD.held_back(t, 0.0) if t.start_sample % 3 == 2 else HEAD.predict(scores, [t])[0] for t in tiles]


class Caller:
    """Collects what the worker says."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.errors: list[tuple[str, int]] = []

    def on_predictions(self, predictions: list[Prediction]) -> None:
        self.starts.extend(prediction.start_sample for prediction in predictions)

    def on_error(self, error: WavesfmError, n_tiles: int) -> None:
        assert isinstance(error, WavesfmError)
        self.errors.append((str(error), n_tiles))


@contextmanager
def running(
    pipeline: Pipeline,
    caller: Caller,
    policy: str = "block",
    on_error: Callable[[WavesfmError, int], object] | None = None,
    **options: float,
) -> Iterator[Worker]:
    limits = WorkerOptions(**{"batch_wait_s": 0.0, **options})  # type: ignore[arg-type]
    worker = Worker(pipeline, caller.on_predictions, limits, policy, on_error or caller.on_error)
    try:
        yield worker
    finally:
        pipeline.go.set()
        worker.close()


def fill(worker: Worker, pipeline: Pipeline, queue_tiles: int) -> None:
    """Tile 0 is in the pipeline, which holds it, and the queue is full of the next ones."""
    worker.submit(tile(0))
    assert pipeline.inside.wait(LONG_S)
    for index in range(1, queue_tiles + 1):
        assert worker.submit(tile(index))


def test_predictions_come_in_order_and_gated_ones_are_counted() -> None:
    pipeline, caller = Pipeline(), Caller()
    with running(pipeline, caller) as worker:
        for index in range(30):
            assert worker.submit(tile(index))
        assert worker.drain(LONG_S)
        assert caller.starts == list(range(30))
        accounts = worker.accounts
    assert (accounts.tiles_in, accounts.inferred, accounts.gated, accounts.waiting) == (30, 20, 10, 0)
    assert accounts.batches == len(pipeline.batches)
    assert accounts.closes()


def test_batches_are_of_at_most_batch_tiles_and_full_where_tiles_wait() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=16, batch_tiles=5) as worker:
        fill(worker, pipeline, 12)
        pipeline.go.set()
        assert worker.drain(LONG_S)
    assert pipeline.batches == [[0], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]


def test_a_batch_waits_for_more_tiles() -> None:
    pipeline, caller = Pipeline(), Caller()
    with running(pipeline, caller, batch_tiles=3, batch_wait_s=3600.0) as worker:
        for index in range(6):
            worker.submit(tile(index))
        assert worker.drain(LONG_S)
        worker.submit(tile(6))
        assert not worker.drain(0.05)  # it waits for two more
        assert worker.accounts.waiting == 1
    assert pipeline.batches == [[0, 1, 2], [3, 4, 5]]


def test_drop_newest() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=3, policy="drop_newest") as worker:
        fill(worker, pipeline, 3)
        assert not worker.submit(tile(4))
        assert not worker.submit(tile(5))
        accounts = worker.accounts
        assert (accounts.tiles_in, accounts.dropped, accounts.waiting) == (6, 2, 4)
        assert accounts.closes()
        pipeline.go.set()
        assert worker.drain(LONG_S)
    assert caller.starts == [0, 1, 2, 3]


def test_drop_oldest() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=3, policy="drop_oldest") as worker:
        fill(worker, pipeline, 3)
        assert worker.submit(tile(4))
        assert worker.submit(tile(5))
        accounts = worker.accounts
        assert (accounts.tiles_in, accounts.dropped, accounts.waiting) == (6, 2, 4)
        assert accounts.closes()
        pipeline.go.set()
        assert worker.drain(LONG_S)
    assert caller.starts == [0, 3, 4, 5]


def submit_blocked(worker: Worker, index: int) -> tuple[threading.Thread, list[bool]]:
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(worker.submit(tile(index))), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    return thread, answer


def test_block_waits_for_room() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=2) as worker:
        fill(worker, pipeline, 2)
        thread, answer = submit_blocked(worker, 3)
        assert worker.accounts.tiles_in == 3
        pipeline.go.set()
        thread.join(LONG_S)
        assert answer == [True]
        assert worker.drain(LONG_S)
        assert worker.accounts.dropped == 0
    assert caller.starts == [0, 1, 2, 3]


@pytest.mark.parametrize(("policy", "said", "left"), [("drop_newest", False, [1, 2]), ("drop_oldest", True, [2, 3])])
def test_a_blocked_submit_follows_a_change_of_policy(policy: str, said: bool, left: list[int]) -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=2) as worker:
        fill(worker, pipeline, 2)
        thread, answer = submit_blocked(worker, 3)
        worker.policy = policy
        thread.join(LONG_S)
        assert answer == [said]
        assert worker.accounts.dropped == 1
        pipeline.go.set()
        assert worker.drain(LONG_S)
    assert caller.starts == [0, *left]


def test_close_drops_and_counts_what_waits_and_frees_a_blocked_submit() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, queue_tiles=2) as worker:
        fill(worker, pipeline, 2)
        thread, answer = submit_blocked(worker, 3)
        closer = threading.Thread(target=worker.close, daemon=True)
        closer.start()
        thread.join(LONG_S)
        assert answer == [False]
        assert worker.accounts.closes()
        pipeline.go.set()
        closer.join(LONG_S)
        assert not closer.is_alive()
        accounts = worker.accounts
        assert (accounts.tiles_in, accounts.dropped, accounts.inferred, accounts.waiting) == (4, 3, 1, 0)
        with pytest.raises(ConfigurationError, match=r"closed worker"):
            worker.submit(tile(9))
        worker.close()
    assert caller.starts == [0]


FAILURES = [
    EngineError("engine", "run", "smoke", "outputs"),
    ValueError("odd"),
    MemoryError("all"),
    SystemExit("bye"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failing_batch_is_counted_and_reported_and_the_thread_goes_on(error: BaseException) -> None:
    pipeline, caller = Pipeline(), Caller()
    pipeline.error = lambda tiles: error if tiles[0].start_sample == 0 else None
    with running(pipeline, caller, batch_tiles=2, batch_wait_s=3600.0) as worker:
        for index in range(4):
            worker.submit(tile(index))
        assert worker.drain(LONG_S)
        accounts = worker.accounts
    assert (accounts.failed, accounts.inferred, accounts.gated) == (2, 1, 1)
    assert str(error) in accounts.last_error
    assert accounts.closes()
    assert [n_tiles for _, n_tiles in caller.errors] == [2]
    assert str(error) in caller.errors[0][0]
    assert caller.starts == [2, 3]


def test_a_pipeline_that_loses_a_tile_has_failed() -> None:
    pipeline, caller = Pipeline(), Caller()
    pipeline.predict = lambda tiles: []  # type: ignore[method-assign]
    with running(pipeline, caller) as worker:
        worker.submit(tile(0))
        assert worker.drain(LONG_S)
        assert worker.accounts.failed == 1
    assert "found 0, expected 1, one for each tile" in caller.errors[0][0]


def test_a_failing_callback_is_counted_and_reported_and_the_thread_goes_on() -> None:
    pipeline, caller = Pipeline(), Caller()
    taken = caller.on_predictions

    def on_predictions(predictions: list[Prediction]) -> None:
        taken(predictions)
        if predictions[0].start_sample == 0:
            raise OSError("disk full")

    caller.on_predictions = on_predictions  # type: ignore[method-assign]
    with running(pipeline, caller, batch_tiles=1) as worker:
        worker.submit(tile(0))
        worker.submit(tile(1))
        assert worker.drain(LONG_S)
        accounts = worker.accounts
    assert (accounts.inferred, accounts.failed, accounts.extra["callback_errors"]) == (2, 0, 1)
    assert "disk full" in accounts.last_error
    assert [n_tiles for _, n_tiles in caller.errors] == [0]
    assert caller.starts == [0, 1]


def test_even_a_failing_on_error_does_not_end_the_thread() -> None:
    pipeline, caller = Pipeline(), Caller()
    pipeline.error = lambda tiles: ValueError("first")

    def on_error(error: WavesfmError, n_tiles: int) -> None:
        raise RuntimeError("second")

    with running(pipeline, caller, on_error=on_error, batch_tiles=1) as worker:
        worker.submit(tile(0))
        worker.submit(tile(1))
        assert worker.drain(LONG_S)
        assert worker.accounts.failed == 2
        assert worker.accounts.extra["callback_errors"] == 2


def test_drain_returns_only_after_the_last_callback() -> None:
    pipeline, caller = Pipeline(), Caller()
    hold = threading.Event()
    caller.on_predictions = lambda predictions: hold.wait(LONG_S)  # type: ignore[method-assign, assignment]
    with running(pipeline, caller) as worker:
        worker.submit(tile(0))
        assert not worker.drain(0.05)
        hold.set()
        assert worker.drain(LONG_S)


def test_close_from_a_callback_does_not_hang() -> None:
    pipeline = Pipeline()
    closed = threading.Event()
    worker: Worker

    def on_predictions(predictions: list[Prediction]) -> None:
        worker.close()
        closed.set()

    worker = Worker(pipeline, on_predictions)
    worker.submit(tile(0))
    assert closed.wait(LONG_S)
    worker.close()


def test_accounts_are_a_copy() -> None:
    with running(Pipeline(), Caller()) as worker:
        accounts = worker.accounts
        accounts.tiles_in = 7
        accounts.extra["callback_errors"] = 7
        assert (worker.accounts.tiles_in, worker.accounts.extra["callback_errors"]) == (0, 0)


WRONG = [
    ("queue_tiles", 0),
    ("batch_tiles", 0),
    ("batch_wait_s", -1),
    ("batch_wait_s", float("nan")),
    ("max_age_s", -1),
    ("max_age_s", float("nan")),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_option(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"worker: {name}: found"):
        WorkerOptions(**{name: value})  # type: ignore[arg-type]


def test_wrong_policy() -> None:
    with pytest.raises(ConfigurationError, match=r"worker: policy: found"):
        Worker(Pipeline(), lambda predictions: None, policy="sometimes")


def test_a_wrong_policy_changes_nothing() -> None:
    with running(Pipeline(), Caller()) as worker:
        with pytest.raises(ConfigurationError, match=r"one of block, drop_oldest, drop_newest"):
            worker.policy = "sometimes"
        assert worker.policy == "block"


@settings(max_examples=20, deadline=None)
@given(
    policies=st.lists(st.sampled_from(POLICIES), min_size=1, max_size=4),
    count=st.integers(1, 60),
    queue_tiles=st.integers(1, 5),
    batch_tiles=st.integers(1, 5),
    failing=st.sets(st.integers(0, 60), max_size=10),
)
def test_accounts_close_at_every_moment(
    policies: list[str], count: int, queue_tiles: int, batch_tiles: int, failing: set[int]
) -> None:
    pipeline, caller = Pipeline(), Caller()
    pipeline.error = lambda tiles: ValueError("x") if any(t.start_sample in failing for t in tiles) else None
    stop = threading.Event()
    open_moments: list[object] = []
    with running(pipeline, caller, queue_tiles=queue_tiles, batch_tiles=batch_tiles, policy=policies[0]) as worker:

        def watch() -> None:
            while not stop.wait(0.0005):
                if not (accounts := worker.accounts).closes():
                    open_moments.append(accounts)

        watcher = threading.Thread(target=watch)
        watcher.start()
        accepted = []
        for index in range(count):
            worker.policy = policies[index % len(policies)]
            if worker.submit(tile(index)):
                accepted.append(index)
        assert worker.drain(LONG_S)
        stop.set()
        watcher.join(LONG_S)
        accounts = worker.accounts
    assert open_moments == []
    assert accounts.closes()
    assert (accounts.tiles_in, accounts.waiting) == (count, 0)
    assert accounts.inferred + accounts.gated == len(caller.starts)
    assert caller.starts == sorted(set(caller.starts))
    assert set(caller.starts) <= set(accepted)
    assert accounts.failed == sum(n_tiles for _, n_tiles in caller.errors)


def test_a_bad_tile_fails_alone() -> None:
    """The pipeline answers it with an error: the others of its batch are handed over, and the accounts close."""

    class Picky(Pipeline):
        def predict(self, tiles: list[Tile]) -> list[Prediction]:
            bad = WavesfmError("slot", "grid", "NaN", "numbers")
            return [bad if t.start_sample in (1, 2) else p for t, p in zip(tiles, super().predict(tiles))]

    pipeline, caller = Picky(held=True), Caller()
    with Worker(pipeline, caller.on_predictions, WorkerOptions(batch_tiles=4), on_error=caller.on_error) as worker:
        for index in (1, 0, 1, 3, 2, 4, 5, 6):
            worker.submit(tile(index))
        pipeline.go.set()
        assert worker.drain(LONG_S)
        accounts = worker.accounts
    assert caller.starts == [0, 3, 4, 5, 6]
    assert caller.errors == [("slot: grid: found NaN, expected numbers", 1)] * 3
    assert (accounts.tiles_in, accounts.inferred, accounts.gated, accounts.failed) == (8, 4, 1, 3)
    assert accounts.closes() and accounts.last_error == "slot: grid: found NaN, expected numbers"


def aged(index: int, age_s: float) -> Tile:
    return Tile(DATA, index, 1, arrived_s=time.monotonic() - age_s)


def test_tiles_that_are_too_old_when_their_batch_begins_are_dropped_and_counted() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, max_age_s=100.0, batch_tiles=4) as worker:
        fill(worker, pipeline, 0)
        for index, age_s in ((1, 200.0), (2, 101.0), (3, 0.0), (4, 300.0), (5, 1.0)):
            worker.submit(aged(index, age_s))
        pipeline.go.set()
        assert worker.drain(LONG_S)
        accounts = worker.accounts
    assert caller.starts == [0, 3, 4, 5]  # 4 waits behind a younger one, which does not happen in a stream
    assert (accounts.dropped, accounts.extra["too_old"]) == (2, 2)
    assert accounts.closes()


def test_when_all_tiles_are_too_old_the_thread_waits_for_the_next() -> None:
    pipeline, caller = Pipeline(), Caller()
    with running(pipeline, caller, max_age_s=50.0) as worker:
        for index in range(3):
            worker.submit(aged(index, 60.0))
        assert worker.drain(LONG_S)
        worker.submit(aged(3, 0.0))
        assert worker.drain(LONG_S)
        assert worker.accounts.extra["too_old"] == 3
    assert pipeline.batches == [[3]]


@pytest.mark.parametrize(("item_s", "most"), [(0.0, 8), (1e-6, 8), (0.2, 5), (0.7, 1), (30.0, 1)])
def test_with_an_age_limit_a_batch_is_no_larger_than_can_be_inferred_in_that_time(item_s: float, most: int) -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    with running(pipeline, caller, max_age_s=1.0, batch_tiles=8) as worker:
        fill(worker, pipeline, 8)
        worker._item_s = item_s
        assert worker._batch_limit() == most


def test_a_hanging_batch_shows_and_close_gives_its_thread_up() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    worker = Worker(pipeline, caller.on_predictions, WorkerOptions(queue_tiles=4, batch_tiles=1, batch_wait_s=0.0))
    assert worker.batch_s == 0.0
    fill(worker, pipeline, 3)
    assert worker.batch_s > 0.0
    assert not worker.close(timeout_s=0.01)
    accounts = worker.accounts
    assert (accounts.tiles_in, accounts.failed, accounts.dropped, accounts.waiting) == (4, 1, 3, 0)
    assert accounts.closes() and "the engine has not returned" in accounts.last_error
    pipeline.go.set()
    worker._thread.join(LONG_S)
    assert worker.accounts == accounts and caller.starts == []  # what comes too late is ignored
    assert not worker.close()


def test_a_cancelled_wait_drops_the_tile_and_leaves_drain() -> None:
    pipeline, caller = Pipeline(held=True), Caller()
    cancelled = threading.Event()
    with running(pipeline, caller, queue_tiles=1) as worker:
        fill(worker, pipeline, 1)
        answer: list[bool] = []
        thread = threading.Thread(target=lambda: answer.append(worker.submit(tile(2), cancelled.is_set)), daemon=True)
        thread.start()
        cancelled.set()
        thread.join(LONG_S)
        assert answer == [False]
        assert not worker.drain(cancelled=cancelled.is_set)
        assert worker.accounts.dropped == 1 and worker.accounts.closes()
