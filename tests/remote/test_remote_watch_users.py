"""Watches and keep-alives of a server with users: tokens that are forgotten, ranges that may not be watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import PermissionDenied, Unauthenticated
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import WatchRequest
from kvstore.store import Store
from tests.harness.watching import TIMEOUT_SECONDS
from tests.network.wire import Wire
from tests.remote.watched import Elsewhere, address_of

PASSWORD = "correct horse"
BOB = {"user": "bob", "password": PASSWORD}


class Guarded:
    """A store behind a server that can be started anew, and then knows no token of those before."""

    def __init__(self, path: Path) -> None:
        self.store: Store = kvstore.open(path / "store", "memory", background=False)
        self._serving = self._serve("http://127.0.0.1:0")
        self._url = self._serving.endpoints[0]
        self.elsewhere = Elsewhere(address_of(self._url))

    def _serve(self, url: str) -> Any:
        return kvstore.serve(self.store, url, bcrypt_cost=4)

    def restart(self) -> None:
        self._serving.stop(0)
        self._serving = self._serve(self._url)

    def ask(self, wire: Wire, method: str, **fields: Any) -> None:
        message = getattr(pb, f"Auth{method}Request")(**fields).SerializeToString()
        wire.call(f"/etcdserverpb.Auth/{method}", message)

    def enable_users(self) -> None:
        """root may do everything; bob reads and writes ``[a, c)``."""
        with Wire(*address_of(self._url)) as wire:
            self.ask(wire, "RoleAdd", name="some")
            perm = {"permType": "READWRITE", "key": b"a", "range_end": b"c"}
            self.ask(wire, "RoleGrantPermission", name="some", perm=perm)
            for name, role in (("root", "root"), ("bob", "some")):
                self.ask(wire, "UserAdd", name=name, password=PASSWORD)
                self.ask(wire, "UserGrantRole", user=name, role=role)
            wire.call("/etcdserverpb.Auth/AuthEnable", b"")

    def close(self) -> None:
        self.elsewhere.close()
        self._serving.stop(0)
        self.store.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    opened = Guarded(tmp_path)
    yield opened
    opened.close()


def test_a_watch_outlives_its_token(guarded: Guarded) -> None:
    """The server is started anew and knows the token no more: the client gets another, and misses nothing."""
    guarded.enable_users()
    remote = guarded.elsewhere.connect(**BOB)
    with remote.watch(b"a") as watch, remote.watch(b"b") as other:
        for number in range(3):
            guarded.store.put(b"a", b"%d" % number)
            guarded.store.put(b"b", b"%d" % number)
            guarded.restart()
            for each in (watch, other):
                assert each.get(TIMEOUT_SECONDS).kv.value == b"%d" % number


def test_a_lease_is_kept_alive_with_another_token(guarded: Guarded) -> None:
    """The same for the stream of keep-alives."""
    guarded.enable_users()
    remote = guarded.elsewhere.connect(**BOB)
    lease = guarded.store.grant_lease(600).id
    for _ in range(3):
        assert remote.keep_alive(lease).ttl == 600
        guarded.restart()


def test_a_range_that_may_not_be_watched_is_refused(guarded: Guarded) -> None:
    """From now on: at once. From a revision on: by the first event. The next watch of the stream goes on."""
    guarded.enable_users()
    remote = guarded.elsewhere.connect(**BOB)
    with pytest.raises(PermissionDenied):
        remote.watch(b"x")
    with remote.watch(b"x", start_revision=1) as watch, pytest.raises(PermissionDenied):
        watch.get(TIMEOUT_SECONDS)
    with remote.watch_stream() as stream:
        stream.create(WatchRequest(b"x", start_revision=1))
        stream.create(WatchRequest(b"a", start_revision=2))
        number, refused = stream.next()
        assert (number, refused.canceled, refused.cancel_reason) == (0, True, PermissionDenied.message)
        guarded.store.put(b"a", b"1")
        assert stream.next()[1].created
        assert stream.next()[1].events[0].kv.value == b"1"


def test_users_that_come_later_end_the_watch_of_nobody(guarded: Guarded) -> None:
    """Who has no user cannot go on after a cut: it is said."""
    remote = guarded.elsewhere.connect()
    with remote.watch(b"a") as watch:
        guarded.enable_users()
        guarded.store.put(b"a", b"1")
        assert watch.get(TIMEOUT_SECONDS).kv.value == b"1"
        guarded.elsewhere.proxy.cut()
        with pytest.raises(Unauthenticated):
            watch.get(TIMEOUT_SECONDS)
