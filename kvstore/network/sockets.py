"""Sockets that listen, made before anything is served at them: what is wrong is said at once, and the port is known.

A server that was killed leaves the file of its Unix socket behind. One at which nobody answers is removed; one at which
somebody does is in use.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from kvstore.files import Disk
from kvstore.network.addresses import Listener

BACKLOG = 1024
_LOOPBACKS = ("127.0.0.1", "::1")
"""What ``localhost`` may be, the first that works."""


@dataclass(slots=True)
class Bound:
    """A listener with its socket."""

    listener: Listener
    socket: socket.socket
    url: str
    """With the port that was taken."""
    file: str
    """Of a Unix socket, wherever the process goes; empty: it has none."""

    def withdraw(self, disk: Disk) -> None:
        """Remove the file of a Unix socket, while it is surely ours: before the socket is closed. Idempotent."""
        file, self.file = self.file, ""
        if file:
            disk.remove(file)

    def close(self, disk: Disk) -> None:
        self.withdraw(disk)
        self.socket.close()


def bind_all(listeners: Iterable[Listener], disk: Disk, *, reuse_port: bool = False) -> list[Bound]:
    """All of them, or none. Raises ``OSError`` with the URL, where an address cannot be had."""
    bound: list[Bound] = []
    try:
        for listener in listeners:
            bound.append(bind(listener, disk, reuse_port=reuse_port))
    except BaseException:
        for each in bound:
            each.close(disk)
        raise
    return bound


def bind(listener: Listener, disk: Disk, *, reuse_port: bool = False) -> Bound:
    try:
        made = _at_path(listener, disk) if listener.path else _at_port(listener, reuse_port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"cannot listen at {listener.url}: {reason}") from error
    made.setblocking(False)
    url = listener.url if listener.path else listener.at(made.getsockname()[1])
    return Bound(listener, made, url, os.path.abspath(listener.path) if listener.path else "")


def _at_port(listener: Listener, reuse_port: bool) -> socket.socket:
    hosts = _LOOPBACKS if listener.host == "localhost" else (listener.host,)
    for host in hosts:
        try:
            return socket.create_server(
                (host, listener.port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=BACKLOG,
                reuse_port=reuse_port,
                dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            if host == hosts[-1] or error.errno != errno.EADDRNOTAVAIL:
                raise
    raise AssertionError("there is a host")


def _at_path(listener: Listener, disk: Disk) -> socket.socket:
    _remove_stale(listener.path, disk)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(listener.path)
        if listener.mode:
            os.chmod(listener.path, listener.mode)  # nobody can connect before it listens
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _remove_stale(path: str, disk: Disk) -> None:
    """Remove a socket that nobody listens at. Raises ``OSError`` for one that is in use, and for any other file."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            disk.remove(path)
            return
    raise OSError(errno.EADDRINUSE, "another process listens there")
