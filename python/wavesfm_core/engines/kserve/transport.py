# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine needs of a protocol: the model's metadata and the answer to one request, before a deadline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ...types import Tensor

METADATA_LIMIT = 1 << 20
"""Most bytes of metadata, and of an answer beside its arrays."""


class Reply(NamedTuple):
    """A server's answer, unchecked."""

    model: str
    """Name of the model that answered."""
    version: str
    """Its version; "" where the server does not tell it."""
    outputs: dict[str, Tensor]
    """Arrays by name, of any type and shape."""


class TransportError(Exception):
    """A request without an answer.

    Parameters
    ----------
    reason : str
        In plain words.
    retryable : bool
        Whether the same request may succeed if it is sent again.
    """

    def __init__(self, reason: str, retryable: bool) -> None:
        super().__init__(" ".join(reason.split())[:300])
        self.retryable = retryable


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock."""

    at_s: float
    """time.monotonic() of the moment."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        """Seconds until then. Raises TransportError when it has passed."""
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise TransportError("no answer before the deadline", retryable=False)
        return left_s


class Transport(Protocol):
    """A connection to one model of a server, used by one thread at a time."""

    def metadata(self, deadline: Deadline) -> dict[str, Any]:
        """The model's metadata as the protocol states them: name, versions, inputs, outputs. Raises TransportError."""
        ...

    def infer(self, inputs: Mapping[str, Tensor], deadline: Deadline) -> Reply:
        """Send one request with float32 arrays. Raises TransportError."""
        ...

    def close(self) -> None:
        """Close the connection; a further request opens it again."""
        ...
