"""What the tests of the network may ask for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore.network.endpoint import Settings
from tests.network.fake_call import Client
from tests.network.served_store import Served


@pytest.fixture(params=["lmdb", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[kvstore.Store]:
    """A store, on either backend, in which an alarm stays until it is cleared: as the command opens it to serve it."""
    with kvstore.open(tmp_path / "store", backend=request.param, nospace_policy="sticky") as opened:
        yield opened


@pytest.fixture
def client(store: kvstore.Store) -> Iterator[Client]:
    """A client of an endpoint that serves the store."""
    with Client(store.engine, Settings(advertised_urls=("http://127.0.0.1:2379",))) as opened:
        yield opened


@pytest.fixture
def served(store: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The store, served to connections: on asyncio's loop with the one backend, on uvloop's (if that is installed)
    with the other.
    """
    with monkeypatch.context() as context:
        if store.engine.options.backend == "lmdb":
            context.setitem(sys.modules, "uvloop", None)
        opened = Served(store)
    yield opened
    opened.close()
