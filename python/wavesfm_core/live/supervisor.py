# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages to systemd (sd_notify), without its library."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send a state such as READY=1 to the supervisor of this process; False where there is none.

    References
    ----------
    systemd, sd_notify(3): a datagram to the socket in NOTIFY_SOCKET; @ begins an abstract name.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.sendto(state.encode(), address)
        return True
    return False
