"""Fixtures for the tests of programs that use kvstore. pytest finds them wherever kvstore is installed:

    def test_a_greeting_is_kept(kvstore_store):
        kvstore_store.put(b"greeting", b"hello")

    async def test_a_greeting_is_kept_meanwhile(kvstore_async_store):
        await kvstore_async_store.put(b"greeting", b"hello")

    def test_a_session_ends(kvstore_store, kvstore_clock):
        kvstore_store.put(b"session", b"x", ttl=60)
        kvstore_clock.advance(61)                       # and it is gone

    def test_a_client_of_etcd_reads_it(kvstore_server, kvstore_store):
        client = Client(kvstore_server.endpoints[0])    # what it writes is in kvstore_store

Each test has a store of its own, in its own ``tmp_path``, so workers of pytest-xdist do not meet. The fixtures are
plain ones: they need no plugin for asyncio, and work with each.

pytest loads every plugin at each start, so whatever a fixture needs is imported inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvstore import AsyncStore, Store
    from kvstore.served import Server
    from kvstore.testing.fake_clock import FakeClock


def pytest_report_header() -> str:
    """Says which implementation is tested (``KVSTORE_IMPL``)."""
    from kvstore import implementation

    return f"kvstore: {implementation.name} implementation"


@pytest.fixture
def kvstore_dir(tmp_path: Path) -> Path:
    """A path for a data directory; nothing is there yet."""
    return tmp_path / "kvstore"


@pytest.fixture
def kvstore_clock() -> FakeClock:
    """The clock of ``kvstore_store``: time passes when a test calls ``kvstore_clock.advance(seconds)``."""
    from kvstore.testing.fake_clock import FakeClock

    return FakeClock()


@pytest.fixture
def kvstore_store(kvstore_dir: Path, kvstore_clock: FakeClock) -> Iterator[Store]:
    """A new store in ``kvstore_dir``, closed when the test ends. Its syncs wait for no disk, which makes it fast."""
    from kvstore.options import Options
    from kvstore.recovery import open_engine
    from kvstore.store import Store
    from kvstore.testing.recording_disk import UnsyncedDisk

    options = Options.load({"clock": kvstore_clock})
    with Store(open_engine(kvstore_dir, options, UnsyncedDisk())) as store:
        yield store


@pytest.fixture
def kvstore_async_store(kvstore_store: Store) -> Iterator[AsyncStore]:
    """``kvstore_store`` for asyncio: what one writes, the other reads. Closed with it."""
    from kvstore.aio import AsyncStore

    store = AsyncStore(kvstore_store.engine)
    yield store
    store.engine.close()


@pytest.fixture
def kvstore_server(kvstore_store: Store) -> Iterator[Server]:
    """``kvstore_store``, served to clients of etcd's API v3 at a free port of this machine."""
    import kvstore

    with kvstore.serve(kvstore_store, "http://127.0.0.1:0") as server:
        yield server
