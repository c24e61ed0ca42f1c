"""What a store does whose files this user may not use, run by one to whom the system refuses them (not by root).

    python -m tests.harness.without_rights DIR BACKEND

Takes the rights to each file and folder away, while nobody has the store open and while it is open. Prints a line for
each answer that is not right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kvstore
from kvstore import KVStoreError, Store, StoreUnreachable, layout

OPTIONS: dict[str, Any] = {
    "low_disk_bytes": 0,
    "wal_file_size": 20_000,
    "max_wals": 1,
    "background": False,
    "snapshot_count": 0,
}
KEYS = 60


def places(data_dir: Path) -> dict[str, Path]:
    """What the rights are taken away to."""
    directory = layout.DataDir.at(data_dir)
    return {
        "root": directory.root,
        "wal": directory.wal,
        "snap": directory.snap,
        "lock": directory.lock,
        "db": directory.db,
        "segment": layout.segments(directory.wal)[-1].path,
        "snapshot": directory.snapshots()[-1].path,
    }


@contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o777
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def wrong(call: Callable[[], object], path: Path, *, must_fail: bool = False) -> str:
    """What is wrong with the outcome of a call; empty if it went well, or said what ``path`` lacks."""
    try:
        call()
    except StoreUnreachable as error:
        is_said = str(path) in str(error) and "give the user" in str(error)
        return "" if is_said else f"says {error}"
    except KVStoreError as error:
        return f"raises {error!r}"
    except Exception as error:
        return f"is untyped: {error!r}"
    return "succeeds" if must_fail else ""


def opening(data_dir: Path, backend: str, *, read_only: bool = False) -> None:
    with kvstore.open(data_dir, backend, read_only=read_only, **OPTIONS) as store:
        assert store.count(prefix=b"k") == KEYS


def check_opening(data_dir: Path, backend: str, name: str, path: Path) -> Iterator[str]:
    """Each look at the store says what is missing, or does without; afterwards it is as it was."""
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: opening(data_dir, backend),
        "open read-only": lambda: opening(data_dir, backend, read_only=True),
        "verify": lambda: kvstore.verify(data_dir),
        "restore": lambda: kvstore.restore(data_dir, data_dir.with_name(f"restored from {name}")),
    }
    needed = ("root", "wal", "snap", "segment", *(["db"] if backend != "memory" else ["snapshot"]))
    with rights(path, 0):
        for what, call in calls.items():
            found = wrong(call, path, must_fail=name in needed and what.startswith("open"))
            if found:
                yield f"{what}, no right to {name}: {found}"
    opening(data_dir, backend)


def check_open(data_dir: Path, backend: str, name: str, path: Path, mode: int) -> Iterator[str]:
    """Writes and reads go on; upkeep that needs the path says so; nothing is poisoned, and closing gives all back."""
    store = kvstore.open(data_dir, backend, **OPTIONS)
    path = places(data_dir)[name]
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: store.put(b"a", b"v"),
        "puts that change segments": lambda: [store.put(b"b", bytes(300)) for _ in range(100)],
        "checkpoint": store.checkpoint,
        "get": lambda: store.get(b"k1"),
        "snapshot": store.snapshot,
        "compact": lambda: store.compact(store.revision, physical=True),
        "defragment": store.defragment,
        "status": store.status,
        "a snapshot elsewhere": lambda: store.snapshot(data_dir.with_name(f"{name} {mode}.snap")),
        "last put": lambda: put_last(store),
        "close": store.close,
    }
    with rights(path, mode):
        for what, call in calls.items():
            found = wrong(call, path)
            if found:
                yield f"{what}, mode {mode:o} of {name} while open: {found}"
        failure = store.engine.life.failure
        if failure is not None:
            yield f"mode {mode:o} of {name} while open: poisoned by {failure!r}"
    with kvstore.open(data_dir, backend, **OPTIONS) as store:
        if store.get(b"last") is None:
            yield f"mode {mode:o} of {name} while open: a write is lost"
        store.delete(b"last")


def put_last(store: Store) -> None:
    store.put(b"last", b"v")


def main() -> None:
    data_dir, backend = Path(sys.argv[1]), sys.argv[2]
    with kvstore.open(data_dir, backend, **OPTIONS) as store:
        for number in range(KEYS):
            store.put(b"k%d" % number, bytes(300))
        store.snapshot()
    for name in places(data_dir):
        for line in check_opening(data_dir, backend, name, places(data_dir)[name]):
            print(line)
        for mode in (0, 0o500):
            for line in check_open(data_dir, backend, name, places(data_dir)[name], mode):
                print(line)
    if not kvstore.verify(data_dir, deep=True).ok:
        print("it is damaged in the end")


if __name__ == "__main__":
    main()
