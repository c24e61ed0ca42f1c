"""Which event loop serves: uvloop's where it is installed. A process whose threads take turns in one (gevent, eventlet)
runs one of asyncio's, and is told so for a second.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kvstore
from kvstore.network.endpoint import Settings
from kvstore.network.event_loop import check_a_loop_can_start, new_event_loop
from kvstore.network.load import Load
from tests.network.fake_call import Client
from tests.network.served_store import until
from tests.network.web_client import FakeSocket


@pytest.fixture(params=[("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")])
def patched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What says that it has patched threads; its name."""
    name, asked = request.param
    module = ModuleType(name)
    module.__dict__[asked] = lambda what: what in ("threading", "thread")
    monkeypatch.setitem(sys.modules, name, module)
    return str(name.partition(".")[0])


def test_one_loop_can_start(patched: str, tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "store") as store, kvstore.serve(store, "http://127.0.0.1:0") as server:
        with kvstore.connect(server.endpoints[0].replace("http", "etcd")) as far:
            far.put(b"k", b"v")
        assert store.get(b"k") is not None


def test_a_second_one_is_refused(patched: str) -> None:
    """With who has patched the process, and what to do."""

    async def run() -> None:
        with pytest.raises(kvstore.Unsupported, match=rf"patched by {patched},.* use a process of its own"):
            check_a_loop_can_start()

    asyncio.run(run())


def test_it_is_uvloops_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    assert type(made()) is uvloop.Loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert isinstance(made(), asyncio.SelectorEventLoop)


def test_it_is_asyncios_where_threads_take_turns(patched: str) -> None:
    """uvloop would not let them."""
    assert isinstance(made(), asyncio.SelectorEventLoop)


def made() -> asyncio.AbstractEventLoop:
    loop = new_event_loop()
    loop.close()
    return loop


class Owner:
    """The connection of a ``Load``."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.http2: Any = None
        self.flush_soon: Callable[[], None] = lambda: None


def test_a_turn_ends_on_a_loop_whose_time_stands_still(store: kvstore.Store) -> None:
    """uvloop's time is that of when the turn began, until it is over."""
    with Client(store.engine, Settings()) as client:
        client.loop.time = lambda: 1.0  # type: ignore[method-assign]
        load = Load(Owner(client.endpoint), FakeSocket())  # type: ignore[arg-type]
        load.begin_turn()
        until(lambda: not load.may_begin())


def test_a_process_that_is_not_patched_may_start_any_number() -> None:
    async def run() -> None:
        check_a_loop_can_start()

    asyncio.run(run())
