"""Pages of changes: whole revisions in order, each with the version it wrote, wherever that lies by now."""

import random
from pathlib import Path

import pytest

import kvstore
from kvstore.keyvalue import KeyValue
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.schema import CHANGES, HISTORY
from kvstore.store import Store
from tests.harness.watching import BACKENDS, open_store, settle

KEYS = [b"a", b"a\0", b"b" * 600, b"b" * 600 + b"c", b"k1", b"k2", b"\xff"]
Expected = list[tuple[int, bytes, KeyValue | None]]


def write_at_random(store: Store, rng: random.Random, steps: int) -> None:
    for step in range(steps):
        kind = rng.random()
        if kind < 0.5:
            store.put(rng.choice(KEYS), b"%d" % step)
        elif kind < 0.7:
            store.delete(rng.choice(KEYS))
        elif kind < 0.8:
            store.delete(prefix=b"")
        elif kind < 0.9:
            chosen = rng.sample(KEYS, 4)
            store.txn(success=[kvstore.ops.put(key, b"%d" % step) for key in chosen])
        else:
            store.checkpoint()


def all_changes(store: Store) -> Expected:
    """Every change by revision and key, from the histories of the keys."""
    found = [(kv.mod_revision, key, kv if kv.version else None) for key in KEYS for kv in store.history(key)]
    return sorted(found, key=lambda change: change[:2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_pages_of_any_size_hold_every_change_once(tmp_path: Path, backend: str, seed: int) -> None:
    """Pages of 1, 2, 7 and 1000 rows, of all keys and of some, agree with the histories of the keys."""
    with open_store(tmp_path, backend) as store:
        write_at_random(store, random.Random(seed), 150)
        expected = all_changes(store)
        state, newest = store.engine.state, store.revision
        for limit in (1, 2, 7, 1000):
            for start, end in ((b"", None), (b"a\0", b"k2"), (b"k", None), (b"x", b"y")):
                found: Expected = []
                first = 2
                while first <= newest:
                    page, covered = change_page(state, first, newest, limit, (start, end))
                    assert covered >= first
                    assert all(first <= main <= covered for main, _, _, _ in page)
                    assert sorted(page) == page, "not in the order of the revisions"
                    found += [
                        (main, key, KeyValue.from_row(row) if row else None) for main, _, key, row in page
                    ]
                    first = covered + 1
                wanted = [c for c in expected if start <= c[1] and (end is None or c[1] < end)]
                assert sorted(found, key=lambda change: change[:2]) == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compacted_page_is_refused(tmp_path: Path, backend: str) -> None:
    """A page that begins below the compaction raises, whether its rows are pending or in the backend."""
    with open_store(tmp_path, backend) as store:
        for _ in range(10):
            store.put(b"k", b"v")
        store.compact(8)
        with pytest.raises(kvstore.Compacted):
            change_page(store.engine.state, 7, 11, 100)
        settle(store)
        with pytest.raises(kvstore.Compacted):
            change_page(store.engine.state, 7, 11, 100)
        assert [main for main, _, _, _ in change_page(store.engine.state, 8, 11, 100)[0]] == [8, 9, 10, 11]


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_values_agrees_with_scans(tmp_path: Path, backend: str) -> None:
    """Many seeks in one call give what one scan each gives, with long keys and without."""
    with open_store(tmp_path, backend) as store:
        for long_keys in (False, True):
            for _ in range(3):
                for key in KEYS if long_keys else [key for key in KEYS if len(key) < 500]:
                    store.put(key, b"v")
            settle(store)
            with store.engine.backend.read() as tx:
                for table in (HISTORY, CHANGES):
                    bounds = sorted({b"\0", b"\xff" * 4, *(key for key, _ in tx.scan(table)), b"b" * 700})
                    scans = [tx.scan(table, bound, limit=1) for bound in bounds]
                    assert tx.first_values(table, bounds) == [rows[0][1] if rows else None for rows in scans]
