"""Watches from now on that end before they have begun: writes, which come after their beginning, are not held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.model import WatchRequest
from kvstore.store import Store
from tests.harness.watching import TIMEOUT_SECONDS
from tests.remote.watched import engine_of


async def begun(stream: Any) -> int:
    """A watch of a caller that must not wait, as it runs a loop."""
    ident: int = stream.create(WatchRequest(b"k"))
    return ident


def in_one_turn(remote: Store, calls: Callable[[], None]) -> None:
    """Whatever the calls put down for the client's loop, it does in one turn."""
    client = engine_of(remote)._client
    over = threading.Event()
    client.soon(over.wait, TIMEOUT_SECONDS)
    try:
        calls()
    finally:
        over.set()


@pytest.mark.parametrize("end", ["the stream", "the watch"])
def test_one_that_ends_at_once(remote: Store, end: str) -> None:
    """Before the client has taken a step to find out where it begins."""
    stream = remote.watch_stream()

    def begin_and_end() -> None:
        ident = asyncio.run(begun(stream))
        if end == "the stream":
            stream.close()
        else:
            stream.cancel(ident)

    in_one_turn(remote, begin_and_end)
    assert remote.put(b"k").revision
    assert not engine_of(remote)._client.watches.pins.pending
    stream.close()


def test_one_whose_making_was_interrupted(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the client was told of it."""
    stream: Any = remote.watch_stream()
    soon = stream._soon

    def interrupted(call: Callable[..., Any], *arguments: Any) -> None:
        if call.__name__ == "create_now":
            raise KeyboardInterrupt
        soon(call, *arguments)

    monkeypatch.setattr(stream, "_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(begun(stream))
    assert remote.put(b"k").revision
    assert not engine_of(remote)._client.watches.pins.pending
    stream.close()


def test_a_write_that_waits_for_a_beginning_says_so(remote: Store) -> None:
    """Not that a server refused its connection, long ago."""
    with remote.watch_stream() as stream:
        client = engine_of(remote)._client
        client.watches.pins.pending[stream] = None  # type: ignore[index]  # something that never begins
        assert "where it begins" in str(client._unreached())
        client.watches.pins.pending.clear()
