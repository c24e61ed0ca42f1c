"""Files of backends, for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.memory import MemoryBackend
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.backend import Backend
from tests import PROJECT
from tests.backends.mirror_backend import MirrorBackend

TABLES = ["latest", "meta"]
KINDS: list[type[Backend]] = [LMDBBackend, SQLiteBackend, MemoryBackend]


class TinyMap(LMDBBackend):
    """LMDB that has to enlarge its map again and again."""

    map_bytes = 1 << 16


class Mirror(MirrorBackend):
    kinds: ClassVar[list[type[Backend]]] = [TinyMap, SQLiteBackend, MemoryBackend]


def put(db: Backend | Mirror, rows: list[tuple[bytes, bytes]]) -> None:
    with db.write() as tx:
        tx.put_many("latest", rows)


def copy_of(kind: type[Backend], path: Path) -> Path:
    db = kind.open(path.with_name("live"), TABLES)
    put(db, [(b"%d" % n, b"v" * 100) for n in range(200)])
    db.copy_to(path)
    db.close()
    for file in path.parent.glob("live*"):
        file.unlink()
    return path


def flip(path: Path, at: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


def in_python(code: str, kind: type[Backend], path: Path) -> str:
    preamble = (
        "import importlib, sys\nfrom pathlib import Path\nfrom kvstore.errors import *\n"
        f"kind = getattr(importlib.import_module({kind.__module__!r}), {kind.__name__!r})\n"
        f"path = Path({os.fspath(path)!r}); TABLES = {TABLES!r}\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", preamble + code], cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout
