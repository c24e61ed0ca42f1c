"""Waking and waiting: nothing is lost, and an exception at any bytecode leaves no lock held."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.bell import Bell, Gate
from tests.harness.line_steps import FOLDERS, Interruption, every_step
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, open_store

WRITTEN_IN_PYTHON = {"Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"}


def in_time(call: Callable[[], Any]) -> None:
    """The call ends, in another thread."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive(), "it hangs"


def test_a_ring_is_remembered_until_somebody_waits() -> None:
    """Once, however often it was rung; then the time is up."""
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_a_gate_lets_everybody_through_and_stays_open() -> None:
    """Those who wait, and those who come later; who gives up leaves nothing behind."""
    gate, through = Gate(), []
    assert not gate.wait(0)
    threads = [threading.Thread(target=lambda: through.append(gate.wait(TIMEOUT_SECONDS))) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.01)
    gate.open()
    for thread in threads:
        thread.join()
    assert through == [True] * 5
    assert gate.wait(0)
    assert not gate._waiters


def test_an_exception_at_any_bytecode_of_waking_leaves_nothing_held() -> None:
    """Rung or opened again, it wakes; waited for again, it is heard."""
    bell = Bell()
    for _ in every_step(bell.ring, Interruption, bytecodes=True):
        in_time(bell.ring)
        assert bell.wait(TIMEOUT_SECONDS)
    for _ in every_step(lambda: bell.wait(0), Interruption, bytecodes=True):
        in_time(bell.ring)
        assert bell.wait(TIMEOUT_SECONDS)
    gate = Gate()
    for _ in every_step(lambda: gate.wait(0), Interruption, bytecodes=True):
        pass
    for _ in every_step(gate.open, Interruption, bytecodes=True):
        in_time(gate.open)
    assert gate.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_any_bytecode_of_asking_for_work_leaves_the_background_going(
    tmp_path: Path, backend: str
) -> None:
    """As a compaction asks for it on the main thread: it is done all the same, and the store closes."""
    store = open_store(tmp_path, backend, background=True, backend_batch_interval_seconds=3600)
    store.put(b"k", b"v")
    for _ in every_step(store.engine.core.want_work, Interruption, bytecodes=True):
        in_time(store.engine.core.want_work)
    store.put(b"k", b"w")
    index = store.engine.core.state.index
    store.engine.core.want_work()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while store.engine.core.state.applied_index < index:
        assert time.monotonic() < deadline, "nothing is done"
        time.sleep(0.001)
    in_time(store.close)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_any_bytecode_of_waiting_for_a_callback_leaves_it_going(
    tmp_path: Path, backend: str
) -> None:
    """Its thread ends, and whoever waits for that is told."""
    with open_store(tmp_path, backend) as store:
        watch = store.watch(b"k", callback=lambda event: None)
        for _ in every_step(lambda: watch.wait(0), Interruption, bytecodes=True):
            pass
        in_time(watch.cancel)
        assert watch.wait(TIMEOUT_SECONDS)


def test_no_lock_of_the_library_is_written_in_python() -> None:
    """Those of ``threading`` that are stay held where a signal handler's exception comes on the way in."""
    sources = [
        path for folder in FOLDERS for path in Path(folder).rglob("*.py") if "testing" not in path.parts
    ]
    assert Path(kvstore.__file__) in sources
    found = [
        f"{path}:{node.lineno} {node.attr}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in WRITTEN_IN_PYTHON
        if isinstance(node.value, ast.Name) and node.value.id == "threading"
    ]
    assert not found
