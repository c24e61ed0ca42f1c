"""A store that has lived, for the tests of etcd's bugs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import kvstore
from kvstore.store import Store

BACKENDS = ("lmdb", "sqlite")
EVERYWHERE = (*BACKENDS, "memory")


def copied(path: Path, name: str) -> Path:
    """The files as they lie there now, as a killed process leaves them."""
    shutil.copytree(path / "data", path / name / "data")
    return path / name


def content(store: Store, revision: int = 0) -> dict[bytes, tuple[bytes, int]]:
    return {kv.key: (kv.value, kv.mod_revision) for kv in store.scan(prefix=b"", revision=revision)}


def live(store: Store, count: int, seed: int = 1) -> None:
    """Puts, deletes and transactions over few keys."""
    chance = random.Random(seed)
    for number in range(count):
        keys = [b"k%d" % chance.randrange(8) for _ in range(3)]
        match chance.randrange(4):
            case 0:
                store.delete(keys[0], keys[1]) if keys[0] < keys[1] else store.delete(keys[0])
            case 1:
                store.txn(success=[kvstore.ops.put(key, b"%d" % number) for key in sorted(set(keys))])
            case _:
                store.put(keys[0], b"%d" % number)
