"""Work that signals cannot reach: what its interrupted caller leaves behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import kvstore
from kvstore import loops, shelter
from kvstore.loops import Awaited
from kvstore.shelter import Sheltered, import_sheltered
from kvstore.write import writer
from tests.harness.alarm import Alarm


class Limit(Exception):
    """What a task queue raises when a job takes too long."""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A package whose import goes on only when this event is set."""
    gate = threading.Event()
    keeper = ModuleType("keeper_of_the_gate")
    keeper.__dict__["gate"] = gate
    monkeypatch.setitem(sys.modules, "keeper_of_the_gate", keeper)
    (tmp_path / "behind_the_gate.py").write_text(
        "from keeper_of_the_gate import gate\ngate.wait()\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield gate
    gate.set()
    sys.modules.pop("behind_the_gate", None)


def test_an_import_under_way_is_not_taken_for_a_module(gate: threading.Event) -> None:
    """Its callers are interrupted while another thread is at it: the next one waits until the module is whole."""
    with Alarm(Limit) as alarm:
        for _ in range(3):
            with pytest.raises(Limit), alarm.within(0.05):
                import_sheltered("behind_the_gate")
            assert not hasattr(sys.modules["behind_the_gate"], "whole")
    gate.set()
    import_sheltered("behind_the_gate")
    assert sys.modules["behind_the_gate"].__dict__["whole"]


class Answer:
    """Something that can be looked for."""


@pytest.fixture
def held_up() -> Iterator[None]:
    """Workers stop for good right after they have told that their work has ended."""
    going_on = threading.Event()

    def after(frame: FrameType, event: str, function: Any) -> None:
        if event == "return":
            returned = frame.f_code.co_name
        elif event == "c_return":
            returned = function.__name__
        else:
            return
        if returned == "release":
            going_on.wait()

    threading.setprofile(after)
    yield
    threading.setprofile(None)
    going_on.set()


def sheltered(work: Callable[[], Answer]) -> Answer:
    return Sheltered(work).run()


def awaited(work: Callable[[], Answer]) -> Answer:
    async def wait() -> Answer:
        return await Awaited(work).wait()

    return asyncio.run(wait())


@pytest.mark.usefixtures("held_up")
@pytest.mark.parametrize("run", [sheltered, awaited])
def test_an_answer_is_its_callers_alone(run: Callable[[Callable[[], Answer]], Answer]) -> None:
    """It is gone as soon as its caller lets go of it: whatever the thread that found it is doing."""
    answer = run(Answer)
    seen = weakref.ref(answer)
    del answer
    assert seen() is None


@pytest.mark.parametrize("run", [sheltered, awaited])
def test_a_worker_that_does_not_begin_is_not_waited_for(
    run: Callable[[Callable[[], Answer]], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ended before its first step, for want of memory, or comes too late: the caller does the work, once."""
    late: list[threading.Thread] = []
    answers: list[Answer] = []

    def work() -> Answer:
        answers.append(Answer())
        return answers[-1]

    monkeypatch.setattr(shelter, "BEGIN_SECONDS", 0.001)
    monkeypatch.setattr(shelter, "start", late.append)
    monkeypatch.setattr(loops, "start", late.append)
    assert run(work) is answers[0]
    for thread in late:
        thread.run()
    assert len(late) == len(answers) == 1


def test_a_slow_worker_that_has_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its work takes."""
    monkeypatch.setattr(shelter, "BEGIN_SECONDS", 0.001)
    going_on = threading.Event()
    looks: list[bool] = []
    has_taken_back = shelter.has_taken_back

    def look(call: list[Any]) -> bool:
        if not began.is_set():
            return False  # the machine is busy: a thread may begin late
        looks.append(has_taken_back(call))
        if len(looks) == 3:
            going_on.set()
        return looks[-1]

    def work() -> Answer:
        began.set()
        assert going_on.wait(60)
        return Answer()

    began = threading.Event()
    monkeypatch.setattr(shelter, "has_taken_back", look)
    sheltered(work)
    assert looks[:3] == [False] * 3


def test_an_outcome_for_which_there_is_no_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker cannot keep even the reason: its caller gets ``MemoryError``, and does not wait for ever."""

    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Sheltered, "carry_out", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(MemoryError):
        sheltered(Answer)
    with pytest.raises(MemoryError):
        awaited(Answer)
    # What a worker raises at its end is heard of here, not in the next test.
    for thread in threading.enumerate():
        if thread.name in ("kvstore-shelter", "kvstore-async"):
            thread.join()


def test_a_write_whose_flusher_does_not_begin_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has to make room first, which the main thread leaves to the flusher; the next flusher makes it."""
    began: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        began.append(thread)
        if len(began) > 1:
            thread.start()

    monkeypatch.setattr(writer, "BEGIN_SECONDS", 0.001)
    with kvstore.open(tmp_path / "store", background=False) as store:
        monkeypatch.setattr(writer, "start", start)
        monkeypatch.setattr(store.engine.core.log, "has_place_for", lambda _: False)
        assert store.put(b"k", b"v").revision == 2
    assert len(began) >= 2


def test_a_forgotten_store_is_collected_at_once(tmp_path: Path) -> None:
    """Nothing that opened it holds it: no garbage collection has to be waited for."""
    store = kvstore.open(tmp_path / "store")
    engine = store.engine
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="not closed"):
            del store
    finally:
        gc.enable()
        engine.close()


LOADED = """
import sys, threading
import kvstore

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("kvstore."):
            assert threading.current_thread() is not threading.main_thread(), name

sys.meta_path.insert(0, Finder())
kvstore.put, kvstore.Store, kvstore.MapView, kvstore.NotAStore
from kvstore import AsyncStore, version
print("done")
"""


def test_a_name_is_loaded_where_no_signal_reaches() -> None:
    """An import that is interrupted may leave Python's import lock taken, for all threads and for good."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "done\n", done.stderr
