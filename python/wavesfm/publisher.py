# SPDX-License-Identifier: GPL-3.0-or-later
"""Message blocks that publish: status messages, and ports whose readers may be slow."""

from __future__ import annotations

import threading
import time as clock
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pmt
from gnuradio import gr
from wavesfm_core.engines import EngineChange

from . import _runtime
from .messages import STATUS
from .outbox import Outbox

ACCOUNTS_EVERY_S = 1.0
MOST_CAUSES = 100  # of failures that are reported apart

_publishers: weakref.WeakSet[Any] = weakref.WeakSet()  # all that exist in this process


class OutboxPort:
    """A message port of any block whose readers may be slow, see `Outbox`.

    Parameters
    ----------
    block : gr.block
        Its Python block; the port is registered here.
    port : pmt symbol
        The port's name.
    policy : callable
        Returns the policy in force.
    in_flight, limit : int
        See `Outbox`.
    """

    def __init__(self, block: Any, port: Any, policy: Callable[[], str], in_flight: int = 16, limit: int = 256) -> None:
        block.message_port_register_out(port)
        name = pmt.symbol_to_string(port)
        self._block, self._port = weakref.proxy(block), port
        self.closed = False
        self.outbox = Outbox(
            partial(_publish, weakref.ref(block), port, block.symbol_name(), name),
            partial(_runtime.queued, block.symbol_name(), name),
            policy,
            self._cancelled,
            in_flight,
            limit,
        )

    @property
    def connected(self) -> bool:
        """Whether anybody reads this port."""
        return not pmt.is_null(self._block.message_subscribers(self._port))

    def open(self) -> None:
        """Begin a run: nothing was dropped."""
        self.closed = False
        self.outbox.clear()
        self.outbox.dropped = 0

    def close(self) -> None:
        """End every wait for a reader, and drop and count what waits."""
        self.closed = True
        self.outbox.clear()

    def flush(self) -> None:
        """Send what the readers have room for."""
        self.outbox.flush()

    def _cancelled(self) -> bool:
        return self.closed or _runtime.stop_requested()


class NativePort:
    """A message port of any block on which C++ publishes, with the interface of `OutboxPort`.

    Parameters
    ----------
    block, port, policy, in_flight, limit
        See `OutboxPort`.
    """

    def __init__(self, block: Any, port: Any, policy: Callable[[], str], in_flight: int = 16, limit: int = 256) -> None:
        block.message_port_register_out(port)
        self._block, self._port, self._policy = weakref.proxy(block), port, policy
        self.outbox = _runtime.Outbox(block.symbol_name(), pmt.symbol_to_string(port), in_flight, limit)

    @property
    def connected(self) -> bool:
        """Whether anybody reads this port."""
        return not pmt.is_null(self._block.message_subscribers(self._port))

    def open(self) -> None:
        """Begin a run: nothing was dropped."""
        self.flush()
        self.outbox.open()

    def close(self) -> None:
        """End every wait for a reader, and drop and count what waits."""
        self.outbox.close()

    def flush(self) -> None:
        """Take the policy in force over, and send what the readers have room for."""
        self.outbox.set_holds_back(self._policy() == "block")
        self.outbox.flush()


def _publish(block: Callable[[], Any], port: Any, block_name: str, port_name: str, message: Any) -> None:
    if isinstance(message, _runtime.Message):
        _runtime.publish(block_name, port_name, message)
    elif (alive := block()) is not None:
        alive.message_port_pub(port, message)


class StatusPublisher(gr.basic_block):  # type: ignore[misc]
    """A message block with a port `status` and ports with an outbox; it publishes from any thread.

    Parameters
    ----------
    name : str
        The block's name.
    ports : sequence of pmt symbols
        Ports besides `status`.
    policy : callable
        Returns the policy in force, see `Outbox`.
    in_flight, limit : int
        See `Outbox`.
    port_type : type
        NativePort where C++ publishes on `ports`.
    """

    def __init__(
        self,
        name: str,
        ports: Sequence[Any],
        policy: Callable[[], str] = lambda: "block",
        in_flight: int = 16,
        limit: int = 256,
        port_type: type[OutboxPort] | type[NativePort] = OutboxPort,
    ) -> None:
        gr.basic_block.__init__(self, name, [], [])
        self._cause_reported_s: dict[str, float] = {}
        self.message_port_register_out(STATUS)
        self._outboxes: dict[Any, Any] = {port: port_type(self, port, policy, in_flight, limit) for port in ports}
        self.running = False
        self._lock = threading.Lock()  # guards `_cause_reported_s`
        _publishers.add(self)

    def publish(self, port: Any, message: Any) -> None:
        """Send a message to the readers of a port, waiting or dropping as `Outbox.put` does."""
        self._outboxes[port].outbox.put(message)

    def native_outbox(self, port: Any) -> _runtime.Outbox:
        """The outbox of a port on which C++ publishes."""
        return self._outboxes[port].outbox

    def flush(self) -> None:
        """Send what waits and the readers have room for; to be called now and then."""
        for box in self._outboxes.values():
            box.flush()

    def drain(self) -> None:
        """Wait until the readers have taken everything, see `Outbox.drain`."""
        for box in self._outboxes.values():
            box.outbox.drain()

    @property
    def messages_dropped(self) -> int:
        """Messages of this run that no reader got."""
        return sum(box.outbox.dropped for box in self._outboxes.values())

    @property
    def stalled(self) -> str:
        """The ports whose reader takes nothing, separated by commas."""
        return ", ".join(pmt.symbol_to_string(port) for port, box in self._outboxes.items() if box.outbox.stalled)

    def open(self) -> None:
        """Begin a run."""
        self.running = True
        for box in self._outboxes.values():
            box.open()

    def close(self) -> None:
        """End a run: waits end, and what waits is dropped and counted."""
        for box in self._outboxes.values():
            box.close()

    def ended(self) -> None:
        """Note that the last message of this run was published."""
        self.running = False

    def report(self, kind: str, **values: Any) -> None:
        """Publish a message on `status`; one of kind "warning" or "error" also goes to the log."""
        if kind in ("warning", "error"):
            (self.logger.warn if kind == "warning" else self.logger.error)(values["text"])
        _runtime.publish(self.symbol_name(), "status", _runtime.Message({"kind": kind, **values}))

    def report_failure(self, cause: str, **values: Any) -> None:
        """Publish an error, at most once a second for each cause (such as the wrong field).

        A frequent failure neither floods the log nor hides failures of another cause; the accounts count it.
        """
        now_s = clock.monotonic()
        with self._lock:
            reported_s = self._cause_reported_s
            cause = (
                cause if cause in reported_s or len(reported_s) < MOST_CAUSES else ""
            )  # "": all further ones together
            if now_s - reported_s.get(cause, -ACCOUNTS_EVERY_S) < ACCOUNTS_EVERY_S:
                return
            reported_s[cause] = now_s
        self.report("error", **values)

    def report_engine(self, change: EngineChange) -> None:
        """Publish that another engine is in use, or that the GPU's could not be; a failure also goes to the log."""
        self.report("engine", **{"from": change.was, "to": change.now, "why": change.why})
        if change.failed:
            self.logger.warn(change.why)


def publishes_to(reader: Any) -> bool:
    """Whether a block of this module that still runs publishes to the message block `reader`.

    GNU Radio ends a message block as soon as the first of its senders has ended; with this a reader waits for all.
    """
    names = {reader.alias(), reader.symbol_name()}
    for publisher in list(_publishers):
        if not publisher.running:
            continue
        for port in pmt.to_python(publisher.message_ports_out()):
            subscribers = publisher.message_subscribers(pmt.intern(port))
            while pmt.is_pair(subscribers):
                if pmt.symbol_to_string(pmt.car(pmt.car(subscribers))) in names:
                    return True
                subscribers = pmt.cdr(subscribers)
    return False
