"""Stores elsewhere that tests watch: ours served in this process, or an etcd, both behind a proxy that cuts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import kvstore
from kvstore.model import WatchResponse
from kvstore.network.remote.engine import RemoteEngine
from kvstore.ops import delete, put
from kvstore.store import Store
from tests.harness.checkers.store_model import ChangeLog
from tests.harness.checkers.watch_validators import WatchRequest, validate
from tests.harness.cutting_proxy import CuttingProxy
from tests.harness.watching import TIMEOUT_SECONDS, change_log, recorded

KEYS = [b"a", b"b", b"c", b"d"]


class Elsewhere:
    """A server behind a proxy, and clients that reach it only through that."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.proxy = CuttingProxy(*address)
        self._opened: list[Store] = []

    @property
    def url(self) -> str:
        host, port = self.proxy.address
        return f"etcd://{host}:{port}"

    def connect(self, **options: Any) -> Store:
        """The store through the proxy."""
        store = kvstore.connect(self.url, **options)
        self._opened.append(store)
        return store

    def direct(self) -> Store:
        """The store without the proxy, for a client that is not disturbed."""
        store = kvstore.connect("etcd://{}:{}".format(*self._address))
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self.proxy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def served(path: Path, backend: str = "memory", **options: Any) -> Iterator[tuple[Store, Elsewhere]]:
    """A store, and the same as others see it."""
    with (
        kvstore.open(path / "store", backend, background=False, **options) as store,
        kvstore.serve(store, "http://127.0.0.1:0") as serving,
        Elsewhere(address_of(serving.endpoints[0])) as elsewhere,
    ):
        yield store, elsewhere


def address_of(url: str) -> tuple[str, int]:
    host, port = url.rpartition("/")[2].rsplit(":", 1)
    return host, int(port)


def engine_of(store: Store) -> RemoteEngine:
    engine: Any = store._engine
    assert isinstance(engine, RemoteEngine)
    return engine


def until(happens: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


def write_some(store: Store, count: int, seed: int = 1) -> None:
    """So many revisions: puts, deletes, and transactions of several keys."""
    random = Random(seed)
    for number in range(count):
        value = b"%d" % number * random.randrange(1, 20)
        if random.random() < 0.3:
            keys = sorted(random.sample(KEYS, random.randrange(2, 5)))  # the order in which the log has them
            store.txn([], [put(key, value) if random.random() < 0.7 else delete(key) for key in keys])
        elif random.random() < 0.2:
            store.delete(random.choice(KEYS))
        else:
            store.put(random.choice(KEYS), value)


def read_until(watch: Any, revision: int) -> list[WatchResponse]:
    """Whole responses, up to the one with the events of a revision."""
    responses = []
    while True:
        response = watch.get_response(TIMEOUT_SECONDS)
        responses.append(response)
        if response.events and response.revision >= revision:
            return responses


class Recorder(threading.Thread):
    """Reads a watch on a thread of its own, up to a revision that is told later."""

    def __init__(self, watch: Any) -> None:
        super().__init__(daemon=True)
        self.watch = watch
        self.responses: list[WatchResponse] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for response in self.watch.responses():
                self.responses.append(response)
        except BaseException as error:
            self.error = error

    def up_to(self, revision: int) -> list[WatchResponse]:
        """What came, once the events of this revision have; the watch is closed."""

        def has_come() -> bool:
            last = [response.revision for response in self.responses if response.events][-1:]
            return self.error is not None or bool(last and last[0] >= revision)

        until(has_come)
        self.watch.close()
        self.join(TIMEOUT_SECONDS)
        assert self.error is None
        return self.responses


def judged(log: ChangeLog, request: WatchRequest, responses: list[WatchResponse]) -> list[str]:
    """What the nine validators say."""
    return validate(recorded(request, responses), log)


def log_of(store: Store) -> ChangeLog:
    return change_log(store, [*KEYS, LAST_KEY])


LAST_KEY = b"z"
"""Written last, so that every watch of everything knows when it has all."""
