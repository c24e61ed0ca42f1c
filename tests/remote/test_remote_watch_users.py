"""Watches and keep-alives of a server with users: tokens that are forgotten, ranges that may not be watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.errors import PermissionDenied, Unauthenticated
from kvstore.model import WatchRequest
from tests.harness.watching import TIMEOUT_SECONDS
from tests.remote.guarded import BOB, Guarded


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
