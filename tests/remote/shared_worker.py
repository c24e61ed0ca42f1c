"""A process that uses a shared store until its input ends, and says all it does: ``python -m … DIR BACKEND NAME``.

A line of JSON each: ``called`` before a call, ``returned`` after it, ``heard`` for what a watch delivered.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from typing import Any

import kvstore
from kvstore.errors import OutcomeUnknown

KEYS = (b"a", b"b", b"c")
TTL_SECONDS = 10
_saying = threading.Lock()


def say(**what: Any) -> None:
    with _saying:
        print(json.dumps(what), flush=True)


def hear(watch: Any) -> None:
    """Say what comes, until the watch is closed."""
    for response in watch.responses():
        events = [
            [
                event.type.name,
                kv.key.decode(),
                kv.value.decode(),
                kv.create_revision,
                kv.mod_revision,
                kv.version,
                kv.lease,
            ]
            for event in response.events
            for kv in (event.kv,)
        ]
        say(what="heard", revision=response.revision, events=events)


def keep_alive(store: kvstore.Store, lease: int, ended: threading.Event) -> None:
    while not ended.wait(TTL_SECONDS / 8):
        say(what="kept", ttl=store.keep_alive(lease).ttl, time=time.monotonic())


def perform(store: kvstore.Store, name: str, number: int, key: bytes) -> int:
    """One call. Returns the newest revision seen."""
    kind = random.choice(("put", "get"))
    value = f"{name}-{number}" if kind == "put" else ""
    say(what="called", number=number, kind=kind, key=key.decode(), value=value, time=time.monotonic())
    try:
        if kind == "put":
            revision, answer = store.put(key, value.encode()).revision, None
        else:
            found = store.range(key)
            revision, answer = found.revision, found.kvs[0].value.decode() if found.kvs else ""
    except OutcomeUnknown:
        say(what="unknown", number=number)
        return 0
    say(what="returned", number=number, answer=answer, revision=revision, time=time.monotonic())
    return revision


def end_with_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main(path: str, backend: str, name: str) -> None:
    ended = threading.Event()
    threading.Thread(target=end_with_input, args=(ended,), daemon=True).start()
    with kvstore.open(path, backend, shared=True) as store:
        lease = store.grant_lease(TTL_SECONDS).id
        store.put(b"alive/" + name.encode(), lease=lease)
        watch = store.watch(prefix=b"", start_revision=1)
        listener = threading.Thread(target=hear, args=(watch,))
        keeper = threading.Thread(target=keep_alive, args=(store, lease, ended))
        listener.start()
        keeper.start()
        for number in itertools.count():
            perform(store, name, number, random.choice(KEYS))
            if ended.wait(0.002):
                break
        keeper.join()
        say(what="last", revision=store.put(b"last/" + name.encode()).revision)
        watch.close()
        listener.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
