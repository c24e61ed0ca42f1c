"""The way to a server: one after the other is tried, until one has said that it is of our cluster and knows us.

    soon ──> next endpoint ──> dial ──> token ──> whose server is it? ──> the leader, if preferred ──> Client.use
                  ^                        │
                  └──── left alone ────────┘ failed

It goes on as long as somebody waits for a connection. The list of servers is brought up to date from the cluster's
members, where that is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Protocol

from google.protobuf.message import DecodeError

from kvstore.errors import (
    KVStoreError,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    Unavailable,
    WrongStore,
    said_of,
)
from kvstore.life import Life
from kvstore.network.remote.connection import Connection, Owner, dial, tls_context
from kvstore.network.remote.endpoints import Endpoints
from kvstore.network.remote.members import listed
from kvstore.network.remote.methods import MEMBER_LIST, STATUS, Method
from kvstore.network.remote.options import Address, ClientOptions, Target
from kvstore.network.remote.streams import backoff
from kvstore.network.remote.tokens import Tokens
from kvstore.options import BadOption

logger = logging.getLogger("kvstore.remote")


class Client(Owner, Protocol):
    """The client, as far as connecting needs it. Everything is called on its loop."""

    target: Target
    options: ClientOptions
    life: Life
    connection: Connection | None
    endpoints: Endpoints
    tokens: Tokens
    cluster_id: int
    member_id: int
    version: str

    def is_awaited(self) -> bool:
        """Whether somebody waits for a connection."""

    def use(self, connection: Connection) -> None: ...

    def fail_waiting(self, error: KVStoreError) -> None:
        """There is no point in waiting."""

    async def ask_on(self, connection: Connection, method: Method, message: bytes) -> bytes: ...


class Connecting:
    """Makes the connections of one client."""

    def __init__(self, client: Client) -> None:
        """Raises ``BadOption`` for files of TLS that cannot be used."""
        self.all: set[Connection] = set()
        """Those that are not over."""
        self.why_not: KVStoreError = Unavailable()
        """Why there is no connection."""
        self._client = client
        self._context = _context(client.target, client.options)
        self._task: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Somebody waits for a connection."""
        if self._task is None and self._client.connection is None and self._client.life.read_refusal is None:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """Make a connection, as long as somebody waits for one."""
        attempts = 0
        wrong: set[Address] = set()
        try:
            while self._client.is_awaited():
                address = self._client.endpoints.next()
                try:
                    connection = await self.connected(address)
                except (OSError, KVStoreError) as error:
                    self._client.endpoints.failed(address)
                    is_final = isinstance(error, RequestError)
                    if isinstance(error, WrongStore):
                        wrong.add(address)
                        is_final = wrong.issuperset(self._client.endpoints.addresses)
                    if not wrong or isinstance(error, WrongStore):
                        self.why_not = (
                            error if isinstance(error, KVStoreError) else _unreachable(address, error)
                        )
                    if is_final:
                        self._client.fail_waiting(self.why_not)
                    elif self._client.endpoints.all_down:
                        attempts += 1
                        await asyncio.sleep(backoff(attempts))
                    continue
                self._client.endpoints.works(address)
                if self._client.options.prefer == "leader" and not connection.is_leader:
                    connection = await self._leaders(connection)
                self._client.use(connection)
                return
        finally:
            self._task = None
            if self._client.connection is None and self._client.is_awaited():
                self.soon()

    async def _leaders(self, first: Connection) -> Connection:
        """A connection to the leader, if it is among the servers and can be reached; otherwise the first one."""
        for address in self._client.endpoints.addresses:
            if address == first.address:
                continue
            try:
                other = await self.connected(address)
            except (OSError, KVStoreError):
                continue
            if other.is_leader:
                first.close("the leader is preferred")
                return other
            other.close("the leader is preferred")
        return first

    def begin_sync(self) -> None:
        self._syncing = asyncio.get_running_loop().create_task(self._sync())

    async def _sync(self) -> None:
        """Bring the list of servers up to date with the cluster's members, from time to time."""
        while True:
            await asyncio.sleep(self._client.options.auto_sync_seconds)
            connection = self._client.connection
            if connection is None:
                continue
            try:
                answer = MEMBER_LIST.message(await self._client.ask_on(connection, MEMBER_LIST, b""))
            except (KVStoreError, DecodeError) as error:
                logger.info("%s: the members are not known: %s", self._client.target, error)
                continue
            found = listed(answer, self._client.endpoints.addresses)
            addresses = [
                each
                for urls in found.values()
                for each in urls
                if each.is_tls == self._client.target.addresses[0].is_tls
            ]
            if addresses:
                self._client.endpoints.replace(addresses)

    async def connected(self, address: Address) -> Connection:
        """A connection to a server of this cluster, to which we are known. Raises ``OSError``, ``KVStoreError``."""
        connection = await dial(address, self._context, self._client.options, self._client)
        self.all.add(connection)
        connection.is_leader = False
        try:
            await self._client.tokens.need(connection)
            await self._identify(connection)
            if connection.is_leaving:
                raise Unavailable(connection.reason or "the server is going away")
        except BaseException:
            connection.close("not the right one")
            self.all.discard(connection)
            raise
        return connection

    async def _identify(self, connection: Connection) -> None:
        """Find out whose server it is. One that may not say is taken on trust; its answers will be looked at."""
        try:
            status = STATUS.message(await self._client.ask_on(connection, STATUS, b""))
        except (PermissionDenied, Unauthenticated):
            return
        found = status.header.cluster_id
        if self._client.cluster_id and found != self._client.cluster_id:
            raise self.wrong(found)
        self._client.cluster_id = found
        self._client.member_id = status.header.member_id
        self._client.version = status.version
        connection.is_leader = status.leader == status.header.member_id

    def wrong(self, cluster_id: int) -> WrongStore:
        """The error for a server of another cluster."""
        before = f"not to {self._client.cluster_id:016x} as before"
        return WrongStore(
            f"{self._client.target}: a server belongs to cluster {cluster_id:016x}, {before}: it is another store, "
            "or was restored from a backup; connect anew to use it"
        )

    def cancel(self) -> None:
        """Look no further for members."""
        if self._syncing is not None:
            self._syncing.cancel()


def _unreachable(address: Address, error: OSError) -> Unavailable:
    reason = said_of(error)
    if isinstance(error, TimeoutError):
        reason = "no connection in time"
    elif error.errno and not isinstance(error, ssl.SSLError):
        reason = os.strerror(error.errno)
    found = Unavailable(f"{address}: {reason}")
    found.__cause__ = error
    return found


def _context(target: Target, options: ClientOptions) -> ssl.SSLContext | None:
    if not target.addresses[0].is_tls:
        return None
    try:
        return tls_context(options)
    except (OSError, ValueError) as error:
        names = " and ".join(name for name in ("ca", "cert", "key") if getattr(options, name))
        raise BadOption(f"{names or 'ca'} cannot be used for TLS: {said_of(error)}") from error
