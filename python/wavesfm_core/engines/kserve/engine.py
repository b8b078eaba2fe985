# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on a server of the KServe v2 protocol. Whatever the server sends is checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...bundle.spec import TensorSpec
from ...errors import ConfigurationError, EngineError
from ...packages import install_command
from ...types import Tensor
from ..base import RemoteAccounts, RuntimeTensor, check_arrays, check_finite, closed, match_tensors
from ..openvino import BF16_RELATIVE_TOLERANCE
from .address import KServeAddress
from .transport import METADATA_LIMIT, Deadline, Reply, Transport, TransportError

if TYPE_CHECKING:
    from ...bundle.bundle import Bundle

OPEN_S = 60.0
"""Deadline of the metadata and of the first batch, for which a server may load its model."""
FIRST_PAUSE_S = 0.05
"""Pause before the first retry; it doubles at each further one."""
TOLERANCES = {"f32": 0.0, "auto": BF16_RELATIVE_TOLERANCE, "bf16": BF16_RELATIVE_TOLERANCE}
"""Allowed difference from float32 by `precision`, as a share of the largest output."""
DATATYPES = {"FP32": "float32"}
T = TypeVar("T")


class KServeEngine:
    """See `Engine`.

    The constructor compares the model's metadata with the bundle. The caller replays the golden tiles
    (`replay_golden`), which shows whether the server's model is this one; its version is remembered, and an answer of
    another one is refused.

    Parameters
    ----------
    bundle : Bundle
        Contract of the model.
    address : KServeAddress
        Server, model, deadline and retries.
    precision : str
        "f32": the golden outputs must be met within the bundle's tolerance; "auto", "bf16": within bf16's.
    remote : RemoteAccounts, optional
        Accounts that this engine continues.

    Raises
    ------
    EngineError
        tritonclient is missing, or the server does not answer.
    BundleError
        The server's model has other tensors.
    ConfigurationError
        Another precision.
    """

    def __init__(
        self, bundle: Bundle, address: KServeAddress, precision: str = "auto", remote: RemoteAccounts | None = None
    ) -> None:
        if precision not in TOLERANCES:
            raise ConfigurationError(str(address), "precision", precision, "one of " + ", ".join(TOLERANCES))
        self.remote = RemoteAccounts() if remote is None else remote
        self.relative_tolerance = TOLERANCES[precision]
        self._address, self._spec = address, bundle.spec
        self._name = str(address)
        self._version: str | None = None  # of the first answer
        self._closed = threading.Event()  # also ends a pause between retries
        per_tile = sum(int(np.prod(tensor.shape[1:])) for tensor in self._spec.outputs)
        # A server without the protocol's binary extension writes numbers as text.
        self._transport = _open_transport(address, METADATA_LIMIT + 32 * per_tile * address.max_batch)
        self._check_metadata(self._asked(self._transport.metadata, Deadline.after(OPEN_S)))
        self.description = f"{self._name} ({address.protocol}, deadline {address.timeout_s:g} s)"

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Engine.run`."""
        check_arrays(self._name, "input", self._spec.inputs, inputs)
        n_tiles, most = len(next(iter(inputs.values()))), self._address.max_batch
        deadline = Deadline.after(OPEN_S if self._version is None else self._address.timeout_s)
        parts = []
        for first in range(0, n_tiles, most):
            part = {name: array[first : first + most] for name, array in inputs.items()}
            reply = self._asked(partial(self._transport.infer, part), deadline)
            parts.append(self._checked(reply, min(most, n_tiles - first)))
        return {t.name: np.concatenate([part[t.name] for part in parts]) for t in self._spec.outputs}

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed.set()
        self._transport.close()

    def _asked(self, ask: Callable[[Deadline], T], deadline: Deadline) -> T:
        """The answer to a request that is repeated while that may help."""
        accounts, begin_s = self.remote, time.monotonic()
        try:
            for attempt in range(self._address.retries + 1):
                if self._closed.is_set():
                    raise closed(self._name)
                accounts.requests += 1
                accounts.retries += attempt > 0
                try:
                    return ask(deadline)
                except TransportError as error:
                    pause_s = FIRST_PAUSE_S * 2**attempt
                    last = attempt == self._address.retries or deadline.at_s - time.monotonic() <= pause_s
                    if last or not error.retryable:
                        accounts.failures += 1
                        raise EngineError(self._name, "request", error, "the model's answer") from None
                    self._closed.wait(pause_s)
            raise AssertionError("the last attempt returns or raises")
        finally:
            accounts.seconds += time.monotonic() - begin_s

    def _checked(self, reply: Reply, n_tiles: int) -> dict[str, Tensor]:
        """The outputs of the bundle, float32 [n_tiles, ...]."""
        try:
            if reply.model != self._address.model:
                raise EngineError(self._name, "model of the answer", repr(reply.model[:80]), repr(self._address.model))
            if self._version not in (None, reply.version):
                raise EngineError(self._name, "version of the answer", repr(reply.version[:80]), repr(self._version))
            check_arrays(self._name, "output", self._spec.outputs, reply.outputs)
            if (found := len(reply.outputs[self._spec.outputs[0].name])) != n_tiles:
                raise EngineError(self._name, "answers", found, f"{n_tiles}, one for each tile")
            check_finite(self._name, reply.outputs)
        except EngineError:
            self.remote.failures += 1
            raise
        self._version = reply.version
        return reply.outputs

    def _check_metadata(self, metadata: Mapping[str, Any]) -> None:
        if metadata.get("name") != self._address.model:
            raise EngineError(self._name, "name", repr(metadata.get("name"))[:80], repr(self._address.model))
        for kind, declared in (("input", self._spec.inputs), ("output", self._spec.outputs)):
            if found := metadata.get(f"{kind}s"):  # servers may leave them out: the golden tiles decide then
                self._match(kind, declared, found)

    def _match(self, kind: str, declared: tuple[TensorSpec, ...], found: Any) -> None:
        try:
            tensors = [RuntimeTensor(str(t["name"]), _sizes(t["shape"]), _dtype(t["datatype"])) for t in found]
        except (TypeError, KeyError, ValueError) as error:
            raise EngineError(self._name, f"{kind}s", f"malformed metadata ({error!r})", "names and shapes") from None
        match_tensors(self._name, kind, declared, tensors)


def _open_transport(address: KServeAddress, reply_limit: int) -> Transport:
    try:
        if address.protocol == "grpc":
            from .grpc import GrpcTransport

            return GrpcTransport(address, reply_limit)
        from .http import HttpTransport

        return HttpTransport(address, reply_limit)
    except ImportError as error:
        raise EngineError(str(address), "client", error, install_command("tritonclient")) from error


def _sizes(shape: Any) -> list[int | None]:
    sizes = [int(size) for size in shape]  # gRPC's JSON has numbers as text
    return [None if size < 0 else size for size in sizes]


def _dtype(datatype: Any) -> str:
    return DATATYPES.get(datatype, str(datatype)[:40])
