"""What every call says when the disk dies under an open store. Run with ``dead_disk.c`` preloaded: BACKEND FIRST.

Prints a line for each call: its name, and what came of it. The call named FIRST meets the dead disk first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kvstore

CALLS: dict[str, Callable[[kvstore.Store], Any]] = {
    "get": lambda store: store.get(b"k00700"),
    "get in the past": lambda store: store.get(b"k00701", revision=5),
    "range": lambda store: store.range(prefix=b"k0"),
    "history": lambda store: list(store.history(b"k00900")),
    "put": lambda store: store.put(b"k00800", b"w"),
    "checkpoint": lambda store: store.checkpoint(),
    "compact": lambda store: store.compact(store.revision - 1, physical=True),
    "snapshot": lambda store: store.snapshot(),
    "defragment": lambda store: store.defragment(),
    "delete": lambda store: store.delete(prefix=b"k1"),
    "grant_lease": lambda store: store.grant_lease(5),
    "status": lambda store: store.status(),
}


def say(name: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kvstore.KVStoreError as error:
        print(name, type(error).__name__)
    except BaseException as error:
        print(name, "UNTYPED", repr(error))
    else:
        print(name, "fine")


def main(backend: str, first: str) -> None:
    data, flag = Path(os.environ["DEAD_UNDER"]) / "data", Path(os.environ["DEAD_FLAG"])
    options: dict[str, Any] = {"low_disk_bytes": 0, "background": False}
    with kvstore.open(data, backend, **options) as store:
        for number in range(2000):
            store.put_nowait(b"k%05d" % number, b"v" * 3000)
    store = kvstore.open(data, backend, **options)
    store.put(b"last", b"v")
    flag.touch()
    for name in (first, *CALLS):
        say(name, partial(CALLS[name], store))
    say("close", store.close)
    say("close again", store.close)
    say("open", lambda: kvstore.open(data, backend).close())
    say("open read-only", lambda: kvstore.open(data, backend, read_only=True).close())
    flag.unlink()
    with kvstore.open(data, backend) as store:  # the lock was given back, and nothing is lost
        print("alive", store.count(prefix=b"k"), store.count(b"last"))


if __name__ == "__main__":
    main(*sys.argv[1:])
