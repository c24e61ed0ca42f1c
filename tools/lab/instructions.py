"""Instructions that an operation takes: user space only, counted by valgrind, so that a loaded machine does not matter.

    python -m kvstore.tools.lab.instructions                    every operation, with each implementation that is there
    python -m kvstore.tools.lab.instructions get put            these
    python -m kvstore.tools.lab.instructions --keep DIR get     leaves callgrind's files there, for callgrind_annotate,
                                                                and removes those of an earlier run

One process for each implementation. It warms an operation up, then has valgrind count while it repeats it. The store
has 20,000 keys of 16 bytes with values of 256 bytes, in LMDB.

valgrind has to be on PATH, with its headers, and a C compiler: the process tells it when to count through a library of
three lines. It cannot map the terabyte that LMDB is asked for, so the map is smaller here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kvstore
from kvstore import implementation
from kvstore.backend import find_backend

from .instructions_client import OPERATIONS as CLIENT
from .instructions_wire import OPERATIONS as WIRE

KEYS, A_TRANSACTION, TASKS = 20_000, 100, 64
VALUE = b"v" * 256
LMDB: Any = find_backend("lmdb")
MAP_BYTES = 1 << 28
WARM, COUNTED = 300, 1_000
"""Operations before the count begins (caches, and Python's specialized bytecode), and within it."""

Run = Callable[[int], object]
"""Does the operation as many times as it is told."""


def key(number: int) -> bytes:
    return b"key/%012d" % (number % KEYS)


SOME_KEYS = [key(number * 7919) for number in range(KEYS)]
"""In no order, and made beforehand, so that making them is not counted."""


# --- the operations: given an open store, a function that does as many as it is told ----------------------------------


def put(store: kvstore.Store) -> Run:
    def run(count: int) -> None:
        for each in SOME_KEYS[:count]:
            store.put(each, VALUE)

    return run


def put_tasks(store: kvstore.Store) -> Run:
    """Puts of 64 tasks at once."""
    twin = kvstore.AsyncStore(store.engine)

    async def work(keys: list[bytes]) -> None:
        for each in keys:
            await twin.put(each, VALUE)

    async def all_of_them(count: int) -> None:
        await asyncio.gather(*[work(SOME_KEYS[at:count:TASKS]) for at in range(TASKS)])

    return lambda count: asyncio.run(all_of_them(count))


def put_in_transaction(store: kvstore.Store) -> Run:
    def run(count: int) -> None:
        chosen = SOME_KEYS[:count]
        for at in range(0, count, A_TRANSACTION):
            store.txn(success=[kvstore.ops.put(each, VALUE) for each in chosen[at : at + A_TRANSACTION]])

    return run


def get(store: kvstore.Store) -> Run:
    def run(count: int) -> None:
        for each in SOME_KEYS[:count]:
            found = store.get(each)
            assert found is not None
            found.value  # noqa: B018  # reading it is what is measured

    return run


def get_past(store: kvstore.Store) -> Run:
    revision = store.revision
    put_in_transaction(store)(KEYS)
    store.checkpoint()

    def run(count: int) -> None:
        for each in SOME_KEYS[:count]:
            found = store.get(each, revision=revision)
            assert found is not None
            found.value  # noqa: B018

    return run


def get_raw(store: Any) -> Run:
    """LMDB alone: begin a transaction, and get."""
    backend = store.engine.state.backend
    environment, database = backend.environment, backend.short["latest"]

    def run(count: int) -> None:
        for each in SOME_KEYS[:count]:
            with environment.begin(db=database) as tx:
                tx.get(each)

    return run


def range_list(store: kvstore.Store) -> Run:
    def run(count: int) -> None:
        for at in range(0, count, 1000):
            list(store.range(key(at), key(at + 1000)).kvs)

    return run


def range_read(store: kvstore.Store) -> Run:
    def run(count: int) -> None:
        for at in range(0, count, 1000):
            for kv in store.range(key(at), key(at + 1000)).kvs:
                kv.value  # noqa: B018

    return run


def range_raw(store: Any) -> Run:
    """LMDB alone: a cursor over 1000 rows."""
    backend = store.engine.state.backend
    environment, database = backend.environment, backend.short["latest"]

    def run(count: int) -> None:
        for at in range(0, count, 1000):
            end = key(at + 1000)
            with environment.begin(db=database) as tx, tx.cursor() as cursor:
                cursor.set_range(key(at))
                for found, _ in cursor:
                    if found >= end:
                        break

    return run


def checkpoint(store: kvstore.Store) -> Run:
    put_in_transaction(store)(COUNTED)

    def run(count: int) -> None:
        if count != WARM:
            store.checkpoint()

    return run


def replay(store: Any) -> Run:
    """What an opening does with the log: read its entries, and apply them."""
    from kvstore.mvcc.lessor import Lessor
    from kvstore.mvcc.state import State
    from kvstore.replay import Point, apply_log
    from kvstore.wal import Log

    core = store.engine.core
    begin = core.log.last_index
    put(store)(COUNTED)

    def run(count: int) -> None:
        log = Log.open(core.disk, core.directory.wal, after_index=begin, read_only=True)
        state, lessor = State(core.state.backend), Lessor.loaded(core.state.backend)
        apply_log(log.replay(), state, lessor, until=Point(index=begin + count))

    return run


OPERATIONS: dict[str, Callable[[Any], Run]] = {
    "put": put,
    "put-tasks": put_tasks,
    "put-txn": put_in_transaction,
    "get": get,
    "get-past": get_past,
    "get-raw": get_raw,
    "range-list": range_list,
    "range-read": range_read,
    "range-raw": range_raw,
    "replay": replay,
    "checkpoint": checkpoint,
    **WIRE,
    **CLIENT,
}


# --- counting --------------------------------------------------------------------------

LIBRARY = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""


def main() -> None:
    given = sys.argv[1:]
    if given[:1] == ["--child"]:
        child(Path(given[1]), Path(given[2]), given[3:])
        return
    keep = Path(given[1]).absolute() if given[:1] == ["--keep"] else None
    names = given[2 if keep else 0 :] or list(OPERATIONS)
    if unknown := [name for name in names if name not in OPERATIONS]:
        sys.exit(f"no such operation: {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        counted = {each: count(Path(folder), names, each, keep) for each in implementations()}
    print(f"{'thousands of instructions':<25}{''.join(f'{each:>12}' for each in counted)}")
    for at, name in enumerate(names):
        print(f"{name:<25}{''.join(f'{each[at]:>12.2f}' for each in counted.values())}")


def implementations() -> list[str]:
    asked = os.environ.get(implementation.VARIABLE)
    is_built = find_spec("kvstore._native") is not None
    return [asked] if asked else [implementation.PYTHON, *([implementation.NATIVE] if is_built else [])]


def prepare(folder: Path) -> None:
    """A closed store with the keys, and the library."""
    LMDB.map_bytes = MAP_BYTES
    with kvstore.open(folder / "data", background=False) as store:
        put_in_transaction(store)(KEYS)
    source = folder / "count.c"
    source.write_text(LIBRARY)
    compile_it = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", str(folder / "count.so"), str(source)]
    subprocess.run(compile_it, check=True)


def count(folder: Path, names: list[str], chosen: str, keep: Path | None) -> list[float]:
    """Thousands of instructions of each operation."""
    out = keep or folder
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"callgrind.{chosen}*"):  # by an earlier run, and perhaps more of them
        left.unlink()
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    command += [f"--callgrind-out-file={out}/callgrind.{chosen}"]
    command += [
        sys.executable,
        "-m",
        __spec__.name,
        "--child",
        str(folder / "data"),
        str(folder / "count.so"),
        *names,
    ]
    environment = {**os.environ, implementation.VARIABLE: chosen, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[int, float] = {}
    for path in out.glob(f"callgrind.{chosen}.*"):
        totals = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
        assert totals is not None, path
        found[int(path.suffix[1:])] = int(totals[1]) / COUNTED / 1000
    return [found[at + 1] for at in range(len(names))]


def child(data: Path, library: Path, names: list[str]) -> None:
    LMDB.map_bytes = MAP_BYTES
    counting = CDLL(str(library))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            copied = Path(folder) / "data"
            shutil.copytree(data, copied)
            with kvstore.open(copied, background=False) as store:
                run = OPERATIONS[name](store)
                run(WARM)
                gc.collect()  # a full collection by chance would be dearer than what is counted
                counting.begin()
                run(COUNTED)
                counting.end()
                getattr(run, "close", lambda: None)()


if __name__ == "__main__":
    main()
