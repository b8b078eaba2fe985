# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of slots through a channel pipeline: the worker's thread estimates, accounts say what became of each slot.

No GNU Radio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.engines.shared import engine_failures, remote_accounts
from wavesfm_core.errors import WavesfmError
from wavesfm_core.types import ChannelEstimate, Slot
from wavesfm_core.worker import Worker, WorkerOptions


class Answer(NamedTuple):
    """A slot and its estimate."""

    slot: Slot
    estimate: ChannelEstimate
    gated: bool = False


@dataclass
class EstimatorEvents:
    """What a session calls; `on_answer` on the worker's thread, the others on any."""

    on_answer: Callable[[Answer], object]
    """Called with each answer in order; an exception makes this slot a failed one."""
    on_status: Callable[..., object]
    """Called with (kind, **values): "warning" with `text`, "back-off" when it begins or ends."""
    on_failure: Callable[[str, str, int], object]
    """Called with the cause, a sentence and the number of slots that failed."""


class EstimatorSession:
    """Slots in, estimates out, with accounts that close.

    Parameters
    ----------
    pipeline : ChannelPipeline
        Its estimator and back-off.
    options : WorkerOptions
        Limits of the queue and of the batches.
    policy : {"block", "drop_oldest", "drop_newest"}
        See `Worker`.
    events : EstimatorEvents
        Where answers, status and failures go.

    Raises
    ------
    ConfigurationError
        For an unknown policy.
    """

    def __init__(self, pipeline: ChannelPipeline, options: WorkerOptions, policy: str, events: EstimatorEvents) -> None:
        self._pipeline, self._events = pipeline, events
        self._refused = self._discarded = self._backed_off = 0
        self._unpublished = 0  # the worker's accounts count these as estimated
        self._last_error = ""
        self._last: ChannelEstimate | None = None
        self._drop_warned = False
        if pipeline.backoff is not None:
            pipeline.backoff.reset()
        self.worker = Worker(self, self._publish, options, policy, self._fail)

    def predict(self, slots: Sequence[Slot]) -> list[Answer | WavesfmError]:
        """Answer each slot with its estimate or the error that explains why there is none; called by the worker."""
        estimates = self._pipeline.predict(slots)
        return [e if isinstance(e, WavesfmError) else Answer(slot, e) for slot, e in zip(slots, estimates)]

    def take(self, slot: Slot, cancelled: Callable[[], bool] | None = None) -> None:
        """Queue a slot; under the policy "block" wait for room until `cancelled` returns True."""
        self.worker.submit(slot, cancelled)
        stopping = cancelled is not None and cancelled()
        if self.worker.accounts.dropped and not self._drop_warned and not stopping:
            self._drop_warned = True
            text = f"slots are dropped (policy {self.worker.policy}): the estimator is slower than the stream"
            self._events.on_status("warning", text=text)

    def discard(self) -> None:
        """Count a slot that came while the flowgraph was being stopped as dropped."""
        self._discarded += 1

    def refuse(self, error: Exception) -> None:
        """Count a message that is no grid of this numerology."""
        self._refused += 1
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self._note_failure(f"refused {text.split(':')[0]}", f"grid: {text}; it is ignored", 1)

    def status(self) -> dict[str, Any]:
        """Return the accounts; grids_in = refused + slots_in, slots_in = estimated + dropped + failed + waiting.

        refused : messages that are no grid of this numerology. dropped : with those of `too_old`. failed : slots whose
        channel could not be estimated or not be published. backed_off : estimates by least squares in place of the
        method's. method, snr_db, nmse_db, residual, backing_off : of the last estimate. engine_failures : how often a
        GPU's or a server's engine failed and the CPU's took over. remote : with a server, its `RemoteAccounts`.
        """
        unpublished = self._unpublished  # read before the accounts, which count these as estimated already
        accounts, last = self.worker.accounts, self._last
        slots_in = accounts.tiles_in + self._discarded
        return {
            "grids_in": self._refused + slots_in,
            "refused": self._refused,
            "slots_in": slots_in,
            "estimated": accounts.inferred - unpublished,
            "dropped": accounts.dropped + self._discarded,
            "too_old": int(accounts.extra["too_old"]),
            "failed": accounts.failed + unpublished,
            "waiting": accounts.waiting,
            "batches": accounts.batches,
            "backed_off": self._backed_off,
            "method": "" if last is None else last.method,
            "snr_db": None if last is None else last.snr_db,
            "nmse_db": None if last is None else last.nmse_db,
            "residual": None if last is None else last.residual,
            "backing_off": last is not None and last.backed_off,
            "last_error": self._last_error,
            "engine_failures": engine_failures(self._pipeline.engine),
            **({"remote": remote} if (remote := remote_accounts(self._pipeline.engine)) else {}),
        }

    def finish(self, cancelled: Callable[[], bool]) -> bool:
        """Wait until every answer was handed over; False if cancelled."""
        return self.worker.drain(cancelled=cancelled)

    def close(self, timeout_s: float | None = None) -> bool:
        """End the worker's thread, see `Worker.close`; waiting slots are counted as dropped."""
        return self.worker.close(timeout_s)

    def _publish(self, answers: list[Answer]) -> None:
        for answer in answers:
            try:
                self._events.on_answer(answer)
                self._note(answer.estimate)
            except Exception as error:  # it would lose the others of the batch
                self._unpublished += 1
                text = f"slot at sample {answer.slot.start_sample}: {type(error).__name__}: {error}"
                self._note_failure(f"publishing {type(error).__name__}", text, 1)

    def _note(self, estimate: ChannelEstimate) -> None:
        before = self._last is not None and self._last.backed_off
        self._backed_off += estimate.backed_off
        self._last = estimate
        if estimate.backed_off != before:
            facts = {name: getattr(estimate, name) for name in ("start_sample", "snr_db", "residual", "method")}
            self._events.on_status("back-off", active=estimate.backed_off, **facts)

    def _fail(self, error: WavesfmError, n_slots: int) -> None:
        self._note_failure(error.field, str(error), n_slots)

    def _note_failure(self, cause: str, text: str, n_slots: int) -> None:
        self._last_error = text
        self._events.on_failure(cause, text, n_slots)
