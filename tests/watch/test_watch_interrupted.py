"""A watch whose consumer is interrupted at any step, forgotten, or out of luck: nothing stays, no event is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AsyncStore
from kvstore.errors import Reentered
from kvstore.model import Event, WatchRequest
from kvstore.store import Store
from kvstore.watch import CallbackWatch
from tests.harness.line_steps import Interruption, every_step, raise_at
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, hub_of, open_store, revisions, settle, take


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


@pytest.fixture(params=["lmdb", "sqlite"])
def on_disk(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


interrupted = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""What a finalizer is interrupted by, Python only reports."""


def changed(store: Store) -> list[tuple[int, bytes]]:
    """Some revisions with one change, some with many, a delete of many; what was changed, in order."""
    told = []
    for number in range(4):
        told.append((store.put(b"k%d" % number, b"v").revision, b"k%d" % number))
        keys = [b"k%d/%d" % (number, sub) for sub in range(5)]
        revision = store.txn(success=[kvstore.ops.put(key, b"%d" % number) for key in keys]).revision
        told += [(revision, key) for key in keys]
    gone = sorted(key for _, key in told if key.startswith(b"k2"))
    told += [(store.delete(prefix=b"k2").revision, key) for key in gone]
    return told


def names(events: Any) -> list[tuple[int, bytes]]:
    return [(event.kv.mod_revision, event.kv.key) for event in events]


# --- a position after each event ----------------------------------------------------------


@pytest.mark.parametrize("prev_kv", [False, True])
@pytest.mark.parametrize("settled", [False, True])
def test_a_watch_goes_on_behind_any_event(store: Store, settled: bool, prev_kv: bool) -> None:
    """Cut after every event, also in the middle of a revision, and resumed: nothing is lost, nothing comes twice."""
    told = changed(store)
    if settled:
        settle(store)
    for count in range(len(told) + 1):
        with store.watch(prefix=b"k", start_revision=1, prev_kv=prev_kv) as events:
            seen = names(take(events, count))
            position = json.loads(json.dumps(events.resume))
            assert events.revision < position[0]
        with store.watch(prefix=b"k", resume=position, prev_kv=prev_kv) as events:
            assert tuple(events.resume) == tuple(position)
            seen += names(take(events, len(told) - count))
            with pytest.raises(TimeoutError):
                events.get(0)
        assert seen == told


def test_a_live_watch_goes_on_behind_any_event(store: Store) -> None:
    """The same of a watch that is handed its events live, resumed again and again in one go."""
    with store.watch(prefix=b"") as probe:
        first = probe.resume
        told = changed(store)
        seen: list[tuple[int, bytes]] = []
        position = first
        while len(seen) < len(told):
            with store.watch(prefix=b"k", resume=position) as events:
                seen += names(take(events, 1))
                position = events.resume
        assert seen == told
        assert names(take(probe, len(told))) == told
    assert position == (store.revision + 1, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_asynchronous_watch_goes_on_behind_any_event(tmp_path: Path, backend: str) -> None:
    """The same for a task, whose watch reads in a thread and is handed live events on the loop."""

    async def main(store: AsyncStore, told: list[tuple[int, bytes]]) -> None:
        for count in range(len(told) + 1):
            async with store.watch(prefix=b"k", start_revision=1) as events:
                seen = names([await anext(events) for _ in range(count)])
                position = events.resume
            async with store.watch(prefix=b"k", resume=position) as events:
                seen += names([await anext(events) for _ in range(len(told) - count)])
            assert seen == told

    with open_store(tmp_path, backend) as store:
        asyncio.run(main(shared := AsyncStore(store.engine), changed(store)))
    assert shared.revision == store.revision


def test_the_revision_of_a_watch_never_runs_ahead_of_its_events(store: Store) -> None:
    """``revision + 1`` may repeat events of a revision that was cut, and loses none."""
    told = changed(store)
    for count in range(len(told)):
        with store.watch(prefix=b"k", start_revision=1) as events:
            seen = names(take(events, count))
        with store.watch(prefix=b"k", start_revision=events.revision + 1) as rest:
            behind = names(take(rest, len([one for one in told if one[0] > events.revision])))
        assert sorted({*seen, *behind}) == sorted(told)


def test_a_position_in_another_range_or_with_filters(store: Store) -> None:
    """A position counts the changes of its revision, not the events that one watch has seen of it."""
    told = changed(store)
    with store.watch(prefix=b"k1/", start_revision=1) as events:
        take(events, 2)
        position = events.resume
    with store.watch(prefix=b"k", resume=position) as rest:
        behind = [one for one in told if one > (position.revision, b"k1/1")]
        assert names(take(rest, len(behind))) == behind
    with store.watch(prefix=b"k", resume=position, no_put=True) as rest:
        deletes = [one for one in behind if one[0] == told[-1][0]]
        assert names(take(rest, len(deletes))) == deletes


def test_a_position_that_a_compaction_has_passed_is_told_so(store: Store) -> None:
    """Compacted, whichever event of the revision it stands at; at the compaction itself it goes on."""
    told = changed(store)
    with store.watch(prefix=b"k", start_revision=1) as events:
        take(events, 3)
        position = events.resume
    assert position == (3, 2)
    store.compact(3)
    with store.watch(prefix=b"k", resume=position) as rest:
        assert names(take(rest, len(told) - 3)) == told[3:]
    store.compact(4, physical=True)
    with (
        store.watch(prefix=b"k", resume=position) as rest,
        pytest.raises(kvstore.Compacted) as caught,
    ):
        next(rest)
    assert caught.value.compact_revision == 4


def test_what_is_left_of_a_response_comes_whole(store: Store) -> None:
    """Events one by one and responses may be mixed: the rest of a response is a response."""
    store.txn(success=[kvstore.ops.put(b"k%d" % number) for number in range(5)])
    store.put(b"k", b"v")
    with store.watch(prefix=b"k", start_revision=1) as events:
        assert names(take(events, 2)) == [(2, b"k0"), (2, b"k1")]
        response = events.get_response(TIMEOUT_SECONDS)
        assert names(response.events) == [(2, b"k2"), (2, b"k3"), (2, b"k4"), (3, b"k")]
        assert events.resume == (4, 0)


@pytest.mark.parametrize("taken", [0, 1, 63, 64, 65, 100, 128, 129, 149, 150])
def test_a_long_response_is_handed_out_a_part_at_a_time(store: Store, taken: int) -> None:
    """Wherever a part ends, the position is exact, and what is left comes whole or one by one."""
    store.txn(success=[kvstore.ops.put(b"k%03d" % number) for number in range(100)])
    store.txn(success=[kvstore.ops.put(b"k%03d" % number) for number in range(50)])
    told = [(2, b"k%03d" % number) for number in range(100)] + [
        (3, b"k%03d" % number) for number in range(50)
    ]
    with store.watch(prefix=b"k", start_revision=1) as events:
        assert names(take(events, taken)) == told[:taken]
        left_at = (told[taken][0], taken % 100) if 0 < taken < 150 else (4, 0) if taken else (1, 0)
        assert events.resume == left_at
        with store.watch(prefix=b"k", resume=events.resume) as again:
            assert names(take(again, 150 - taken)) == told[taken:]
        if taken < 150:
            rest = events.get_response(TIMEOUT_SECONDS)
            assert names(rest.events) == told[taken : taken + len(rest.events)]
            assert names(take(events, 150 - taken - len(rest.events))) == told[taken + len(rest.events) :]
        assert events.resume == (4, 0)
        store.put(b"k", b"v")
        assert names(take(events, 1)) == [(4, b"k")]


@pytest.mark.parametrize("resume", [3, (1,), (1, 2, 3), ("a", 0), b"12", (1.5, 0)])
def test_a_position_is_two_numbers(store: Store, resume: Any) -> None:
    """Anything else is refused, and so is a start beside it."""
    with pytest.raises(TypeError, match="resume"):
        store.watch(prefix=b"k", resume=resume)
    with pytest.raises(TypeError, match="resume"):
        store.watch(prefix=b"k", resume=(2, 0), start_revision=2)


# --- interrupted at every step ------------------------------------------------------------


def watched(store: Store) -> None:
    """What a consumer does: begin, read what was, be handed what is, end."""
    with store.watch(prefix=b"k", start_revision=1) as events:
        for _ in zip(range(8), events, strict=False):
            pass


@interrupted
def test_a_watch_interrupted_at_any_line_leaves_nothing(on_disk: Store) -> None:
    """Its making, reading, or closing: afterwards watches and writes work, and none is left."""
    store = on_disk
    others = set(threading.enumerate())
    changed(store)
    for steps in every_step(lambda: watched(store), Interruption):
        assert steps.outcome is None or isinstance(steps.outcome, Interruption), steps.acted_in
        with store.watch(prefix=b"k") as events:
            revision = store.put(b"k", b"v").revision
            assert events.get(TIMEOUT_SECONDS).kv.mod_revision == revision, steps.acted_in
        assert hub_of(store).watchers == 0, steps.acted_in
        ours = set(threading.enumerate()) - others
        assert len([thread for thread in ours if thread.name == "kvstore-watch"]) == 1


@interrupted
def test_a_first_watch_interrupted_at_any_line(tmp_path: Path) -> None:
    """The one that makes the hub and begins its thread."""
    number = 0

    def first_watch(store: Store) -> None:
        with store.watch(prefix=b"k"):
            pass

    while True:
        number += 1
        with open_store(tmp_path / str(number), "memory") as store:
            with raise_at(number) as steps:
                try:
                    first_watch(store)
                except Interruption:
                    pass
            with store.watch(prefix=b"k") as events:
                store.put(b"k", b"v")
                assert events.get(TIMEOUT_SECONDS).kv.mod_revision == 2, steps.acted_in
        if steps.acted_in is None:
            break
    assert number > 50


@interrupted
@pytest.mark.parametrize("settled", [False, True])
def test_an_iteration_interrupted_at_any_line_goes_on(on_disk: Store, settled: bool) -> None:
    """``next`` is interrupted at one step after the other: the events that come are all there are, each once."""
    store = on_disk
    told = changed(store)
    if settled:
        settle(store)
    for turn in (1, 8):  # so many events before the one whose taking is interrupted
        watches: list[Any] = []

        def begin(turn: int = turn, watches: list[Any] = watches) -> Any:
            events = watches[-1]
            return events.get(TIMEOUT_SECONDS)

        def fresh(watches: list[Any] = watches, turn: int = turn) -> Any:
            events = store.watch(prefix=b"k", start_revision=1)
            watches.append(events)
            return names(take(events, turn))

        seen = fresh()
        for steps in every_step(begin, Interruption):
            events = watches[-1]
            if steps.acted_in is None:
                break
            if steps.in_finalizer and isinstance(steps.outcome, Event):  # which Python reports, and goes on
                seen += names([steps.outcome])
            seen += names(take(events, len(told) - len(seen)))
            with pytest.raises(TimeoutError):
                events.get(0)
            assert seen == told, steps.acted_in
            events.close()
            seen = fresh()
        watches[-1].close()


def test_a_signal_handler_may_use_the_watch_it_interrupts(store: Store) -> None:
    """It is served, or told that it cannot be; the interrupted read goes on."""
    told = changed(store)
    answers: list[Any] = []

    def handler(*_: object) -> None:
        for call in (lambda: store.put(b"other"), lambda: events.get(0), lambda: store.watch(b"k").close()):
            try:
                answers.append(call())
            except (Reentered, TimeoutError) as error:
                answers.append(error)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        events = store.watch(prefix=b"k", start_revision=1)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(TimeoutError):
            while True:
                events.get(0.3)
    finally:
        signal.signal(signal.SIGALRM, before)
    events.close()
    assert len(answers) == 3
    assert store.get(b"other") is not None
    assert told


def test_closing_inside_a_read_of_the_watch_ends_it(tmp_path: Path) -> None:
    """The store is closed by a signal handler while its watch waits: the iteration ends with StoreClosed."""
    store = open_store(tmp_path, "lmdb")
    before = signal.signal(signal.SIGALRM, lambda *_: store.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(kvstore.StoreClosed):
            store.watch(prefix=b"k").get(TIMEOUT_SECONDS)
    finally:
        signal.signal(signal.SIGALRM, before)


# --- forgotten ----------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_watch_that_is_dropped_goes_on_a_quiet_range(store: Store) -> None:
    """Nobody writes what it watches: it goes with the last reference, without waiting for the collector."""
    gc.disable()
    try:
        for number in range(20):
            store.watch(prefix=b"quiet/%d" % number)
            stream = store.watch_stream()
            stream.create(WatchRequest(b"quiet"))
            del stream
        assert store.status().watchers == store.status().watch_streams == 0
    finally:
        gc.enable()
    with store.watch(prefix=b"k"):
        until(lambda: len(hub_of(store)._index) == 1)
        assert len(hub_of(store)._mailboxes) == 1


def test_a_poll_that_times_out_leaves_no_watch(tmp_path: Path) -> None:
    """``wait_for`` on a watch that is then forgotten, from tasks."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "lmdb") as store:
            for number in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(store.watch(prefix=b"quiet/%d" % number)), 0.001)
            async with asyncio.timeout(TIMEOUT_SECONDS):  # the loop may hold the last one for a turn
                while (await store.status()).watchers:
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_a_watch_left_by_a_time_limit_is_nothing_to_report(tmp_path: Path) -> None:
    """asyncio finds no exception that nobody has looked at, whenever the limit strikes."""
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with kvstore.open_async(tmp_path / "data", "lmdb") as store:
            for number in range(100):
                await store.put(b"k", b"%d" % number)
            for number in range(60):
                try:
                    async with (
                        asyncio.timeout(0.0005 * (number % 8)),
                        store.watch(prefix=b"k", start_revision=2) as events,
                    ):
                        async for _ in events:
                            await asyncio.sleep(0)
                except TimeoutError:
                    pass
            gc.collect()

    asyncio.run(main())
    gc.collect()
    assert told == []


def test_a_finalizer_may_end_a_watch_wherever_it_runs(store: Store) -> None:
    """Watches are closed in finalizers while the same thread makes, reads and closes others."""

    class Holder:
        def __init__(self) -> None:
            self.events = store.watch(prefix=b"k")
            self.itself = self

        def __del__(self) -> None:
            self.events.close()

    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for number in range(40):
            Holder()
            with store.watch(prefix=b"k", start_revision=1) as events:
                store.put(b"k", b"%d" % number)
                take(events, number + 1)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert store.status().watchers == 0


# --- out of luck --------------------------------------------------------------------------


def test_no_thread_for_the_hub(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error that says to try again; later watches work, and nothing of the refused ones is left."""
    import _thread

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    for make in (lambda: store.watch(b"k"), store.watch_stream, lambda: store.watch(b"k", callback=print)):
        with pytest.raises(kvstore.NoThread) as caught:
            make()
        assert caught.value.retryable
    monkeypatch.undo()
    assert store.status().watchers == 0
    with store.watch(b"k") as events:
        store.put(b"k", b"v")
        assert events.get(TIMEOUT_SECONDS).kv.value == b"v"
        monkeypatch.setattr(threading.Thread, "start", refuse)
        monkeypatch.setattr(_thread, "start_new_thread", refuse)
        with pytest.raises(kvstore.NoThread):
            store.watch(b"k", callback=print)
        monkeypatch.undo()
        assert store.status().watchers == 1


@pytest.mark.parametrize("place", ["_route", "_hand_out", "_admit", "_pending", "offer", "ring"])
def test_a_delivery_that_fails_is_made_up_for(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory at any place of the hub's thread: its watches read the store, and miss nothing."""
    from kvstore.bell import Bell
    from kvstore.watch import hub as hubs
    from kvstore.watch.watcher import Watcher

    where: Any
    where, name = {
        "offer": (Watcher, "offer"),
        "ring": (Bell, "ring"),
        "_pending": (hubs, "_pending_changes"),
    }.get(place, (hubs.Hub, place))
    right = getattr(where, name)
    failures = []

    def fail_now_and_then(*arguments: Any) -> Any:
        if threading.current_thread().name == "kvstore-watch":
            failures.append(place)
            if len(failures) % 3 == 1 and len(failures) < 20:
                raise MemoryError
        return right(*arguments)

    monkeypatch.setattr(where, name, fail_now_and_then)
    with store.watch(prefix=b"k") as events, store.watch(b"k3") as other:
        for number in range(30):
            store.put(b"k%d" % (number % 5), b"v")
        assert revisions(take(events, 30)) == list(range(2, 32))
        assert revisions(take(other, 6)) == [5 + 5 * turn for turn in range(6)]
    assert failures


def test_a_callback_that_raises_ends_its_watch_alone(store: Store) -> None:
    """Whatever it raises is its watch's error; others go on."""

    class Odd(BaseException):
        pass

    def fail(_: object) -> None:
        raise Odd

    with store.watch(prefix=b"k") as events, store.watch(prefix=b"k", callback=fail) as failing:
        assert isinstance(failing, CallbackWatch)
        store.put(b"k", b"1")
        assert failing.wait(TIMEOUT_SECONDS)
        assert isinstance(failing.error, Odd)
        store.put(b"k", b"2")
        assert revisions(take(events, 2)) == [2, 3]
        assert store.status().watchers == 1
