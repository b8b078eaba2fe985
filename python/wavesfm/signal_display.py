# SPDX-License-Identifier: GPL-3.0-or-later
"""A window with a waterfall, boxes of what a classifier found, and what it says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pmt
from gnuradio import gr
from wavesfm_core.errors import ConfigurationError

from .commands import Setting, apply_all, command_from_pmt
from .display.palette import THEMES
from .display.qt import require_application, require_qt
from .display.signal_model import DisplayOptions, SignalModel
from .keep_alive import KeptAlive
from .messages import COMMAND, DETECTIONS, EVENTS, PREDICTIONS, STATUS, SYSTEM, retune_from_tags
from .publisher import publishes_to
from .stream_end import MOST_CHUNK_SAMPLES


class signal_display(KeptAlive, gr.hier_block2):  # type: ignore[misc]
    """Show a complex64 stream as a scrolling waterfall with the boxes and labels of a classifier.

    Parameters
    ----------
    sample_rate : float
        In Hz, 0 when unknown. A tag rx_rate replaces it from its sample on.
    center_freq : float
        In Hz, 0 when unknown. A tag rx_freq replaces it from its sample on.
    history_s : float
        Length of the waterfall in seconds.
    theme : {"dark", "light"}
        Colours at the start.
    keep_mb : float
        Memory of the newest samples, which can be saved, in MB.
    save_dir : str
        Directory of signals that the user saves.
    teach_dir : str
        Directory of signals that the user names by "This is", each with its annotation.
    title : str
        Of the window.

    Raises
    ------
    ConfigurationError
        For a wrong parameter, or where PyQt5 or pyqtgraph is not installed.

    Notes
    -----
    Messages in: `predictions`, `detections`, `events`, `status`: those of a classifier. `command`: dict or pair with
    `freq` or `center_freq`, `rate` or `sample_rate`, for a source that does not tag.

    The stream is never held back: a row of the waterfall is the strongest of a few transforms, at any rate, and the
    samples between them are skipped and counted (`status()`). The window draws from a copy 30 times a second.
    """

    def __init__(
        self,
        sample_rate: float = 0.0,
        center_freq: float = 0.0,
        history_s: float = 15.0,
        theme: str = "dark",
        keep_mb: float = 64.0,
        save_dir: str = "recordings",
        teach_dir: str = "teaching",
        title: str = "",
    ) -> None:
        require_qt("signal_display")
        if theme not in THEMES:
            raise ConfigurationError("signal_display", "theme", repr(theme), f"one of {', '.join(THEMES)}")
        gr.hier_block2.__init__(
            self, "wavesfm_signal_display", gr.io_signature(1, 1, gr.sizeof_gr_complex), gr.io_signature(0, 0, 0)
        )
        options = DisplayOptions(history_s=history_s, keep_mb=keep_mb, save_dir=save_dir, teach_dir=teach_dir)
        rates = [_checked(name, value) for name, value in (("sample_rate", sample_rate), ("center_freq", center_freq))]
        self.model = SignalModel(options, *rates)
        self._theme, self._title, self._window = theme, title, None
        self._samples, self._messages = _Samples(self.model), MessageReader("wavesfm_display_messages", self.handlers())
        for port in self.handlers():
            self.message_port_register_hier_in(port)
            self.msg_connect(self, port, self._messages, port)
        self.connect(self, self._samples)
        self.note_references()

    def qwidget(self) -> Any:
        """The window, made on the first call, which must be on the thread of the QApplication."""
        if self._window is None:
            require_application("signal_display")
            from .display.signal_window import SignalWindow

            self._window = SignalWindow(self.model, self._theme, self._title)
        return self._window

    def set_sample_rate(self, sample_rate: float) -> None:
        """Set the sample rate in Hz, 0 when unknown. Raises ConfigurationError."""
        self.model.retune(rate_hz=_checked("sample_rate", sample_rate))

    def set_center_freq(self, center_freq: float) -> None:
        """Set the centre frequency in Hz, 0 when unknown. Raises ConfigurationError."""
        self.model.retune(centre_hz=_checked("center_freq", center_freq))

    def status(self) -> dict[str, int]:
        """Return counts: samples_in, samples_skipped (in no row of the waterfall), messages_refused."""
        model = self.model
        counts = (model.samples_in, model.samples_skipped, self._messages.refused)
        return dict(zip(("samples_in", "samples_skipped", "messages_refused"), counts))

    def handlers(self) -> dict[str, Callable[[Any], None]]:
        """What is done with a message, by the name of its port."""
        take = {
            PREDICTIONS: self.model.take_prediction,
            EVENTS: self.model.take_event,
            DETECTIONS: self.model.take_detections,
            STATUS: self.model.take_status,
        }
        by_name = {pmt.symbol_to_string(port): _of_record(taker) for port, taker in take.items()}
        return {**by_name, pmt.symbol_to_string(COMMAND): self._command}

    def _command(self, message: Any) -> None:
        rate = Setting(lambda: 0.0, self.set_sample_rate)
        centre = Setting(lambda: 0.0, self.set_center_freq)
        settings = {"freq": centre, "center_freq": centre, "rate": rate, "sample_rate": rate}
        known = {name: value for name, value in command_from_pmt(message).items() if name in settings}
        apply_all(known, settings)


class _Samples(gr.sync_block):  # type: ignore[misc]
    """The stream's side: hands samples and tags to the model and never waits."""

    def __init__(self, model: SignalModel) -> None:
        gr.sync_block.__init__(self, "wavesfm_display_samples", [np.complex64], [])
        self._model, self._faults = model, 0
        self.set_output_multiple(MOST_CHUNK_SAMPLES)  # for the buffer before this block, see StreamSide

    def start(self) -> bool:
        self.set_output_multiple(1)
        self._model.restart(self.nitems_read(0))
        return True

    def stop(self) -> bool:
        self.set_output_multiple(MOST_CHUNK_SAMPLES)
        return True

    def work(self, input_items: list[Any], output_items: list[Any]) -> int:
        samples = input_items[0]
        try:
            first, done = self.nitems_read(0), 0
            for offset, change, _ in retune_from_tags(self.get_tags_in_window(0, 0, len(samples))):
                self._model.take(samples[done : offset - first])
                done = offset - first
                self._model.retune(**change)
            self._model.take(samples[done:])
        except Exception as error:  # it would end this block's thread and hang the flowgraph
            self._faults += 1
            if self._faults == 1:
                self.logger.error(f"a part of the stream is not shown: {error} (later ones are not logged)")
        return len(samples)


class MessageReader(gr.basic_block):  # type: ignore[misc]
    """Takes messages of several ports in, and ends when the last of their senders of this module has ended.

    Parameters
    ----------
    name : str
        The block's name.
    handlers : mapping
        What is done with a message, by the name of its port; an exception counts the message as refused.
    """

    def __init__(self, name: str, handlers: Mapping[str, Callable[[Any], None]]) -> None:
        gr.basic_block.__init__(self, name, [], [])
        self.refused = 0
        self._handlers = {pmt.intern(port): self._guarded(port, handler) for port, handler in handlers.items()}
        for port, handler in self._handlers.items():
            self.message_port_register_in(port)
            self.set_msg_handler(port, handler)
        self.set_msg_handler(SYSTEM, self.handle_system)

    def handle_system(self, message: Any) -> None:
        """End when the last sender has ended; GNU Radio by itself ends a block with the first."""
        if publishes_to(self):
            return
        for port, handler in self._handlers.items():
            while (waiting := self.gateway.delete_head_nowait(port)) is not None:
                handler(waiting)
        self.gateway.system_handler(message)

    def _guarded(self, port: str, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        """A handler that never raises: that would end the block's thread and hang the flowgraph.

        GNU Radio looks a handler up by its name among the attributes of the block.
        """

        def handle(message: Any) -> None:
            try:
                handler(message)
            except Exception as error:
                self.refused += 1
                if self.refused == 1:
                    self.logger.warn(f"{port}: a message cannot be shown: {error!r} (later ones are only counted)")

        handle.__name__ = f"handle_{port}"
        setattr(self, handle.__name__, handle)
        return handle


def _of_record(taker: Callable[[Mapping[str, Any]], None]) -> Callable[[Any], None]:
    """A handler that passes a message on as Python types."""

    def take(message: Any) -> None:
        record = pmt.to_python(message)
        if not isinstance(record, dict):
            raise ValueError(f"found {message}, expected a dictionary")
        taker(record)

    return take


def _checked(field: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and np.isfinite(value) and value >= 0):
        raise ConfigurationError("signal_display", field, repr(value), "a number, 0 or more")
    return float(value)
