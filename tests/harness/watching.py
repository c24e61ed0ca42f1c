"""What tests of watches share: stores on every backend, tiny limits, and records for the validators."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kvstore
from kvstore.model import Event, EventType, WatchResponse
from kvstore.store import Store
from kvstore.watch.hub import Hub
from tests.harness.checkers import store_model, watch_validators
from tests.harness.checkers.store_model import ChangeLog

BACKENDS = ("lmdb", "sqlite", "memory")
TIMEOUT_SECONDS = 60.0
"""No test waits so long unless the watch is broken."""


def open_store(path: Path, backend: str, **options: Any) -> Store:
    """A store that moves nothing to its backend by itself."""
    return kvstore.open(path / "data", backend, **{"background": False, **options})


def settle(store: Store) -> None:
    """Move everything into the backend."""
    while store.checkpoint():
        pass


def hub_of(store: Store) -> Hub:
    """The hub of a store that has had a watch."""
    hub = store.engine.hub
    assert hub is not None
    return hub


def revisions(events: Iterable[Event]) -> list[int]:
    return [event.kv.mod_revision for event in events]


def take(watch: Any, count: int) -> list[Event]:
    """The next ``count`` events."""
    return [watch.get(TIMEOUT_SECONDS) for _ in range(count)]


def responses_until(watch: Any, revision: int) -> Iterator[WatchResponse]:
    """Responses up to the one that says that all up to ``revision`` has come."""
    watch.request_progress()
    while True:
        response = watch.get_response(TIMEOUT_SECONDS)
        yield response
        if response.revision >= revision:
            return


def model_kv(kv: Any) -> store_model.KeyValue:
    return store_model.KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def model_event(event: Event) -> store_model.Event:
    return store_model.Event(
        "put" if event.type == EventType.PUT else "delete",
        model_kv(event.kv),
        model_kv(event.prev_kv) if event.prev_kv is not None else None,
    )


def recorded(request: watch_validators.WatchRequest, responses: Iterable[WatchResponse]) -> Any:
    """A record for the validators."""
    return watch_validators.WatchRecord(
        request,
        tuple(
            watch_validators.WatchResponse(
                response.revision, tuple(map(model_event, response.events)), progress=not response.events
            )
            for response in responses
        ),
    )


def change_log(store: Store, keys: Iterable[bytes], compact_revision: int = 0) -> ChangeLog:
    """The truth about a store that was never compacted, from the histories of its keys."""
    events = []
    for key in keys:
        for kv in store.history(key):
            events.append(store_model.Event("put" if kv.version else "delete", model_kv(kv)))
    events.sort(key=lambda event: (event.revision, event.kv.key))
    return ChangeLog(events, compact_revision)
