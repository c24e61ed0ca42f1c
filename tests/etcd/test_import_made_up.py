"""etcd's files that no etcd wrote: rows, marks, free pages and numbers made up, to be opened, moved in or refused."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import rows
from kvstore.migrations.etcd.bbolt_page import fnv1a
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.rows import KeyValueRow, Lease, encode_key_value, encode_lease, encode_revision

import kvstore
from kvstore.mvcc.schema import CHANGES, LATEST
from kvstore.snapshot.formats import inspect
from kvstore.verification.run import verify
from tests.etcd.imports import ETCD, events, import_etcd

# --- made-up files ------------------------------------------------------------------------------


def put_row(main: int, sub: int, key: bytes, created: int, version: int) -> tuple[bytes, bytes]:
    return encode_key_value(KeyValueRow(main, sub, False, key, b"v%d" % main, created, main, version, 0))


def delete_row(main: int, sub: int, key: bytes) -> tuple[bytes, bytes]:
    return encode_key_value(KeyValueRow(main, sub, True, key, b"", 0, 0, 0, 0))


def write_store(path: Path, key_rows: list[tuple[bytes, bytes]], meta: list[tuple[bytes, bytes]]) -> Path:
    write_bbolt(path, [(rows.KEY, sorted(key_rows)), (rows.LEASE, []), (rows.META, sorted(meta))])
    return path


def test_what_an_unfinished_compaction_would_remove_stays_behind(tmp_path: Path) -> None:
    """Scheduled but not finished: versions superseded by then, and tombstones before it, do not move in.

    What was written at the compaction itself is kept, for a watch that begins there.
    """
    key_rows = [
        put_row(2, 0, b"a", 2, 1),
        put_row(3, 0, b"a", 2, 2),
        put_row(4, 0, b"gone", 4, 1),
        delete_row(5, 0, b"gone"),
        put_row(6, 0, b"a", 2, 3),
        delete_row(6, 1, b"deleted right there"),
        put_row(7, 0, b"gone", 7, 1),
    ]
    path = write_store(tmp_path / "db", key_rows, [(rows.SCHEDULED_COMPACT, encode_revision(6))])
    import_etcd(path, tmp_path / "store")
    assert verify(tmp_path / "store").findings == ()
    for store in (kvstore.open(tmp_path / "store"), kvstore.open_snapshot(path)):
        with store:
            assert (store.revision, store.compact_revision) == (7, 6)
            assert [(kv.mod_revision, kv.version) for kv in store.history(b"a")] == [(6, 3)]
            assert [(kv.mod_revision, kv.version) for kv in store.history(b"gone")] == [(7, 1)]
            assert [event[4] for event in events(store, 6)] == [6, 6, 7]
            with pytest.raises(kvstore.Compacted):
                store.get(b"a", revision=5)


def test_a_database_without_a_log_index_is_not_made_anew_from_the_log(tmp_path: Path) -> None:
    """As of an etcd that has written nothing yet but who its members are: the new log does not have what came along."""
    path = write_store(tmp_path / "db", [put_row(2, 0, b"a", 2, 1)], [])
    for source in (import_etcd, restore_etcd):
        data = tmp_path / source.__name__
        source(path, data)
        report = verify(data, deep=True)
        assert report.findings == (), report
        with kvstore.open(data) as store:
            store.put(b"b")
        assert verify(data, deep=True).findings == ()
        (data / "snap" / "db").unlink()
        with pytest.raises(kvstore.Corruption):
            kvstore.open(data)


def restore_etcd(path: Path, data: Path) -> None:
    kvstore.restore(path, data)


def test_a_transaction_that_writes_a_key_twice_moves_in(tmp_path: Path) -> None:
    """Sub revisions are kept: of two changes of a key in one transaction the later one counts."""
    key_rows = [
        put_row(2, 0, b"a", 2, 1),
        delete_row(3, 0, b"a"),
        put_row(3, 1, b"b", 3, 1),
        put_row(3, 2, b"a", 3, 1),
    ]
    path = write_store(tmp_path / "db", key_rows, [])
    import_etcd(path, tmp_path / "store", skip_hash_check=False)
    with kvstore.open(tmp_path / "store") as store, kvstore.open_snapshot(path) as view:
        for each in (store, view):
            assert each.get(b"a") == kvstore.KeyValue(b"a", b"v3", 3, 3, 1)
            assert each.get(b"a", revision=2) == kvstore.KeyValue(b"a", b"v2", 2, 2, 1)
        for revision in (1, 2, 3):
            assert store.hash_kv(revision).hash == view.hash_kv(revision).hash


def test_the_mark_of_a_bumped_revision_is_no_key(tmp_path: Path) -> None:
    """``snapshot restore --bump-revision`` leaves a row of the empty key: its revision counts, it stays behind."""
    key_rows = [put_row(2, 0, b"a", 2, 1), (encode_revision(1000), b"")]
    path = write_store(tmp_path / "db", key_rows, [(rows.SCHEDULED_COMPACT, encode_revision(1000))])
    imported = import_etcd(path, tmp_path / "store")
    assert (imported.revision, imported.compact_revision, imported.counts["keys"]) == (1000, 1000, 1)
    assert any("bumped" in note for note in imported.notes)
    with kvstore.open(tmp_path / "store") as store:
        assert [kv.key for kv in store.scan(prefix=b"")] == [b"a"]
        assert store.put(b"b", b"").revision == 1001


def test_flipped_bytes_end_in_typed_errors(samples: Path, tmp_path: Path) -> None:
    """Whatever a few wrong bytes make of a file, reading all of it answers or refuses; nothing else happens."""
    good = (samples / "tiny-3.5.30" / "snapshot.db").read_bytes()
    chance = random.Random(3)
    outcomes = set()
    for _ in range(200):
        data = bytearray(good)
        for _ in range(chance.choice((1, 2, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path = tmp_path / "flipped.db"
        path.write_bytes(data)
        try:
            with kvstore.open_snapshot(path) as store:
                for kv in list(store.scan(prefix=b"")):
                    assert list(store.history(kv.key))
                store.hash_kv()
                store.leases()
            outcomes.add("answers")
        except kvstore.KVStoreError as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"answers", "Corruption"}


def test_numbers_and_names_beyond_reason_are_bounded(tmp_path: Path) -> None:
    """Ids of more than 64 bits, names that are no text, TTLs of ages: the file still opens and moves in."""
    path = tmp_path / "db"
    member = b'{"id":99999999999999999999999,"name":"\\ud800"}'
    buckets = [
        (rows.KEY, [put_row(2, 0, b"a", 2, 1)]),
        (rows.LEASE, [encode_lease(Lease(7, 1 << 62, 1 << 62)), encode_lease(Lease(-3, -5, -5))]),
        (rows.MEMBERS, [(b"1", member)]),
        (rows.META, []),
    ]
    write_bbolt(path, sorted(buckets, key=lambda bucket: bucket[0]))
    import_etcd(path, tmp_path / "store")
    with kvstore.open(tmp_path / "store") as store:
        assert store.lease_time_to_live(7).granted_ttl == 9_000_000_000
        assert store.lease_time_to_live(-3).granted_ttl == 2


def test_one_key_is_found_without_an_index_and_many_with_one(tmp_path: Path) -> None:
    """Single reads search the file; after a few of them, and for a scan, all keys are indexed; answers are the same."""
    key_rows = [put_row(main, 0, b"k%02d" % (main % 50), main, 1) for main in range(2, 600)]
    path = write_store(tmp_path / "db", key_rows, [])
    with kvstore.open_snapshot(path) as store:

        def is_indexed() -> bool:
            view: Any = store.engine.backend
            return view._index is not None

        searched = {b"k%02d" % number: store.get(b"k%02d" % number) for number in range(5)}
        past = {b"k%02d" % number: store.get(b"k%02d" % number, revision=300) for number in range(3)}
        assert not is_indexed()
        scanned = {kv.key: kv for kv in store.scan(prefix=b"")}
        assert is_indexed()
        assert len(scanned) == 50
        for key, kv in searched.items():
            assert scanned[key] == kv == store.get(key)
        for key, kv in past.items():
            assert kv == store.get(key, revision=300)
            assert kv is not None and kv.mod_revision <= 300
    with kvstore.open_snapshot(path) as store:
        for number in range(50):
            assert store.get(b"k%02d" % number) == scanned[b"k%02d" % number]
        assert is_indexed()


# --- what stands beside the rows -----------------------------------------------------------------


def exported(tmp_path: Path) -> bytes:
    """A database that was compacted: one key is older than the compaction, and one changed after it."""
    with kvstore.open(tmp_path / "compacted", background=False) as store:
        store.put(b"old", b"1")
        for number in range(3):
            store.put(b"new", b"%d" % number)
        store.compact(4)
        ETCD.export_store(store, tmp_path / "compacted.db")
    return (tmp_path / "compacted.db").read_bytes()


def test_a_compacted_file_holds_what_it_says(tmp_path: Path) -> None:
    """Rows that are older than the compaction are no changes: verify and status count what a store of ours would."""
    exported(tmp_path)
    report = verify(tmp_path / "compacted.db")
    assert report.ok, report.findings
    info = inspect(tmp_path / "compacted.db")
    assert (info.revision, info.compact_revision, info.keys, info.changes) == (5, 4, 2, 2)
    import_etcd(tmp_path / "compacted.db", tmp_path / "moved")
    with kvstore.open(tmp_path / "moved") as store, store.engine.backend.read() as tx:
        assert (tx.count(LATEST), tx.count(CHANGES)) == (info.keys, info.changes)


def with_freelist(database: bytes, kind: int, count: int, *free: int) -> bytes:
    """The database with a freelist of its own on a new page at its end, and a free page behind that."""
    page_bytes = struct.unpack_from("<I", database, 24)[0]
    out = bytearray(database[: len(database) // page_bytes * page_bytes])
    own = len(out) // page_bytes
    page = struct.pack("<QHHI", own, kind, count, 0) + b"".join(struct.pack("<Q", each) for each in free)
    out += page.ljust(page_bytes, b"\0") + bytes(page_bytes)
    for meta in (0, page_bytes):
        struct.pack_into("<QQ", out, meta + 48, own, own + 2)
        struct.pack_into("<Q", out, meta + 72, fnv1a(bytes(out[meta + 16 : meta + 72])))
    return bytes(out)


LEAF, FREELIST = 0x02, 0x10


@pytest.mark.parametrize(
    ("kind", "count", "free", "reason"),
    [
        (LEAF, 0, [], "is not the freelist"),
        (FREELIST, 600, [], "has no room for its 600 pages"),
        (FREELIST, 1, [1], "names page 1, which does not exist"),
        (FREELIST, 1, [1 << 40], "which does not exist"),
        (FREELIST, 1, [2], "page 2 is in use and free"),
        (FREELIST, 2, [-1, -1], "is in the freelist, and again or in use"),
    ],
    ids=["a leaf", "too many", "a meta page", "beyond the end", "in use", "twice"],
)
def test_a_damaged_freelist_is_noticed(
    tmp_path: Path, kind: int, count: int, free: list[int], reason: str
) -> None:
    """No row needs it, and no checksum stands for it with the hash check skipped: etcd stops at it all the same."""
    sound = exported(tmp_path)
    last = len(sound) // 4096 + 1  # the free page behind the list
    bad = tmp_path / "bad.db"
    bad.write_bytes(with_freelist(sound, kind, count, *(last if each < 0 else each for each in free)))
    with pytest.raises(kvstore.Corruption, match=reason):
        import_etcd(bad, tmp_path / "moved", skip_hash_check=True)
    assert not (tmp_path / "moved").exists()
    with kvstore.open_snapshot(bad) as store:  # what can be read can be looked at
        assert store.get(b"old") is not None


@pytest.mark.parametrize("free", [[], [-1]])
def test_a_sound_freelist_is_no_hindrance(tmp_path: Path, free: list[int]) -> None:
    """Nor is a page that is neither free nor in use, which a crash may leave, and which etcd does not mind."""
    sound = exported(tmp_path)
    numbers = [len(sound) // 4096 + 1 for _ in free]
    (tmp_path / "good.db").write_bytes(with_freelist(sound, FREELIST, len(numbers), *numbers))
    imported = import_etcd(tmp_path / "good.db", tmp_path / "moved", skip_hash_check=True)
    assert imported.revision == 5
    assert any("NO HASH WAS CHECKED" in note for note in imported.notes)
