"""Flipped bits in the file of a backend: what a store answers, what verification finds, whether healing helps.

As a script it tries many in one process of its own, for a damaged file might end it:

    python -m tests.proof.flips TEMPLATE SCRATCH BACKEND BITS...

and prints, for each, one line: the bit, what opening and reading gave (``same``, ``wrong``, ``refused``, the name
of an exception that is none of ours, or the signal that ended a process), and what was found by verification and
by its deep form. Opening is tried in a forked process, verification is not: it must survive.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from kvstore import KVStoreError, Options, Store, ops
from kvstore.recovery import open_engine
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.verification import heal, verify

PAGE_BYTES = 4096
KEYS = [b"key-%d" % number for number in range(40)]
LONG_KEY = b"long" * 300


class Outcome(NamedTuple):
    bit: int
    answer: str
    found: bool
    found_deep: bool


def open_store(path: Path, backend: str, **options: Any) -> Store:
    settings = Options(backend=backend, **{"background": False, "low_disk_bytes": 0, **options})
    return Store(open_engine(path, settings, UnsyncedDisk()))


def make_template(path: Path, backend: str) -> str:
    """A closed store with rows of every kind, free pages among them; what it answers."""
    with open_store(path, backend, max_wals=0) as store:
        lease = store.grant_lease(1000, 7).id
        for number in range(240):
            store.put(KEYS[number * 7 % 40], b"value %d " % number * (number % 30))
            if number % 60 == 30:
                store.checkpoint()
        store.put(LONG_KEY, b"x" * 9000)
        store.put(LONG_KEY + b"y", b"x" * 3000, lease=lease)
        store.delete(KEYS[3])
        store.txn(success=[ops.put(b"a", b"1"), ops.put(b"b", b"2"), ops.delete(KEYS[4])])
        store.checkpoint()
        store.delete(LONG_KEY)
    with open_store(path, backend) as store:
        return answers(store)


def answers(store: Store) -> str:
    """Every read there is, in one digest."""
    digest = hashlib.sha256()
    for revision in (5, 120, store.revision):
        for kv in store.scan(prefix=b"", revision=revision):
            digest.update(kv.row)
    for key in (*KEYS, LONG_KEY):
        digest.update(b"".join(kv.row for kv in store.history(key)))
        newest = store.get(key)
        digest.update(b"-" if newest is None else newest.row)
    told = store.revision, store.hash_kv(), store.leases(), store.lease_time_to_live(7, keys=True).keys
    digest.update(repr(told).encode())
    return digest.hexdigest()


def page_kind(backend: str, page: bytes, number: int) -> str:
    """What kind of page it is, as its header says."""
    if backend == "lmdb":
        kinds = {b"\1\0": "branch", b"\2\0": "leaf"}
        return "meta" if number < 2 else kinds.get(page[10:12], "overflow or free")
    if number == 0:
        return "header"
    return {2: "branch", 5: "branch", 10: "leaf", 13: "leaf"}.get(page[0], "overflow or free")


def sample_bits(template: Path, backend: str, count: int) -> list[int]:
    """About ``count`` bits of each kind of page; half of them at its beginning, where its structure is."""
    chance = random.Random(backend)
    data = (template / "snap" / "db").read_bytes()
    kinds: dict[str, list[int]] = {}
    for at in range(0, len(data), PAGE_BYTES):
        kinds.setdefault(page_kind(backend, data[at : at + PAGE_BYTES], at // PAGE_BYTES), []).append(at)
    return sorted(
        {
            (chance.choice(pages) + chance.randrange(chance.choice((96, PAGE_BYTES)))) * 8
            + chance.randrange(8)
            for kind, pages in kinds.items()
            for _ in range(count if kind != "header" else count // 8)  # SQLite tries for seconds to open some
        }
    )


def flipped(template: Path, target: Path, bit: int) -> Path:
    """A copy of the store with one bit of its backend's file flipped."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target)
    path = target / "snap" / "db"
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return target


def outcome(template: Path, scratch: Path, backend: str, bit: int, wanted: str) -> Outcome:
    options = Options(backend=backend)
    store = flipped(template, scratch / f"{bit}-verify", bit)
    found = not verify(store, options=options).ok
    found_deep = not verify(store, options=options, deep=True).ok
    if found_deep:
        healed = flipped(template, scratch / f"{bit}-heal", bit)
        heal(healed, options=options, disk=UnsyncedDisk())
        assert ask(healed, backend, wanted) == "same", f"healing does not help against bit {bit}"
        assert verify(healed, options=options, deep=True).ok
    answer = ask_apart(flipped(template, scratch / f"{bit}-open", bit), backend, wanted)
    for path in scratch.glob(f"{bit}-*"):
        shutil.rmtree(path)
    return Outcome(bit, answer, found, found_deep)


def ask_apart(path: Path, backend: str, wanted: str) -> str:
    """``ask`` in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(writing, ask(path, backend, wanted).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer


def ask(path: Path, backend: str, wanted: str) -> str:
    """What opening, reading, writing and closing gives."""
    try:
        store = open_store(path, backend)
    except (KVStoreError, OSError):
        return "refused"
    except Exception as error:
        return type(error).__name__
    try:
        answer = "same" if answers(store) == wanted else "wrong"
        store.put(KEYS[0], b"new")
        store.checkpoint()
        return answer
    except (KVStoreError, OSError):
        return "refused"
    except Exception as error:
        return type(error).__name__
    finally:
        with suppress(KVStoreError):
            store.close()


def outcomes(lines: str) -> Iterator[Outcome]:
    """What the script has printed."""
    for line in lines.splitlines():
        bit, answer, found, found_deep = line.split()
        yield Outcome(int(bit), answer, found == "True", found_deep == "True")


def main(template: str, scratch: str, backend: str, wanted: str, *bits: str) -> None:
    logging.disable(logging.CRITICAL)
    for bit in bits:
        print(*outcome(Path(template), Path(scratch), backend, int(bit), wanted), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
