# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifies a complex stream with a model bundle; predictions leave as messages."""

from __future__ import annotations

import threading
import time as clock
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core.engines import EngineChange
from wavesfm_core.engines.standby import engine_failures
from wavesfm_core.errors import WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.power_gate import DEFAULT_GATE_DB
from wavesfm_core.types import Prediction

from .messages import (
    COMMAND,
    LABEL,
    PREDICTIONS,
    STATUS,
    command_from_pmt,
    prediction_to_pmt,
    retune_from_tags,
)
from .session import Session, SessionOptions
from .stream_end import ACCOUNTS_EVERY_S, END, MessageSide, StreamSide, chunk_samples


class classifier(gr.hier_block2):  # type: ignore[misc]
    """Cut a complex64 stream into tiles, classify them beside the flowgraph's threads, and publish what they are.

    bundle: directory of the model bundle, the only parameter that is needed.
    device: `auto` (a GPU where there is one), `cpu`, `tensorrt`, `openvino` or `onnxruntime`; precision: `auto`, `f32`,
    `bf16`, and with TensorRT `fp16` or `int8`; device_id: which GPU. While the GPU's engine is made, and after it has
    failed, the CPU's serves.
    sample_rate, center_freq: in Hz, 0 when unknown; a tag rx_rate or rx_freq replaces them from its sample on, and a
    new tile begins there, as it does at an rx_time that does not follow from the one before.
    gate_db: a tile is answered "noise" without inference when it looks like tiles of this tuning that the model called
    noise and its peak is less than so many dB over their floor; negative: no gate.
    threshold: confidence below which the label is "unknown"; negative: the bundle's own.
    policy: when queue_tiles wait, `block` holds the stream back, `drop_oldest` and `drop_newest` drop and count.
    batch_tiles, batch_wait_ms: the engine is run when so many tiles wait or the first has waited so long.

    Messages out: `predictions`: dict, see `messages.prediction_to_pmt`. `status`: dict with `kind`: "started",
    "accounts" (at most once a second), "engine" (another one is in use, or the GPU's failed: `from`, `to`, `why`),
    "warning" and "error" (with `text`), "finished" (the final accounts). `label`: a pair ("label" . text) when it
    changes, for QT GUI. Message in: `command`: dict or pair with `threshold`, `gate_db`, `policy`. At the end of the
    stream all that waits and the last partial tile are classified and published before the block ends. Raises
    WavesfmError when the bundle or a parameter is wrong; while running no error ends the flowgraph. Each stop frees the
    engine, which the next start opens again.
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
    ) -> None:
        gr.hier_block2.__init__(
            self, "wavesfm_classifier", gr.io_signature(1, 1, gr.sizeof_gr_complex), gr.io_signature(0, 0, 0)
        )
        self._running = False
        self._pipeline = Pipeline.open(
            bundle,
            device,
            gate_db=_or_none(gate_db),
            threshold=_or_none(threshold),
            precision=precision,
            device_id=int(device_id),
            on_change=self._publish_engine,
        )
        self._policy = policy
        self._lock = threading.Lock()  # of the session's opening and closing and of the setters
        self._label = ""
        try:
            self._options = SessionOptions(
                float(sample_rate), float(center_freq) or None, int(queue_tiles), int(batch_tiles), batch_wait_ms / 1000
            )
            self._session = self._make_session(0)
        except BaseException:
            self._pipeline.close()  # the GPU's engine holds on to this block, and nobody else could close it
            raise
        self._session.close()  # this one was opened to refuse wrong parameters now and not in the running flowgraph

        self._input = _SampleInput(self, chunk_samples(self._options.rate_hz))
        self._output = _MessageOutput(self, self._input)
        for port in (PREDICTIONS, STATUS, LABEL):
            self.message_port_register_hier_out(pmt.symbol_to_string(port))
            self.msg_connect(self._output, port, self, port)
        self.message_port_register_hier_in("command")
        self.msg_connect(self, COMMAND, self._output, COMMAND)
        self.msg_connect(self._input, END, self._output, END)
        self.connect(self, self._input)

    def set_threshold(self, threshold: float | None) -> None:
        """Least confidence of a label, 0 to 1; negative or None: the bundle's. Raises ConfigurationError."""
        own = self._pipeline.bundle.spec.head.threshold
        self._pipeline.head.threshold = own if _or_none(threshold) is None else threshold

    def set_gate_db(self, gate_db: float | None) -> None:
        """dB over the running noise floor; negative or None: no gate. Raises ConfigurationError."""
        self._pipeline.gate.gate_db = _or_none(gate_db)

    def set_policy(self, policy: str) -> None:
        """`block`, `drop_oldest` or `drop_newest`, at once even where the stream waits. Raises ConfigurationError."""
        with self._lock:
            self._session.worker.policy = policy
            self._policy = policy

    def status(self) -> dict[str, Any]:
        """The accounts of this run or, after it, of the last one, with the keys of the message "finished".

        See `Session.status`; engine_failures: how often a GPU's engine failed and the CPU's took over.
        """
        return {**self._session.status(), "engine_failures": engine_failures(self._pipeline.engine)}

    @property
    def bundle_id(self) -> str:
        """The id that every prediction carries."""
        return self._pipeline.bundle.id

    @property
    def engine(self) -> str:
        """Which runtime runs the model, where and how."""
        return str(self._pipeline.engine.description)

    def _make_session(self, start_sample: int) -> Session:
        return Session(
            self._pipeline,
            self._options,
            self._policy,
            start_sample,
            self._publish_predictions,
            self._publish_failure,
            lambda text: self._output.say("warning", text=text),
        )

    def _open_session(self, start_sample: int) -> None:
        with self._lock:
            self._session.close()
            self._pipeline.reopen()
            self._session = self._make_session(start_sample)
        self._running = True
        self._output.say(
            "started",
            bundle_id=self.bundle_id,
            engine=self.engine,
            policy=self._policy,
            tile_samples=self._pipeline.bundle.spec.preprocess.tile_samples,
        )

    def _close_session(self) -> None:
        with self._lock:
            waiting = self._session.worker.accounts.waiting
            self._session.close()
            self._running = False
            self._pipeline.close()
        if waiting:
            self._output.logger.warn(f"stopped while {waiting} tiles waited; those not begun are dropped")

    def _fail_session(self, error: Exception, next_sample: int) -> None:
        if not self._session.fault:
            self._session.fail(error, next_sample)
            self._output.say("error", text=f"classification stopped: {self._session.fault}")

    def _finish_session(self) -> None:
        self._session.finish()
        self._session.close()
        self._output.say("finished", **self.status())

    def _publish_predictions(self, predictions: list[Prediction]) -> None:
        for prediction in predictions:
            self._output.message_port_pub(PREDICTIONS, prediction_to_pmt(prediction))
            confidence = prediction.confidence
            text = prediction.label if confidence is None else f"{prediction.label} {confidence:.0%}"
            if text != self._label:
                self._label = text
                self._output.message_port_pub(LABEL, pmt.cons(LABEL, pmt.intern(text)))

    def _publish_engine(self, change: EngineChange) -> None:
        if self._running:  # before, "started" will say which engine it is and why
            self._output.say_engine(change)

    def _publish_failure(self, error: WavesfmError, n_tiles: int) -> None:
        self._output.say_failure(error.field, text=str(error), tiles=n_tiles)


class _SampleInput(StreamSide, gr.sync_block):  # type: ignore[misc]
    """The stream's side of a classifier: hands samples and tags to the session."""

    def __init__(self, owner: classifier, chunk: int) -> None:
        gr.sync_block.__init__(self, "wavesfm_samples", [np.complex64], [])
        self.join(owner, chunk)
        self._accounts_s = 0.0

    def start(self) -> bool:
        self._accounts_s = clock.monotonic()
        return super().start()

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        samples = input_items[0]
        try:
            self._take(samples, clock.monotonic())
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self._owner._fail_session(error, self.nitems_read(0) + len(samples))
        return len(samples)

    def _take(self, samples: Any, arrived_s: float) -> None:
        session = self._owner._session
        first = self.nitems_read(0)
        done = 0
        for offset, change, unread in retune_from_tags(self.get_tags_in_window(0, 0, len(samples))):
            session.push(samples[done : offset - first], arrived_s)
            done = offset - first
            for text in unread:
                self._owner._output.say("warning", text=text)
            session.retune(**change)
        session.push(samples[done:], arrived_s)
        if arrived_s - self._accounts_s >= ACCOUNTS_EVERY_S:
            self._accounts_s = arrived_s
            self._owner._output.say("accounts", **self._owner.status())


class _MessageOutput(MessageSide):
    """The message side of a classifier, with its commands."""

    def __init__(self, owner: classifier, stream: _SampleInput) -> None:
        super().__init__("wavesfm_messages", owner, stream, (PREDICTIONS, LABEL))
        self.message_port_register_in(COMMAND)
        self.set_msg_handler(COMMAND, self.handle_command)

    def handle_command(self, message: Any) -> None:
        """Apply one command; what cannot be applied is said on `status`."""
        try:
            for name, value in command_from_pmt(message).items():
                getattr(self._owner, f"set_{name}")(value)
        except Exception as error:
            self.say("error", text=f"command: {error}")


def _or_none(value: float | None) -> float | None:
    return None if value is None or value < 0 else value
