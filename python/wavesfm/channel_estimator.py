# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimates the channel of OFDM slots; h leaves as PDUs and as vectors for GNU Radio's OFDM equalisers."""

from __future__ import annotations

import math
import threading
import time as clock
from collections.abc import Sequence
from typing import Any, NamedTuple

import pmt
from gnuradio import gr
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.backoff import BackOff
from wavesfm_core.channel.combining import combine, spread
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.engines import EngineChange
from wavesfm_core.engines.standby import engine_failures
from wavesfm_core.errors import ConfigurationError, WavesfmError
from wavesfm_core.types import ChannelEstimate, Slot
from wavesfm_core.worker import Worker

from .messages import COMMAND, STATUS, SYSTEM, command_from_pmt
from .numerology_file import read_numerology, require_size
from .pdus import CHANNEL, GRIDS, estimate_to_pmt, slot_from_pmt
from .stream_end import ACCOUNTS_EVERY_S, Speaker
from .symbol_source import SymbolSource

COMMANDS = ("method", "antenna", "policy")
ALL_ANTENNAS = -1
NO_BACK_OFF_DB = 100.0  # no measured SNR is told above 80 dB


class channel_estimator(gr.hier_block2):  # type: ignore[misc]
    """Take grids of OFDM slots as PDUs, estimate their channel beside the flowgraph's threads, and publish it.

    bundle: directory of a model bundle for pilot grids; "": none, and then numerology is a JSON file with the fields
    of `OFDMSpec`, which is not read where there is a bundle.
    method: "model", "lmmse", "lmmse-tf", "ls" or "ls-nearest"; "": the bundle's model, without a bundle "ls".
    covariances: file of `Covariances.save` for the two LMMSE methods; "": the bundle's.
    device: `auto` (a GPU where there is one), `cpu`, `tensorrt`, `openvino` or `onnxruntime`, for the method "model";
    precision: `auto`, `f32`, `bf16`, and with TensorRT `fp16` or `int8`; device_id: which GPU. While the GPU's engine
    is made, and after it has failed, the CPU's serves.
    back_off: whether least squares stand in for the method's estimate, see `BackOff`: from the SNR snr_enter_db on
    until it falls below snr_leave_db (in dB; 100: never), and from the residual residual_enter on until it falls below
    residual_leave (0: never).
    fft_size: of the streams, 0: as the numerology has; another is refused, so that a flowgraph can be sure of it.
    antenna: whose symbols the stream has, from 0; -1: all, combined at the maximum ratio.
    policy: when queue_slots wait, `block` leaves further ones in GNU Radio's message queue, which has no bound;
    `drop_oldest` and `drop_newest` drop and count.
    batch_slots, batch_wait_ms: the estimator is run when so many slots wait or the first has waited so long.

    Messages in: `grids`: see `pdus.slot_to_pmt`. `command`: dict or pair with `method`, `antenna`, `policy`.
    Messages out: `channel`: PDU of h, see `pdus.estimate_to_pmt`. `status`: dict with `kind`: "started", "accounts" (at
    most once a second), "back-off" (when it begins or ends), "engine" (another one is in use, or the GPU's failed:
    `from`, `to`, `why`), "warning" and "error" (with `text`), "finished".
    Streams out: vectors of fft_size, one for each symbol, in order of rising frequency with DC in the middle, zero
    outside the numerology's subcarriers. Output 0: received symbols, each with the tag `ofdm_sync_chan_taps` that GNU
    Radio's ofdm_frame_equalizer_vcvc takes; output 1: the channel, which needs output 0 to be connected. With all
    antennas combined they are the two results of `combine`. See `SymbolSource`. A stream whose reader is slow holds
    the estimator back.
    When the block that sends the grids ends, all that waits is estimated and published before this one ends. Raises
    WavesfmError when the bundle or a parameter is wrong; while running no error ends the flowgraph.
    """

    def __init__(
        self,
        bundle: str = "",
        numerology: str = "",
        method: str = "",
        device: str = "auto",
        back_off: bool = True,
        snr_enter_db: float = NO_BACK_OFF_DB,
        snr_leave_db: float = NO_BACK_OFF_DB - 3,
        residual_enter: float = BackOff.residual_enter,
        residual_leave: float = BackOff.residual_leave,
        fft_size: int = 0,
        antenna: int = ALL_ANTENNAS,
        policy: str = "block",
        queue_slots: int = 64,
        batch_slots: int = 32,
        batch_wait_ms: float = 10.0,
        precision: str = "auto",
        device_id: int = 0,
        covariances: str = "",
    ) -> None:
        residual = (residual_enter, residual_leave) if residual_enter > 0 else (math.inf, math.inf)
        backoff = BackOff(snr_enter_db, snr_leave_db, *residual) if back_off else None
        self._default_method = "model" if bundle else "ls"
        self._running = False
        self._pipeline = self._open(
            bundle, numerology, method or self._default_method, backoff, device, precision, int(device_id), covariances
        )
        spec = self._pipeline.spec
        require_size("channel estimator", "fft_size", fft_size, spec.fft_size)
        vector = gr.sizeof_gr_complex * spec.fft_size
        gr.hier_block2.__init__(
            self, "wavesfm_channel_estimator", gr.io_signature(0, 0, 0), gr.io_signature(2, 2, vector)
        )
        self.set_antenna(antenna)
        self._worker_options = int(queue_slots), int(batch_slots), batch_wait_ms / 1000
        self._policy = policy
        self._lock = threading.Lock()  # of the worker's opening and closing and of the setters
        self._seen = _Seen()
        self._worker = self._make_worker()
        self._worker.close()  # this one was opened to refuse wrong parameters now and not in the running flowgraph

        self._symbols = SymbolSource(spec.fft_size, spec.symbols, int(queue_slots))
        self._messages = _Messages(self)
        self._commands = _Commands(self)
        for port, block in ((GRIDS, self._messages), (COMMAND, self._commands)):
            self.message_port_register_hier_in(pmt.symbol_to_string(port))
            self.msg_connect(self, port, block, port)
        for port in (CHANNEL, STATUS):
            self.message_port_register_hier_out(pmt.symbol_to_string(port))
            self.msg_connect(self._messages, port, self, port)
        for index in (0, 1):
            self.connect((self._symbols, index), (self, index))

    def set_method(self, method: str) -> None:
        """As at construction, from the next batch on. Raises ConfigurationError, BundleError or EngineError."""
        self._pipeline.set_method(method or self._default_method)

    def set_antenna(self, antenna: int) -> None:
        """Whose symbols the stream has from the next batch on, -1: all combined. Raises ConfigurationError."""
        last = self._pipeline.spec.antennas - 1
        if not (isinstance(antenna, int) and ALL_ANTENNAS <= antenna <= last):
            raise ConfigurationError("channel estimator", "antenna", antenna, f"-1 (all) to {last}")
        self._antenna = antenna

    def set_policy(self, policy: str) -> None:
        """`block`, `drop_oldest` or `drop_newest`, at once even where grids wait. Raises ConfigurationError."""
        with self._lock:
            self._worker.policy = policy
            self._policy = policy

    def status(self) -> dict[str, Any]:
        """The accounts of this run or, after it, of the last one, with the keys of the message "finished".

        grids_in = refused + slots_in; slots_in = estimated + dropped + failed + waiting. refused: messages that are no
        grid of this numerology; failed: slots that no channel could be estimated of, or whose channel could not be
        published; backed_off: estimates that are least squares in place of the method's; method, snr_db, nmse_db,
        residual, backing_off: of the last estimate; engine_failures: how often a GPU's engine failed and the CPU's took
        over.
        """
        seen = self._seen
        unpublished = seen.unpublished  # before the accounts, which hold these as estimated already
        accounts = self._worker.accounts
        return {
            "grids_in": seen.refused + accounts.tiles_in,
            "refused": seen.refused,
            "slots_in": accounts.tiles_in,
            "estimated": accounts.inferred - unpublished,
            "dropped": accounts.dropped,
            "failed": accounts.failed + unpublished,
            "waiting": accounts.waiting,
            "batches": accounts.batches,
            "backed_off": seen.backed_off,
            "method": "" if seen.last is None else seen.last.method,
            "snr_db": None if seen.last is None else seen.last.snr_db,
            "nmse_db": None if seen.last is None else seen.last.nmse_db,
            "residual": None if seen.last is None else seen.last.residual,
            "backing_off": seen.last is not None and seen.last.backed_off,
            "last_error": seen.failure,
            "engine_failures": engine_failures(self._pipeline.engine),
        }

    @property
    def bundle_id(self) -> str:
        """The id of the bundle, "" where there is none."""
        return "" if self._pipeline.bundle is None else self._pipeline.bundle.id

    @property
    def engine(self) -> str:
        """Which runtime runs the model, where and how; "" where no method has needed it."""
        return "" if self._pipeline.engine is None else str(self._pipeline.engine.description)

    def predict(self, slots: Sequence[Slot]) -> list[_Answer | WavesfmError]:
        """What the worker calls: each slot with its estimate, or the error why there is none."""
        estimates = self._pipeline.predict(slots)
        return [e if isinstance(e, WavesfmError) else _Answer(slot, e) for slot, e in zip(slots, estimates)]

    def _open(
        self,
        bundle: str,
        numerology: str,
        method: str,
        backoff: BackOff | None,
        device: str,
        precision: str,
        device_id: int,
        covariances: str,
    ) -> ChannelPipeline:
        given = Covariances.load(covariances) if covariances else None
        if not bundle:
            return ChannelPipeline.of(read_numerology(numerology), method, given, backoff)
        return ChannelPipeline.open(
            bundle,
            method,
            device,
            backoff,
            precision=precision,
            device_id=device_id,
            on_change=self._publish_engine,
            covariances=given,
        )

    def _make_worker(self) -> Worker:
        return Worker(self, self._publish, *self._worker_options, self._policy, self._publish_failure)

    def _open_run(self) -> None:
        with self._lock:
            self._worker.close()
            self._seen = _Seen()
            self._pipeline.reopen()
            self._worker = self._make_worker()
        self._running = True
        if self._pipeline.backoff is not None:
            self._pipeline.backoff.reset()
        self._messages.say(
            "started",
            bundle_id=self.bundle_id,
            engine=self.engine,
            method=self._pipeline.method,
            numerology=self._pipeline.spec.id,
            policy=self._policy,
        )

    def _take(self, message: Any) -> None:
        self._worker.submit(slot_from_pmt(message, self._pipeline.spec))
        if self._worker.accounts.dropped and not self._seen.drop_said:
            self._seen.drop_said = True
            text = f"slots are dropped (policy {self._policy}): the estimator is slower than the stream"
            self._messages.say("warning", text=text)

    def _finish_run(self) -> None:
        self._worker.drain()
        self._close_run()
        self._messages.say("finished", **self.status())
        self._symbols.end()

    def _close_run(self) -> None:
        with self._lock:
            waiting = self._worker.accounts.waiting
            self._worker.close()
            self._running = False
            self._pipeline.close()
        if waiting:
            self._messages.logger.warn(f"stopped while {waiting} slots waited; those not begun are dropped")

    def _publish(self, answers: list[_Answer]) -> None:
        for slot, estimate, _ in answers:
            try:
                self._publish_one(slot, estimate)
            except Exception as error:  # it would lose the others of the batch
                self._seen.unpublished += 1
                text = f"slot at sample {slot.start_sample}: {type(error).__name__}: {error}"
                self._say_failure(f"publishing {type(error).__name__}", text, 1)
        now_s = clock.monotonic()
        if now_s - self._seen.accounts_said_s >= ACCOUNTS_EVERY_S:
            self._seen.accounts_said_s = now_s
            self._messages.say("accounts", **self.status())

    def _publish_one(self, slot: Slot, estimate: ChannelEstimate) -> None:
        message = estimate_to_pmt(estimate, slot, self._pipeline.spec)
        vectors = self._vectors(slot, estimate) if self._symbols.running else None
        self._messages.message_port_pub(CHANNEL, message)
        self._note(estimate)
        if vectors is not None:
            self._symbols.put(*vectors, slot.start_sample)

    def _note(self, estimate: ChannelEstimate) -> None:
        seen = self._seen
        was = seen.last is not None and seen.last.backed_off
        seen.backed_off += estimate.backed_off
        seen.last = estimate
        if estimate.backed_off != was:
            facts = {name: getattr(estimate, name) for name in ("start_sample", "snr_db", "residual", "method")}
            self._messages.say("back-off", active=estimate.backed_off, **facts)

    def _vectors(self, slot: Slot, estimate: ChannelEstimate) -> tuple[Any, Any]:
        antenna, spec = self._antenna, self._pipeline.spec
        if antenna == ALL_ANTENNAS:
            received, channel = combine(slot.grid, estimate.channel)
        else:
            received, channel = slot.grid[antenna], estimate.channel[antenna]
        return spread(received, spec), spread(channel, spec)

    def _publish_engine(self, change: EngineChange) -> None:
        if self._running:  # before, "started" will say which engine it is and why
            self._messages.say_engine(change)

    def _publish_failure(self, error: WavesfmError, n_slots: int) -> None:
        self._say_failure(error.field, str(error), n_slots)

    def _refuse(self, error: Exception) -> None:
        self._seen.refused += 1
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self._say_failure(f"refused {what.split(':')[0]}", f"grid: {what}; it is passed over", 1)

    def _say_failure(self, cause: str, text: str, n_slots: int) -> None:
        self._seen.failure = text
        self._messages.say_failure(cause, text=text, slots=n_slots)


class _Answer(NamedTuple):
    slot: Slot
    estimate: ChannelEstimate
    gated: bool = False


class _Seen:
    """What one run has seen beside the worker's accounts."""

    def __init__(self) -> None:
        self.refused = self.backed_off = 0
        self.unpublished = 0  # which the worker's accounts have as estimated
        self.failure = ""  # the last one, of whatever kind
        self.last: ChannelEstimate | None = None
        self.drop_said = False
        self.accounts_said_s = clock.monotonic()


class _Messages(Speaker):
    """The block of the grids and of the answers; its message neighbours upstream send grids and nothing else."""

    def __init__(self, owner: channel_estimator) -> None:
        super().__init__("wavesfm_estimates", (CHANNEL,))
        self._owner = owner
        self.message_port_register_in(GRIDS)
        self.set_msg_handler(GRIDS, self.handle_grid)
        self.set_msg_handler(SYSTEM, self.handle_system)

    def handle_grid(self, message: Any) -> None:
        """Queue one slot; never raises: that would end the block's thread and hang the flowgraph."""
        try:
            self._owner._take(message)
        except Exception as error:
            self._owner._refuse(error)

    def handle_system(self, message: Any) -> None:
        """The sender of the grids has ended: take those that still wait, finish, and then be done."""
        while (grid := self.gateway.delete_head_nowait(GRIDS)) is not None:
            self.handle_grid(grid)
        try:
            self._owner._finish_run()
        except Exception as error:
            self.say("error", text=f"end of stream: {error}")
        self.gateway.system_handler(message)

    def start(self) -> bool:
        try:
            self._owner._open_run()
        except Exception as error:
            self.say("error", text=f"start: {error}")
        return True

    def stop(self) -> bool:
        self._owner._close_run()
        return True


class _Commands(gr.basic_block):  # type: ignore[misc]
    """The block of the commands, so that a sender of commands that ends does not end the estimator."""

    def __init__(self, owner: channel_estimator) -> None:
        gr.basic_block.__init__(self, "wavesfm_commands", [], [])
        self._owner = owner
        self.message_port_register_in(COMMAND)
        self.set_msg_handler(COMMAND, self.handle_command)

    def handle_command(self, message: Any) -> None:
        """Apply one command; what cannot be applied is said on `status`."""
        try:
            for name, value in command_from_pmt(message, COMMANDS).items():
                getattr(self._owner, f"set_{name}")(value)
        except Exception as error:
            self._owner._messages.say("error", text=f"command: {error}")
