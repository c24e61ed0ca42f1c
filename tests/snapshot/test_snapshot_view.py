"""Values of a snapshot without a copy: the same bytes, for as long as anybody looks at them."""

from __future__ import annotations

import gc
import os
import random
import shutil
from pathlib import Path

import pytest
from kvstore.backends.lmdb_file import read_meta
from kvstore.backends.lmdb_map import LMDBMap

import kvstore
from kvstore.mvcc.schema import LATEST
from tests.harness.watching import BACKENDS, open_store


def saved(path: Path, backend: str, keys: int = 3000, largest: int = 1_000_000) -> Path:
    """A snapshot with keys and values of all sizes, some deleted, changed, in transactions, leased."""
    chance = random.Random(7)
    with open_store(path, backend, low_disk_bytes=0, durability="off", max_txn_ops=1000) as store:
        lease = store.grant_lease(1000).id
        names = [b"%d" % number * chance.randrange(1, 100) for number in range(keys)]
        for at in range(0, keys, 300):
            store.txn(
                success=[
                    kvstore.ops.put(name, chance.randbytes(chance.randrange(60)), lease=lease * (number % 2))
                    for number, name in enumerate(names[at : at + 300])
                ]
            )
        for size in (0, 1, 2000, 2030, 2040, 2100, 4080, 4096, 5000, 70_000, largest):
            store.put(b"size%d" % size, os.urandom(size))
        store.put(b"l" * 511, b"longest short key")
        store.put(b"l" * 512, b"shortest long key")
        for name in names[::7]:
            store.delete(name)
        return store.snapshot(path / "copy.snap").path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_has_the_bytes_of_the_value(tmp_path: Path, backend: str) -> None:
    """Of every key there is, whatever its size; none of those that there are not."""
    with kvstore.open_snapshot(saved(tmp_path, backend)) as snapshot:
        keys = 0
        for kv in snapshot.scan(prefix=b""):
            view = snapshot.view(kv.key)
            assert view is not None and view == kv.value
            assert view.readonly
            assert snapshot.view(kv.key + b"\0") is None
            keys += 1
        assert keys > 2500
        assert snapshot.view(b"\0") is snapshot.view(b"\xff" * 600) is None
        with pytest.raises(kvstore.EmptyKey):
            snapshot.view(b"")
    with pytest.raises(kvstore.StoreClosed):
        snapshot.view(b"k")


def test_a_view_outlives_its_snapshot(tmp_path: Path) -> None:
    """It looks into the file, not into a copy, and keeps what it looks into; a slice of it does so too."""
    path = saved(tmp_path, "lmdb", keys=300)
    snapshot = kvstore.open_snapshot(path)
    value = snapshot.get(b"size1000000").value  # type: ignore[union-attr]  # it is there
    view = snapshot.view(b"size1000000")
    assert view is not None and len(view) == 1_000_000
    assert type(view.obj).__name__ == "mmap"
    part = view[10:20]
    view.release()
    snapshot.close()
    path.unlink()
    del snapshot, view
    gc.collect()
    assert part == value[10:20]
    maps = Path("/proc/self/maps").read_text()
    assert str(path) in maps
    del part
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_an_empty_snapshot_has_no_views(tmp_path: Path) -> None:
    """A table without a page is no damage."""
    with open_store(tmp_path, "lmdb") as store:
        path = store.snapshot(tmp_path / "copy.snap").path
    with kvstore.open_snapshot(path) as snapshot:
        assert snapshot.view(b"k") is None


def test_damaged_pages_end_in_typed_errors(tmp_path: Path) -> None:
    """Whatever byte has changed: the value, another one, none, or ``Corruption``; never a crash, never for ever."""
    path = saved(tmp_path, "lmdb", keys=300, largest=6000)
    whole = path.read_bytes()
    meta = read_meta(path)
    tree = [
        at
        for at in range(2 * meta.page_bytes, (meta.last_page + 1) * meta.page_bytes, meta.page_bytes)
        if whole[at + 10] & 0x03
    ]
    chance = random.Random(3)
    damaged = 0
    for number in range(200):
        data = bytearray(whole)
        for _ in range(chance.randrange(20, 300)):
            data[chance.choice(tree) + chance.randrange(10, 200)] = chance.randrange(256)
        target = tmp_path / f"damaged-{number}"
        target.write_bytes(data)
        pages = LMDBMap(target, meta)
        for key in (b"size0", b"size6000", b"absent", b"1"):
            try:
                found = pages.find(LATEST, key)
                assert found is None or len(found) <= len(whole)
            except kvstore.Corruption:
                damaged += 1
        target.unlink()
    assert damaged > 50, damaged


def test_an_etcd_snapshot_has_views_too(samples: Path, tmp_path: Path) -> None:
    """Of copies: its format has other pages."""
    shutil.copy(samples / "tiny" / "snapshot.db", tmp_path / "copy.db")
    with kvstore.open_snapshot(tmp_path / "copy.db") as snapshot:
        for kv, _ in zip(snapshot.scan(prefix=b""), range(20), strict=False):
            view = snapshot.view(kv.key)
            assert view is not None and bytes(view) == kv.value
