# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimates the channel of OFDM slots; h leaves as PDUs and as vectors for GNU Radio's OFDM equalisers."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import pmt
from gnuradio import gr
from wavesfm_core._kernels import SlotAnswer
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.backoff import RESIDUAL_ENTER, RESIDUAL_LEAVE, BackOff
from wavesfm_core.channel.combining import combine, spread
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.engines import EngineChange
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.worker import WorkerOptions, check_policy

from . import _runtime
from .commands import Setting, apply_all, command_from_pmt
from .estimator_session import EstimatorEvents, EstimatorSession
from .idle_engine import IdleEngine, weak_listener
from .keep_alive import KeptAlive
from .messages import COMMAND, STATUS, SYSTEM
from .monitor import Monitor
from .numerology_file import read_numerology, require_size
from .pdus import CHANNEL, GRIDS, grid_format
from .publisher import NativePort, StatusPublisher, publishes_to
from .stream_end import stop_requested
from .symbol_source import SymbolSource

ALL_ANTENNAS = -1
NO_BACK_OFF_DB = 100.0  # the measured SNR is limited to 80 dB
STOP_S = 2.0  # longest wait for a running batch at a stop; an engine that takes longer is abandoned
END_S = 60.0  # the same for the last batches at the end of the grids
OUT_QUEUE = 128  # most channels that wait for a slow reader, besides those in its queue; a batch has up to 32


class channel_estimator(KeptAlive, gr.hier_block2):  # type: ignore[misc]
    """Take grids of OFDM slots as PDUs, estimate their channel beside the flowgraph's threads, and publish it.

    Parameters
    ----------
    bundle : str
        Directory of a model bundle for pilot grids; "": none.
    numerology : str
        JSON file with the fields of `OFDMSpec`; read only without a bundle.
    method : {"", "model", "lmmse", "lmmse-tf", "ls", "ls-nearest"}
        "": the bundle's model, without a bundle "ls".
    device : {"auto", "cpu", "tensorrt", "openvino", "onnxruntime"}
        Where the model runs; "auto" takes a GPU if one is usable. While a GPU's engine is compiled, and after it has
        failed, the CPU's engine serves.
    back_off : bool
        Whether least squares may replace the method's estimate, see `BackOff`.
    snr_enter_db : float
        SNR in dB from which on least squares are taken; 100: never.
    snr_leave_db : float
        SNR in dB below which the method is taken again.
    residual_enter : float
        Residual from which on least squares are taken; 0: never.
    residual_leave : float
        Residual below which the method is taken again.
    fft_size : int
        Length of the vectors, which must be the numerology's; 0: as the numerology has.
    antenna : int
        Whose symbols the streams have, from 0; -1: all antennas, combined at the maximum ratio.
    policy : {"drop_oldest", "drop_newest", "block"}
        With a full queue, or a slow reader of the messages: drop and count, or hold the sender of the grids back.
    queue_slots : int
        Most slots that wait for the estimator.
    batch_slots : int
        The estimator runs when this many slots wait.
    batch_wait_ms : float
        The estimator runs when the first slot has waited this long, in ms.
    precision : {"auto", "f32", "bf16", "fp16", "int8"}
        Of the arithmetic; fp16 and int8 need TensorRT.
    device_id : int
        Number of the GPU, from 0.
    covariances : str
        File of `Covariances.save` for the two LMMSE methods; "": the bundle's.
    threads : int
        Of an engine on the CPU; 0: the runtime's choice.
    max_age_s : float
        Slots older than this are dropped and counted, in s; 0: none.
    batch_pdus : bool
        Publish the channels of a batch as one PDU, see `pdus.slots_from_pmt`.

    Raises
    ------
    WavesfmError
        For a wrong bundle or parameter. While running no error ends the flowgraph.

    Notes
    -----
    Messages in: `grids`: see `pdus.slot_to_pmt`. `command`: dict or pair with `method`, `antenna`, `policy`; all of it
    is applied, or none.

    Messages out: `channel`: PDU of h, see `pdus.estimate_to_pmt`. `status`: dict with `kind`: "started", "accounts"
    (once a second), "back-off" (when it begins or ends), "engine" (`from`, `to`, `why`), "warning" and "error" (with
    `text`), "finished".

    Streams out: vectors of fft_size, one for each symbol, in order of rising frequency with DC in the middle, zero
    outside the numerology's subcarriers. Output 0: received symbols, each with the tag `ofdm_sync_chan_taps` that GNU
    Radio's ofdm_frame_equalizer_vcvc takes. Output 1, which needs output 0 to be connected: the channel. With all
    antennas combined they are the two results of `combine`. See `SymbolSource`. A slow reader of a stream holds the
    estimator back.

    When all senders of grids have ended, everything that waits is estimated and published before this block ends.
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
        residual_enter: float = RESIDUAL_ENTER,
        residual_leave: float = RESIDUAL_LEAVE,
        fft_size: int = 0,
        antenna: int = ALL_ANTENNAS,
        policy: str = "drop_oldest",
        queue_slots: int = 64,
        batch_slots: int = 32,
        batch_wait_ms: float = 10.0,
        precision: str = "auto",
        device_id: int = 0,
        covariances: str = "",
        threads: int = 0,
        max_age_s: float = 0.0,
        batch_pdus: bool = False,
    ) -> None:
        residual = (residual_enter, residual_leave) if residual_enter > 0 else (math.inf, math.inf)
        backoff = BackOff(snr_enter_db, snr_leave_db, *residual) if back_off else None
        self._options = WorkerOptions(int(queue_slots), int(batch_slots), batch_wait_ms / 1000, float(max_age_s))
        check_policy(policy)
        self._policy = policy
        self._default_method = "model" if bundle else "ls"
        self._running = False
        learnt = Covariances.load(covariances) if covariances else None
        if bundle:
            options = {"threads": int(threads), "precision": precision, "device_id": int(device_id), "shared": True}
            listener = weak_listener(self._publish_engine)
            self._pipeline = ChannelPipeline.open(
                bundle, method or "model", device, backoff, on_change=listener, covariances=learnt, **options
            )
        else:
            self._pipeline = ChannelPipeline.of(read_numerology(numerology), method or "ls", learnt, backoff)
        spec = self._pipeline.spec
        require_size("channel estimator", "fft_size", fft_size, spec.fft_size)
        vector = gr.sizeof_gr_complex * spec.fft_size
        gr.hier_block2.__init__(
            self, "wavesfm_channel_estimator", gr.io_signature(0, 0, 0), gr.io_signature(2, 2, vector)
        )
        self._engine = IdleEngine(self, self._pipeline)
        self._lock = threading.RLock()  # guards the session's opening and closing, and the setters
        self._run = 0
        self.set_antenna(antenna)
        self._symbols = SymbolSource(spec.fft_size, spec.symbols, int(queue_slots))
        self._messages = _Messages(self)
        self._pipeline.native.set_allocator(_runtime.PmtGrids())
        outbox = self._messages.native_outbox(CHANNEL)
        self._publisher = _runtime.ChannelPublisher(outbox, grid_format(spec), bool(batch_pdus))
        self._commands = _Commands(self)
        self._session = self._make_session()
        self._session.close()
        self._monitor = Monitor(self._messages, self)  # replaced at each start
        self._connect()

    def set_method(self, method: str) -> None:
        """Set the method from the next batch on. Raises ConfigurationError, BundleError or EngineError."""
        with self._lock:
            self._pipeline.set_method(method or self._default_method)
            if not self._running:
                self._engine.rest()

    def set_antenna(self, antenna: int) -> None:
        """Set whose symbols the streams have from the next batch on; -1: all combined. Raises ConfigurationError."""
        last = self._pipeline.spec.antennas - 1
        if not (isinstance(antenna, int) and ALL_ANTENNAS <= antenna <= last):
            raise ConfigurationError("channel estimator", "antenna", antenna, f"-1 (all) to {last}")
        self._antenna = antenna

    def set_policy(self, policy: str) -> None:
        """Set what is done with a full queue, also where grids wait now. Raises ConfigurationError."""
        with self._lock:
            self._session.set_policy(policy)
            self._policy = policy

    def apply(self, commands: Mapping[str, Any]) -> None:
        """Change several settings by the names of the port `command`; where one is wrong, none is changed.

        Raises ValueError for an unknown name and WavesfmError for a wrong value.
        """
        settings = {
            "method": Setting(lambda: self._pipeline.method, self.set_method),
            "antenna": Setting(lambda: self._antenna, self.set_antenna),
            "policy": Setting(lambda: self._policy, self.set_policy),
        }
        apply_all(commands, settings)

    def status(self) -> dict[str, Any]:
        """Return the accounts of this run or, after it, of the last one; the keys of the message "finished".

        See `EstimatorSession.status`; messages_dropped: channels that a slow reader did not get; run: how often the
        block was started.
        """
        return {"run": self._run, **self._session.status(), "messages_dropped": self._messages.messages_dropped}

    def silence(self, now_s: float) -> str:
        """Return "": the sender of the grids says why none come."""
        return ""

    def batch_s(self) -> float:
        """Return the seconds since the running batch began, 0.0 between batches."""
        return self._session.batch_s

    @property
    def bundle_id(self) -> str:
        """The id of the bundle, "" without one."""
        return "" if self._pipeline.bundle is None else self._pipeline.bundle.id

    @property
    def engine(self) -> str:
        """Runtime, device, precision and threads of the model's engine; "" while no method has needed it."""
        return "" if self._pipeline.engine is None else str(self._pipeline.engine.description)

    def _connect(self) -> None:
        for port, block in ((GRIDS, self._messages), (COMMAND, self._commands)):
            self.message_port_register_hier_in(pmt.symbol_to_string(port))
            self.msg_connect(self, port, block, port)
        for port in (CHANNEL, STATUS):
            self.message_port_register_hier_out(pmt.symbol_to_string(port))
            self.msg_connect(self._messages, port, self, port)
        for index in (0, 1):
            self.connect((self._symbols, index), (self, index))
        self.note_references()

    def _make_session(self) -> EstimatorSession:
        methods = self._put_symbols, self._messages.report, self._publish_failure
        events = EstimatorEvents(*map(weak_listener, methods))  # C++ holds them, which no garbage collection sees
        running = self._symbols.running_flag
        return EstimatorSession(self._pipeline, self._options, self._policy, events, self._publisher, running)

    def _open_run(self) -> None:
        with self._lock:
            self._run += 1
            self._session.close(STOP_S)
            self._engine.use()
            self._session = self._make_session()
            self._publisher.run = self._run
            self._messages.open()
            self._session.attach(self._messages.symbol_name(), pmt.symbol_to_string(GRIDS))
            self._running = True
        self._messages.report(
            "started",
            run=self._run,
            bundle_id=self.bundle_id,
            engine=self.engine,
            method=self._pipeline.method,
            numerology=self._pipeline.spec.id,
            policy=self._policy,
        )
        self._monitor = Monitor(self._messages, self)
        self._monitor.start()

    def _finish_run(self) -> None:
        self._session.finish(lambda: stop_requested() or self.batch_s() > END_S)
        self._messages.drain()
        self._close_run()
        self._messages.report("finished", **self.status())
        self._symbols.end()

    def _close_run(self) -> None:
        self._monitor.stop()
        self._messages.close()
        with self._lock:
            if not self._running:
                return
            self._running = False
            waiting, batch_s = self._session.status()["waiting"], self.batch_s()
            if self._session.close(STOP_S):
                self._engine.rest()
            else:
                self._engine.abandon()
                text = f"the estimator has not returned for {batch_s + STOP_S:.0f} s: its thread is abandoned"
                self._messages.logger.error(text)
        if waiting:
            self._messages.logger.warn(f"stopped while {waiting} slots waited; those not begun are dropped")

    def _put_symbols(self, answers: list[SlotAnswer]) -> list[str]:
        """Write the symbols of a batch to the streams; returns for each slot "" or why that failed."""
        faults = []
        for answer in answers:
            try:
                self._symbols.put(*self._vectors(answer), answer.slot.start_sample)
                faults.append("")
            except Exception as error:  # it would lose the others of the batch
                faults.append(f"{type(error).__name__}: {error}")
        return faults

    def _vectors(self, answer: SlotAnswer) -> tuple[Any, Any]:
        spec, antenna = self._pipeline.spec, self._antenna
        size = math.prod(spec.grid_shape)
        grid, channel = (values.reshape(spec.grid_shape) for values in (answer.slot.grid(size), answer.channel(size)))
        pair = combine(grid, channel) if antenna == ALL_ANTENNAS else (grid[antenna], channel[antenna])
        return spread(pair[0], spec), spread(pair[1], spec)

    def _publish_engine(self, change: EngineChange) -> None:
        if self._running:  # before, "started" will say which engine it is and why
            self._messages.report_engine(change)

    def _publish_failure(self, cause: str, text: str, n_slots: int) -> None:
        self._messages.report_failure(cause, text=text, slots=n_slots)


class _Messages(StatusPublisher):
    """The block of the grids and of the answers; its senders send grids and nothing else."""

    def __init__(self, owner: channel_estimator) -> None:
        super().__init__("wavesfm_estimates", (CHANNEL,), lambda: owner._policy, limit=OUT_QUEUE, port_type=NativePort)
        self._owner = owner
        self.message_port_register_in(GRIDS)  # its messages go to the session, see `EstimatorSession.attach`
        self.set_msg_handler(SYSTEM, self.handle_system)

    def handle_system(self, message: Any) -> None:
        """Finish when the last sender of grids has ended, with the grids that still wait, and then end."""
        if publishes_to(self):
            return
        try:
            self._owner._session.take_waiting(self.symbol_name(), pmt.symbol_to_string(GRIDS))
            self._owner._finish_run()
        except Exception as error:
            self.report("error", text=f"end of stream: {error}")
        self.ended()
        self.gateway.system_handler(message)

    def start(self) -> bool:
        try:
            self._owner._open_run()
        except Exception as error:
            self.report("error", text=f"start: {error}")
        return True

    def stop(self) -> bool:
        self.close()
        self.ended()
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
        """Apply one command, all of it or nothing; a wrong one is published on `status`."""
        try:
            self._owner.apply(command_from_pmt(message))
        except Exception as error:
            self._owner._messages.report("error", text=f"command: {error}")
