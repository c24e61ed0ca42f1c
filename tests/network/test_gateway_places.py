"""How many calls over JSON are under way: no more than ``max_concurrent_streams``, where that is set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.network import limits
from tests.network.web_client import WebClient, says, web_client

A = "YQ=="
RANGE, WATCH = "/v3/kv/range", "/v3/watch"
CREATE = {"create_request": {"key": A}}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[WebClient, WebClient]]:
    """Two watches, where two calls may be under way."""
    with web_client(tmp_path, max_concurrent_streams=2) as first:
        second = another(first)
        first.watch(CREATE)
        second.watch(CREATE)
        yield first, second


def another(client: WebClient) -> WebClient:
    """One more connection to the same endpoint."""
    opened = WebClient(client.endpoint)
    opened.store = client.store
    return opened


def waits(client: WebClient) -> bool:
    client.rest()
    return not client.socket.written


def test_a_call_too_many_waits_until_another_is_over(full: tuple[WebClient, WebClient]) -> None:
    """Of whichever connection, in the order in which they came. What is no call does not wait."""
    late, later = another(full[0]), another(full[0])
    late.send("POST", RANGE, b'{"key":"YQ=="}')
    later.send("POST", RANGE, b'{"key":"YQ=="}')
    assert waits(late)
    assert waits(later)
    assert another(late).ask("GET", "/health").status == 200
    full[0].peer.lost()
    assert late.answer().status == 200
    assert later.answer().status == 200
    assert late.call(RANGE, {"key": A}).status == 200


def test_a_watch_too_many_begins_with_what_it_was_asked_meanwhile(
    full: tuple[WebClient, WebClient],
) -> None:
    """Its body came, and ended, before it had a place."""
    late = another(full[0])
    late.send("POST", WATCH, b'{"create_request":{"key":"YQ=="}}')
    assert waits(late)
    full[1].peer.lost()
    answer = late.answer(says(1))
    late.store.put(b"a", b"1")
    late.more(answer, says(2))


def test_who_waits_may_give_up(full: tuple[WebClient, WebClient]) -> None:
    """By its time limit, or by going: its place is not another's, and none is lost."""
    late, gone = another(full[0]), another(full[0])
    gone.send("POST", RANGE, b"{}")
    assert waits(gone)
    gone.peer.lost()
    assert late.call(RANGE, {"key": A}, Grpc_Timeout="10m").status == 504
    late.send("POST", RANGE, b'{"key":"YQ=="}')
    assert full[1].socket.written
    full[0].peer.lost()
    assert late.answer().status == 200
    late.send("POST", WATCH, b'{"create_request":{"key":"YQ=="}}')
    late.answer(says(1))
    assert not late.endpoint.gateway_places._free


def test_what_is_kept_of_a_watch_that_waits_is_bounded(full: tuple[WebClient, WebClient]) -> None:
    """Beyond that it is refused."""
    late = another(full[0])
    assert late.ask("POST", WATCH, b" " * (limits.WAITING_BYTES + 1)).status == 429


def test_a_thousand_that_wait_are_all_answered(full: tuple[WebClient, WebClient]) -> None:
    """One after the other, not one within the other."""
    waiting = [another(full[0]) for _ in range(1_000)]
    for each in waiting:
        each.send("POST", RANGE, b'{"key":"YQ=="}')
    assert waits(waiting[-1])
    full[0].peer.lost()
    assert {each.answer().status for each in waiting} == {200}


def test_unless_it_is_set_no_connection_waits_for_another(tmp_path: Path) -> None:
    """Each has its own number alone: who uses up his takes nobody's."""
    with web_client(tmp_path) as client:
        places = client.endpoint.gateway_places
        for _ in range(client.endpoint.settings.max_concurrent_streams):
            places.take(lambda: None)
        assert client.call(RANGE, {"key": A}).status == 200
