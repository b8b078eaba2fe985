# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps results from being lost at the end of a stream: a hierarchical block of a stream side and a message side.

GNU Radio ends a stream block without another call of work, tells its message neighbours "done" on their port `system`,
and ends those too as soon as they handled what was posted before; what comes later, or from stop(), is lost. So the
samples end in a block of their own, whose only message neighbour is the message side. There "done" is handled as:
finish the session, publish, and only then be done, which tells the user's blocks.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from typing import Any, Protocol

import pmt
from gnuradio import gr
from wavesfm_core.engines import EngineChange

from .messages import STATUS, SYSTEM, dict_to_pmt

ACCOUNTS_EVERY_S = 1.0
MOST_CAUSES = 100  # of failures that are told apart
CHUNK_S = 0.005  # of samples that one call of work should be able to take or make
CHUNK_SAMPLES = 32768  # the same where the rate is not known
MOST_CHUNK_SAMPLES = 131072
END = pmt.intern("end")


class Owner(Protocol):
    """The hierarchical block, as its two sides know it; none of these raises but `_open_session`."""

    def _open_session(self, start_sample: int) -> None: ...

    def _fail_session(self, error: Exception, next_sample: int) -> None: ...

    def _finish_session(self) -> None: ...

    def _close_session(self) -> None: ...


class StreamSide:
    """The stream's side, to be inherited before a block of GNU Radio; its work never runs an engine itself.

    A call of a Python block costs about 0.1 ms, so that GNU Radio's buffers of 8192 samples end at 50 MS/s. When the
    flowgraph is built, GNU Radio makes the buffer before a block hold twice that block's output multiple; while it runs
    the multiple must be 1, or the last samples of the stream would be lost.
    """

    def join(self: Any, owner: Owner, chunk: int) -> None:
        """Once the block is made: whose side it is, and how many samples a call of work should be able to take."""
        self._owner, self._chunk_samples = owner, chunk
        self.message_port_register_out(END)
        self.set_output_multiple(chunk)

    @property
    def at_end(self: Any) -> bool:
        """Whether the upstream ended and all its samples were taken; False when the flowgraph was stopped."""
        return bool(self.gateway.detail().done())

    def start(self: Any) -> bool:
        self.set_output_multiple(1)
        try:
            self._owner._open_session(self.nitems_read(0))
        except Exception as error:
            self._owner._fail_session(error, self.nitems_read(0))
        return True

    def stop(self: Any) -> bool:
        if not self.at_end:
            self._owner._close_session()
        self.set_output_multiple(self._chunk_samples)  # for the buffers of the next run
        return True


class Speaker(gr.basic_block):  # type: ignore[misc]
    """A message block with a port `status` and others that publish; whoever publishes may be on any thread."""

    def __init__(self, name: str, ports: Sequence[Any]) -> None:
        gr.basic_block.__init__(self, name, [], [])
        self._failures_said_s: dict[str, float] = {}  # by cause
        for port in (STATUS, *ports):
            self.message_port_register_out(port)

    def say(self, kind: str, **values: Any) -> None:
        """One message on `status`; of kind "warning" or "error" also to the log."""
        if kind in ("warning", "error"):
            (self.logger.warn if kind == "warning" else self.logger.error)(values["text"])
        self.message_port_pub(STATUS, dict_to_pmt({"kind": kind, **values}))

    def say_failure(self, cause: str, **values: Any) -> None:
        """An error, at most once a second for each cause (such as the field that is wrong).

        What fails often must neither flood the log nor hide what fails for another cause; the accounts count it.
        """
        now_s, said_s = clock.monotonic(), self._failures_said_s
        cause = cause if cause in said_s or len(said_s) < MOST_CAUSES else ""  # "": all further ones together
        if now_s - said_s.get(cause, -ACCOUNTS_EVERY_S) >= ACCOUNTS_EVERY_S:
            said_s[cause] = now_s
            self.say("error", **values)

    def say_engine(self, change: EngineChange) -> None:
        """Another engine is in use, or the GPU's could not be: on `status`, a failure also to the log."""
        self.say("engine", **{"from": change.was, "to": change.now, "why": change.why})
        if change.failed:
            self.logger.warn(change.why)


class MessageSide(Speaker):
    """The message side: publishes for its owner, and finishes the owner's session when the stream has ended.

    A "done" that comes from elsewhere (the sender of commands) while the stream still runs is passed over.
    """

    def __init__(self, name: str, owner: Owner, stream: StreamSide, ports: Sequence[Any]) -> None:
        super().__init__(name, ports)
        self._owner, self._stream = owner, stream
        self.message_port_register_in(END)
        self.set_msg_handler(END, self.handle_end)
        self.set_msg_handler(SYSTEM, self.handle_system)

    def handle_end(self, message: Any) -> None:
        """Nothing: this port is there to make the stream side a message neighbour."""

    def handle_system(self, message: Any) -> None:
        """Finish the session when the stream has ended, then let this block end."""
        if not self._stream.at_end:
            return
        try:
            self._owner._finish_session()
        except Exception as error:
            self.say("error", text=f"end of stream: {error}")
        self.gateway.system_handler(message)

    def stop(self) -> bool:
        if self._stream.at_end:
            self._owner._close_session()
        return True


def chunk_samples(rate_hz: float) -> int:
    """How many samples a call of a Python block should be able to take or make; rate_hz: 0 when unknown."""
    chunk = rate_hz * CHUNK_S if rate_hz > 0 else CHUNK_SAMPLES
    return max(1, min(int(chunk), MOST_CHUNK_SAMPLES))
