"""Fixtures for the tests of programs that use kvstore. pytest finds them wherever kvstore is installed:

    def test_a_greeting_is_kept(kvstore_store):
        kvstore_store.put(b"greeting", b"hello")

    def test_a_session_ends(kvstore_store, kvstore_clock):
        lease = kvstore_store.grant_lease(60).id
        kvstore_clock.advance(61)

    def test_a_client_of_etcd_reads_it(kvstore_server, kvstore_store):
        client = Client(kvstore_server.endpoints[0])    # what it writes is in kvstore_store

pytest loads every plugin at each start, so whatever a fixture needs is imported inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvstore import Store
    from kvstore.served import Server
    from kvstore.testing.fake_clock import FakeClock


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
    """A new store in ``kvstore_dir``, closed when the test ends. Writes are not synced, which makes it fast."""
    import kvstore

    with kvstore.open(kvstore_dir, durability="off", clock=kvstore_clock) as store:
        yield store


@pytest.fixture
def kvstore_server(kvstore_store: Store) -> Iterator[Server]:
    """``kvstore_store``, served to clients of etcd's API v3 at a free port of this machine."""
    import kvstore

    with kvstore.serve(kvstore_store, "http://127.0.0.1:0") as server:
        yield server
