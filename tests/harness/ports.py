"""Ports for servers that have to be told which, and may be started again on the same one."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

LOWEST = 10_000


def free_ports(count: int) -> list[int]:
    """Different ones that are free now, and that nobody is given by chance.

    They lie below those that the system gives to a connection, or to a server that asks for any port: one of these
    may be taken before the server for which it was chosen has begun, and then another server answers.
    """
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().randrange(LOWEST, max(lowest_given, LOWEST + 10_000))
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue  # somebody has it
            ports.append(port)
    return ports
