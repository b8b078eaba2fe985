# SPDX-License-Identifier: GPL-3.0-or-later
"""Records by POST to a URL."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

from ...errors import InputError
from ..bus import Record
from .json_lines import json_text

ANSWER_LIMIT = 1 << 16  # bytes of an answer that are read


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead the token to another host."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Webhook:
    """One POST of JSON for each record.

    An answer of 5xx or 429 and a broken connection are tried again; other answers but 2xx count as failed.

    Parameters
    ----------
    url : str
        With http or https.
    labels : frozenset of str
        Send only events of these labels; empty for all.
    timeout_s : float
        Seconds to wait for the peer.
    token : str or None
        Sent as a bearer token.
    kinds : frozenset of str
        Kinds of records.
    """

    def __init__(
        self,
        url: str,
        labels: frozenset[str] = frozenset(),
        timeout_s: float = 5.0,
        token: str | None = None,
        kinds: frozenset[str] = frozenset({"event"}),
    ) -> None:
        self.name = "webhook " + url.split("?", 1)[0].split("@")[-1]
        self.kinds = kinds
        self._url, self._labels, self._timeout_s = url, labels, timeout_s
        self._headers = {"Content-Type": "application/json", "User-Agent": "wavesfm"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def connect(self) -> None:
        """See `Output.connect`: each record has a connection of its own."""

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        if record.kind == "event" and self._labels and record.values["label"] not in self._labels:
            return
        request = urllib.request.Request(self._url, json_text(record).encode(), self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(ANSWER_LIMIT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code >= 500 or error.code == 429:
                raise ConnectionError(f"the peer answers {error.code}") from None
            raise InputError(self.name, "answer", error.code, "2xx") from None
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP: {error!r}") from error

    def close(self) -> None:
        """See `Output.close`."""
