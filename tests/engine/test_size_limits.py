"""Writes that the log or a backend could not keep: refused when they are planned, or cut into pieces; never after.

The limits lie at a gigabyte; here they are lowered. The soak tries one write at the real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import kvstore
from kvstore.mvcc import size
from kvstore.store import Store
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import BACKENDS, open_store, settle

NAME = b"n" * 500
KEYS = 100


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "ENTRY_BYTES_MAX", 20_000)
    monkeypatch.setattr(size, "REMOVAL_BYTES_MAX", 8_000)
    monkeypatch.setattr(size, "ROW_BYTES_MAX", 10_000)


def fill(store: Store, lease: int = 0) -> None:
    for number in range(KEYS):
        store.put(b"%04d" % number + NAME, lease=lease)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_no_backend_is_sure_to_hold_is_refused(tmp_path: Path, backend: str) -> None:
    """However large a request may be; the limit is named, nothing is left, and writes go on, also after opening."""
    with open_store(tmp_path, backend, max_request_bytes=1 << 32) as store:
        for call in (
            lambda: store.put(b"big", b"v" * 10_000),
            lambda: store.put(b"k" * 4_000, b""),
            lambda: store.txn(success=[kvstore.ops.txn(success=[kvstore.ops.put(b"big", b"v" * 10_000)])]),
            lambda: store.txn(
                compare=[kvstore.version(b"k") == 1], success=[kvstore.ops.put(b"big", b"v" * 10_000)]
            ),
            lambda: store.put(b"big", b"v" * 10_000, ttl=60),
        ):
            with pytest.raises(kvstore.RequestTooLarge) as refused:
                call()
            assert refused.value.limit_bytes == 10_000 and "a row" in str(refused.value)
        assert store.put(b"large", b"v" * 9_900).revision == 2
        settle(store)
    with open_store(tmp_path, backend) as store:
        assert store.count(prefix=b"") == 1 and store.put(b"k").revision == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_write_that_expands_to_more_than_a_record_is_refused(tmp_path: Path, backend: str) -> None:
    """A range of many keys, kept values put again, or both in a transaction: refused as a whole."""
    with open_store(tmp_path, backend, max_txn_ops=1000) as store:
        fill(store)
        for number in range(3):
            store.put(b"value-%d" % number, b"v" * 9_000)
        revision = store.revision
        again = [kvstore.ops.put(b"value-%d" % number, ignore_value=True) for number in range(3)]
        for call in (
            lambda: store.delete(prefix=b""),
            lambda: store.txn(success=[kvstore.ops.put(b"first"), kvstore.ops.delete(prefix=b"0")]),
            lambda: store.txn(success=again),
            lambda: store.txn(success=[kvstore.ops.put(b"%d" % number, b"v" * 9_000) for number in range(3)]),
        ):
            with pytest.raises(kvstore.RequestTooLarge) as refused:
                call()
            assert refused.value.limit_bytes == 20_000 and "a record of the log" in str(refused.value)
            assert store.revision == revision and store.get(b"first") is None
        assert store.delete(prefix=b"001").deleted == 10
        settle(store)
    with open_store(tmp_path, backend) as store:
        assert store.count(prefix=b"") == KEYS - 10 + 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lease_with_more_keys_than_a_record_holds_goes_piece_by_piece(tmp_path: Path, backend: str) -> None:
    """Each piece is a revision of its own, in key order; with the last the lease goes."""
    with open_store(tmp_path, backend) as store:
        lease = store.grant_lease(60).id
        fill(store, lease)
        before = store.revision
        with store.watch(prefix=b"", start_revision=before + 1) as watch:
            answer = store.revoke_lease(lease)
            deleted = [watch.get(60) for _ in range(KEYS)]
        assert 5 < store.revision - before < 20 and answer.revision == store.revision
        assert [event.kv.key for event in deleted] == [b"%04d" % number + NAME for number in range(KEYS)]
        assert store.count(prefix=b"") == 0 and store.leases() == ()
        with pytest.raises(kvstore.LeaseNotFound):
            store.revoke_lease(lease)
    with open_store(tmp_path, backend) as store:
        assert store.count(prefix=b"") == 0 and store.leases() == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_such_a_lease_expires_piece_by_piece_also_at_opening(tmp_path: Path, backend: str) -> None:
    """It runs out while the store is closed: the next opening takes its keys, and accepts writes."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        small = store.grant_lease(60).id
        store.put(b"other", lease=small)
        fill(store, store.grant_lease(50).id)
    clock.advance(100)
    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.engine.leasing.expire() == 2
        assert store.count(prefix=b"") == 0 and store.leases() == ()
        store.put(b"k")
    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.count(prefix=b"") == 1
    assert kvstore.verify(tmp_path / "data", backend=backend).ok


def test_a_lease_that_fits_goes_in_one_revision(tmp_path: Path) -> None:
    """The cut begins where a record ends, not before."""
    with open_store(tmp_path, "memory") as store:
        lease = store.grant_lease(60).id
        for number in range(15):
            store.put(b"%04d" % number + NAME, lease=lease)
        before = store.revision
        store.revoke_lease(lease)
        assert store.revision == before + 1


@pytest.mark.soak
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_beyond_every_row_is_refused_at_the_real_limit(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte, of which SQLite's rows hold a little less; takes 2 GB of memory."""
    monkeypatch.undo()
    options = {"max_request_bytes": 1 << 32, "quota_backend_bytes": -1, "overlay_limit": 1 << 33}
    with open_store(tmp_path, backend, **options) as store:
        with pytest.raises(kvstore.RequestTooLarge):
            store.put(b"big", bytes(1_000_000_000))
        store.put(b"big", bytes(size.ROW_BYTES_MAX - 10))
        settle(store)
        store.delete(b"big")
        settle(store)
        assert store.put(b"k").revision == 4
