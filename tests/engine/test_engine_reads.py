"""Reads of the past: they never change, whatever runs beside them, and cost the same however old they are."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Compacted, FutureRevision, Store
from kvstore.model import PutRequest
from kvstore.mvcc.schema import HISTORY, LATEST
from tests.harness.plain import changes_since, plain

BACKENDS = ["lmdb", "sqlite", "memory"]
KEYS = [b"k%02d" % number for number in range(20)]


# --- beside checkpoints and compactions ------------------------------------------------------------


class Past:
    """What the keys were at every revision, noted while they are written."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.states: dict[int, dict[bytes, bytes]] = {1: {}}
        self._chance = random.Random(7)

    def write(self) -> None:
        """One revision of one to three changes."""
        keys = self._chance.sample(KEYS, k=self._chance.randint(1, 3))
        state = dict(self.states[max(self.states)])
        ops: list[Any] = []
        for key in keys:
            if key in state and self._chance.random() < 0.3:
                del state[key]
                ops.append(kvstore.ops.delete(key))
            else:
                state[key] = b"%d" % len(self.states)
                ops.append(kvstore.ops.put(key, state[key]))
        revision = self.store.revision + 1
        self.states[revision] = state
        assert self.store.txn(success=ops).revision == revision


class Readers:
    """Threads that read kept revisions in every way, and compare."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.reads = Counter[str]()
        checks = (
            self._check_gets,
            self._check_scan,
            self._check_range,
            self._check_diff,
            self._check_changes,
        )
        self._threads = [threading.Thread(target=self._run, args=(check,)) for check in checks]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, check: Any) -> None:
        chance = random.Random(check.__name__)
        store = self._past.store
        while not self._stop.is_set() and not self.wrong:
            newest = store.revision
            revision = chance.randint(max(store.compact_revision, 1), newest)
            try:
                check(revision, newest)
                self.reads[check.__name__] += 1
            except Compacted as error:
                if store.compact_revision < error.compact_revision or revision >= store.compact_revision:
                    self.wrong.append(f"revision {revision} refused, though it is kept")
            except BaseException as error:
                self.wrong.append(f"{check.__name__} at {revision}: {error!r}")

    def _check_gets(self, revision: int, newest: int) -> None:
        state = self._past.states[revision]
        for key in KEYS:
            kv = self._past.store.get(key, revision=revision)
            assert (None if kv is None else kv.value) == state.get(key), key

    def _check_scan(self, revision: int, newest: int) -> None:
        rows = self._past.store.scan(prefix=b"k", revision=revision, page_rows=3)
        assert {kv.key: kv.value for kv in rows} == self._past.states[revision]

    def _check_range(self, revision: int, newest: int) -> None:
        answer = self._past.store.range(prefix=b"k", revision=revision, limit=5)
        state = self._past.states[revision]
        assert answer.count == len(state)
        assert [(kv.key, kv.value) for kv in answer.kvs] == sorted(state.items())[:5]
        now = self._past.store.range(prefix=b"k")
        assert {kv.key: kv.value for kv in now.kvs} == self._past.states[now.revision]

    def _check_diff(self, revision: int, newest: int) -> None:
        before, after = self._past.states[revision], self._past.states[newest]
        found = {
            change.key: (
                change.before and change.before.value,
                change.after and change.after.value,
            )
            for change in self._past.store.diff(revision, newest)
        }
        changed = {key for key in KEYS if before.get(key) != after.get(key)}
        assert found == {key: (before.get(key), after.get(key)) for key in changed}

    def _check_changes(self, revision: int, newest: int) -> None:
        state = dict(self._past.states[revision])
        for main, _, key, kv in changes_since(self._past.store, revision + 1, page_rows=7):
            if main > newest:
                break
            state.pop(key, None)
            if kv is not None:
                state[key] = kv.value
        assert state == self._past.states[newest]


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Threads take turns ten times as often as by default: more reads are cut in two by a write, and hold up none."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 10)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_turns")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_past_does_not_change(scratch: Path, backend: str) -> None:
    """Threads read fixed revisions while others write, checkpoint, compact: the answers are what was written."""
    with kvstore.open(
        scratch / "data",
        backend,
        backend_batch_interval_seconds=0.002,
        backend_batch_limit=20,
        durability="off",
    ) as store:
        past = Past(store)
        with Readers(past) as readers:
            for number in range(600):
                past.write()
                if number % 100 == 99:
                    store.compact(store.revision - 100)
                if readers.wrong:
                    break
        assert not readers.wrong
        assert all(readers.reads[name] for name in readers.reads) and len(readers.reads) == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_outside_what_is_kept_are_refused(scratch: Path, backend: str) -> None:
    """Below the compaction Compacted, above the newest FutureRevision, in every kind of read, with the marks."""
    with kvstore.open(scratch / "data", backend, background=False) as store:
        for number in range(10):
            store.put(b"k", b"%d" % number)
        store.compact(6)
        for step in (lambda: None, store.checkpoint, store.engine.run_compaction):
            step()
            for read in (
                lambda revision: store.get(b"k", revision=revision),
                lambda revision: store.range(b"k", revision=revision),
                lambda revision: list(store.scan(prefix=b"", revision=revision)),
                store.at,
                lambda revision: list(store.diff(revision)),
                store.hash_kv,
                lambda revision: store.txn(success=[kvstore.ops.get(b"k", revision=revision)]),
            ):
                with pytest.raises(Compacted) as refused:
                    read(5)
                assert refused.value.compact_revision == 6
                with pytest.raises(FutureRevision):
                    read(12)
                read(6)
                read(11)
            kv = store.get(b"k", revision=6)
            assert kv is not None
            assert kv.value == b"4"


def test_a_scan_that_a_compaction_overtakes_ends_with_an_error(scratch: Path) -> None:
    """It never goes on with rows of another revision."""
    with kvstore.open(scratch / "data", background=False) as store:
        for key in KEYS:
            store.put(key)
        rows = store.scan(prefix=b"", page_rows=5)
        assert next(rows).key == KEYS[0]
        store.put(KEYS[10], b"newer")
        store.compact(store.revision, physical=True)
        with pytest.raises(Compacted):
            list(rows)


# --- what a read costs -----------------------------------------------------------------------------


class Counting:
    """A backend that counts what is asked of it, and the rows that it hands out."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls = Counter[str]()

    def get(self, table: str, key: bytes) -> Any:
        self.calls[f"get {table}"] += 1
        return self._backend.get(table, key)

    def first_value(self, table: str, key: bytes) -> Any:
        self.calls[f"seek {table}"] += 1
        return self._backend.first_value(table, key)

    def read(self) -> Any:
        return _CountingTx(self._backend.read(), self.calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _CountingTx:
    def __init__(self, tx: Any, calls: Counter[str]) -> None:
        self._tx = tx
        self._calls = calls

    def get(self, table: str, key: bytes) -> Any:
        self._calls[f"get {table}"] += 1
        return self._tx.get(table, key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> Any:
        self._calls[f"get {table}"] += len(keys)
        return self._tx.get_many(table, keys)

    def scan(self, table: str, *arguments: Any, **options: Any) -> Any:
        rows = self._tx.scan(table, *arguments, **options)
        self._calls[f"scan {table}"] += 1
        self._calls[f"rows {table}"] += len(rows)
        return rows

    def __enter__(self) -> _CountingTx:
        self._tx.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._tx.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)


@pytest.fixture
def versions(scratch: Path) -> Iterator[Store]:
    """A key with 10 versions and one with 10,000, all in the backend."""
    with kvstore.open(scratch / "data", background=False, durability="off") as store:
        for key, count in ((b"few", 10), (b"many", 10_000)):
            tickets = [store.put_nowait(key, b"%d" % number) for number in range(count)]
            store.wait(tickets[-1])
        store.checkpoint()
        yield store


def test_a_point_read_in_the_past_costs_the_same_for_any_number_of_versions(versions: Store) -> None:
    """At every age: a get in ``latest``, and a seek in ``history``."""
    store = versions
    counting: Any = Counting(store.engine.state.backend)
    store.engine.state.backend = counting
    costs = {}
    for key, first, count in ((b"few", 2, 10), (b"many", 12, 10_000)):
        for share in (0.0, 0.3, 0.6):
            counting.calls.clear()
            number = int(count * share)
            kv = store.get(key, revision=first + number)
            assert kv is not None
            assert kv.value == b"%d" % number
            costs[key, share] = dict(counting.calls)
    assert all(cost == {f"get {LATEST}": 1, f"seek {HISTORY}": 1} for cost in costs.values()), costs


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_past_version_is_found_though_its_seek_sees_an_older_commit_than_the_get(
    scratch: Path, backend: str
) -> None:
    """A checkpoint between two point reads: the first finds it moved, the second does not find it there yet."""

    class Late(Counting):
        def first_value(self, table: str, key: bytes) -> Any:
            return None if key.startswith(b"moved") else super().first_value(table, key)

    with kvstore.open(scratch / "data", backend, background=False, durability="off") as store:
        first = store.put(b"moved", b"old").revision
        store.put(b"moved", b"new")
        store.put(b"neighbour", b"other")
        store.checkpoint()
        late: Any = Late(store.engine.state.backend)
        store.engine.state.backend = late
        kv = store.get(b"moved", revision=first)
        assert kv is not None
        assert kv.value == b"old"
        assert store.get(b"moved", revision=first - 1) is None
        assert store.get(b"neighbour", revision=first) is None


def test_a_range_in_the_past_skips_versions_it_does_not_need(versions: Store) -> None:
    """A range over a key with 10,000 versions reads a few chunks of them, not all."""
    store = versions
    counting: Any = Counting(store.engine.state.backend)
    store.engine.state.backend = counting
    assert [kv.value for kv in store.range(prefix=b"", revision=5000).kvs] == [b"9", b"4988"]
    assert counting.calls[f"rows {HISTORY}"] < 1000


# --- HashKV ----------------------------------------------------------------------------------------

GOLDEN = [
    (4082599214, -1, 35), (2279933401, 35, 106), (3284231217, 106, 177), (126286495, 177, 248),
    (900108730, 248, 319), (2475485232, 319, 390), (1226296507, 390, 461), (2503661030, 461, 532),
    (4155130747, 532, 603), (106915399, 603, 674), (406914006, 674, 745), (1882211381, 745, 816),
    (806177088, 816, 887), (664311366, 887, 958), (1496914449, 958, 1029), (2434525091, 1029, 1100),
    (3988652253, 1100, 1171), (1122462288, 1171, 1242), (724436716, 1242, 1883),
]  # fmt: skip
GOLDEN_AT_NEWEST = {73: 1913897190, 145: 224860069, 217: 1565167519, 2508: 2017735779}


def golden_put(number: int) -> PutRequest:
    names = (b"alice", b"bob", b"celine", b"dominik", b"eve", b"frederica", b"gorge")
    name = b"zenek" if number % 142 == 30 else b"xavery" if number % 71 == 30 else names[number % 7]
    return kvstore.ops.put(name, b"%d" % number)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("move", ["nothing", "checkpoints", "compactions"])
def test_hash_kv_is_that_of_etcd(scratch: Path, backend: str, move: str) -> None:
    """etcd's own golden numbers, wherever the rows lie and whether compacted ones are gone already."""
    found = []
    with kvstore.open(scratch / "data", backend, background=False, durability="off") as store:

        def hash_and_compact(base: int, revision: int, last: bool) -> None:
            if move != "nothing":
                store.checkpoint()
            answer = store.hash_kv(revision)
            found.append((answer.hash, answer.compact_revision, answer.hash_revision))
            if not last:
                store.compact(revision)
                if move == "compactions":
                    store.checkpoint()
                    store.engine.run_compaction()

        for base in range(0, 1210, 71):
            for number in range(base, base + 72):
                store.engine.put(golden_put(number))
            hash_and_compact(base, base + 35, last=False)
        for number in range(1278, 1278 + 1211):
            store.engine.put(golden_put(number))
        hash_and_compact(1278, 1278 + 605, last=True)
    assert found == GOLDEN


@pytest.mark.parametrize("backend", BACKENDS)
def test_hash_kv_at_the_newest_revision_is_that_of_etcd(scratch: Path, backend: str) -> None:
    """The same with every hash and compaction at the newest revision."""
    found = {}
    with kvstore.open(scratch / "data", backend, background=False, durability="off") as store:
        bases = list(range(0, 1210, 71))
        for base in (*bases, 1278):
            for number in range(base, base + (72 if base < 1278 else 1211)):
                store.engine.put(golden_put(number))
            found[store.revision] = store.hash_kv().hash
            store.compact(store.revision)
    assert {revision: found.get(revision) for revision in GOLDEN_AT_NEWEST} == GOLDEN_AT_NEWEST


@pytest.mark.parametrize("backend", BACKENDS)
def test_hash_kv_is_the_same_if_rows_are_sorted_in_a_file(
    scratch: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what a compaction left, only some is in memory at a time."""
    with kvstore.open(scratch / "data", backend, background=False, durability="off") as store:
        for number in range(300):
            store.put(b"k%03d" % (number * 7 % 100), b"%d" % number * 20)
        store.compact(250)
        revisions = (250, 275, store.revision)
        in_memory = [store.hash_kv(revision).hash for revision in revisions]
        monkeypatch.setattr("kvstore.row_sort.RUN_BYTES", 4000)
        monkeypatch.setattr("kvstore.row_sort.BLOCK_BYTES", 600)
        assert [store.hash_kv(revision).hash for revision in revisions] == in_memory


def test_answers_keep_their_form() -> None:
    """``plain`` loses nothing that a comparison needs."""
    kv = kvstore.KeyValue(b"k", b"v", 2, 3, 4, 5)
    assert plain([kv, None]) == [(b"k", b"v", 2, 3, 4, 5), None]
