"""A page over HTTP/1.1 from a server that is asked over gRPC otherwise: metrics, health."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from kvstore.errors import Unavailable
from kvstore.network.remote.connection import tls_context
from kvstore.network.remote.options import Address, ClientOptions, parse_target

PAGE_BYTES_MAX = 64 << 20


class Page(NamedTuple):
    """``date``: the server's clock, as in RFC 9110; may be empty."""

    status: int
    date: str
    text: str


def fetch(url: str, path: str, options: dict[str, Any]) -> Page:
    """The page of the first server in the URL that answers. Raises ``Unavailable``, ``BadArgument``, ``BadOption``."""
    settings, failure = ClientOptions.load(options), ""
    for address in parse_target(url).addresses:
        connection = _Connection(address, settings)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read(PAGE_BYTES_MAX).decode(errors="replace")
            return Page(response.status, response.getheader("Date", ""), text)
        except (OSError, HTTPException) as error:
            failure = f"{address}: {error}"
        finally:
            connection.close()
    raise Unavailable(failure)


class _Connection(HTTPConnection):
    """To an address of any kind."""

    def __init__(self, address: Address, options: ClientOptions) -> None:
        super().__init__(address.host or "localhost", address.port or None, timeout=options.timeout_seconds)
        self._address = address
        self._options = options

    def connect(self) -> None:
        address = self._address
        if address.path:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(address.path)
        else:
            self.sock = socket.create_connection((address.host, address.port), self.timeout)
        if address.is_tls:
            context: ssl.SSLContext = tls_context(self._options)
            context.set_alpn_protocols(["http/1.1"])
            name = self._options.server_name or address.host or "localhost"
            self.sock = context.wrap_socket(self.sock, server_hostname=name)
