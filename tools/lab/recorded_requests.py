"""The requests of recorded conversations (``conversation.py`` tells the format), made into the engine's.

Each message is a table of fields: (name, how its value is read), in the order of the request that it makes. A field
that is absent is at its default; one that no table names is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

from kvstore.model import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    Op,
    PutRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
    WatchRequest,
)

from ..answers import Message


class GrantRequest(NamedTuple):
    lease: int
    ttl_seconds: int


class RevokeRequest(NamedTuple):
    lease: int


class KeepAliveRequest(NamedTuple):
    lease: int


class TimeToLiveRequest(NamedTuple):
    lease: int
    keys: bool


class LeasesRequest(NamedTuple):
    pass


class CompactRequest(NamedTuple):
    revision: int
    physical: bool


class HashKVRequest(NamedTuple):
    revision: int


class CreateWatch(NamedTuple):
    """On the stream; ``watch_id`` 0: one is drawn."""

    watch: WatchRequest
    watch_id: int


class CancelWatch(NamedTuple):
    watch_id: int


class AskProgress(NamedTuple):
    pass


class ReadStream(NamedTuple):
    pass


StreamRequest = CreateWatch | CancelWatch | AskProgress | ReadStream
Request = (
    RangeRequest
    | PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactRequest
    | GrantRequest
    | RevokeRequest
    | KeepAliveRequest
    | TimeToLiveRequest
    | LeasesRequest
    | HashKVRequest
    | WatchRequest
    | StreamRequest
)

Read = Callable[[Any], Any]
"""From the recorded value (None: absent) to the engine's."""


def _message(message: Mapping[str, Any], make: Callable[..., Any], fields: Mapping[str, Read]) -> Any:
    if unknown := message.keys() - fields.keys():
        raise ValueError(f"unknown field {min(unknown)!r}")
    return make(*[read(message.get(name)) for name, read in fields.items()])


def _parser(make: Callable[..., Any], **fields: Read) -> Callable[[Message], Any]:
    return partial(_message, make=make, fields=fields)


# --- fields ----------------------------------------------------------------------------


def _of(kind: type, default: Any) -> Read:
    def read(value: Any) -> Any:
        if value is not None and type(value) is not kind:
            raise TypeError(f"{value!r} where a {kind.__name__} belongs")
        return default if value is None else value

    return read


_number, _flag, _text, _list = _of(int, 0), _of(bool, False), _of(str, ""), _of(list, [])


def _data(value: Any) -> bytes:
    data: bytes = _text(value).encode("latin-1")
    return data


def _enum(kind: type[IntEnum]) -> Read:
    return lambda value: kind[value] if isinstance(value, str) else _number(value)


def _several(read: Read) -> Read:
    return lambda value: tuple(map(read, _list(value)))


# --- messages --------------------------------------------------------------------------


def _range(*fields: Any) -> RangeRequest:
    return RangeRequest(*fields[:-1])  # serializable: there is one process, and every read is linearizable


def _compare(
    target: int, version: int, create: int, mod: int, value: bytes, lease: int, *others: Any
) -> Compare:
    """The operand is the one that the target asks for; as in etcd, any other is as good as none."""
    key, result, range_end = others
    operands = (version, create, mod, value, lease)
    return Compare(key, target, CompareResult(result), operands[CompareTarget(target)], range_end)


def _op(message: Message) -> Op:
    return _one_of(message, _OPS) if message else None


def _one_of(message: Message, parsers: Mapping[str, Callable[[Message], Any]]) -> Any:
    (name, body), *others = message.items()
    if others:
        raise ValueError(f"both {name!r} and {others[0][0]!r}")
    return parsers[name](body)


def _create(watch_id: int, filters: tuple[str, ...], *fields: Any) -> CreateWatch:
    if unknown := set(filters) - {"NOPUT", "NODELETE"}:
        raise ValueError(f"unknown filter {min(unknown)!r}")
    key, range_end, start_revision, prev_kv, progress_notify = fields
    no_put, no_delete = "NOPUT" in filters, "NODELETE" in filters
    watch = WatchRequest(key, range_end, start_revision, prev_kv, no_put, no_delete, progress_notify)
    return CreateWatch(watch, watch_id)


def _stream(message: Message) -> Request:
    request: Request = _one_of(message, _STREAM_REQUESTS) if message else ReadStream()
    return request


_OPS: dict[str, Callable[[Message], Any]] = {
    "request_range": _parser(
        _range,
        key=_data,
        range_end=_data,
        limit=_number,
        revision=_number,
        sort_order=_enum(SortOrder),
        sort_target=_enum(SortTarget),
        keys_only=_flag,
        count_only=_flag,
        min_mod_revision=_number,
        max_mod_revision=_number,
        min_create_revision=_number,
        max_create_revision=_number,
        serializable=_flag,
    ),
    "request_put": _parser(
        PutRequest,
        key=_data,
        value=_data,
        lease=_number,
        prev_kv=_flag,
        ignore_value=_flag,
        ignore_lease=_flag,
    ),
    "request_delete_range": _parser(DeleteRangeRequest, key=_data, range_end=_data, prev_kv=_flag),
    "request_txn": _parser(
        TxnRequest,
        compare=_several(
            _parser(
                _compare,
                target=_enum(CompareTarget),
                version=_number,
                create_revision=_number,
                mod_revision=_number,
                value=_data,
                lease=_number,
                key=_data,
                result=_enum(CompareResult),
                range_end=_data,
            )
        ),
        success=_several(_op),
        failure=_several(_op),
    ),
}

_STREAM_REQUESTS: dict[str, Callable[[Message], Any]] = {
    "create_request": _parser(
        _create,
        watch_id=_number,
        filters=_several(_text),
        key=_data,
        range_end=_data,
        start_revision=_number,
        prev_kv=_flag,
        progress_notify=_flag,
    ),
    "cancel_request": _parser(CancelWatch, watch_id=_number),
    "progress_request": _parser(AskProgress),
}


def _watch(message: Message) -> WatchRequest:
    create: CreateWatch = _STREAM_REQUESTS["create_request"](message)
    return create.watch


PARSERS: dict[str, Callable[[Message], Request]] = {
    "range": _OPS["request_range"],
    "put": _OPS["request_put"],
    "delete": _OPS["request_delete_range"],
    "txn": _OPS["request_txn"],
    "compact": _parser(CompactRequest, revision=_number, physical=_flag),
    "grant": _parser(GrantRequest, ID=_number, TTL=_number),
    "revoke": _parser(RevokeRequest, ID=_number),
    "keepalive": _parser(KeepAliveRequest, ID=_number),
    "timetolive": _parser(TimeToLiveRequest, ID=_number, keys=_flag),
    "leases": _parser(LeasesRequest),
    "hashkv": _parser(HashKVRequest, revision=_number),
    "watch": _watch,
    "stream": _stream,
}
"""By op."""
