# SPDX-License-Identifier: GPL-3.0-or-later
"""KServe v2 over gRPC, which keeps the deadline and the limit of an answer's size itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...types import Tensor
from .address import KServeAddress
from .transport import Deadline, Reply, TransportError

RETRYABLE_STATUS = ("StatusCode.UNAVAILABLE", "StatusCode.ABORTED")
DEADLINE_STATUS = "StatusCode.DEADLINE_EXCEEDED"


class GrpcTransport:
    """See `Transport`.

    Parameters
    ----------
    address : KServeAddress
        The model.
    reply_limit : int
        Most bytes of an answer.

    Raises
    ------
    ImportError
        tritonclient with its extra `grpc` is missing.
    """

    def __init__(self, address: KServeAddress, reply_limit: int) -> None:
        import tritonclient.grpc

        self._triton: Any = tritonclient.grpc
        self._address, self._reply_limit = address, reply_limit
        self._client: Any = None

    def metadata(self, deadline: Deadline) -> dict[str, Any]:
        """See `Transport.metadata`."""
        options = {"model_version": self._address.version, "client_timeout": deadline.left_s(), "as_json": True}
        found = self._ask("get_model_metadata", self._address.model, **options)
        return dict(found)

    def infer(self, inputs: Mapping[str, Tensor], deadline: Deadline) -> Reply:
        """See `Transport.infer`."""
        asked = []
        for name, array in inputs.items():
            asked.append(self._triton.InferInput(name, list(array.shape), "FP32"))
            asked[-1].set_data_from_numpy(np.ascontiguousarray(array))
        options = {"model_version": self._address.version, "client_timeout": deadline.left_s()}
        result = self._ask("infer", self._address.model, asked, **options)
        try:
            response = result.get_response()
            arrays = {each.name: result.as_numpy(each.name) for each in response.outputs}
            return Reply(response.model_name, response.model_version, arrays)
        except Exception as error:  # whatever a malformed answer makes the parser raise
            raise TransportError(f"a malformed answer ({type(error).__name__}: {error})", retryable=False) from None

    def close(self) -> None:
        """See `Transport.close`."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, call: str, *args: Any, **options: Any) -> Any:
        if self._client is None:
            limits = [
                ("grpc.max_receive_message_length", self._reply_limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ]
            self._client = self._triton.InferenceServerClient(self._address.netloc, channel_args=limits)
        try:
            return getattr(self._client, call)(*args, **options)
        except Exception as error:  # InferenceServerException, and what grpc raises of a closed channel
            status = str(error.status()) if hasattr(error, "status") else ""
            if status == DEADLINE_STATUS:
                raise TransportError("no answer before the deadline", retryable=False) from None
            raise TransportError(f"no answer ({error})", status in RETRYABLE_STATUS) from None
