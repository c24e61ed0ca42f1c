r"""Recorded conversations with an etcd server: the format, as pure functions.

One JSON object a line, in order, from an empty store (whose revision is 1); ``.xz`` files are decompressed:

    {"op": "put", "request": {"key": "a", "value": "b"}, "response": {"header": {"revision": 2}}}
    {"op": "put", "request": {"value": "b"}, "error": {"code": 3, "message": "etcdserver: key is not provided"}}

    op         range  put  delete  txn  compact  grant  revoke  watch
    request    } field names of etcd's messages; bytes are strings whose code points are the bytes (latin-1), enum
    response   } values are their names, a field at its default is absent
    header     only the revision, absent where it is 0
    watch      request: of the creation. response: all events up to the store's revision at that moment, and
               "canceled" with the compact revision where the server ended the watch

``parse_request`` makes the engine's request of a recorded one; ``answers.RECORDED`` puts the engine's answer the way
it would have been recorded. So answers are compared as JSON values, after ``without_defaults`` has removed what a
recording may or may not spell out.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from kvstore.errors import Code, KVStoreError
from kvstore.model import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    Event,
    Op,
    PutRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
    WatchRequest,
    WatchResponse,
)

from .answers import RECORDED, Message, without_defaults


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


class GrantRequest(NamedTuple):
    lease: int
    ttl_seconds: int


class RevokeRequest(NamedTuple):
    lease: int


class CompactRequest(NamedTuple):
    revision: int
    physical: bool


Request = (
    RangeRequest
    | PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactRequest
    | GrantRequest
    | RevokeRequest
    | WatchRequest
)

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
        if op not in _PARSERS:
            raise ValueError(f"unknown op {op!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise NotAConversation(f"{name}, line {number}: {problem}") from None
    return Exchange(number, op, request, response, error)


# --- requests --------------------------------------------------------------------------


def parse_request(exchange: Exchange) -> Request:
    """What to ask the engine. Raises ``NotAConversation`` where a field is unknown or of the wrong kind."""
    try:
        request: Request = _PARSERS[exchange.op](exchange.request)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise NotAConversation(f"line {exchange.line}: {exchange.op}: {problem!r}") from None
    return request


class _Fields:
    """The fields of one recorded message; ``done`` refuses those that nobody asked for."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._left = dict(message)

    def data(self, name: str) -> bytes:
        return str(self._left.pop(name, "")).encode("latin-1")

    def number(self, name: str) -> int:
        return int(self._left.pop(name, 0))

    def flag(self, name: str) -> bool:
        return bool(self._left.pop(name, False))

    def enum(self, name: str, kind: type[IntEnum]) -> int:
        value = self._left.pop(name, 0)
        return kind[value] if isinstance(value, str) else int(value)

    def items(self, name: str) -> Sequence[Any]:
        return tuple(self._left.pop(name, ()))

    def done(self) -> None:
        if self._left:
            raise ValueError(f"unknown field {min(self._left)!r}")


def _range(message: Message) -> RangeRequest:
    fields = _Fields(message)
    fields.flag("serializable")  # there is one process: every read is linearizable
    request = RangeRequest(
        fields.data("key"),
        fields.data("range_end"),
        fields.number("limit"),
        fields.number("revision"),
        fields.enum("sort_order", SortOrder),
        fields.enum("sort_target", SortTarget),
        fields.flag("keys_only"),
        fields.flag("count_only"),
        fields.number("min_mod_revision"),
        fields.number("max_mod_revision"),
        fields.number("min_create_revision"),
        fields.number("max_create_revision"),
    )
    fields.done()
    return request


def _put(message: Message) -> PutRequest:
    fields = _Fields(message)
    request = PutRequest(
        fields.data("key"),
        fields.data("value"),
        fields.number("lease"),
        fields.flag("prev_kv"),
        fields.flag("ignore_value"),
        fields.flag("ignore_lease"),
    )
    fields.done()
    return request


def _delete(message: Message) -> DeleteRangeRequest:
    fields = _Fields(message)
    request = DeleteRangeRequest(fields.data("key"), fields.data("range_end"), fields.flag("prev_kv"))
    fields.done()
    return request


def _txn(message: Message) -> TxnRequest:
    fields = _Fields(message)
    compares = tuple(_compare(compare) for compare in fields.items("compare"))
    success = tuple(_op(op) for op in fields.items("success"))
    failure = tuple(_op(op) for op in fields.items("failure"))
    fields.done()
    return TxnRequest(compares, success, failure)


_OPERAND_FIELDS = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value",
    CompareTarget.LEASE: "lease",
}


def _compare(message: Message) -> Compare:
    fields = _Fields(message)
    target = CompareTarget(fields.enum("target", CompareTarget))
    name = _OPERAND_FIELDS[target]
    operand: int | bytes = fields.data(name) if target == CompareTarget.VALUE else fields.number(name)
    compare = Compare(
        fields.data("key"),
        target,
        fields.enum("result", CompareResult),
        operand,
        fields.data("range_end"),
    )
    fields.done()
    return compare


def _op(message: Message) -> Op:
    if not message:
        return None
    (name, body), *others = message.items()
    if others:
        raise ValueError("an op with two bodies")
    return _OPS[name](body)


_OPS: dict[str, Callable[[Message], Op]] = {
    "request_range": _range,
    "request_put": _put,
    "request_delete_range": _delete,
    "request_txn": _txn,
}


def _compact(message: Message) -> CompactRequest:
    fields = _Fields(message)
    request = CompactRequest(fields.number("revision"), fields.flag("physical"))
    fields.done()
    return request


def _grant(message: Message) -> GrantRequest:
    fields = _Fields(message)
    request = GrantRequest(fields.number("ID"), fields.number("TTL"))
    fields.done()
    return request


def _revoke(message: Message) -> RevokeRequest:
    fields = _Fields(message)
    request = RevokeRequest(fields.number("ID"))
    fields.done()
    return request


def _watch(message: Message) -> WatchRequest:
    fields = _Fields(message)
    filters = fields.items("filters")
    if unknown := set(filters) - {"NOPUT", "NODELETE"}:
        raise ValueError(f"unknown filter {min(unknown)!r}")
    request = WatchRequest(
        fields.data("key"),
        fields.data("range_end"),
        fields.number("start_revision"),
        fields.flag("prev_kv"),
        "NOPUT" in filters,
        "NODELETE" in filters,
        fields.flag("progress_notify"),
    )
    fields.done()
    return request


_PARSERS: dict[str, Callable[[Message], Request]] = {
    "range": _range,
    "put": _put,
    "delete": _delete,
    "txn": _txn,
    "compact": _compact,
    "grant": _grant,
    "revoke": _revoke,
    "watch": _watch,
}

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
