"""Writes that take more than one request. On any engine.

    put_many, write_many   as few transactions as the limits allow, in the order given; one, and so one revision, if all
                           fit
    update, take, incr     read, then write if the key has not changed meanwhile; otherwise again
    add                    write what is not there, or read what is

A server does not say what its limits are: ``kvstore.connect`` is told, or takes etcd's defaults for them. What it
refuses for its size it has not written; that is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeVar

from kvstore.arguments import check_int
from kvstore.codecs import INTEGER, Codec
from kvstore.errors import BadArgument, LeaseNotFound, RequestTooLarge, TooManyOps
from kvstore.keyvalue import KeyValue
from kvstore.model import Compare, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from kvstore.options import Options
from kvstore.protocol import Engine

T = TypeVar("T")
Write = PutRequest | DeleteRangeRequest

_OP_BYTES = 64
"""More than a put takes in a request besides its key and value, and more than the request itself takes."""


class PutManyResponse(NamedTuple):
    """The answer to ``put_many``."""

    revision: int
    """The revision of the last put."""
    puts: int
    """How many keys were put."""
    revisions: int
    """How many revisions (and transactions) they took; 1 if all fitted into one."""


def put_many(engine: Engine, items: Mapping[bytes, bytes], lease: int) -> PutManyResponse:
    """Put all, in order. Raises ``RequestTooLarge`` before anything is written if one of them can never be."""
    bytes_max = _limits(engine).max_request_bytes
    for key, value in items.items():
        if len(key) + len(value) > bytes_max:
            raise RequestTooLarge(len(key) + len(value), bytes_max, key=key)
    revision, revisions = write_many(engine, (PutRequest(key, value, lease) for key, value in items.items()))
    return PutManyResponse(revision or engine.revision, len(items), revisions)


def write_many(engine: Engine, writes: Iterable[Write]) -> tuple[int, int]:
    """Make all of them, in order. Returns the last revision (0: there was nothing to write), and how many they took."""
    revision, revisions = 0, 0
    for group in _groups(writes, _limits(engine)):
        revision, more = _write(engine, group)
        revisions += more
    return revision, revisions


def _write(engine: Engine, group: list[Write]) -> tuple[int, int]:
    try:
        if len(group) == 1 and isinstance(group[0], PutRequest):
            return engine.put(group[0]).revision, 1
        return engine.txn(TxnRequest((), tuple(group))).revision, 1
    except (TooManyOps, RequestTooLarge):
        if len(group) == 1:
            raise
    half = len(group) // 2
    _, revisions = _write(engine, group[:half])
    revision, more = _write(engine, group[half:])
    return revision, revisions + more


class Limits(Protocol):
    """The options of an engine that say how large a transaction may be."""

    @property
    def max_txn_ops(self) -> int: ...

    @property
    def max_request_bytes(self) -> int: ...


def _limits(engine: Engine) -> Limits:
    options: Limits | None = getattr(engine, "options", None)
    return Options() if options is None else options


def _groups(writes: Iterable[Write], limits: Limits) -> Iterator[list[Write]]:
    group: list[Write] = []
    size = _OP_BYTES
    for write in writes:
        cost = len(write.key) + _OP_BYTES
        if isinstance(write, PutRequest):
            cost += len(write.value)
        if group and (len(group) == limits.max_txn_ops or size + cost > limits.max_request_bytes):
            yield group
            group, size = [], _OP_BYTES
        group.append(write)
        size += cost
    if group:
        yield group


def update(engine: Engine, key: bytes, change: Callable[[KeyValue | None], bytes]) -> int:
    """Write what ``change`` makes of the key's newest version; it is called again if another writer was faster.

    A lease that the key has stays. Returns the revision.
    """
    while True:
        found = engine.get(key)
        put = PutRequest(key, change(found), ignore_lease=found is not None)
        seen = Compare(key, CompareTarget.MOD, operand=found.mod_revision if found else 0)
        done = engine.txn(TxnRequest((seen,), (put,)))
        if done.succeeded:
            return done.revision


def take(engine: Engine, key: bytes, decode: Callable[[KeyValue], T]) -> T | None:
    """Delete a key. Returns what ``decode`` makes of it, or None if there is none; what it raises deletes nothing."""
    while (found := engine.get(key)) is not None:
        decoded = decode(found)
        seen = Compare(key, CompareTarget.MOD, operand=found.mod_revision)
        if engine.txn(TxnRequest((seen,), (DeleteRangeRequest(key),))).succeeded:
            return decoded
    return None


def add(engine: Engine, key: bytes, value: bytes, ttl_seconds: int = 0) -> KeyValue | None:
    """Write a key that is not there, for ``ttl_seconds`` if given. Returns what is there instead, or None."""
    found = engine.get(key)
    if found is not None:
        return found
    lease = engine.lease_grant(ttl_seconds, 0).id if ttl_seconds else 0
    absent = Compare(key, CompareTarget.VERSION, operand=0)
    done = engine.txn(TxnRequest((absent,), (PutRequest(key, value, lease),), (RangeRequest(key),)))
    if done.succeeded:
        return None
    if lease:
        with suppress(LeaseNotFound):  # it has expired meanwhile
            engine.lease_revoke(lease)
    there: KeyValue = done.responses[0].kvs[0]  # type: ignore[union-attr]  # a range's answer
    return there


def incr(engine: Engine, key: bytes, by: int, numbers: Codec[int] = INTEGER) -> int:
    """Add to a number, 0 where there is no key. Returns the sum."""
    check_int("by", by)
    total = 0

    def add(found: KeyValue | None) -> bytes:
        nonlocal total
        total = (0 if found is None else _number(found, numbers)) + by
        return numbers.encode(total)

    update(engine, key, add)
    return total


def _number(kv: KeyValue, numbers: Codec[int]) -> int:
    try:
        number: object = numbers.decode(kv.value)
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool):
        raise BadArgument(f"the value of key {kv.key!r:.80} is no number: {kv.value!r:.40}")
    return number
