"""Processes that share a store while the one that serves it is killed, again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.layout import DataDir
from tests import PROJECT
from tests.harness.checkers.linearizability import UNKNOWN, Operation, check_by_key
from tests.harness.checkers.recordings import MapRequest, Text
from tests.harness.checkers.store_model import ChangeLog, Event, KeyValue
from tests.harness.checkers.watch_validators import WatchRecord, WatchRequest, WatchResponse, validate
from tests.harness.watching import change_log

PATIENCE_SECONDS = 240.0
MapOperation = Operation[MapRequest, str | None]


def until(happens: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


class Worker:
    """A process that uses the store, and what it has said."""

    def __init__(self, folder: Path, backend: str, number: int) -> None:
        self.name = f"w{number}"
        self._said = folder / self.name
        self.is_killed = False
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.remote.shared_worker", folder / "data", backend, self.name],
                stdin=subprocess.PIPE,
                stdout=said,
                cwd=PROJECT,
            )

    def said(self) -> list[dict[str, Any]]:
        lines = self._said.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    def count(self) -> int:
        """How many calls have been answered."""
        return self._said.read_bytes().count(b'"returned"')

    def kill(self) -> None:
        self.is_killed = True
        self.process.send_signal(signal.SIGKILL)
        self.clear()

    def clear(self) -> None:
        """Let nothing of it stay behind."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_SECONDS) == 0

    def operations(self) -> Iterator[tuple[MapOperation, int]]:
        """What it did, with the revision that each was answered with (0: none)."""
        ends = {line["number"]: line for line in self.said() if line["what"] == "returned"}
        for line in self.said():
            if line["what"] != "called":
                continue
            request = MapRequest(line["kind"], line["key"], line["value"])
            end = ends.get(line["number"])
            if end is None:
                yield Operation(request, UNKNOWN, line["time"], client=self.name), 0
            else:
                made = Operation(request, end["answer"], line["time"], end["time"], self.name)
                yield made, end["revision"]

    def heard(self) -> WatchRecord:
        """What its watch of everything delivered."""
        responses = tuple(
            WatchResponse(line["revision"], tuple(_event(*event) for event in line["events"]))
            for line in self.said()
            if line["what"] == "heard"
        )
        return WatchRecord(WatchRequest(b"\0", b"\0", start_revision=1), responses)


def _event(kind: str, key: str, value: str, *numbers: int) -> Event:
    kv = KeyValue(key.encode(), value.encode(), *numbers)
    return (
        Event("put", kv) if kind == "PUT" else Event("delete", KeyValue(kv.key, mod_revision=kv.mod_revision))
    )


def serving_pid(folder: Path) -> int:
    """Whoever holds the store's lock, as its file says."""
    try:
        said = json.loads(DataDir.at(folder / "data").lock.read_bytes())
    except (OSError, ValueError):
        return 0
    return int(said["pid"])


def get_on(workers: list[Worker]) -> None:
    """Wait until each has been answered some more calls."""
    before = {worker: worker.count() for worker in workers}
    until(lambda: all(worker.count() >= before[worker] + 10 for worker in workers))


def storm(folder: Path, backend: str, workers: int, kills: int) -> list[Worker]:
    """Kill the process that serves so often, when all have got on since the last time. Returns all there were."""
    everyone = [Worker(folder, backend, number) for number in range(workers)]
    alive = list(everyone)
    try:
        for number in range(kills):
            get_on(alive)
            pid = serving_pid(folder)
            (server,) = [worker for worker in alive if worker.process.pid == pid]
            server.kill()
            alive.remove(server)
            newcomer = Worker(folder, backend, workers + number)
            everyone.append(newcomer)
            alive.append(newcomer)
        get_on(alive)
        for worker in alive:
            worker.end()
    finally:
        for worker in everyone:
            worker.clear()
    return everyone


def judge(folder: Path, backend: str, everyone: list[Worker]) -> None:
    """Nothing acknowledged is missing, every answer can be explained, and every watch heard all, once, in order."""
    with kvstore.open(folder / "data", backend) as store:
        keys = sorted(
            {kv.key for kv in store.scan(prefix=b"")} | {b"alive/" + w.name.encode() for w in everyone}
        )
        log: ChangeLog = change_log(store, keys)
    history = [each for worker in everyone for each in worker.operations()]
    for operation, revision in history:
        if operation.request.kind == "put" and revision:
            (event,) = log.at_revision[revision]
            assert (event.kv.key.decode(), event.kv.value.decode()) == (
                operation.request.key,
                operation.request.value,
            )
    assert check_by_key(Text(), [operation for operation, _ in history], key=lambda request: request.key)
    for worker in everyone:
        assert validate(worker.heard(), log) == [], worker.name
        assert all(line["ttl"] for line in worker.said() if line["what"] == "kept"), worker.name
        if not worker.is_killed:
            assert worker.heard().events, worker.name


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_the_serving_process_is_killed_and_nobody_loses_anything(tmp_path: Path, backend: str) -> None:
    """Three processes, three kills: nothing acknowledged is lost, watches and leases go on."""
    judge(tmp_path, backend, storm(tmp_path, backend, workers=3, kills=3))


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_the_serving_process_is_killed_all_day(tmp_path: Path, backend: str) -> None:
    """Four processes, forty kills."""
    judge(tmp_path, backend, storm(tmp_path, backend, workers=4, kills=40))
