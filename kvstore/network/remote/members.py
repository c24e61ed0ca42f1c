"""Work on every member of a cluster: who they are, where they can be reached, and defragmenting them one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

from kvstore.backend import Progress
from kvstore.errors import BadArgument, KVStoreError, Unavailable
from kvstore.network.remote.connection import Connection
from kvstore.network.remote.endpoints import Endpoints
from kvstore.network.remote.methods import DEFRAGMENT, STATUS, Method
from kvstore.network.remote.options import Address, parse_target
from kvstore.upkeep.defragment import Defragmented

LONG_SECONDS = 600.0
"""A member that is being defragmented answers nothing until it is done."""


class Connecting(Protocol):
    """Who makes its connections."""

    async def connected(self, address: Address) -> Connection: ...


class Client(Protocol):
    """The client, as far as work on members needs it. Everything is called on its loop."""

    endpoints: Endpoints

    @property
    def connecting(self) -> Connecting: ...

    async def ask_on(
        self, connection: Connection, method: Method, message: bytes, *, timeout_seconds: float = 0.0
    ) -> bytes: ...


class Member(NamedTuple):
    """A member that answers, and what it says of itself."""

    connection: Connection
    status: Any

    @property
    def id(self) -> int:
        found: int = self.status.header.member_id
        return found

    @property
    def leads(self) -> bool:
        return bool(self.status.leader == self.id)


def usable(urls: Iterable[str], known: Iterable[Address]) -> list[Address]:
    """Where clients can go, of what members say they listen at.

    A wildcard is no address; a loopback address is another machine's, unless we have been told of one ourselves.
    """
    is_local = any(address.path or _is_loopback(address.host) for address in known)
    found = []
    for url in urls:
        try:
            addresses = parse_target(url).addresses
        except BadArgument:
            continue
        for address in addresses:
            if address.path or _is_wildcard(address.host) or (_is_loopback(address.host) and not is_local):
                continue
            found.append(address)
    return list(dict.fromkeys(found))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def listed(answer: Any, known: Iterable[Address]) -> dict[int, list[Address]]:
    """The members that have begun to serve, and where, out of an answer to MemberList."""
    known = list(known)
    return {member.ID: usable(member.clientURLs, known) for member in answer.members if member.name}


async def defragment(
    client: Client, wanted: dict[int, list[Address]], progress: Progress | None
) -> Defragmented:
    """Defragment each member, the leader last. Raises ``Unavailable``, before any of them, if one cannot be reached."""
    known = client.endpoints.addresses
    candidates = list(dict.fromkeys([*known, *(each for urls in wanted.values() for each in urls)]))
    members: dict[int, Member] = {}
    try:
        for address in candidates:
            await _meet(client, address, members)
        missing = [f"{member:016x}" for member in wanted if member not in members]
        if missing:
            raise Unavailable(f"no answer from members {', '.join(missing)}; nothing was defragmented")
        return await _one_by_one(client, sorted(members.values(), key=lambda each: each.leads), progress)
    finally:
        for member in members.values():
            member.connection.close("done")


async def _meet(client: Client, address: Address, members: dict[int, Member]) -> None:
    try:
        connection = await client.connecting.connected(address)
        status = STATUS.message(await client.ask_on(connection, STATUS, b""))
    except (OSError, KVStoreError):
        return
    if status.header.member_id in members:
        connection.close("met already")
    else:
        members[status.header.member_id] = Member(connection, status)


async def _one_by_one(client: Client, members: list[Member], progress: Progress | None) -> Defragmented:
    before = sum(member.status.dbSize for member in members)
    done = after = 0
    for member in members:
        await client.ask_on(member.connection, DEFRAGMENT, b"", timeout_seconds=LONG_SECONDS)
        status = STATUS.message(await client.ask_on(member.connection, STATUS, b""))
        after += status.dbSize
        done += member.status.dbSize
        if progress is not None:
            await asyncio.get_running_loop().run_in_executor(None, progress, done, before)
    return Defragmented(before, after)
