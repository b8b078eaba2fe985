# SPDX-License-Identifier: GPL-3.0-or-later
"""Write predictions as JSON lines to a file or to standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pmt
from gnuradio import gr
from wavesfm_core.errors import ConfigurationError

from .keep_alive import KeptAlive
from .messages import PREDICTIONS, STATUS, SYSTEM, record_from_pmt
from .publisher import publishes_to


class prediction_sink(KeptAlive, gr.basic_block):  # type: ignore[misc]
    """Write every message of the port `predictions` as one line of JSON with the keys of `wavesfm classify --json`.

    Parameters
    ----------
    filename : str
        The file; "" or "-" is standard output. Every line is on disk as soon as its message was handled.
    append : bool
        Keep what the file holds; else it is emptied.

    Raises
    ------
    ConfigurationError
        If the file cannot be opened.

    Notes
    -----
    Messages of the port `status` go to the logger. A line that cannot be written (disk full) or a message that is no
    prediction is logged and counted in `errors`, and the flowgraph goes on. Several classifiers may be connected to one
    sink: it ends when all of them have ended.
    """

    def __init__(self, filename: str = "", append: bool = False) -> None:
        gr.basic_block.__init__(self, name="wavesfm_prediction_sink", in_sig=None, out_sig=None)
        self.filename = "" if filename == "-" else str(filename)
        self._file = _open(self.filename, append) if self.filename else None
        self._torn = False  # the file ends in the middle of a line
        self._count = 0
        self._errors = 0
        for port, handler in ((PREDICTIONS, self.handle_prediction), (STATUS, self.handle_status)):
            self.message_port_register_in(port)
            self.set_msg_handler(port, handler)
        self.set_msg_handler(SYSTEM, self.handle_system)

    @property
    def count(self) -> int:
        """Lines written."""
        return self._count

    @property
    def errors(self) -> int:
        """Messages that were not written."""
        return self._errors

    def handle_prediction(self, message: Any) -> None:
        """Write one line; never raises: that would end the block's thread and hang the flowgraph."""
        try:
            self._write(json.dumps(record_from_pmt(message), allow_nan=False))
            self._count += 1
        except Exception as error:
            self._errors += 1
            if self._errors == 1:
                where = self.filename or "standard output"
                self.logger.error(f"{where}: a prediction is not written: {error} (later ones are only counted)")

    def handle_status(self, message: Any) -> None:
        """Log one status message; never raises."""
        try:
            self.logger.info(str(pmt.to_python(message)))
        except Exception as error:
            self.logger.warn(f"a status message cannot be read: {error}")

    def handle_system(self, message: Any) -> None:
        """End when the last sender has ended; GNU Radio by itself ends a block with the first."""
        if publishes_to(self):
            return
        while (prediction := self.gateway.delete_head_nowait(PREDICTIONS)) is not None:
            self.handle_prediction(prediction)
        self.gateway.system_handler(message)

    def _write(self, line: str) -> None:
        if self._file is None:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            return
        data = (("\n" if self._torn else "") + line + "\n").encode()
        written = self._file.write(data)
        self._torn = written != len(data) and (self._torn or written > 0)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")


def _open(filename: str, append: bool) -> Any:
    try:
        return open(Path(filename).expanduser(), "ab" if append else "wb", buffering=0)
    except OSError as error:
        raise ConfigurationError(filename, "filename", error.strerror or error, "a file that can be written") from None
