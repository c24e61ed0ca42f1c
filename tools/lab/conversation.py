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

``parse_request`` makes the engine's request from a recorded one; ``RECORDED`` spells the engine's response as it would
have been recorded. So responses are compared as JSON values, after ``without_defaults`` has removed what a
recording may or may not spell out.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvstore.errors import BadArgument, Code, KVStoreError
from kvstore.etcdpb.json import Spelling, from_json
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.etcdpb.requests import from_message
from kvstore.etcdpb.responses import Header
from kvstore.etcdpb.status import status_of
from kvstore.model import Event, WatchResponse

from ..answers import Style

Message = dict[str, Any]

SPELLING = Spelling(lambda data: data.decode("latin-1"), lambda text: text.encode("latin-1"))
RECORDED = Style(SPELLING, Header())
"""How the engine's responses are recorded."""

REQUESTS = {
    "range": etcdserverpb.RangeRequest,
    "put": etcdserverpb.PutRequest,
    "delete": etcdserverpb.DeleteRangeRequest,
    "txn": etcdserverpb.TxnRequest,
    "compact": etcdserverpb.CompactionRequest,
    "grant": etcdserverpb.LeaseGrantRequest,
    "revoke": etcdserverpb.LeaseRevokeRequest,
    "keepalive": etcdserverpb.LeaseKeepAliveRequest,
    "timetolive": etcdserverpb.LeaseTimeToLiveRequest,
    "leases": etcdserverpb.LeaseLeasesRequest,
    "hashkv": etcdserverpb.HashKVRequest,
    "watch": etcdserverpb.WatchCreateRequest,
    "stream": etcdserverpb.WatchRequest,
}
"""By op."""

Request = Any
"""A request of ``kvstore.model``, or the message itself if the model cannot express it: what is sent to a stream."""


class NotAConversation(KVStoreError):
    """A file, or a line of one, is not a recorded conversation."""

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
    """The exchanges of a file, one by one. Raises ``NotAConversation`` for a line that is not one."""
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
        if op not in REQUESTS:
            raise ValueError(f"unknown op {op!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise NotAConversation(f"{name}, line {number}: {problem}") from None
    return Exchange(number, op, request, response, error)


# --- requests --------------------------------------------------------------------------


def parse_request(exchange: Exchange) -> Request:
    """The request for the engine. Raises ``NotAConversation`` if a field is unknown or of the wrong kind."""
    try:
        message = from_json(REQUESTS[exchange.op], exchange.request, SPELLING)
        return message if isinstance(message, etcdserverpb.WatchRequest) else from_message(message)
    except BadArgument as problem:
        raise NotAConversation(f"line {exchange.line}: {exchange.op}: {problem}") from None


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
    code, message = status_of(error)
    return {"error": {"code": int(code), "message": message}}


def without_defaults(value: Any) -> Any:
    """The value without fields that are None, zero, false or empty; empty messages stay, because they were set."""
    if isinstance(value, dict):
        kept = {name: without_defaults(field) for name, field in value.items()}
        return {name: field for name, field in kept.items() if field or isinstance(field, dict)}
    if isinstance(value, list):
        return [without_defaults(item) for item in value]
    return value
