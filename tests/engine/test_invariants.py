"""The invariants that are checked at run time: each is on in tests, and each sees a fault."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import kvstore
from kvstore import invariants
from kvstore.engine import LocalEngine
from kvstore.invariants import InvariantBroken
from kvstore.keyvalue import encode_key_value
from kvstore.model import PutRequest
from kvstore.mvcc import effects, plan, puts
from kvstore.mvcc.overlay import Generation
from kvstore.store import Store


@pytest.fixture
def store(scratch: Path) -> Store:
    return kvstore.open(scratch / "data", background=False, durability="off")


def engine_of(store: Store) -> LocalEngine:
    assert isinstance(store.engine, LocalEngine)
    return store.engine


def publish_backwards(engine: LocalEngine) -> None:
    engine.state.publish(1, engine.state.compacted)


def forget_a_compaction(engine: LocalEngine) -> None:
    engine.state.publish(engine.state.published, -2)


def drop_before_the_commit(engine: LocalEngine) -> None:
    with engine.writer.still():
        engine.state.committed(engine.state.freeze())


def sweep_too_far(engine: LocalEngine) -> None:
    engine.state.swept(engine.state.head + 1)


def publish_what_is_not_logged(engine: LocalEngine) -> None:
    ticket = engine.submit(PutRequest(b"k", b"v"))
    with engine.writer._lead:
        engine.writer._publish(ticket)


def publish_without_the_lead(engine: LocalEngine) -> None:
    engine.writer._publish(engine.submit(PutRequest(b"k", b"v")))


def delete_what_is_not_there(engine: LocalEngine) -> None:
    engine.state.change((engine.state.head, 9, b"never", None))
    engine.submit(PutRequest(b"k", b"v"))
    engine.checkpoint()


def release_what_is_needed(engine: LocalEngine) -> None:
    segments = [segment.path for segment in engine.core.log.segments()]
    engine.snapshots._check_released(segments, covered=0)


FAULTS: list[tuple[str, Callable[[LocalEngine], None]]] = [
    ("invariant 2:", publish_backwards),
    ("invariant 7:", forget_a_compaction),
    ("invariant 3:", drop_before_the_commit),
    ("invariant 8:", sweep_too_far),
    ("invariant 1:", publish_what_is_not_logged),
    ("the lead is not held", publish_without_the_lead),
    ("invariant 11:", delete_what_is_not_there),
    ("invariant 5:", release_what_is_needed),
]


@pytest.mark.parametrize(("said", "fault"), FAULTS, ids=[fault.__name__ for _, fault in FAULTS])
def test_a_fault_is_seen(store: Store, said: str, fault: Callable[[LocalEngine], None]) -> None:
    """Each is seen where it happens, and named by its number in ARCHITECTURE.md."""
    store.put(b"k", b"v")
    with pytest.raises(InvariantBroken, match=said):
        fault(engine_of(store))
    engine_of(store).life.poison(OSError(5, "planted"))
    store.close()


def test_an_entry_that_does_something_else_than_its_plan_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 9: a log entry that would be replayed into another row than the write left behind."""
    wrong = effects.lone_put(3, encode_key_value(b"k", 3, 3, 1, b"another", 0))
    row_of = puts.plain_put
    store.put(b"a", b"")
    monkeypatch.setattr(plan, "plain_put", lambda *put: ((row_of(*put) or [b""])[0], wrong))
    with pytest.raises(InvariantBroken, match="invariant 9"):
        store.engine.submit(PutRequest(b"k", b"v"))
    engine_of(store).life.poison(OSError(5, "planted"))
    store.close()


def test_a_lock_is_asked_for_by_its_thread() -> None:
    """A lock that another thread holds is not held here."""
    lock = threading.RLock()
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with pytest.raises(InvariantBroken):
        invariants.held(lock, "the lock")
    done.set()
    thread.join()
    with lock:
        invariants.held(lock, "the lock")


def test_they_are_on_in_tests_and_off_by_default() -> None:
    """``KVSTORE_VERIFY`` decides; a generation is none the wiser."""
    assert invariants.ON
    code = "import kvstore.invariants as i; print(i.ON)"
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert Generation().changes == []
