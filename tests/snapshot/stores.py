"""Stores that snapshots are taken of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kvstore.files import DirectFile, OSDisk, OSFile
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.store import Store

BACKENDS = ("lmdb", "sqlite", "memory")
both = pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
every = pytest.mark.parametrize("backend", BACKENDS)


def open_store(path: Path, backend: str, disk: OSDisk | None = None, **options: Any) -> Store:
    settings = Options(backend=backend, **{"background": False, **options})
    return Store(open_engine(path, settings, disk))


def fill(store: Store, count: int = 300) -> None:
    """Keys with a past, long ones among them, deletes, leases."""
    lease = store.grant_lease(1000, 77).id
    for number in range(count):
        store.put_nowait(b"key-%d" % (number % 40), b"value %d" % number)
    store.put(b"long" * 300, b"x" * 9000)
    store.put(b"\0\xff", b"", lease=lease)
    store.delete(b"key-7")


def roll(store: Store, times: int) -> None:
    """Fill that many segments."""
    for _ in range(times):
        store.put(b"k", bytes(2000))


class BadDisk(OSDisk):
    """A disk that changes a byte of the snapshot on its way."""

    def __init__(self, at: int, *, direct: bool) -> None:
        self.at = at
        self.direct = direct

    def create(self, path: Any, *, direct: bool = False) -> OSFile:
        if not str(path).endswith("backup.tmp"):
            return super().create(path)
        at = self.at

        class BadFile(DirectFile if self.direct else OSFile):  # type: ignore[misc]  # chosen by the test
            def pwrite(self, data: Any, offset: int) -> None:
                data = bytearray(data)
                if offset <= at < offset + len(data):
                    data[at - offset] ^= 0xFF
                super().pwrite(data, offset)

        return BadFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
