"""A process whose threads take turns in one (gevent, eventlet) runs one event loop, and is told so for a second."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kvstore
from kvstore.network.patched import check_a_loop_can_start


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


def test_a_process_that_is_not_patched_may_start_any_number() -> None:
    async def run() -> None:
        check_a_loop_can_start()

    asyncio.run(run())
