"""Compaction: what goes, what stays readable, crashes on the way, and the automatic kind."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import Compacted, FutureRevision
from kvstore.files import Disk
from kvstore.model import EventType
from kvstore.mvcc.schema import CHANGES, HISTORY, LATEST, parse_revision, split_history_key
from kvstore.options import BadOption, Options, parse_duration
from kvstore.recovery import open_engine
from kvstore.store import Store
from kvstore.testing.crashes import every_crash
from kvstore.testing.fake_clock import FakeClock
from kvstore.upkeep.retention import PeriodicPolicy, RevisionPolicy, policy
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, open_store, settle

AWKWARD = [b"a", b"a\0", b"a\0\1", b"a\xff", b"\0", b"\xff" * 3, b"l" * 600, b"l" * 600 + b"\0", b"l" * 3000]
TINY: dict[str, Any] = {"compaction_batch_limit": 5, "compaction_sleep_interval_seconds": 0.0}
"""Where more than five changes stay, what goes is deleted in many chunks; else the rest is put back, in one."""


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param, **TINY) as store:
        yield store


def live(store: Store, seed: int, writes: int) -> None:
    """Puts, deletes and transactions over few keys, some awkward; part of it in the backend, part not."""
    rng = random.Random(seed)
    keys = AWKWARD + [b"k%d" % number for number in range(6)]
    for number in range(writes):
        kind = rng.random()
        if kind < 0.6:
            store.put(rng.choice(keys), b"%d" % number)
        elif kind < 0.8:
            store.delete(rng.choice(keys))
        elif kind < 0.9:
            store.txn(success=[kvstore.ops.put(key, b"t%d" % number) for key in rng.sample(keys, 4)])
        else:
            store.delete(prefix=b"a")
        if rng.random() < 0.1:
            settle(store)


def seen(store: Store, first: int) -> dict[int, list[tuple[bytes, bytes, int, int, int]]]:
    """All that can be read at every revision from ``first`` on."""
    return {
        revision: [
            (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version)
            for kv in store.scan(prefix=b"", revision=revision)
        ]
        for revision in range(max(first, 1), store.revision + 1)
    }


def rows(store: Store, table: str) -> list[tuple[bytes, bytes]]:
    with store.engine.backend.read() as tx:
        return tx.scan(table)


def check_swept(store: Store, mark: int) -> None:
    """Nothing in the backend that no kept revision needs."""
    assert all(parse_revision(key)[0] >= mark for key, _ in rows(store, CHANGES))
    assert all(split_history_key(key)[1] > mark for key, _ in rows(store, HISTORY))
    assert store.engine.compaction.debt_revisions == 0
    assert store.engine.state.compact_finished == mark


# --- what goes and what stays -------------------------------------------------------------


@pytest.mark.parametrize("chunk_rows", [5, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_every_kept_revision_reads_as_before(store: Store, seed: int, chunk_rows: int) -> None:
    """Step by step through a random history: reads from the mark on are the same, the rest is refused and gone."""
    store.engine.options = replace(store.engine.options, compaction_batch_limit=chunk_rows)
    live(store, seed, 120)
    rng = random.Random(seed)
    mark = 0
    while mark < store.revision:
        mark = rng.randint(mark + 1, min(mark + 40, store.revision))
        before = seen(store, mark)
        store.compact(mark)
        hash_before = store.hash_kv().hash
        if rng.random() < 0.5:
            store.engine.run_compaction()
        assert seen(store, mark) == before
        store.engine.run_compaction()
        assert seen(store, mark) == before
        assert store.hash_kv().hash == hash_before
        check_swept(store, mark)
        if mark > 1:
            with pytest.raises(Compacted):
                store.get(b"a", revision=mark - 1)


def test_a_hot_key_and_many_cold_ones(store: Store) -> None:
    """Three hundred versions of one key go in several chunks; the cold keys' single versions stay."""
    for number in range(30):
        store.put(b"cold%d" % number, b"v")
    for number in range(300):
        store.txn(success=[kvstore.ops.put(b"hot", b"%d" % number)])
    store.compact(store.revision, physical=True)
    assert len(rows(store, HISTORY)) == 0
    assert len(rows(store, LATEST)) == 31
    assert [kv.value for kv in store.history(b"hot")] == [b"299"]


def test_where_little_stays_it_goes_in_one_step(store: Store) -> None:
    """Of a long history only the last changes are kept: everything else goes in one commit."""
    live(store, 4, 200)
    store.put(b"last", b"v")
    store.put(b"last", b"w")
    mark = store.revision - 1
    before = seen(store, mark)
    store.compact(mark)
    settle(store)
    assert store.engine.compaction.step() is True
    check_swept(store, mark)
    assert seen(store, mark) == before
    assert (len(rows(store, CHANGES)), len(rows(store, HISTORY))) == (2, 1)
    assert store.engine.compaction.step() is False


def test_one_revision_larger_than_a_chunk(store: Store) -> None:
    """A delete of many keys at the mark is swept in pieces, and each of its events stays for a watch."""
    for number in range(40):
        store.put(b"k%02d" % number, b"v")
    mark = store.delete(prefix=b"k").revision
    store.compact(mark, physical=True)
    check_swept(store, mark)
    assert len(rows(store, CHANGES)) == 40
    with store.watch(prefix=b"k", start_revision=mark) as events:
        found = [events.get(TIMEOUT_SECONDS) for _ in range(40)]
    assert {event.type for event in found} == {EventType.DELETE}
    store.put(b"after", b"v")
    store.compact(store.revision, physical=True)
    assert len(rows(store, CHANGES)) == 1


def test_18089_a_delete_at_the_mark_is_kept_for_watches(store: Store) -> None:
    """A watch from the compaction revision still sees the delete that happened there."""
    store.put(b"k", b"v")
    mark = store.delete(b"k").revision
    store.put(b"other", b"v")
    store.compact(mark, physical=True)
    with store.watch(b"k", start_revision=mark) as events:
        event = events.get(TIMEOUT_SECONDS)
    assert (event.type, event.kv.mod_revision) == (EventType.DELETE, mark)


def test_bounds(store: Store) -> None:
    """Twice, backwards, or into the future is refused; the newest revision and, at first, 0 are allowed."""
    assert store.compact(0).revision == 1
    with pytest.raises(Compacted):
        store.compact(0)
    store.put(b"k", b"v")
    store.compact(store.revision)
    with pytest.raises(Compacted):
        store.compact(store.revision)
    with pytest.raises(FutureRevision):
        store.compact(store.revision + 1)


def test_a_view_that_was_open_reads_on(store: Store) -> None:
    """A backend view opened before the sweep still holds the rows that the sweep deletes."""
    for number in range(20):
        store.put(b"k", b"%d" % number)
    settle(store)
    with store.engine.backend.read() as tx:
        before = tx.scan(HISTORY)
        store.compact(store.revision, physical=True)
        assert tx.scan(HISTORY) == before != []
    assert rows(store, HISTORY) == []


def test_a_scan_from_below_the_mark_ends_with_compacted(store: Store) -> None:
    """A lazy scan at a revision that is compacted on the way raises; it never skips rows silently."""
    for number in range(30):
        store.put(b"k%02d" % number, b"1")
    revision = store.revision
    for number in range(30):
        store.put(b"k%02d" % number, b"2")
    found = store.scan(prefix=b"k", revision=revision, page_rows=5)
    assert [next(found).value for _ in range(5)] == [b"1"] * 5
    store.compact(store.revision, physical=True)
    with pytest.raises(Compacted):
        list(found)


def test_nothing_is_swept_before_it_is_in_the_backend(store: Store) -> None:
    """Without a checkpoint of the mark there is nothing to do."""
    live(store, 1, 30)
    store.compact(store.revision)
    assert store.engine.compaction.step() is False
    settle(store)
    assert store.engine.compaction.step() is True


# --- numbers -----------------------------------------------------------------------------


def test_the_estimate_is_what_happens(store: Store) -> None:
    """As many rows as were estimated are deleted, and estimating deletes none."""
    live(store, 3, 150)
    settle(store)
    deleted = 0
    for mark in range(store.revision - 60, store.revision + 1, 12):
        counts = len(rows(store, CHANGES)), len(rows(store, HISTORY))
        estimate = store.compaction_estimate(mark)
        assert (len(rows(store, CHANGES)), len(rows(store, HISTORY))) == counts
        store.compact(mark, physical=True)
        assert counts[0] - len(rows(store, CHANGES)) == estimate.changes
        assert counts[1] - len(rows(store, HISTORY)) == estimate.versions
        deleted += estimate.changes + estimate.versions
        assert store.engine.compaction.rows_deleted == deleted
    with pytest.raises(kvstore.Compacted):
        store.compaction_estimate(mark)
    with pytest.raises(kvstore.FutureRevision):
        store.compaction_estimate(store.revision + 1)


def test_debt_falls_to_nothing(store: Store) -> None:
    """The debt is the span of revisions still to delete; it never grows while the sweep goes on."""
    for number in range(100):
        store.put(b"k%d" % (number % 7), b"v")
    store.compact(store.revision - 10)
    settle(store)
    debts = [store.engine.compaction.debt_revisions]
    while store.engine.compaction.step():
        debts.append(store.engine.compaction.debt_revisions)
    assert debts[0] >= 88
    assert debts == sorted(debts, reverse=True)
    assert debts[-1] == 0 and len(debts) > 3


def test_progress_is_told(store: Store) -> None:
    """A run tells how many of how many revisions are done, up to all of them."""
    for number in range(50):
        store.put(b"k", b"%d" % number)
    store.compact(store.revision - 10)
    settle(store)
    told: list[tuple[int, int]] = []
    store.engine.compaction.run(lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)


# --- crashes -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
@pytest.mark.parametrize(("steps", "kept"), [(0, 0), (0, 10), (1, 0), (1, 10), (3, 10), (8, 10)])
def test_17780_a_sweep_goes_on_after_a_crash(tmp_path: Path, backend: str, steps: int, kept: int) -> None:
    """Wherever it was interrupted: the revision does not go back, reads stay the same, the rest is swept at open."""
    with open_store(tmp_path, backend, **TINY) as store:
        live(store, 5, 80)
        store.delete(prefix=b"")
        revision, mark = store.revision, store.revision - kept
        store.compact(mark)
        settle(store)
        before = seen(store, mark)
        for _ in range(steps):
            store.engine.compaction.step()
        shutil.copytree(tmp_path / "data", tmp_path / "crashed" / "data")
    with open_store(tmp_path / "crashed", backend, **TINY) as store:
        assert (store.revision, store.compact_revision) == (revision, mark)
        assert seen(store, mark) == before
        store.engine.background.tend_upkeep()
        check_swept(store, mark)
        assert seen(store, mark) == before
        assert store.put(b"next", b"v").revision == revision + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_power_cuts(tmp_path: Path, backend: str) -> None:
    """A power cut in any call: the mark is there if it was acknowledged, and nothing kept is missing."""
    start = tmp_path / "start"
    with open_store(start, backend, **TINY) as store:
        live(store, 9, 60)
        mark = store.revision - 5
        before = seen(store, mark)

    def work(disk: Disk, directory: Path, acknowledge: Callable[[Any], None]) -> None:
        options = Options(backend=backend, background=False, **TINY)
        store = Store(open_engine(directory / "data", options, disk))
        try:
            store.compact(mark, physical=True)
            acknowledge(mark)
        finally:
            store.close()

    crashes = 0
    for crash in every_crash(tmp_path / "runs", work, chances=2, start=start):
        crashes += 1
        with open_store(crash.directory, backend, **TINY) as store:
            assert store.compact_revision in ((mark,) if crash.acknowledged else (-1, mark)), crash
            assert seen(store, mark) == before, crash
            store.engine.run_compaction()
            assert seen(store, mark) == before, crash
    assert crashes > 5


def test_the_background_sweeps(tmp_path: Path) -> None:
    """With background work on, the rows go although nobody asked for a physical compaction."""
    with kvstore.open(tmp_path / "data", backend_batch_interval_seconds=0.01) as store:
        for number in range(50):
            store.put(b"k", b"%d" % number)
        store.compact(store.revision)
        for _ in range(1000):
            if store.engine.state.compact_finished == store.revision:
                break
            time.sleep(0.02)
        check_swept(store, store.revision)


# --- automatic ---------------------------------------------------------------------------


def test_retention_texts() -> None:
    """Hours, durations and numbers of revisions as etcd writes them; anything else is refused."""
    assert [parse_duration(text) for text in ("10m", "1h30m", "1.5s", "100ms")] == [600.0, 5400.0, 1.5, 0.1]
    for bad in ("", "10", "m", "10x", "-5m", "1h 30m"):
        with pytest.raises(BadOption):
            parse_duration(bad)
    assert (
        policy("periodic", "0", 0.0, 1)
        is policy("revision", "0", 0.0, 1)
        is policy("periodic", "0s", 0.0, 1)
        is None
    )
    assert isinstance(policy("periodic", "1", 0.0, 1), PeriodicPolicy)
    assert isinstance(policy("revision", "1000", 0.0, 1), RevisionPolicy)
    with pytest.raises(BadOption):
        policy("revision", "10m", 0.0, 1)


def compactions(chosen: PeriodicPolicy | RevisionPolicy, seconds: int, step: int) -> list[tuple[int, int]]:
    """(time, revision) of what a policy asks for, when each second writes one revision."""
    found = []
    for now in range(step, seconds, step):
        revision = chosen.due(float(now), now)
        if revision:
            chosen.done(float(now), revision)
            found.append((now, revision))
    return found


def test_periodic_with_a_short_period() -> None:
    """The first compaction comes after the period, the next ones each period; each to a period and a tick ago."""
    assert compactions(PeriodicPolicy(600.0, 0.0, 1), 2000, 1) == [(600, 1), (1200, 540), (1800, 1140)]


def test_periodic_with_a_long_period() -> None:
    """Beyond an hour compactions come hourly, still to a period and a tick ago."""
    found = compactions(PeriodicPolicy(5 * 3600.0, 0.0, 1), 8 * 3600 + 1, 60)
    assert [(now // 3600, revision // 3600) for now, revision in found] == [(5, 0), (6, 0), (7, 1), (8, 2)]


def test_periodic_tries_again_after_a_failure() -> None:
    """A compaction that failed is due again an interval after the last success, that is at the next tick."""
    chosen = PeriodicPolicy(600.0, 0.0, 1)
    asked = [now for now in range(1, 800) if chosen.due(float(now), now)]
    assert asked == [600, 660, 720, 780]


def test_revision_mode() -> None:
    """Every five minutes, to as many revisions ago as are kept; not when nothing was written."""
    assert compactions(RevisionPolicy(100, 0.0), 1000, 1) == [(300, 200), (600, 500), (900, 800)]
    idle = RevisionPolicy(10, 0.0)
    assert idle.due(300.0, 50) == 40
    idle.done(300.0, 40)
    assert idle.due(600.0, 50) == 0
    assert RevisionPolicy(100, 0.0).due(300.0, 100) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_compacts_itself(tmp_path: Path, backend: str) -> None:
    """With a retention set, what is older goes, by the store's clock."""
    clock = FakeClock()
    options = {"clock": clock, "auto_compaction_mode": "revision", "auto_compaction_retention": "10"}
    with open_store(tmp_path, backend, **options) as store:
        for number in range(50):
            store.put(b"k", b"%d" % number)
        store.engine.background.tend_upkeep()
        assert store.compact_revision == -1
        clock.advance(300)
        store.engine.background.tend_upkeep()
        assert store.compact_revision == store.revision - 10
        settle(store)
        store.engine.background.tend_upkeep()
        check_swept(store, store.revision - 10)
        clock.advance(300)
        store.engine.background.tend_upkeep()  # nothing new: no compaction, no error
        assert store.compact_revision == store.revision - 10


def test_a_bad_retention_is_refused_at_open(tmp_path: Path) -> None:
    """A text that means nothing is an error of its own, and leaves the store unlocked."""
    with pytest.raises(BadOption):
        open_store(tmp_path, "lmdb", auto_compaction_retention="soon")
    open_store(tmp_path, "lmdb").close()
