"""The spare transactions of ``get`` on an LMDB file: of the newest commit, and never in anybody's way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from kvstore.backends.lmdb import LMDBBackend

from kvstore.errors import StoreClosed

ROWS = [(b"%04d" % number, b"x" * 1000) for number in range(500)]


def opened(tmp_path: Path) -> LMDBBackend:
    return LMDBBackend.open(tmp_path / "db", ["latest"])


def put(db: LMDBBackend, key: bytes, value: bytes) -> None:
    with db.write() as tx:
        tx.put_many("latest", [(key, value)])


def test_a_get_sees_each_commit(tmp_path: Path) -> None:
    """The transaction of an earlier ``get`` does not hide what was committed since."""
    db = opened(tmp_path)
    for number in range(20):
        put(db, b"k", b"%d" % number)
        assert [db.get("latest", b"k") for _ in range(3)] == [b"%d" % number] * 3
    db.close()


def test_gets_share_one_transaction_until_a_commit(tmp_path: Path) -> None:
    """It is put back after each ``get``, and gone with the next commit."""
    db = opened(tmp_path)
    put(db, b"k", b"1")
    db.get("latest", b"k")
    (spare,) = db._spares
    db.get("latest", b"absent")
    assert db._spares == [spare]
    put(db, b"k", b"2")
    assert db._spares == []
    db.close()


def test_gets_between_commits_keep_no_pages(tmp_path: Path) -> None:
    """Pages are reused as if nobody read: the file stays as large as a few versions of what is in it."""
    db = opened(tmp_path)
    for _ in range(5):
        with db.write() as tx:
            tx.put_many("latest", ROWS)
        db.get("latest", b"0000")
    size_bytes = db.size_bytes()
    for _ in range(30):
        with db.write() as tx:
            tx.put_many("latest", ROWS)
        db.get("latest", b"0000")
    assert db.size_bytes() == size_bytes
    db.close()


def test_a_get_after_the_map_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spares of the old map are dropped, those that come back late are not used again."""
    monkeypatch.setattr(LMDBBackend, "map_bytes", 1 << 20)
    db = opened(tmp_path)
    put(db, b"k", b"1")
    for round_ in range(8):
        db.get("latest", b"k")
        with db.write() as tx:
            tx.put_many("latest", [(b"%d-" % round_ + key, value) for key, value in ROWS])
        assert db.get("latest", b"k") == b"1"
        assert db.get("latest", b"%d-0000" % round_) == ROWS[0][1]
    db.close()


def test_no_get_after_closing(tmp_path: Path) -> None:
    """A spare transaction does not let a ``get`` past the end."""
    db = opened(tmp_path)
    put(db, b"k", b"1")
    db.get("latest", b"k")
    db.close()
    with pytest.raises(StoreClosed):
        db.get("latest", b"k")


def test_threads_that_get_beside_commits_see_what_they_must(tmp_path: Path) -> None:
    """What is read is never older than a commit that had returned before the ``get`` began."""
    db = opened(tmp_path)
    put(db, b"k", b"0")
    done, late = [0], []

    def read() -> None:
        while done[0] < 300:
            least = done[0]
            value = db.get("latest", b"k")
            if value is None or int(value) < least:
                late.append((least, value))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(1, 301):
        put(db, b"k", b"%d" % number)
        done[0] = number
    for reader in readers:
        reader.join()
    assert late == []
    db.close()
