"""Every kind of read, in a world whose every state is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kvstore
from kvstore import Busy, Store

OPTIONS: dict[str, Any] = {
    "background": False,
    "low_disk_bytes": 0,
    "durability": "off",
    "compaction_sleep_interval_seconds": 0,
}


class World:
    """A store, and all that was ever written to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events: list[tuple[int, bytes, bytes | None]] = []
        self.compacted = -1
        self.past = 0
        self._turns = itertools.count(1)
        self._turn = 0

    def write(self, **rows: bytes | None) -> int:
        """Put keys, and delete those that are None, in one revision."""
        made = [(name.encode(), value) for name, value in rows.items()]
        steps = [
            kvstore.ops.delete(key) if value is None else kvstore.ops.put(key, value) for key, value in made
        ]
        revision: int = self.store.txn([], steps).revision
        self.events += [(revision, key, value) for key, value in made]
        return revision

    def prepare(self) -> None:
        """Old rows in the backend, newer ones in a frozen generation, newer ones yet in the active one."""
        self._turn = next(self._turns)
        value = b"%d" % self._turn
        self.write(a=value, x=value, y=value, z=None if self._turn % 2 else value)
        self.store.checkpoint()
        self.past = self.write(a=value + b"old", b=value, x=value + b"old", y=value + b"old")
        assert self.store.engine.checkpointer._freeze() is not None
        self.write(x=value + b"new", y=None, z=value + b"new", c=value)

    def pass_by(self) -> None:
        """What happens while the reader is held up."""
        store = self.store
        assert store.checkpoint() and store.checkpoint()
        newest = self.write(x=b"later", a=None, y=b"later")
        if self._turn % 3:
            self.compacted = self.past if self._turn % 3 == 1 else newest
            store.compact(self.compacted, physical=True)
        if self._turn % 8 == 0:
            with suppress(Busy):  # SQLite gives it up while a view of an older commit is open
                store.defragment()

    # --- what the answers should be ---------------------------------------------------

    def at(self, revision: int) -> dict[bytes, bytes]:
        rows: dict[bytes, bytes] = {}
        for main, key, value in self.events:
            if main <= revision:
                rows.pop(key, None)
                if value is not None:
                    rows[key] = value
        return dict(sorted(rows.items()))

    def history(self, key: bytes, since: int, until: int, compacted: int) -> list[tuple[int, bytes]]:
        """(mod_revision, value), b"" for a delete; without what ended at or before ``compacted``."""
        own = [(main, value) for main, named, value in self.events if named == key]
        told = []
        for (main, value), ended in zip(own, [*(main for main, _ in own[1:]), 1 << 62], strict=True):
            if since <= main <= until and (main if value is None else ended) > compacted:
                told.append((main, value or b""))
        return told

    def difference(self, older: int, newer: int) -> dict[bytes, tuple[bytes | None, bytes | None]]:
        before, after = self.at(older), self.at(newer)
        pairs = {key: (before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())}
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def rows_of(kvs: Any) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in kvs}


def value_of(kv: Any) -> bytes | None:
    return None if kv is None else kv.value


def versions_of(kvs: Any) -> list[tuple[int, bytes]]:
    return [(kv.mod_revision, kv.value) for kv in kvs]


Answers = Callable[[World, int, int], Any]
"""(world, published revision, compact revision) -> what a read that began then answers."""

READS: dict[str, tuple[Callable[[World], Any], Answers]] = {
    "get": (lambda w: value_of(w.store.get(b"x")), lambda w, now, _: w.at(now).get(b"x")),
    "past get": (
        lambda w: value_of(w.store.get(b"y", revision=w.past)),
        lambda w, _, __: w.at(w.past).get(b"y"),
    ),
    "range": (lambda w: rows_of(w.store.range(b"a", b"zz").kvs), lambda w, now, _: w.at(now)),
    "limited range": (
        lambda w: rows_of(w.store.range(b"a", b"zz", limit=2).kvs),
        lambda w, now, _: dict(list(w.at(now).items())[:2]),
    ),
    "past range": (
        lambda w: rows_of(w.store.range(b"a", b"zz", revision=w.past).kvs),
        lambda w, _, __: w.at(w.past),
    ),
    "scan": (lambda w: rows_of(w.store.scan(b"a", b"zz", page_rows=2)), lambda w, now, _: w.at(now)),
    "past scan": (
        lambda w: rows_of(w.store.scan(b"a", b"zz", revision=w.past, page_rows=2)),
        lambda w, _, __: w.at(w.past),
    ),
    "count": (lambda w: w.store.count(b"a", b"zz"), lambda w, now, _: len(w.at(now))),
    "past count": (
        lambda w: w.store.range(b"a", b"zz", revision=w.past, count_only=True).count,
        lambda w, _, __: len(w.at(w.past)),
    ),
    "at": (
        lambda w: rows_of(w.store.at(w.past).range(b"a", b"zz").kvs),
        lambda w, _, __: w.at(w.past),
    ),
    "history": (
        lambda w: versions_of(w.store.history(b"x")),
        lambda w, now, compacted: w.history(b"x", 0, now, compacted),
    ),
    "history since": (
        lambda w: versions_of(w.store.history(b"y", since=w.past)),
        lambda w, now, compacted: w.history(b"y", w.past, now, compacted),
    ),
    "diff": (
        lambda w: {c.key: (value_of(c.before), value_of(c.after)) for c in w.store.diff(w.past)},
        lambda w, now, _: w.difference(w.past, now),
    ),
}
