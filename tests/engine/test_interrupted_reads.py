"""A read that an exception ends, at any step: that comes out, nothing stays behind, and no row is called damaged.

What a read takes (a connection, a view, a slot in LMDB's table of readers) belongs to objects that go with the last
reference to them, so there is no step at which it could be forgotten.
"""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store, implementation, keyvalue, shelter
from kvstore.backend import find_backend
from kvstore.errors import NoDescriptor
from tests import PROJECT
from tests.engine.reads import OPTIONS, READS, World
from tests.harness.line_steps import Interruption, every_step

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""An exception inside a finalizer cannot come out: Python reports it."""

BACKENDS = ["lmdb", "sqlite", "memory"]
ROW = keyvalue.encode_key_value(b"k", 2, 3, 1, b"v", 0)
UNUSUAL = ROW + b"\x18\x03"
"""The same with a field twice, which no implementation reads without protobuf's parser."""


def left_behind(store: Store) -> int:
    """How many views or connections of the backend are neither closed nor in the pool."""
    backend: Any = store.engine.backend
    if backend.name == "sqlite":
        return len(backend._connections) - len(backend._idle) - 1  # the writer's
    return len(backend._views)


def interrupt(store: Store, kind: str, *, bytecodes: bool) -> int:
    """Interrupt the read at each of its steps; how many there were."""
    call, answers = READS[kind]
    world = World(store)
    world.prepare()
    truth = answers(world, store.revision, world.compacted)
    assert call(world) == truth
    descriptors = len(os.listdir("/proc/self/fd"))
    gc.collect()  # what earlier tests have left is not finalized in the middle of a step
    times = 0
    for steps in every_step(lambda: call(world), Interruption, bytecodes=bytecodes):
        if steps.acted_in is not None and not steps.in_finalizer:
            assert isinstance(steps.outcome, Interruption), (steps.acted_in, steps.outcome)
        else:
            assert steps.outcome == truth
        assert left_behind(store) == 0, steps.acted_in
        times += 1
    assert call(world) == truth
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3  # a connection of SQLite's
    return times


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_interrupted_at_any_line_leaves_nothing(scratch: Path, backend: str, kind: str) -> None:
    """No connection, view or descriptor stays, and the next read is right."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert interrupt(store, kind, bytecodes=False) > 10


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_interrupted_at_any_bytecode_leaves_nothing(scratch: Path, backend: str, kind: str) -> None:
    """The same before every bytecode."""
    with kvstore.open(scratch / "data", backend, **OPTIONS) as store:
        assert interrupt(store, kind, bytecodes=True) > 50


# --- what is no damage -----------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The state of a process that has read no row yet; called again, it is that state again."""

    def forget() -> None:
        monkeypatch.setattr(keyvalue, "_from_bytes", keyvalue._load_parser)
        monkeypatch.setattr(keyvalue, "_DecodeError", keyvalue.BadRow)
        monkeypatch.delitem(sys.modules, "kvstore.protobuf", raising=False)
        monkeypatch.setattr(shelter, "_imported", set())

    forget()
    yield forget


def test_a_first_read_interrupted_at_any_line_does_not_break_the_next(unread: Callable[[], None]) -> None:
    """The parser is there wholly or not at all."""
    for steps in every_step(lambda: keyvalue.row_mod_revision(UNUSUAL), Interruption):
        assert isinstance(steps.outcome, Interruption) or steps.outcome == 3
        assert keyvalue.row_mod_revision(UNUSUAL) == 3
        with pytest.raises(keyvalue.BadRow):
            keyvalue.row_mod_revision(b"\xff\xff")
        unread()


@pytest.mark.parametrize("loss", ["google.protobuf.descriptor_pool", "google.protobuf.message"])
def test_a_parser_that_cannot_be_imported_is_no_damage(
    unread: Callable[[], None], monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """The import's own error comes out; when it can be imported, reads work."""
    with monkeypatch.context() as hidden:
        hidden.setitem(sys.modules, loss, None)  # what Python takes for "there is none"
        with pytest.raises(ImportError):
            keyvalue.row_mod_revision(UNUSUAL)
    assert keyvalue.row_mod_revision(UNUSUAL) == 3


STOPS = [
    (read, reason)
    for read in ("get", "history", "sorted range", "watch", "diff")
    for reason in (MemoryError, RecursionError, OSError, Interruption, RuntimeError)
    if implementation.name == implementation.PYTHON
]
"""Reads that go through the parser, and what stops it."""


@pytest.mark.skipif(implementation.name == implementation.PYTHON, reason="the next test does it here")
def test_what_stops_the_python_parser_is_no_damage_either() -> None:
    """C reads the store's own rows itself: what follows is then tried in a process that reads them in Python."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "what_stops_the_parser",
    ]
    environ = {**os.environ, implementation.VARIABLE: implementation.PYTHON}
    done = subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "25 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(("read", "reason"), STOPS)
def test_what_stops_the_parser_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException], read: str
) -> None:
    """No memory, a full stack, a caller's exception: it comes out as it is, and the next read works."""

    def stop(_row: bytes) -> Any:
        raise reason

    with kvstore.open(tmp_path / "store", "memory", **OPTIONS) as store:
        store.put(b"k", b"1")
        store.put(b"k", b"2")
        store.checkpoint()
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: store.get(b"k"),
            "history": lambda: list(store.history(b"k")),
            "sorted range": lambda: store.range(prefix=b"k", sort_target=2, sort_order=2),
            "watch": lambda: next(iter(store.watch(prefix=b"k", start_revision=2))),
            "diff": lambda: list(store.diff(2)),
        }
        with monkeypatch.context() as stopped:
            stopped.setattr(keyvalue, "_from_bytes", stop)
            with pytest.raises(reason):
                calls[read]()
        assert calls[read]() is not None


def test_want_of_memory_is_told_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf says the same of both: a row that is as it was written was not parsed for want of memory."""
    row_mod_revision = implementation.references["row_mod_revision"]  # C reads sound rows without the parser
    row_mod_revision(ROW)

    def fail(_row: bytes) -> Any:
        raise keyvalue._DecodeError("Error parsing message")

    monkeypatch.setattr(keyvalue, "_from_bytes", fail)
    for sound in (ROW, keyvalue.make_row(ROW, 3), b""):
        with pytest.raises(MemoryError):
            row_mod_revision(sound)
    for damaged in (ROW[:-1], b"\x0a\x05k", b"\x08\x01", b"\xff" * 12, ROW + b"\x10\x82\x00"):
        with pytest.raises(keyvalue.BadRow):
            row_mod_revision(damaged)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("reason", [errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_a_backend_that_could_not_be_looked_at_is_not_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, reason: int
) -> None:
    """``verify`` says that it could not look, and calls nothing damaged, which ``--heal`` would set aside."""
    with kvstore.open(tmp_path / "store", backend) as store:
        store.put(b"k", b"v")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as failing:
        failing.setattr(find_backend(backend), "open", fail)
        with pytest.raises((OSError, NoDescriptor)) as failed:
            kvstore.verify(tmp_path / "store")
        assert isinstance(failed.value, NoDescriptor) == (reason == errno.EMFILE)
    assert kvstore.verify(tmp_path / "store").ok
