"""One look, one state: a read answers as of one revision, however long its thread is held up between two steps.

Each read is made again and again. Before its first line, its second, and so on, it is held up while another thread
takes two checkpoints, writes, compacts, and (each so often) defragments. A plain model says what there was when.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore import Busy, Compacted, Store
from kvstore.backend import find_backend
from kvstore.mvcc import changes, overlay, read
from kvstore.mvcc.overlay import Generation, Remains
from tests.line_steps import every_step

BACKENDS = ["lmdb", "sqlite", "memory"]
OPTIONS: dict[str, Any] = {
    "background": False,
    "low_disk_bytes": 0,
    "durability": "off",
    "compaction_sleep_interval_seconds": 0,
}
KEYS = [b"a", b"b", b"c", b"x", b"y", b"z"]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories and differences are read in several pages; nobody waits for the reader that is held up."""
    monkeypatch.setattr(read, "_HISTORY_FIRST_ROWS", 2)
    monkeypatch.setattr(read, "PAGE_ROWS", 2)
    monkeypatch.setattr(changes, "_KEYS_PAGE", 2)
    monkeypatch.setattr(overlay, "HELD_SECONDS", 0.0)
    monkeypatch.setattr(sys.modules[find_backend("sqlite").__module__], "SETTLE_SECONDS", 0.0)


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
        steps = [kvstore.delete(key) if value is None else kvstore.put(key, value) for key, value in made]
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


def hold_up(store: Store, kind: str, stride: int = 1) -> int:
    """Hold the read up before each of its lines; how often."""
    call, answers = READS[kind]
    world = World(store)
    world.prepare()
    before = store.revision, world.compacted
    times = 0
    for steps in every_step(lambda: call(world), world.pass_by, stride=stride):
        states = {before, (store.revision, before[1]), (store.revision, world.compacted)}
        if isinstance(steps.outcome, Compacted):
            assert world.compacted > before[1], steps.acted_in
            assert world.compacted > world.past or kind.startswith("history"), steps.acted_in
        else:
            assert steps.outcome in [answers(world, *state) for state in states], steps.acted_in
        times += 1
        world.prepare()
        before = store.revision, world.compacted
    return times


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_held_up_half_way_answers_as_of_one_revision(scratch: Path, backend: str, kind: str) -> None:
    """Two checkpoints, a write, a compaction and a defragmentation pass it there: the answer, or ``Compacted``."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert hold_up(store, kind, stride=5) > 3


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_held_up_at_any_line_answers_as_of_one_revision(
    scratch: Path, backend: str, kind: str
) -> None:
    """The same before every line."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert hold_up(store, kind) > 10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taken", [0, 1, 3, 7])
def test_a_history_that_a_compaction_overtakes_says_so(scratch: Path, backend: str, taken: int) -> None:
    """What was read of it is right, and then comes ``Compacted``: no gap, and no delete that never was."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        truth = [store.put(b"k", b"%d" % number).revision for number in range(12)]
        store.checkpoint()
        history = store.history(b"k")
        got = [kv.mod_revision for kv in itertools.islice(history, taken)]
        store.compact(truth[-2], physical=True)
        with pytest.raises(Compacted):
            got.extend(kv.mod_revision for kv in history)
        assert got == truth[: len(got)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_history_begins_where_it_is_asked_to(
    scratch: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a key with many versions it reads those from ``since`` on, and none before them."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        revisions = [store.put(b"k", b"%d" % number).revision for number in range(300)]
        store.checkpoint()
        rows_read: list[int] = []
        page = read._history_page

        def counting(*arguments: Any) -> Any:
            rows, living = page(*arguments)
            rows_read.append(len(rows) + len(living))
            return rows, living

        monkeypatch.setattr(read, "_history_page", counting)
        got = [kv.mod_revision for kv in store.history(b"k", since=revisions[-3])]
        assert got == revisions[-3:]
        assert sum(rows_read) < 8
        got = [kv.mod_revision for kv in store.history(b"k", since=5, until=7)]
        assert got == [5, 6, 7]
        assert list(store.history(b"k", since=revisions[-1] + 1)) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stored", range(7))
@pytest.mark.parametrize("frozen", range(7))
def test_a_history_shows_no_version_that_ended_at_the_compaction(
    scratch: Path, backend: str, stored: int, frozen: int
) -> None:
    """Wherever the versions of a key lie: the first in the backend, the next in a frozen generation, the rest above."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        world = World(store)
        for number, value in enumerate([b"a", b"b", None, b"c", b"d", None, b"e"]):
            world.write(k=value)
            if number == stored:
                store.checkpoint()
            if number == stored + frozen:
                store.engine.checkpointer._freeze()
        last = store.revision
        for compacted in range(2, last + 1):
            store.compact(compacted)
            for since in range(last + 1):
                told = versions_of(store.history(b"k", since=since))
                assert told == world.history(b"k", since, last, compacted), (compacted, since)


def test_changes_of_a_key_are_those_of_one_moment(scratch: Path) -> None:
    """A put between the two look-ups of a generation shows wholly or not at all."""
    generation = Generation()
    for main in range(2, 5):
        generation.add((main, 0, b"k", b"row"))

    class Meeting(dict[bytes, Any]):
        def get(self, key: bytes, default: Any = None) -> Any:
            found = super().get(key, default)
            generation.newest = plain
            generation.add((5, 0, b"k", b"row"))
            generation.add((6, 0, b"k", b"row"))
            return found

    plain = generation.newest
    generation.newest = Meeting(plain)
    assert [main for main, _, _, _ in generation.of(b"k")] == [2, 3, 4]
    assert [main for main, _, _, _ in generation.of(b"k", 5)] == [4, 5, 6]


@given(
    rounds=st.lists(
        st.tuples(st.lists(st.binary(max_size=2), max_size=20), st.binary(max_size=2)), max_size=20
    ),
    limit=st.integers(1, 9),
)
def test_keys_of_a_generation_are_sorted_as_they_come(
    rounds: list[tuple[list[bytes], bytes]], limit: int
) -> None:
    """Whatever the order of writes and reads, a read finds the first keys of its span."""
    generation = Generation()
    main = 2
    for keys, start in rounds:
        for key in keys:
            generation.add((main, 0, key, b"row"))
            main += 1
        for end in (None, start + b"\x80"):
            there = sorted(key for key in generation.newest if key >= start and (end is None or key < end))
            assert generation.keys(start, end, limit) == there[:limit]


def test_what_a_reader_holds_is_not_emptied() -> None:
    """The contents of a generation stay while somebody holds it, and go in pieces when nobody does."""
    generation = Generation()
    for main in range(2, 600):
        generation.add((main, 0, b"%d" % main, b"row"))
    changes_made = generation.changes
    Remains(generation).drain()
    assert len(changes_made) == len(generation.newest) == 598
    remains = Remains(generation)
    del generation
    remains.drain()
    assert changes_made == []
