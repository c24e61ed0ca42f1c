"""How a client is told where to go and how to behave: one URL, and options with a table of their own (docs/remote.md).

    etcd://h1:2379,h2,h3    etcds://[::1]:2379    unix:///run/kv.sock    unixs:///run/kv.sock

Port 2379 where none is given; ``s`` is TLS; ``http`` and ``https`` are taken for ``etcd`` and ``etcds``. Relative paths
are those of the moment of connecting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from kvstore.arguments import socket_path
from kvstore.errors import BadArgument
from kvstore.network.addresses import bracketed
from kvstore.options import BadOption

DEFAULT_PORT = 2379
_SCHEMES = {
    "etcd": ("etcd", False),
    "etcds": ("etcds", True),
    "http": ("etcd", False),
    "https": ("etcds", True),
    "unix": ("unix", False),
    "unixs": ("unixs", True),
}
PREFERENCES = ("any", "leader")
MESSAGE_BYTES_MAX = (1 << 31) - 1


class Address(NamedTuple):
    """Where one server listens."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a Unix socket; then there is no host."""
    is_tls: bool = False

    def __str__(self) -> str:
        return self.path or f"{bracketed(self.host)}:{self.port}"


class Target(NamedTuple):
    """What a URL names: one store, at one or several addresses."""

    scheme: str
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(map(str, self.addresses))}"


def parse_target(url: str) -> Target:
    """The addresses in a URL. Raises ``BadArgument``."""
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {url!r:.80}")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise BadArgument(f"url must begin with {', '.join(f'{name}://' for name in _SCHEMES)}: {url!r:.200}")
    scheme, is_tls = _SCHEMES[scheme]
    if scheme.startswith("unix"):
        if not rest:
            raise BadArgument(f"url must name a socket, as unix:///run/kv.sock does: {url!r:.200}")
        return Target(scheme, (Address(path=socket_path(rest), is_tls=is_tls),))
    if "@" in rest:
        raise BadArgument("url must not hold a user or a password: give the options user and password")
    addresses = tuple(dict.fromkeys(_address(url, part, is_tls) for part in rest.rstrip("/").split(",")))
    return Target(scheme, addresses)


def _address(url: str, text: str, is_tls: bool) -> Address:
    try:
        # A list may repeat the scheme, as etcdctl's --endpoints does.
        parts = urlsplit(text if "://" in text else f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadArgument(f"url: {text!r:.200} is no host and port ({error}): {url!r:.200}") from None
    if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise BadArgument(f"url: {text!r:.200} is no host and port: {url!r:.200}")
    if port == 0:
        raise BadArgument(f"url: nobody listens at port 0: {url!r:.200}")
    return Address(host, DEFAULT_PORT if port is None else port, is_tls=is_tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Options of ``kvstore.connect``. Times in seconds."""

    user: str = ""
    """Who asks, where the server has users."""
    password: str = ""
    ca: str = ""
    """File of certificates (PEM) of who may sign for a server; empty: those of the system."""
    cert: str = ""
    """Files of our own certificate and its key, for a server that asks for one."""
    key: str = ""
    server_name: str = ""
    """The name that the server's certificate has to have; empty: the host in the URL."""

    timeout_seconds: float = 5.0
    """In which a call has to be answered, with everything that is repeated."""
    dial_timeout_seconds: float = 2.0
    """In which a server has to accept a connection before the next one is tried."""
    keepalive_seconds: float = 10.0
    """After so long without a sign of life the server is asked for one, while a call or a watch is open; 0: never.
    Servers end connections of clients that ask more often than every 5 seconds."""
    auto_sync_seconds: float = 0.0
    """How often the list of servers is brought up to date from the cluster's members; 0: never."""
    max_message_bytes: int = MESSAGE_BYTES_MAX
    """Largest answer that is taken."""
    max_txn_ops: int = 128
    """What the server takes in a transaction (its --max-txn-ops): as much as ``put_many`` puts into one."""
    max_request_bytes: int = 1_572_864
    """The same for the size of a request (its --max-request-bytes)."""
    watch_buffer: int = 4 << 20
    """Bytes that a watch holds for a consumer that is slow, roughly. When it is full the server is told to stop."""
    prefer: str = "any"
    """``any`` server of those in the URL, or the ``leader`` of them if it can be reached."""
    serializable: bool = False
    """Reads are answered from what the server has, without asking the others: faster, and perhaps of a moment ago."""

    def __post_init__(self) -> None:
        for name in ("user", "password", "ca", "cert", "key", "server_name"):
            if not isinstance(getattr(self, name), str):
                raise BadOption(f"{name} must be a str, not {type(getattr(self, name)).__name__}")
        for name in ("ca", "cert", "key"):  # read again for each connection of another kind
            if file := getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(file))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e9:
                raise BadOption(f"{name} must be a number of at least {least}, not {value!r:.80}")
        if 0 < self.keepalive_seconds < 5:
            raise BadOption(
                f"keepalive_seconds must be 0 or at least 5, not {self.keepalive_seconds}: servers take more frequent "
                "ones for an attack"
            )
        for name, most in _MOST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise BadOption(f"{name} must be 1 to {most}, not {value!r:.80}")
        if self.prefer not in PREFERENCES:
            raise BadOption(f"prefer must be one of {', '.join(PREFERENCES)}, not {self.prefer!r:.80}")
        if not isinstance(self.serializable, bool):
            raise BadOption(f"serializable must be true or false, not {self.serializable!r:.80}")
        if bool(self.cert) != bool(self.key):
            raise BadOption("cert and key need each other")
        if self.password and not self.user:
            raise BadOption("password needs user")

    @classmethod
    def load(cls, given: Mapping[str, Any]) -> Self:
        """Raises ``BadOption`` for an unknown option or a bad value."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise BadOption(f"unknown option {name!r}: there are {', '.join(known)}")
        return cls(**given)


_LEAST = {
    "timeout_seconds": 0.001,
    "dial_timeout_seconds": 0.001,
    "keepalive_seconds": 0,
    "auto_sync_seconds": 0,
}
_MOST = {
    "max_message_bytes": MESSAGE_BYTES_MAX,
    "max_txn_ops": 1 << 24,
    "max_request_bytes": 1 << 32,
    "watch_buffer": 1 << 40,
}
