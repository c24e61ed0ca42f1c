"""The one place where log entries meet a state: nothing is skipped or taken twice, and it stops in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.backend import Backend, find_backend
from kvstore.errors import Corruption
from kvstore.model import PutRequest
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.plan import Planner
from kvstore.mvcc.schema import META, META_CLOSED_MS, TABLES, parse_u64
from kvstore.mvcc.state import State
from kvstore.replay import Point, apply_log
from kvstore.wal.format import Batch

BATCH_ENTRIES = 3
BACKENDS = ("lmdb", "sqlite", "memory")
Open = Callable[[str], Backend]


@pytest.fixture(params=BACKENDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Makes empty backends of one kind, by name."""
    found: list[Backend] = []

    def open_backend(name: str) -> Backend:
        found.append(find_backend(request.param).open(tmp_path / name, TABLES))
        return found[-1]

    yield open_backend
    for backend in found:
        backend.close()


def logged(backend: Backend, batches: int) -> list[Batch]:
    """A log of puts, three entries a batch: entry n writes revision n+1, batch n is of the time 100 * n ms."""
    planner = Planner(State(backend), Lessor(), lambda: 0, 1)
    log = []
    for number in range(batches):
        entries = []
        for index in range(BATCH_ENTRIES):
            entry = planner.plan(PutRequest(b"key-%d" % (index % 2), bytes(1000))).entry
            assert entry is not None
            entries.append(entry)
        log.append(Batch(1 + number * BATCH_ENTRIES, 100 * (number + 1), entries))
    return log


def rows(backend: Backend) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that the backend holds, but for the time of its last checkpoint."""
    with backend.read() as tx:
        return {table: [row for row in tx.scan(table) if row[0] != META_CLOSED_MS] for table in TABLES}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ((0, 2), "log entry 7 follows entry 3"),
        ((0, 0), "log entry 1 follows entry 3"),
        ((1,), "log entry 4 follows entry 0"),
    ],
)
def test_entries_that_do_not_follow_each_other_are_damage(
    opened: Open, order: tuple[int, ...], reason: str
) -> None:
    """A gap or a repetition is refused before any of it is taken in, with the last good revision."""
    log = logged(opened("log"), 3)
    state = State(opened("state"))
    with pytest.raises(Corruption, match=reason) as caught:
        apply_log([log[number] for number in order], state, Lessor())
    good = len(order) - 1
    assert (state.index, state.head) == (good * BATCH_ENTRIES, 1 + good * BATCH_ENTRIES)
    assert caught.value.last_good_revision == state.head


@pytest.mark.parametrize(
    ("until", "index", "time_ms"),
    [
        (None, 9, 300),
        (Point(), 9, 300),
        (Point(revision=6), 5, 200),
        (Point(index=5), 5, 200),
        (Point(revision=7), 6, 200),
        (Point(time_ms=200), 6, 200),
        (Point(time_ms=199), 3, 100),
        (Point(time_ms=99), 0, 0),
        (Point(revision=99), 9, 300),
    ],
)
def test_replay_stops_where_it_is_told(opened: Open, until: Point | None, index: int, time_ms: int) -> None:
    """After the entry of a revision or an index, also in mid-batch; before the first batch that is later."""
    state = State(opened("state"))
    assert apply_log(logged(opened("log"), 3), state, Lessor(), until=until) == time_ms
    assert (state.index, state.head) == (index, index + 1)


def test_checkpoints_on_the_way_change_nothing_but_the_memory_that_is_taken(opened: Open) -> None:
    """With a limit of less than a batch, each batch is in the backend before the next is taken in."""
    log = logged(opened("log"), 5)
    at_once, step_by_step = State(opened("at once")), State(opened("step by step"))
    waiting: list[tuple[int, int]] = []

    def watched() -> Iterator[Batch]:
        for batch in log:
            yield batch
            waiting.append((step_by_step.waiting_bytes, step_by_step.applied_index))

    apply_log(log, at_once, Lessor())
    assert at_once.applied_index == 0
    write_now(at_once, 500)
    apply_log(watched(), step_by_step, Lessor(), checkpoint_bytes=2000)
    assert waiting == [(0, 3 * number) for number in range(1, 6)]
    assert rows(at_once.backend) == rows(step_by_step.backend)


def test_a_checkpoint_in_place_leaves_the_state_as_if_it_had_been_read_anew(opened: Open) -> None:
    """Marks, revisions and the empty generation are those of a state of the same backend."""
    state = State(opened("state"))
    apply_log(logged(opened("log"), 2), state, Lessor())
    write_now(state, 1234)
    anew = State(state.backend)
    for name in ("index", "applied_index", "head", "backend_revision", "head_compacted", "waiting_bytes"):
        assert getattr(state, name) == getattr(anew, name), name
    assert state.frozen is None and not state.active.changes
    assert parse_u64(state.backend.get(META, META_CLOSED_MS)) == 1234
