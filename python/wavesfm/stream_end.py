# SPDX-License-Identifier: GPL-3.0-or-later
"""Graceful end of a stream: base classes that publish pending results before GNU Radio ends the block.

GNU Radio ends a stream block without another call of work, sends "done" to the port `system` of its message neighbours,
and ends those too as soon as they have handled their earlier messages; what is published later, or in stop(), is lost.
So a stream ends in a block whose only message neighbour is the message side of a hierarchical block. The message side
handles "done" as: finish the session, publish, and only then end, which tells the user's blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pmt

from . import _runtime
from .messages import SYSTEM
from .publisher import NativePort, OutboxPort, StatusPublisher

CHUNK_S = 0.005  # of samples that one call of work should be able to take or make
CHUNK_SAMPLES = 32768  # the same where the rate is not known
MOST_CHUNK_SAMPLES = 131072
END_OF_STREAM = -1  # gr.WORK_DONE is an enum, with which a Python block hangs
END = pmt.intern("end")


class Owner(Protocol):
    """The hierarchical block as its two sides see it; only `_open_session` may raise."""

    def _open_session(self, start_sample: int) -> None: ...

    def _fail_session(self, error: Exception, next_sample: int) -> None: ...

    def _finish_session(self) -> None: ...

    def _close_session(self) -> None: ...


class StreamSide:
    """Base of the block that takes the stream, before GNU Radio's class; its work never runs an engine.

    A call of a Python block costs about 0.1 ms, so that GNU Radio's buffers of 8192 samples end at 50 MS/s. When the
    flowgraph is built, GNU Radio makes the buffer before a block hold twice that block's output multiple; while it runs
    the multiple must be 1, or the last samples of the stream would be lost.
    """

    def join(self: Any, owner: Owner, chunk: int) -> None:
        """Name the hierarchical block and the samples that one call of work should be able to take."""
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


class MessageSide(StatusPublisher):
    """The message side: publishes for its owner, and finishes the owner's session when the stream has ended.

    A "done" that comes from elsewhere (the sender of commands) while the stream still runs is ignored.

    Parameters
    ----------
    name, ports, policy, in_flight, limit, port_type
        See `StatusPublisher`.
    owner : Owner
        The hierarchical block.
    stream : StreamSide
        Its other side.
    """

    def __init__(
        self,
        name: str,
        owner: Owner,
        stream: StreamSide,
        ports: Sequence[Any],
        policy: Callable[[], str],
        in_flight: int = 16,
        limit: int = 256,
        port_type: type[OutboxPort] | type[NativePort] = OutboxPort,
    ) -> None:
        super().__init__(name, ports, policy, in_flight, limit, port_type)
        self._owner, self._stream = owner, stream
        self.message_port_register_in(END)
        self.set_msg_handler(END, self.handle_end)
        self.set_msg_handler(SYSTEM, self.handle_system)

    def handle_end(self, message: Any) -> None:
        """Do nothing: the port makes the stream side a message neighbour."""

    def handle_system(self, message: Any) -> None:
        """Finish the session when the stream has ended, then let this block end."""
        if not self._stream.at_end:
            return
        try:
            self._owner._finish_session()
        except Exception as error:
            self.report("error", text=f"end of stream: {error}")
        self.ended()
        self.gateway.system_handler(message)

    def stop(self) -> bool:
        self.close()
        self.ended()
        if self._stream.at_end:
            self._owner._close_session()
        return True


def stop_requested() -> bool:
    """Whether the flowgraph is being stopped; to be asked on a block's thread, in work or in a message handler."""
    return bool(_runtime.stop_requested())


def chunk_samples(rate_hz: float) -> int:
    """Return how many samples a call of a Python block should be able to take or make; rate_hz: 0 when unknown."""
    chunk = rate_hz * CHUNK_S if rate_hz > 0 else CHUNK_SAMPLES
    return max(1, min(int(chunk), MOST_CHUNK_SAMPLES))
