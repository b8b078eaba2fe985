# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON to an MQTT broker."""

from __future__ import annotations

import threading
from typing import Any

from ...errors import ConfigurationError
from ...packages import install_command
from ..bus import Record
from .json_lines import json_text

ANSWER_S = 5.0  # for the broker to accept a connection or to confirm a message
RETAINED = frozenset({"status"})


class MQTT:
    """One message of quality of service 1 for each record, on TOPIC/KIND; TOPIC/online is 1, or 0 after the end.

    Parameters
    ----------
    host, port : str, int
        Of the broker.
    topic : str
        First part of all topics.
    username, password : str or None
        None for no authentication.
    tls : bool
        Encrypt, with the certificates that the system trusts.
    kinds : frozenset of str
        Kinds of records. Those of kind status are retained.

    Raises
    ------
    ConfigurationError
        The package paho-mqtt is missing.
    """

    def __init__(
        self,
        host: str,
        port: int = 1883,
        topic: str = "wavesfm",
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        kinds: frozenset[str] = frozenset({"event", "status"}),
    ) -> None:
        try:
            import paho.mqtt.client as mqtt
        except ImportError as error:
            raise ConfigurationError("output mqtt", "library paho", error, install_command("paho")) from error
        self._mqtt = mqtt
        self.name = f"mqtt {host}:{port}"
        self.kinds = kinds
        self._peer, self._topic, self._tls = (host, port), topic.rstrip("/"), tls
        self._user = (username, password)
        self._client: Any = None

    def connect(self) -> None:
        """See `Output.connect`."""
        answered = threading.Event()
        reasons: list[Any] = []

        def on_connect(client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            reasons.append(reason)
            answered.set()

        client = self._client = self._mqtt.Client(self._mqtt.CallbackAPIVersion.VERSION2)
        client.on_connect = on_connect
        client.connect_timeout = ANSWER_S
        client.will_set(f"{self._topic}/online", "0", qos=1, retain=True)
        if self._user[0] is not None:
            client.username_pw_set(*self._user)
        if self._tls:
            client.tls_set()
        client.connect(*self._peer)
        client.loop_start()
        if not answered.wait(ANSWER_S):
            raise TimeoutError(f"the broker has not answered for {ANSWER_S:g} s")
        if reasons[0].is_failure:
            raise ConnectionRefusedError(f"the broker refuses: {reasons[0]}")
        self._publish("online", "1", retain=True)

    def send(self, record: Record) -> None:
        """See `Output.send`."""
        self._publish(record.kind, json_text(record), record.kind in RETAINED)

    def close(self) -> None:
        """See `Output.close`."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected():
            info = client.publish(f"{self._topic}/online", "0", qos=1, retain=True)
            info.wait_for_publish(1.0)
        client.disconnect()
        client.loop_stop()

    def _publish(self, name: str, text: str, retain: bool) -> None:
        """Publish and wait until the broker has confirmed it."""
        if not self._client.is_connected():
            raise ConnectionError("the broker has closed the connection")
        info = self._client.publish(f"{self._topic}/{name}", text, qos=1, retain=retain)
        if info.rc != self._mqtt.MQTT_ERR_SUCCESS:
            raise ConnectionError(self._mqtt.error_string(info.rc))
        info.wait_for_publish(ANSWER_S)
        if not info.is_published():
            raise TimeoutError(f"the broker has not confirmed a message for {ANSWER_S:g} s")
