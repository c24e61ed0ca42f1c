"""The kept versions of one key, out of a watch of it: etcd has no other way to ask for them.

A watch begins at the first revision that is wanted and is read until it has got to the last one. Where that is, is
known if the key exists at that revision: it is the key's last change. If it does not, the server is asked how far the
watch is (a request for progress). Servers before 3.4.25 and 3.5.8 answer that too early (etcd issue 15220); from them
``SILENT_ANSWERS`` answers in a row without an event between them are needed.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from kvstore.errors import Compacted, Corruption, KVStoreError, Unavailable
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.keyvalue import KeyValue
from kvstore.model import EventType
from kvstore.network.remote.methods import WATCH
from kvstore.network.remote.streams import Streams, backoff

PAGE_BYTES = 16 << 20
"""Held at one time. A new watch goes on where a page ends."""
SILENT_ANSWERS = 3
ASK_AGAIN_SECONDS = 0.1
_PROGRESS: bytes = etcdserverpb.WatchRequest(progress_request={}).SerializeToString()


class Asker(Streams, Protocol):
    """The client, as far as the past needs it."""

    version: str

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


class Span:
    """What is wanted of a key: its changes from ``first`` to ``last``, both included."""

    def __init__(self, key: bytes, first: int, last: int, final: int) -> None:
        """``final``: the key's last change in the span, if that is known; 0: it is not."""
        self.key = key
        self.next = first
        self.last = last
        self.final = final


class Page:
    """One watch: a ``Receiver`` that keeps what it gets, until there is no more or it is enough."""

    def __init__(self, span: Span, answers_needed: int) -> None:
        self.versions: list[KeyValue] = []
        self.is_last = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._span = span
        self._answers_needed = answers_needed
        self._answers = 0
        self._size_bytes = 0
        self._fragments: deque[Any] = deque()

    def received(self, message: bytes) -> None:
        try:
            response = etcdserverpb.WatchResponse.FromString(message)
        except DecodeError as error:
            self._end(Corruption(f"the answer of a watch is no message: {error}", "the server"))
            return
        if response.canceled:
            compacted = response.compact_revision
            self._end(Compacted(compacted) if compacted else Unavailable(response.cancel_reason))
        elif response.watch_id == -1 and not response.created:
            self._answers += 1
            if response.header.revision >= self._span.last and self._answers >= self._answers_needed:
                self._finish()
        elif response.events:
            self._answers = 0
            self._add(response.events)

    def _add(self, events: Any) -> None:
        span = self._span
        for event in events:
            revision = event.kv.mod_revision
            if revision < span.next:
                continue
            if revision > span.last:
                self._finish()
                return
            is_delete = event.type == EventType.DELETE
            row = event.kv.SerializeToString()
            self.versions.append(
                KeyValue(span.key, mod_revision=revision) if is_delete else KeyValue.from_row(row)
            )
            self._size_bytes += len(row)
            span.next = revision + 1
        if span.final and span.next > span.final:
            self._finish()
        elif self._size_bytes >= PAGE_BYTES:
            self._end(None)

    def ended(self, error: KVStoreError | None) -> None:
        self._end(error or Unavailable("the watch has ended"))

    def _finish(self) -> None:
        self.is_last = True
        self._end(None)

    def _end(self, error: KVStoreError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def page(client: Asker, span: Span) -> tuple[list[KeyValue], bool]:
    """The next versions of a span, and whether they are the last. Called on the client's loop. Raises ``Compacted``."""
    attempt = 0
    while True:
        found = Page(span, 1 if span.final or tells_progress(client.version) else SILENT_ANSWERS)
        try:
            await _read(client, span, found)
        except Unavailable:
            attempt += 1
            if not found.versions and attempt > 5:
                raise
            if found.versions:
                return found.versions, False
            await asyncio.sleep(backoff(attempt))
            continue
        return found.versions, found.is_last


async def _read(client: Asker, span: Span, found: Page) -> None:
    stream = client.open(WATCH, found)
    create = etcdserverpb.WatchCreateRequest(key=span.key, start_revision=span.next, fragment=True)
    stream.send(etcdserverpb.WatchRequest(create_request=create).SerializeToString())
    try:
        while not found.done.done():
            if not span.final:
                stream.send(_PROGRESS)
            await asyncio.wait([found.done], timeout=None if span.final else ASK_AGAIN_SECONDS)
        found.done.result()
    finally:
        stream.cancel()


def tells_progress(version: str) -> bool:
    """Whether a server of this version answers a request for progress only when all events before it are sent."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    major, minor, patch = map(int, numbers.groups())
    if (major, minor) == (3, 4):
        return patch >= 25
    if (major, minor) == (3, 5):
        return patch >= 8
    return (major, minor) > (3, 5)


class FindCompacted:
    """A ``Receiver`` that waits for a watch from revision 1 to be canceled: that tells the compact revision."""

    def __init__(self) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def received(self, message: bytes) -> None:
        response = etcdserverpb.WatchResponse.FromString(message)
        if response.canceled and not self.done.done():
            self.done.set_result(response.compact_revision)

    def ended(self, error: KVStoreError | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or Unavailable("the watch has ended"))


async def compact_revision(client: Asker, timeout_seconds: float) -> int:
    """The compact revision of a store whose revision 1 is known to be compacted."""
    found = FindCompacted()
    stream = client.open(WATCH, found)
    create = etcdserverpb.WatchCreateRequest(key=b"\0", start_revision=1)
    stream.send(etcdserverpb.WatchRequest(create_request=create).SerializeToString())
    try:
        async with asyncio.timeout(timeout_seconds):
            return await found.done
    except TimeoutError:
        raise Unavailable(f"no answer in {timeout_seconds:g} seconds") from None
    finally:
        stream.cancel()
