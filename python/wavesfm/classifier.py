# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifies a complex stream with a model bundle; predictions leave as messages."""

from __future__ import annotations

import dataclasses
import math
import threading
import time as clock
from collections.abc import Mapping
from typing import Any

import pmt
from gnuradio import gr
from wavesfm_core.band.types import Event
from wavesfm_core.band_worker import BandWorker
from wavesfm_core.engines import EngineChange
from wavesfm_core.engines.shared import engine_failures, remote_accounts
from wavesfm_core.errors import ConfigurationError, WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import DEFAULT_GATE_DB
from wavesfm_core.types import Prediction
from wavesfm_core.worker import check_policy

from .commands import Setting, apply_all, command_from_pmt
from .idle_engine import IdleEngine, weak_listener
from .input_types import InputType
from .input_types import input_type as checked_type
from .keep_alive import KeptAlive
from .messages import (
    COMMAND,
    DETECTIONS,
    EVENTS,
    LABEL,
    OVERFLOWS,
    PREDICTIONS,
    STATUS,
    detections_to_pmt,
    event_to_pmt,
    overflows_from_pmt,
    prediction_message,
    retune_from_tags,
)
from .monitor import Monitor
from .session import Session, SessionOptions
from .stream_end import END, MessageSide, StreamSide, chunk_samples, stop_requested

DETECT = ("off", "on")
STOP_S = 2.0  # longest wait for a running batch at a stop; an engine that takes longer is abandoned
END_S = 60.0  # the same for the last batches at the end of a stream


class classifier(KeptAlive, gr.hier_block2):  # type: ignore[misc]
    """Cut a stream of samples into tiles, classify them beside the flowgraph's threads, and publish predictions.

    Parameters
    ----------
    bundle : str
        Directory of the model bundle; the only parameter that is needed.
    device : {"auto", "cpu", "tensorrt", "openvino", "onnxruntime"}
        Where the model runs; "auto" takes a GPU if one is usable; "kserve://HOST:PORT/MODEL" a server. While a GPU's
        engine is compiled or a server is asked, and after it has failed, the CPU's engine serves. Classifiers of one
        bundle with equal engine options share one engine.
    sample_rate : float
        In Hz, 0 when unknown. A tag rx_rate replaces it from its sample on.
    center_freq : float
        In Hz, 0 when unknown. A tag rx_freq replaces it from its sample on.
    gate_db : float or None
        A tile is answered "noise" without inference when it looks like tiles of this tuning that the model called noise
        and its peak is less than so many dB over their floor; negative or None: no gate.
    threshold : float or None
        Confidence below which the label is "unknown", 0 to 1; negative or None: the bundle's.
    policy : {"block", "drop_oldest", "drop_newest"}
        With a full queue, or a slow reader of the messages: hold the stream back, or drop and count.
    queue_tiles : int
        Most tiles that wait for the engine.
    batch_tiles : int
        The engine runs when this many tiles wait.
    batch_wait_ms : float
        The engine runs when the first tile has waited this long, in ms.
    precision : {"auto", "f32", "bf16", "fp16", "int8"}
        Of the arithmetic; fp16 and int8 need TensorRT.
    device_id : int
        Number of the GPU, from 0.
    threads : int
        Of an engine on the CPU; 0: the runtime's choice.
    max_age_s : float
        Tiles older than this are dropped and counted, in s; 0: none.
    time_tolerance_s : float
        Difference from the tracked time at which a tag rx_time is a gap, in s; 0: the larger of 5 us and one sample.
    detect : {"off", "on"}
        Also search the band for signals, zoom in on each and name it. Needs a known sample rate.
    input_type : {"fc32", "sc16", "sc8"}
        Items of the stream: complex64, or interleaved I and Q of int16 (divided by 32768) or int8 (by 128).
    ask_again_s : float
        A tile that looks like the last one that the model was asked about gets the same label without inference, until
        so many seconds have passed; 0: the model is asked about every tile. See `Thinning`.

    Raises
    ------
    WavesfmError
        For a wrong bundle or parameter. While running no error ends the flowgraph.

    Notes
    -----
    Messages out: `predictions`: dict, see `messages.prediction_to_pmt`. `status`: dict with `kind`: "started",
    "accounts" (once a second), "engine" (`from`, `to`, `why`), "warning" and "error" (with `text`), "finished" (the
    final accounts). `label`: pair ("label" . text) when the label changes, for QT GUI.
    With `detect`: `events`: dict, see `messages.event_to_pmt`; `detections`: the emitters known, after each event.

    Messages in: `command`: dict or pair with `threshold`, `gate_db`, `policy`, `freq` or `center_freq`, `rate` or
    `sample_rate`; all of it is applied, or none. `overflows`: the asynchronous messages of a UHD source, or any message
    for one overflow.

    A new tile begins where rate or frequency change and at a gap in time. At the end of the stream all waiting tiles
    and the last partial one are classified and published before the block ends. Rate and frequency stay known over a
    stop; the engine stays open for a minute.
    """

    def __init__(
        self,
        bundle: str,
        device: str = "auto",
        sample_rate: float = 0.0,
        center_freq: float = 0.0,
        gate_db: float | None = DEFAULT_GATE_DB,
        threshold: float | None = -1.0,
        policy: str = "block",
        queue_tiles: int = 64,
        batch_tiles: int = 8,
        batch_wait_ms: float = 10.0,
        precision: str = "auto",
        device_id: int = 0,
        threads: int = 0,
        max_age_s: float = 0.0,
        time_tolerance_s: float = 0.0,
        detect: str = "off",
        input_type: str = "fc32",
        ask_again_s: float = 0.0,
    ) -> None:
        items = checked_type("classifier", input_type)
        gr.hier_block2.__init__(
            self, "wavesfm_classifier", gr.io_signature(1, 1, items.item_bytes), gr.io_signature(0, 0, 0)
        )
        check_policy(policy)
        self._policy = policy
        self._options = SessionOptions(
            _checked("sample_rate", sample_rate),
            _checked("center_freq", center_freq) or None,
            int(queue_tiles),
            int(batch_tiles),
            batch_wait_ms / 1000,
            _checked("max_age_s", max_age_s),
            _checked("time_tolerance_s", time_tolerance_s),
        )
        if detect not in DETECT:
            raise ConfigurationError("classifier", "detect", repr(detect), f"one of {', '.join(DETECT)}")
        self._detect = detect == "on"
        self._band: BandWorker | None = None
        _ = self._options.worker  # refuses wrong limits before an engine is opened
        self._running = False
        self._pipeline = Pipeline.open(
            bundle,
            device,
            gate_db=_or_none(gate_db),
            threshold=_or_none(threshold),
            threads=int(threads),
            precision=precision,
            device_id=int(device_id),
            on_change=weak_listener(self._publish_engine),
            shared=True,
            ask_again_s=_checked("ask_again_s", ask_again_s),
        )
        self._engine = IdleEngine(self, self._pipeline)
        self._lock = threading.RLock()  # guards the session's opening and closing, and the setters
        self._label = ""
        self._run = self._sequence = self._sequence_of_events = 0
        self._input = _SampleInput(self, chunk_samples(self._options.rate_hz), items)
        self._output = _MessageOutput(self, self._input)
        self._monitor = Monitor(self._output, self)  # replaced at each start
        try:
            self._session = self._make_session(0)
        except BaseException:  # a bundle that takes no IQ
            self._pipeline.close()
            raise
        self._session.close()
        for port in (PREDICTIONS, STATUS, LABEL, EVENTS, DETECTIONS):
            self.message_port_register_hier_out(pmt.symbol_to_string(port))
            self.msg_connect(self._output, port, self, port)
        for port in (COMMAND, OVERFLOWS):
            self.message_port_register_hier_in(pmt.symbol_to_string(port))
            self.msg_connect(self, port, self._output, port)
        self.msg_connect(self._input, END, self._output, END)
        self.connect(self, self._input)
        self.note_references()

    def set_threshold(self, threshold: float | None) -> None:
        """Set the least confidence of a label, 0 to 1; negative or None: the bundle's. Raises ConfigurationError."""
        default = self._pipeline.bundle.spec.head.threshold
        self._pipeline.head.threshold = default if _or_none(threshold) is None else threshold

    def set_gate_db(self, gate_db: float | None) -> None:
        """Set the power gate in dB over the noise floor; negative or None: no gate. Raises ConfigurationError."""
        self._pipeline.gate.gate_db = _or_none(gate_db)

    def set_policy(self, policy: str) -> None:
        """Set what is done with a full queue, also where the stream waits now. Raises ConfigurationError."""
        with self._lock:
            self._session.worker.policy = policy
            self._policy = policy

    def set_sample_rate(self, sample_rate: float) -> None:
        """Set the sample rate in Hz, 0 when unknown; a new tile begins if it differs. Raises ConfigurationError."""
        rate_hz = _checked("sample_rate", sample_rate)
        with self._lock:
            self._options = dataclasses.replace(self._options, rate_hz=rate_hz)
            self._session.set_rate(rate_hz)

    def set_center_freq(self, center_freq: float) -> None:
        """Set the centre frequency in Hz, 0 when unknown; a new tile begins if it differs.

        Raises ConfigurationError.
        """
        centre_hz = _checked("center_freq", center_freq) or None
        with self._lock:
            self._options = dataclasses.replace(self._options, centre_hz=centre_hz)
            self._session.set_centre(centre_hz)

    def apply(self, commands: Mapping[str, Any]) -> None:
        """Change several settings by the names of the port `command`; where one is wrong, none is changed.

        Raises ValueError for an unknown name and ConfigurationError for a wrong value.
        """
        apply_all(commands, self._settings())

    def status(self) -> dict[str, Any]:
        """Return the accounts of this run or, after it, of the last one; the keys of the message "finished".

        See `Session.status`; repeated: tiles of `gated` that thinning gave an earlier label; messages_dropped: messages
        that a slow reader did not get; engine_failures: how often a GPU's or a server's engine failed and the CPU's
        took over; remote: with a server, its `RemoteAccounts`; run: how often the block was started.
        """
        return {
            "run": self._run,
            **self._session.status(),
            "repeated": self._pipeline.thinning.repeated,
            "messages_dropped": self._output.messages_dropped,
            "engine_failures": engine_failures(self._pipeline.engine),
            **({"remote": remote} if (remote := remote_accounts(self._pipeline.engine)) else {}),
        }

    def silence(self, now_s: float) -> str:
        """Return why no tile was cut for two seconds, or ""; now_s: monotonic."""
        return self._session.silence(now_s)

    def batch_s(self) -> float:
        """Return the seconds since the running batch began, 0.0 between batches."""
        return self._session.worker.batch_s

    @property
    def bundle_id(self) -> str:
        """The id that every prediction carries."""
        return self._pipeline.bundle.id

    @property
    def engine(self) -> str:
        """Runtime, device, precision and threads of the engine in use."""
        return str(self._pipeline.engine.description)

    def _settings(self) -> dict[str, Setting]:
        gate, head = self._pipeline.gate, self._pipeline.head
        rate = Setting(lambda: self._options.rate_hz, self.set_sample_rate)
        centre = Setting(lambda: self._options.centre_hz or 0.0, self.set_center_freq)
        return {
            "threshold": Setting(lambda: head.threshold, self.set_threshold),
            "gate_db": Setting(lambda: gate.gate_db, self.set_gate_db),
            "policy": Setting(lambda: self._policy, self.set_policy),
            "freq": centre,
            "center_freq": centre,
            "rate": rate,
            "sample_rate": rate,
        }

    def _make_session(self, start_sample: int) -> Session:
        listeners = self._publish_predictions, self._publish_failure, self._warn
        if self._detect:
            options = self._options
            failed = self._publish_search_failure
            self._band = BandWorker(
                self._pipeline, self._publish_events, failed, options.rate_hz, options.centre_hz, start_sample
            )
        return Session(
            self._pipeline, self._options, self._policy, start_sample, *listeners, self._cancelled, self._band
        )

    def _cancelled(self) -> bool:
        return stop_requested() or self._session.worker.batch_s > END_S

    def _open_session(self, start_sample: int) -> None:
        with self._lock:
            self._run += 1
            self._session.close(STOP_S)
            self._engine.use()
            self._session = self._make_session(start_sample)
            self._output.open()
        self._running = True
        self._output.report(
            "started",
            run=self._run,
            bundle_id=self.bundle_id,
            engine=self.engine,
            policy=self._policy,
            tile_samples=self._pipeline.bundle.spec.preprocess.tile_samples,
        )
        self._monitor = Monitor(self._output, self)
        self._monitor.start()

    def _reopen_session(self, next_sample: int) -> None:
        """Open a session after a start that failed; the samples until then are skipped."""
        failed = self._session
        self._open_session(failed.start_sample)
        self._session.skip_to(next_sample)

    def _close_session(self) -> None:
        self._monitor.stop()
        self._output.close()
        with self._lock:
            if not self._running:
                return
            self._running = False
            waiting, batch_s = self._session.worker.accounts.waiting, self._session.worker.batch_s
            returned = self._session.close(STOP_S)
            rate_hz, centre_hz = self._session.tuning  # known over a restart, unlike the time
            self._options = dataclasses.replace(self._options, rate_hz=rate_hz, centre_hz=centre_hz)
            if returned:
                self._engine.rest()
            else:
                self._engine.abandon()
                text = f"the engine has not returned for {batch_s + STOP_S:.0f} s: its thread is abandoned"
                self._output.logger.error(text)
        if waiting:
            self._output.logger.warn(f"stopped while {waiting} tiles waited; those not begun are dropped")

    def _fail_session(self, error: Exception, next_sample: int) -> None:
        retry_s = self._session.fail(error, next_sample)
        text = f"classification stopped: {self._session.fault}; it is tried again in {retry_s:g} s"
        self._output.report("error", text=text)

    def _finish_session(self) -> None:
        self._session.finish()
        self._output.drain()
        self._monitor.stop()
        self._close_session()
        self._output.report("finished", **self.status())

    def _publish_predictions(self, predictions: list[Prediction]) -> None:
        for prediction in predictions:
            self._output.publish(PREDICTIONS, prediction_message(prediction, self._run, self._sequence))
            self._sequence += 1
            if prediction.label != self._label:
                self._label = prediction.label
                self._output.publish(LABEL, pmt.cons(LABEL, pmt.intern(prediction.label)))

    def _publish_events(self, events: list[Event]) -> None:
        for event in events:
            self._output.publish(EVENTS, event_to_pmt(event, self._run, self._sequence_of_events))
            self._sequence_of_events += 1
        emitters = [] if self._band is None else self._band.emitters
        self._output.publish(DETECTIONS, detections_to_pmt(emitters, self._run, self._sequence_of_events))

    def _publish_search_failure(self, error: WavesfmError) -> None:
        self._output.report_failure("band", text=f"search of the band: {error}")

    def _publish_engine(self, change: EngineChange) -> None:
        if self._running:  # before, "started" will say which engine it is and why
            self._output.report_engine(change)

    def _publish_failure(self, error: WavesfmError, n_tiles: int) -> None:
        self._output.report_failure(error.field, text=str(error), tiles=n_tiles)

    def _warn(self, text: str) -> None:
        self._output.report("warning", text=text)


class _SampleInput(StreamSide, gr.sync_block):  # type: ignore[misc]
    """The stream's side of a classifier: hands samples and tags to the session."""

    def __init__(self, owner: classifier, chunk: int, items: InputType) -> None:
        gr.sync_block.__init__(self, "wavesfm_samples", [items.signature], [])
        self._items = items
        self.join(owner, chunk)

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        n_samples = len(input_items[0])
        try:
            self._take(self._items.samples(input_items[0]), clock.monotonic())
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self._owner._fail_session(error, self.nitems_read(0) + n_samples)
        return n_samples

    def _take(self, samples: Any, arrived_s: float) -> None:
        first = self.nitems_read(0)
        if not self._owner._running and self._owner._session.may_retry(arrived_s):
            self._owner._reopen_session(first)
        session = self._owner._session
        done = 0
        for offset, change, unread in retune_from_tags(self.get_tags_in_window(0, 0, len(samples))):
            session.push(samples[done : offset - first], arrived_s)
            done = offset - first
            for text in unread:
                self._owner._warn(text)
            session.retune(**change)
        session.push(samples[done:], arrived_s)


class _MessageOutput(MessageSide):
    """The message side of a classifier, with its commands and the receiver's overflows."""

    def __init__(self, owner: classifier, stream: _SampleInput) -> None:
        super().__init__(
            "wavesfm_messages", owner, stream, (PREDICTIONS, LABEL, EVENTS, DETECTIONS), lambda: owner._policy
        )
        for port, handler in ((COMMAND, self.handle_command), (OVERFLOWS, self.handle_overflow)):
            self.message_port_register_in(port)
            self.set_msg_handler(port, handler)

    def handle_command(self, message: Any) -> None:
        """Apply one command, all of it or nothing; a wrong one is published on `status`."""
        try:
            self._owner.apply(command_from_pmt(message))
        except Exception as error:
            self.report("error", text=f"command: {error}")

    def handle_overflow(self, message: Any) -> None:
        """Count the overflows of one message."""
        if count := overflows_from_pmt(message):
            self._owner._session.overflow(count)


def _or_none(value: float | None) -> float | None:
    return None if value is None or value < 0 else value


def _checked(field: str, value: Any) -> float:
    """The number, which is 0 or more; ConfigurationError for another."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ConfigurationError("classifier", field, repr(value), "a number, 0 or more")
    return float(value)
