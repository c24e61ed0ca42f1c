"""The messages of etcd's Watch, as far as a client needs them: what it sends, and how events become changes.

A response is decoded down to its events, whose keys and values stay the bytes that came (``shallow``): they are rows as
a store keeps them (``keyvalue``), so what is made of them is what a local watch hands out.

etcd's events have no number within their revision. Here they are counted as they come, from 0 on: a
``WatchPosition`` of a remote watch counts the events that this watch gets of a revision. It is good for a watch of the
same range with the same filters.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import Corruption
from kvstore.etcdpb.messages import etcdserverpb, shallow
from kvstore.etcdpb.requests import to_message
from kvstore.keyvalue import KeyValue, row_keys, row_mod_revision
from kvstore.model import EventType, WatchPosition, WatchRequest
from kvstore.mvcc.overlay import ChangedRow
from kvstore.watch.events import Events

_type_and_row = attrgetter("type", "kv")


def _encoded(**union: Any) -> bytes:
    message: bytes = etcdserverpb.WatchRequest(**union).SerializeToString()
    return message


PROGRESS = _encoded(progress_request={})


def create(request: WatchRequest, start_revision: int) -> bytes:
    """Ask for a watch from a revision on, whose responses may come in fragments."""
    wanted = to_message(request._replace(start_revision=start_revision, start_sub=0))
    wanted.fragment = True
    return _encoded(create_request=wanted)


def cancel(watch_id: int) -> bytes:
    return _encoded(cancel_request={"watch_id": watch_id})


def decode(message: bytes) -> Any:
    """A response. Raises ``Corruption`` if the bytes are none."""
    try:
        return shallow.WatchResponse.FromString(message)
    except DecodeError as error:
        raise Corruption(f"the answer to a watch is not a message of etcd's: {error}", "a server") from None


def reason_of(response: Any) -> str:
    """Why a watch was canceled, in etcd's words. A server in Go wraps some of them in a status."""
    reason: str = response.cancel_reason.decode(errors="replace")
    return reason.partition(" desc = ")[2] if reason.startswith("rpc error: ") else reason


def last_revision(response: Any) -> int:
    """The revision of the last event."""
    return row_mod_revision(response.events[-1].kv)


def events_of(parts: list[Any], start: WatchPosition, *, prev_kv: bool) -> Events:
    """The events of a response, from ``start`` on. ``parts``: its fragments. Raises ``BadRow``."""
    events = [event for part in parts for event in part.events]
    typed = list(map(_type_and_row, events))
    changes: list[ChangedRow] = []
    revision = sub = 0
    for (kind, row), (main, key) in zip(typed, row_keys([row for _, row in typed]), strict=True):
        if main == revision:
            sub += 1
        else:
            revision, sub = main, 0
        changes.append((main, sub, key, None if kind == EventType.DELETE else row))
    before = [_before(event.prev_kv) for event in events] if prev_kv else None
    found = Events(changes, before)
    return found.since(start) if changes and changes[0] < start else found


def _before(row: bytes) -> KeyValue | None:
    return KeyValue.from_row(row) if row else None
