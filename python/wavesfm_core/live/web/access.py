# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use the server: a bearer token, or on loopback the names of this machine."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

PROTOCOL = "wavesfm"
TOKEN_PREFIX = "bearer."
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """Decides by the headers of a request.

    Parameters
    ----------
    token : str or None
        Bearer token; None: without one, for a server on loopback. Then the host must be a name of this machine, so
        that no page of another site reaches it through a name that resolves to loopback.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def refusal(self, headers: Mapping[str, str]) -> str:
        """Why a request is refused, in a sentence; "" when it is allowed."""
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return "the page of another site asks"
        if self._token is None:
            host = urlsplit(f"//{headers.get('Host', '')}").hostname
            return "" if host in LOCAL_NAMES else "the host is no name of this machine"
        sent = _sent_token(headers)
        if sent is None or not hmac.compare_digest(sent.encode(), self._token.encode()):
            return "the bearer token is missing or wrong"
        return ""


def _sent_token(headers: Mapping[str, str]) -> str | None:
    """The token of an Authorization header, or of a WebSocket's subprotocols, which a page can set."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if protocol.strip().startswith(TOKEN_PREFIX):
            return protocol.strip().removeprefix(TOKEN_PREFIX)
    return None
