"""Leases of a store elsewhere, kept alive: the machine with a script, and the stream over connections that are cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import (
    Code,
    Corruption,
    KVStoreError,
    PermissionDenied,
    StoreClosed,
    Unauthenticated,
    Unavailable,
)
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import LeaseKeepAliveResponse
from kvstore.network.remote.keepalives import Answer, KeepAliveMachine, KeepAlives
from kvstore.network.remote.outcome import error_of
from kvstore.network.remote.streams import Receiver
from tests.harness.cutting_proxy import Fault
from tests.harness.watching import TIMEOUT_SECONDS
from tests.remote.watched import served, until

# --- the machine ----------------------------------------------------------------------------


class Script:
    """A machine, what its callers were told, and the messages that it sent."""

    def __init__(self) -> None:
        self.machine = KeepAliveMachine()
        self.told: list[tuple[str, Answer]] = []

    def ask(self, name: str, lease: int) -> Any:
        return self.machine.ask(lease, lambda answer: self.told.append((name, answer)))

    def sent(self) -> list[int]:
        """The leases that were asked for since this was looked at."""
        found = [pb.LeaseKeepAliveRequest.FromString(message).ID for message in self.machine.out]
        self.machine.out.clear()
        return found

    def answer(self, lease: int, ttl: int = 60) -> None:
        self.machine.received(pb.LeaseKeepAliveResponse(ID=lease, TTL=ttl).SerializeToString())

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


def test_answers_belong_to_the_lease_that_they_name() -> None:
    """In whatever order they come; of several who wait for one lease, to the first."""
    script = Script()
    for name, lease in (("first", 7), ("other", 8), ("second", 7)):
        script.ask(name, lease)
    script.machine.opened()
    assert script.sent() == [7, 8, 7]
    script.answer(8)
    script.answer(7)
    assert script.names == ["other", "first"]
    script.answer(7, 0)
    assert script.told[-1] == ("second", LeaseKeepAliveResponse(0, 7, 0))


@pytest.mark.parametrize("answered", range(4))
def test_what_has_no_answer_is_asked_again_on_the_next_stream(answered: int) -> None:
    """Whatever was answered before the cut, each caller gets one answer."""
    script = Script()
    for name, lease in (("a", 1), ("b", 2), ("c", 1)):
        script.ask(name, lease)
    script.machine.opened()
    leases = script.sent()
    for lease in leases[:answered]:
        script.answer(lease)
    script.machine.lost()
    assert script.machine.needs_stream == (answered < 3)
    script.ask("d", 3)
    script.machine.opened()
    assert script.sent() == [*leases[answered:], 3]
    for lease in [*leases[answered:], 3]:
        script.answer(lease)
    assert script.names == ["a", "b", "c", "d"]
    assert not script.machine.needs_stream


def test_the_answer_of_who_has_given_up_is_nobody_elses() -> None:
    """Another who waits for the same lease waits for his own."""
    script = Script()
    first = script.ask("first", 7)
    script.machine.opened()
    script.machine.forget(first)
    script.ask("second", 7)
    assert script.sent() == [7, 7]
    script.answer(7)
    assert script.told == []
    script.answer(7)
    assert script.names == ["second"]


def test_who_has_given_up_is_not_asked_for_again() -> None:
    """Neither before the first stream nor after a loss."""
    script = Script()
    script.machine.forget(script.ask("a", 1))
    assert not script.machine.needs_stream
    asked = script.ask("b", 2)
    script.machine.opened()
    script.machine.forget(asked)
    script.machine.lost()
    assert not script.machine.needs_stream


@pytest.mark.parametrize(
    "message", [b"\xff", pb.LeaseKeepAliveResponse(ID=9, TTL=60).SerializeToString()], ids=["bytes", "lease"]
)
def test_an_answer_that_is_none_is_refused(message: bytes) -> None:
    """Bytes that are no message, and a lease that nobody asked for."""
    script = Script()
    script.ask("a", 1)
    script.machine.opened()
    with pytest.raises(Corruption):
        script.machine.received(message)


# --- the stream, with a script --------------------------------------------------------------


class ScriptedStreams:
    """Streams that a test ends as it likes."""

    def __init__(self, ends: list[KVStoreError | None], renew: Callable[[], None] = lambda: None) -> None:
        self.ends = ends
        """How the next streams end, at the first message; those after them answer."""
        self.opened = self.renewed = 0
        self._renew = renew

    def open(self, path: bytes, receiver: Receiver) -> Any:
        self.opened += 1
        end = [self.ends.pop(0)] if self.ends else []
        return _ScriptedStream(receiver, end)

    def later(self, delay_seconds: float, call: Callable[[], Any]) -> Any:
        return asyncio.get_running_loop().call_soon(call)

    async def reauthenticate(self) -> None:
        self.renewed += 1
        self._renew()

    def unary(self, path: bytes, message: bytes) -> Any:
        raise NotImplementedError

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        asyncio.get_running_loop().call_soon(call, *args)


class _ScriptedStream:
    def __init__(self, receiver: Receiver, end: list[KVStoreError | None]) -> None:
        self._receiver = receiver
        self._end = end
        self._is_over = False

    def send(self, message: bytes) -> None:
        if self._is_over:
            return
        loop = asyncio.get_running_loop()
        if self._end:
            self._is_over = True
            loop.call_soon(self._receiver.ended, self._end[0])
        else:
            lease = pb.LeaseKeepAliveRequest.FromString(message).ID
            loop.call_soon(
                self._receiver.received, pb.LeaseKeepAliveResponse(ID=lease, TTL=60).SerializeToString()
            )

    def hold(self, is_held: bool) -> None:
        """Nobody asks for that."""

    def cancel(self) -> None:
        self._is_over = True


def kept(streams: ScriptedStreams, *leases: int) -> list[Any]:
    """What callers get who ask for these leases at the same time."""

    async def main() -> list[Any]:
        keepalives = KeepAlives(streams)
        asking = [keepalives.keep_alive(lease, TIMEOUT_SECONDS) for lease in leases]
        return await asyncio.gather(*asking, return_exceptions=True)

    return asyncio.run(main())


def test_one_stream_serves_all() -> None:
    """It is opened once, and stays."""
    streams = ScriptedStreams([])
    assert [answer.id for answer in kept(streams, 1, 2, 1, 3)] == [1, 2, 1, 3]
    assert streams.opened == 1


def test_lost_streams_are_opened_again() -> None:
    """However they were lost, also if the server ended them without an error."""
    streams = ScriptedStreams([Unavailable(), None, Unavailable()])
    assert [answer.id for answer in kept(streams, 1, 2)] == [1, 2]
    assert streams.opened == 4


def test_a_server_that_has_lost_the_lead_is_asked_again() -> None:
    """etcd 3.6 ends the stream with an error that names no code: it is no answer about the lease."""
    streams = ScriptedStreams([error_of(Code.UNKNOWN, "not a primary lessor")])
    assert [answer.id for answer in kept(streams, 1)] == [1]
    assert streams.opened == 2


def test_an_error_is_the_oldest_callers() -> None:
    """A server ends the stream for one lease's sake; the others go on."""
    first, second = kept(ScriptedStreams([PermissionDenied()]), 1, 2)
    assert isinstance(first, PermissionDenied)
    assert second.id == 2


def test_a_token_error_gets_another_token() -> None:
    """And is everybody's error if that does not help, or there is none."""
    streams = ScriptedStreams([Unauthenticated()])
    assert kept(streams, 1)[0].id == 1
    assert streams.renewed == 1
    streams = ScriptedStreams([Unauthenticated()] * 10)
    assert [type(answer) for answer in kept(streams, 1, 2)] == [Unauthenticated, Unauthenticated]
    assert streams.renewed < 5

    def refuse() -> None:
        raise Unauthenticated

    streams = ScriptedStreams([Unauthenticated()], refuse)
    assert [type(answer) for answer in kept(streams, 1, 2)] == [Unauthenticated, Unauthenticated]


# --- for real -------------------------------------------------------------------------------


def test_leases_live_on_over_connections_that_are_cut(tmp_path: Path) -> None:
    """After every number of bytes, of either direction: each call is answered."""
    with served(tmp_path) as (store, elsewhere):
        remote = elsewhere.connect()
        leases = [store.grant_lease(600).id for _ in range(3)]
        for size in range(1, 400, 30):
            elsewhere.proxy.plan(Fault("down", size), Fault("up", size + 17, "reset"))
            elsewhere.proxy.cut()
            for lease in leases:
                answer = remote.keep_alive(lease)
                assert (answer.id, answer.ttl) == (lease, 600)


def test_a_lease_that_is_gone_has_no_time_left(tmp_path: Path) -> None:
    """TTL 0 on the wire, and an error for who asks through a store."""
    with served(tmp_path) as (store, elsewhere):
        remote = elsewhere.connect()
        lease = store.grant_lease(600).id
        assert remote.keep_alive(lease).ttl == 600
        store.revoke_lease(lease)
        for gone in (lease, 12345):
            with pytest.raises(kvstore.LeaseNotFound, match=f"lease {gone}"):
                remote.keep_alive(gone)
            kept = remote._engine.lease_keep_alive(gone)
            assert kept == LeaseKeepAliveResponse(store.revision, gone, 0)


def test_threads_and_tasks_share_the_stream(tmp_path: Path) -> None:
    """Many at once, several for the same lease."""
    with served(tmp_path) as (store, elsewhere):
        remote = elsewhere.connect()
        leases = [store.grant_lease(600 + number).id for number in range(5)]
        found: list[tuple[int, int]] = []

        def keep(number: int) -> None:
            answer = remote.keep_alive(leases[number % 5])
            found.append((answer.id, answer.ttl))

        threads = [threading.Thread(target=keep, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(
            (lease, 600 + number) for number, lease in enumerate(leases) for _ in range(4)
        )

        async def main() -> list[Any]:
            async with await kvstore.connect_async(elsewhere.url) as tasks:
                return list(
                    await asyncio.gather(*[tasks.keep_alive(leases[number % 5]) for number in range(20)])
                )

        assert [answer.ttl for answer in asyncio.run(main())] == [600 + number % 5 for number in range(20)]


def test_it_is_given_up_when_its_time_is_up(tmp_path: Path) -> None:
    """No server, or one that says nothing: ``Unavailable``; and the next call works."""
    with served(tmp_path) as (store, elsewhere):
        remote = elsewhere.connect(timeout_seconds=0.3)
        lease = store.grant_lease(600).id
        remote.keep_alive(lease)
        elsewhere.proxy.refuse()
        elsewhere.proxy.cut()
        with pytest.raises(Unavailable, match=f"{lease:x}"):
            remote.keep_alive(lease)
        elsewhere.proxy.refuse(False)
        until(lambda: _works(remote, lease))
        elsewhere.proxy.stall()
        with pytest.raises(Unavailable):
            remote.keep_alive(lease)
        elsewhere.proxy.go_on()
        until(lambda: _works(remote, lease))


def _works(store: kvstore.Store, lease: int) -> bool:
    try:
        return store.keep_alive(lease).ttl == 600
    except Unavailable:
        return False


def test_closing_ends_what_waits(tmp_path: Path) -> None:
    """Whoever waits gets ``StoreClosed``."""
    with served(tmp_path) as (store, elsewhere):
        remote = elsewhere.connect()
        lease = store.grant_lease(600).id
        elsewhere.proxy.stall()
        errors: list[BaseException] = []

        def keep() -> None:
            try:
                remote.keep_alive(lease)
            except StoreClosed as error:
                errors.append(error)

        threads = [threading.Thread(target=keep) for _ in range(3)]
        for thread in threads:
            thread.start()
        remote.close()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
        assert len(errors) == 3
        elsewhere.proxy.go_on()
