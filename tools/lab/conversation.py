r"""Recorded conversations with an etcd server: the format, as pure functions.

One JSON object a line, in order, from an empty store (whose revision is 1); ``.xz`` files are decompressed:

    {"op": "put", "request": {"key": "a", "value": "b"}, "response": {"header": {"revision": 2}}}
    {"op": "put", "request": {"value": "b"}, "error": {"code": 3, "message": "etcdserver: key is not provided"}}

    op         range  put  delete  txn  compact  grant  revoke  keepalive  timetolive  leases  hashkv  watch  stream
    request    } field names of etcd's messages; bytes are strings whose code points are the bytes (latin-1), enum
    response   } values are their names, a field at its default is absent
    header     only the revision, absent where it is 0
    timetolive TTL is the granted one, as if no time had passed (-1: no such lease), keys are ascending
    leases     ids are ascending
    watch      request: of the creation. response: all events up to the store's revision at that moment, and
               "canceled" with the compact revision where the server ended the watch
    stream     one stream of watches, open as long as the conversation. request: {"create_request": …},
               {"cancel_request": …}, {"progress_request": {}} or {}. response: what has come since the last one up
               to the store's revision, by watch id; event responses of one watch in a row are made one

``parse_request`` makes the engine's request of a recorded one; ``answers.RECORDED`` puts the engine's answer the way
it would have been recorded. So answers are compared as JSON values, after ``without_defaults`` has removed what a
recording may or may not spell out.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvstore.errors import Code, KVStoreError
from kvstore.model import Event, WatchResponse

from ..answers import RECORDED, Message, without_defaults
from .recorded_requests import PARSERS, Request


class NotAConversation(KVStoreError):
    """A file, or a line of one, is no recorded conversation."""

    code = Code.INVALID_ARGUMENT


class Exchange(NamedTuple):
    """One request and what the server answered: a response, or an error."""

    line: int
    op: str
    request: Message
    response: Message | None
    error: Message | None

    @property
    def answer(self) -> Message:
        """The response, or ``{"error": …}``."""
        return self.response if self.response is not None else {"error": self.error}


# --- reading ---------------------------------------------------------------------------


def read_conversation(path: Path) -> Iterator[Exchange]:
    """The exchanges of a file, one by one. Raises ``NotAConversation`` with the line that is none."""
    opener: Callable[..., Any] = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_exchange(line, number, path.name)
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise NotAConversation(f"{path}: {error}") from None


def parse_exchange(line: str, number: int, name: str) -> Exchange:
    try:
        record = json.loads(line)
        op, request = record["op"], record["request"]
        response, error = record.get("response"), record.get("error")
        if not isinstance(request, dict) or (response is None) == (error is None):
            raise ValueError("not one request with one answer")
        if op not in PARSERS:
            raise ValueError(f"unknown op {op!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise NotAConversation(f"{name}, line {number}: {problem}") from None
    return Exchange(number, op, request, response, error)


# --- requests --------------------------------------------------------------------------


def parse_request(exchange: Exchange) -> Request:
    """What to ask the engine. Raises ``NotAConversation`` where a field is unknown or of the wrong kind."""
    try:
        request: Request = PARSERS[exchange.op](exchange.request)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise NotAConversation(f"line {exchange.line}: {exchange.op}: {problem!r}") from None
    return request


# --- answers ---------------------------------------------------------------------------


def watched(events: Sequence[Event], end: WatchResponse | None) -> Message:
    """What a watch delivered, as it would have been recorded; ``end``: the response that ended it, if one did."""
    message: Message = {"events": RECORDED.events(events)}
    if end is not None:
        message["canceled"] = {"compact_revision": end.compact_revision}
    recorded: Message = without_defaults(message)
    return recorded


def refusal(error: KVStoreError) -> Message:
    """The engine's error, as it would have been recorded."""
    return {"error": {"code": int(error.code), "message": str(error)}}
