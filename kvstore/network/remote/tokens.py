"""Who we are to the servers: a token for the user and password, and the header blocks that carry it.

The token goes with every call until a server knows it no more. Those who want another one at the same time share it. A
cluster that has no users yet needs none.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from kvstore.errors import RequestError, Unauthenticated, Unavailable
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.network.http2.hpack import encode
from kvstore.network.remote.connection import Connection
from kvstore.network.remote.methods import AUTHENTICATE, Method
from kvstore.network.remote.options import ClientOptions
from kvstore.network.remote.outcome import NOT_ENABLED

SECRET = frozenset((b"token",))


class Connections(Protocol):
    """Those of the client."""

    all: set[Connection]


class Client(Protocol):
    """The client, as far as tokens need it. Everything is called on its loop."""

    options: ClientOptions

    connection: Connection | None

    @property
    def connecting(self) -> Connections: ...

    async def ask_on(
        self, connection: Connection, method: Method, message: bytes, *, has_token: bool = True
    ) -> bytes: ...


class Tokens:
    """The token of one client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._token = b""
        self._renewing: asyncio.Task[None] | None = None

    def block(
        self, connection: Connection, path: bytes, *, is_stream: bool = False, has_token: bool = True
    ) -> bytes:
        """The header block of a request, kept for the next one."""
        known = b"!" + path if is_stream else path
        block = connection.blocks.get(known)
        if block is None or not has_token:
            address = connection.address
            headers = [
                (b":method", b"POST"),
                (b":scheme", b"https" if address.is_tls else b"http"),
                (b":path", path),
                (b":authority", b"localhost" if address.path else str(address).encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                (b"user-agent", b"kvstore"),
            ]
            if is_stream:
                headers.append((b"hasleader", b"true"))
            if self._token and has_token:
                headers.append((b"token", self._token))
            block = encode(headers, SECRET)
            if has_token:
                connection.blocks[known] = block
        return block

    async def need(self, connection: Connection) -> None:
        """Have a token, if there is a user and none was got yet."""
        if self._client.options.user and not self._token:
            await self._authenticate(connection)

    def renew(self) -> asyncio.Task[None]:
        """Get another token."""
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(
                self._authenticate(self._client.connection)
            )
            self._renewing.add_done_callback(self._renewed)
        return self._renewing

    async def reauthenticate(self) -> None:
        """Get another token, for a stream. Raises ``Unauthenticated`` without a user."""
        if not self._client.options.user:
            raise Unauthenticated
        await asyncio.shield(self.renew())

    def cancel(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    def _renewed(self, _: object) -> None:
        self._renewing = None

    async def _authenticate(self, connection: Connection | None) -> None:
        if connection is None:
            raise Unavailable("no connection")
        options = self._client.options
        request = etcdserverpb.AuthenticateRequest(name=options.user, password=options.password)
        message = request.SerializeToString()
        try:
            answer = await self._client.ask_on(connection, AUTHENTICATE, message, has_token=False)
        except RequestError as error:
            if str(error) != NOT_ENABLED:
                raise
            self._token = b""
        else:
            self._token = AUTHENTICATE.message(answer).token.encode()
        for each in self._client.connecting.all:
            each.blocks.clear()
