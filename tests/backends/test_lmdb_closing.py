"""Closing an LMDB file while other threads read it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kvstore.backends.lmdb import LMDBBackend

from kvstore.errors import StoreClosed


def opened(tmp_path: Path) -> LMDBBackend:
    db = LMDBBackend.open(tmp_path / "db", ["latest"])
    with db.write() as tx:
        tx.put_many("latest", [(b"a", b"1")])
    return db


def test_closing_waits_for_a_get_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``get`` that has begun gets its answer, and one that comes later is refused."""
    db = opened(tmp_path)
    has_begun, may_go_on = threading.Event(), threading.Event()
    begin, answers = db._begin, []

    def begin_slowly(*how: Any) -> Any:
        has_begun.set()
        may_go_on.wait()
        return begin(*how)

    monkeypatch.setattr(db, "_begin", begin_slowly)
    reader = threading.Thread(target=lambda: answers.append(db.get("latest", b"a")))
    reader.start()
    has_begun.wait()

    def sleep_until_read(_: float) -> None:
        may_go_on.set()
        reader.join()

    monkeypatch.setattr(time, "sleep", sleep_until_read)
    db.close()
    may_go_on.set()
    reader.join()
    assert answers == [b"1"]
    with pytest.raises(StoreClosed):
        db.get("latest", b"a")


def test_closing_waits_for_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that do something else do not hold it up, not even the one that waits for it to close."""
    db = opened(tmp_path)
    waits: list[float] = []
    stop = threading.Event()
    idle = threading.Thread(target=stop.wait)
    idle.start()
    monkeypatch.setattr(time, "sleep", waits.append)
    closing = threading.Thread(target=db.close)
    closing.start()
    closing.join()
    stop.set()
    idle.join()
    assert waits == []
