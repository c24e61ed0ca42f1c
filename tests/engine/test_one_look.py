"""One look, one state: a read answers as of one revision, however long its thread is held up between two steps.

Each read is made again and again. Before its first line, its second, and so on, it is held up while another thread
takes two checkpoints, writes, compacts, and (each so often) defragments. A plain model says what there was when.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore import Compacted, Store
from kvstore.backend import find_backend
from kvstore.mvcc import changes, overlay, read
from kvstore.mvcc.overlay import Generation, Remains
from tests.engine.reads import OPTIONS, READS, World, versions_of
from tests.harness.line_steps import every_step

BACKENDS = ["lmdb", "sqlite", "memory"]
KEYS = [b"a", b"b", b"c", b"x", b"y", b"z"]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories and differences are read in several pages; nobody waits for the reader that is held up."""
    monkeypatch.setattr(read, "_HISTORY_FIRST_ROWS", 2)
    monkeypatch.setattr(read, "PAGE_ROWS", 2)
    monkeypatch.setattr(changes, "_KEYS_PAGE", 2)
    monkeypatch.setattr(overlay, "HELD_SECONDS", 0.0)
    monkeypatch.setattr(sys.modules[find_backend("sqlite").__module__], "SETTLE_SECONDS", 0.0)


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
        generation.add([(main, 0, b"k", b"row")])

    class Meeting(dict[bytes, Any]):
        def get(self, key: bytes, default: Any = None) -> Any:
            found = super().get(key, default)
            generation.newest = plain
            generation.add([(5, 0, b"k", b"row")])
            generation.add([(6, 0, b"k", b"row")])
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
            generation.add([(main, 0, key, b"row")])
            main += 1
        for end in (None, start + b"\x80"):
            there = sorted(key for key in generation.newest if key >= start and (end is None or key < end))
            assert generation.keys(start, end, limit) == there[:limit]


def test_what_a_reader_holds_is_not_emptied() -> None:
    """The contents of a generation stay while somebody holds it, and go in pieces when nobody does."""
    generation = Generation()
    for main in range(2, 600):
        generation.add([(main, 0, b"%d" % main, b"row")])
    changes_made = generation.changes
    Remains(generation).drain()
    assert len(changes_made) == len(generation.newest) == 598
    remains = Remains(generation)
    del generation
    remains.drain()
    assert changes_made == []
