"""Targets of backups that misbehave, and a store whose every revision is known."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store, backup, shelter
from kvstore.backup.catalogue import Catalogue
from kvstore.backup.errors import NoSuchObject, TargetFailed
from kvstore.backup.follower import Follower, Settings
from kvstore.backup.sources import OpenStore

WAYS = ("refused", "answer lost", "late")
"""How a call fails: not done, done but reported as failed, or done after the call that follows it."""


class Killed(BaseException):
    """The process that follows is gone."""


class Place:
    """Objects in memory. Call number ``fail_at`` fails in one of the ``WAYS``, or kills, before or after it is done."""

    def __init__(self, fail_at: int = 0, way: str = "refused", *, kill: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls = 0
        self.is_away = False
        self._fail_at = fail_at
        self._way = way
        self._kill = kill
        self._late: list[tuple[str, bytes]] = []

    def kill_at(self, number: int) -> None:
        """Kill at that call, counted from now on."""
        self._fail_at = self.calls + number

    def put(self, name: str, data: bytes) -> None:
        if self._fails(name):
            if self._way == "answer lost":
                self.objects[name] = data
            elif self._way == "late":
                self._late.append((name, data))
            self._end(name)
        self.objects[name] = data
        while self._late:
            late, content = self._late.pop()
            self.objects[late] = content

    def get(self, name: str) -> bytes:
        if self._fails(name):
            self._end(name)
        if name not in self.objects:
            raise NoSuchObject(name)
        return self.objects[name]

    def list(self) -> list[str]:
        if self._fails(""):
            self._end("")
        return sorted(self.objects)

    def delete(self, name: str) -> None:
        if self._fails(name):
            if self._way == "answer lost":
                self.objects.pop(name, None)
            self._end(name)
        self.objects.pop(name, None)

    def _fails(self, name: str) -> bool:
        self.calls += 1
        if self.is_away:
            raise TargetFailed("reach", name, OSError("away"))
        return self.calls == self._fail_at

    def _end(self, name: str) -> None:
        if self._kill:
            raise Killed
        raise TargetFailed("reach", name, TimeoutError("planned"))


KEYS = 7


def write(store: Store, count: int) -> None:
    """Write ``count`` revisions: revision r puts r in one of the keys."""
    for revision in range(store.revision + 1, store.revision + 1 + count):
        assert store.put(b"k%d" % (revision % KEYS), b"%d" % revision * 20).revision == revision


def expected(revision: int) -> dict[bytes, bytes]:
    """What ``write`` had put by then."""
    return {b"k%d" % (r % KEYS): b"%d" % r * 20 for r in range(2, revision + 1)}


def content(data_dir: Path, **options: Any) -> dict[bytes, bytes]:
    with kvstore.open(data_dir, read_only=True, **options) as store:
        return {item.key: item.value for item in store.range(prefix=b"").kvs}


_numbers = itertools.count()


def restored(place: Any, scratch: Path, **arguments: Any) -> tuple[int, dict[bytes, bytes]]:
    """(revision, content) of what a restore makes."""
    target = scratch / f"restored-{next(_numbers)}"
    made = backup.restore(place, target, **arguments)
    return made.revision, content(made.data_dir, backend=made.backend)


class Time:
    """A clock that moves when it is told to, and a little with each look."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


def held_back(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    """Threads of that name begin when what is returned is called, which waits for the end of one."""
    gate, has_begun, begun = threading.Event(), threading.Event(), list[threading.Thread]()

    def begin_late(thread: threading.Thread) -> None:
        if thread.name == name:
            gate.wait()
            begun.append(thread)
        thread.start()
        if thread.name == name:
            has_begun.set()

    def let_go() -> None:
        gate.set()
        has_begun.wait()
        begun[0].join()

    monkeypatch.setattr(shelter, "_start", begin_late)
    return let_go


def follower(store: Store, place: Any, scratch: Path, now_ms: Time, **settings: Any) -> Follower:
    chosen = Settings(**{"piece_bytes": 4096, "chunk_bytes": 16384, "work_dir": str(scratch), **settings})
    return Follower(OpenStore(store), Catalogue(place), chosen, now_ms=now_ms)
