"""What is particular to LMDB: a map that grows beside its readers, and long keys, cut into slices."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lmdb
import pytest
from kvstore.backends import lmdb as lmdb_module
from kvstore.backends import lmdb_tx
from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.lmdb_file import parse_meta
from kvstore.backends.long_keys import SLICE

from kvstore.errors import (
    Corruption,
    StateError,
    StoreLocked,
)
from tests.backends.files import TABLES, TinyMap, copy_of, flip, in_python, put


@pytest.mark.parametrize("page", [0, 1])
def test_an_overwritten_lmdb_meta_page_is_damage(page: int, tmp_path: Path) -> None:
    """Either meta page missing is damage, not a foreign file."""
    path = copy_of(LMDBBackend, tmp_path / "copy")
    flip(path, page * 4096, bytes(200))
    with pytest.raises(Corruption, match="meta page"):
        LMDBBackend.open(path, TABLES)


def test_lmdb_meta_pages_that_make_no_sense_are_refused() -> None:
    """A page of zeros, one cut short, and one with an impossible page size have no meta."""
    for data in (bytes(152), b"short"):
        with pytest.raises(ValueError, match="meta page"):
            parse_meta(data, 0)


def test_the_map_grows_by_itself(tmp_path: Path) -> None:
    """Batches many times the size of the map are written whole, seen by reads inside them too."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    for batch in range(4):
        with db.write() as tx:
            for part in range(5):
                tx.put_many("latest", [(b"%d-%d-%d" % (batch, part, n), b"x" * 500) for n in range(500)])
                tx.put_many("latest", [(b"l" * 700 + b"%d%d" % (batch, part), b"x")])
            tx.delete_many("latest", [b"%d-%d-%d" % (batch, 0, n) for n in range(500)])
            assert tx.count("latest") == (batch + 1) * 2005
    assert db.get("latest", b"3-4-499") == b"x" * 500
    db.check()
    db.close()
    with lmdb.open(os.fspath(tmp_path / "db"), subdir=False, readonly=True) as environment:
        assert environment.info()["last_pgno"] * 4096 > 16 * TinyMap.map_bytes


def test_a_growing_map_waits_for_views(tmp_path: Path) -> None:
    """A batch that needs a larger map is held until the open view is closed, and the view stays whole."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    view = db.read()
    writer = threading.Thread(target=put, args=(db, [(b"%d" % n, b"x" * 4000) for n in range(500)]))
    writer.start()
    try:
        while not db._growing:
            time.sleep(0.001)
        assert view.scan("latest") == [(b"a", b"1")]
        assert writer.is_alive()
    finally:
        view.close()
        writer.join()
    assert db.get("latest", b"499") == b"x" * 4000
    db.close()


def test_reads_go_on_while_the_map_grows(tmp_path: Path) -> None:
    """Point reads and views in other threads never fail because the map is exchanged under them."""
    db = TinyMap.open(tmp_path / "db", TABLES)
    put(db, [(b"a", b"1")])
    stop, errors = threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                assert db.get("latest", b"a") == b"1"
                with db.read() as view:
                    assert view.get("latest", b"a") == b"1"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for batch in range(8):
            put(db, [(b"%d-%d" % (batch, n), b"x" * 4000) for n in range(100 << (batch // 2))])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    db.close()
    assert errors == []


def test_a_view_that_is_in_the_way_for_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten view cannot hold a writer for ever: it ends with a typed error, and the batch goes in."""
    monkeypatch.setattr(lmdb_module, "GROW_WAIT_SECONDS", 0.01)
    db = TinyMap.open(tmp_path / "db", TABLES)
    view = db.read()
    put(db, [(b"%d" % n, b"x" * 4000) for n in range(500)])
    with pytest.raises(StateError):
        view.scan("latest")
    view.close()
    assert db.get("latest", b"1") == b"x" * 4000
    db.close()


def test_a_refused_map_is_asked_for_again_at_half_the_size(tmp_path: Path) -> None:
    """Where addresses are scarce, the store opens with a smaller map."""
    run = in_python(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))\n"
        "db = kind.open(path, TABLES)\n"
        "with db.write() as tx: tx.put_many('latest', [(b'a', b'1')])\n"
        "print(db.get('latest', b'a'), db.environment.info()['map_size'] < 1 << 32)\n",
        LMDBBackend,
        tmp_path / "db",
    )
    assert run == "b'1' True\n"


def test_an_lmdb_file_opens_once_in_a_process(tmp_path: Path) -> None:
    """A second opening in the same process would break the locks of the first, and is refused."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    with pytest.raises(StoreLocked):
        LMDBBackend.open(tmp_path / "db", TABLES, read_only=True)
    put(db, [(b"a", b"1")])
    db.close()


def test_deleting_long_keys_leaves_nothing(tmp_path: Path) -> None:
    """The tree of long keys is empty again when its keys are gone, with no links left over."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    keys = [
        b"a" * size + tail for size in range(600, 6 * SLICE, SLICE // 2) for tail in (b"", b"b", b"c" * 900)
    ]
    put(db, [(key, b"v") for key in keys])
    with db.write() as tx:
        tx.delete_many("latest", keys[::2])
        assert tx.scan("latest") == [(key, b"v") for key in sorted(keys[1::2])]
        tx.delete_many("latest", keys)
    with db.environment.begin() as tx:
        assert tx.stat(db.long["latest"])["entries"] == 0
    db.close()


@pytest.mark.soak
def test_a_gigabyte_that_is_freed_at_once_is_no_damage(tmp_path: Path) -> None:
    """The list of its pages is one long value, which LMDB writes in any length."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    put(db, [(b"%d" % number, bytes(400 << 20)) for number in range(3)])
    with db.write() as tx:
        tx.delete_many("latest", [b"0", b"1", b"2"])
    put(db, [(b"k", b"v")])
    db.check()
    db.close()
    LMDBBackend.check_closed(tmp_path / "db")


def test_a_damaged_tree_of_long_keys_is_a_typed_error(tmp_path: Path) -> None:
    """A row of the tree that makes no sense, or a link in a circle, raises ``Corruption``."""
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    key = b"a" * 2000
    put(db, [(key, b"v")])
    deep = bytes(8) + b"a" * SLICE + b"\0"
    circle = b"\1" + bytes(8)
    for damage in (b"", b"\0", b"\0\xff\xff\xff\xff", b"\1", b"\1" + bytes(9), b"\7" * 20, circle):
        with db.environment.begin(write=True) as tx:
            tx.put(deep, damage, db=db.long["latest"])
        with pytest.raises(Corruption, match="long key"), db.read() as view:
            view.scan("latest")
        if damage != circle:  # a lookup ends with its key
            with pytest.raises(Corruption, match="long key"):
                db.get("latest", key)
    db.close()


class _CountedCursor:
    """A cursor that counts the rows that are read from it."""

    def __init__(self, cursor: lmdb.Cursor[bytes]) -> None:
        self._cursor = cursor
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def iternext(self) -> Iterator[tuple[bytes, bytes]]:
        for row in self._cursor.iternext():
            self.rows += 1
            yield row


def test_a_long_scan_reads_little_beyond_its_end(tmp_path: Path) -> None:
    """However many rows a scan returns, it reads less than one chunk past them."""
    keys = [b"%05d" % number for number in range(3000)]
    db = LMDBBackend.open(tmp_path / "db", TABLES)
    with db.write() as batch:
        batch.put_many("latest", [(key, b"v") for key in keys])
    with db.environment.begin() as tx:
        for end in (1, 64, 65, 1000, 1984):
            cursor = _CountedCursor(tx.cursor(db.short["latest"]))
            rows = lmdb_tx._scan(cast(Any, cursor), b"", keys[end], 0, False)
            assert [key for key, _ in rows] == keys[:end]
            assert cursor.rows <= end + lmdb_tx.CHUNK_ROWS
    db.close()
