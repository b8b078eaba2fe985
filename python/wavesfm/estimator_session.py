# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of slots through a channel pipeline: the C++ session estimates, accounts say what became of each slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wavesfm_core._kernels import SlotAnswer
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.channel.slots import as_native
from wavesfm_core.engines.shared import engine_failures, remote_accounts
from wavesfm_core.types import Slot
from wavesfm_core.worker import WorkerOptions, check_policy

from . import _runtime
from .pdus import grid_format


@dataclass
class EstimatorEvents:
    """What a session calls; `on_answers` on its own thread, the others on any."""

    on_answers: Callable[[list[SlotAnswer]], list[str]]
    """Called with the answers of a batch in order while `wants_answers` is set; returns for each "" or why it could not
    be used, which makes this slot a failed one."""
    on_status: Callable[..., object]
    """Called with (kind, **values): "warning" with `text`, "back-off" when it begins or ends."""
    on_failure: Callable[[str, str, int], object]
    """Called with the cause, a sentence and the number of slots that failed."""


class EstimatorSession:
    """Slots in, estimates out, with accounts that close; see `EstimatorSession` of the C++ library.

    Parameters
    ----------
    pipeline : ChannelPipeline
        Its estimator and back-off.
    options : WorkerOptions
        Limits of the queue and of the batches.
    policy : {"block", "drop_oldest", "drop_newest"}
        What is done with a full queue.
    events : EstimatorEvents
        Where answers, status and failures go.
    publisher : ChannelPublisher, optional
        Publishes the channels. Default: nobody does.
    wants_answers : Flag, optional
        Whether `on_answers` is called. Default: always.

    Raises
    ------
    ConfigurationError
        For an unknown policy.
    """

    def __init__(
        self,
        pipeline: ChannelPipeline,
        options: WorkerOptions,
        policy: str,
        events: EstimatorEvents,
        publisher: _runtime.ChannelPublisher | None = None,
        wants_answers: _runtime.Flag | None = None,
    ) -> None:
        check_policy(policy)
        self._pipeline = pipeline
        if pipeline.backoff is not None:
            pipeline.backoff.reset()
        if wants_answers is None:
            wants_answers = _runtime.Flag()
            wants_answers.value = True
        on_status = events.on_status

        def on_back_off(answer: SlotAnswer) -> None:
            facts = {name: getattr(answer, name) for name in ("snr_db", "residual", "method")}
            on_status("back-off", active=answer.backed_off, start_sample=answer.slot.start_sample, **facts)

        def on_drop(policy: str) -> None:
            text = f"slots are dropped (policy {policy}): the estimator is slower than the stream"
            on_status("warning", text=text)

        self._native = _runtime.EstimatorSession(
            pipeline.native,
            options.queue_tiles,
            options.batch_tiles,
            options.batch_wait_s,
            options.max_age_s,
            policy,
            grid_format(pipeline.spec),
            publisher,
            wants_answers,
            events.on_answers,
            on_back_off,
            on_drop,
            events.on_failure,
        )

    def attach(self, block: str, port: str) -> None:
        """Take the messages of a port of a block in, on that block's thread; block: its symbol name."""
        self._native.attach(block, port)

    def take_waiting(self, block: str, port: str) -> None:
        """Take the messages in that wait at a port of a block."""
        self._native.take_waiting(block, port)

    def take(self, slot: Slot, cancelled: Callable[[], bool] | None = None) -> None:
        """Queue a slot; under the policy "block" wait for room until `cancelled` returns True."""
        self._native.take(as_native(slot), cancelled)

    def discard(self) -> None:
        """Count a slot that came while the flowgraph was being stopped as dropped."""
        self._native.discard()

    def refuse(self, text: str) -> None:
        """Count a message that is no grid of this numerology; text: "field: what is wrong"."""
        self._native.refuse(text)

    def set_policy(self, policy: str) -> None:
        """Set what is done with a full queue, also where grids wait now. Raises ConfigurationError."""
        check_policy(policy)
        self._native.set_policy(policy)

    @property
    def batch_s(self) -> float:
        """Seconds since the running batch began, 0.0 between batches."""
        return float(self._native.batch_s)

    def status(self) -> dict[str, Any]:
        """Return the accounts; grids_in = refused + slots_in, slots_in = estimated + dropped + failed + waiting.

        refused : messages that are no grid of this numerology. dropped : with those of `too_old`. failed : slots whose
        channel could not be estimated or not be published. backed_off : estimates by least squares in place of the
        method's. method, snr_db, nmse_db, residual, backing_off : of the last estimate. engine_failures : how often a
        GPU's or a server's engine failed and the CPU's took over. remote : with a server, its `RemoteAccounts`.
        """
        remote = remote_accounts(self._pipeline.engine)
        failures = engine_failures(self._pipeline.engine)
        return {**self._native.status(), "engine_failures": failures, **({"remote": remote} if remote else {})}

    def finish(self, cancelled: Callable[[], bool]) -> bool:
        """Wait until every answer was handed over; False if cancelled."""
        return bool(self._native.drain(cancelled))

    def close(self, timeout_s: float | None = None) -> bool:
        """End the thread; waiting slots are counted as dropped.

        After `timeout_s` the thread is abandoned: its batch counts as failed, what it still returns is ignored, and
        False is returned.
        """
        return bool(self._native.close(timeout_s))
