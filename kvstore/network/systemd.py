"""Telling systemd how far a service is: one datagram to the socket that it names in NOTIFY_SOCKET.

READY=1       clients are served        STOPPING=1    it was told to stop, and is about to
"""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger("kvstore.network")

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> bool:
    """Tell systemd, if it has started us; whether it was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # a name in the kernel instead of a file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        logger.warning("systemd cannot be told %s: %s", state, error)
        return False
    return True
