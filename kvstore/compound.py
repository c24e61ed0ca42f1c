"""Writes that take more than one request: many puts, and a counter. On any engine.

    put_many   as few transactions as the limits allow, in the order given; one, and so one revision, if all fit
    incr       read, then write if the key has not changed meanwhile; otherwise again

A server does not say what its limits are: etcd's defaults are taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kvstore.codecs import INTEGER, Codec
from kvstore.errors import BadArgument, RequestTooLarge
from kvstore.keyvalue import KeyValue
from kvstore.model import Compare, CompareTarget, PutRequest, TxnRequest
from kvstore.options import Options
from kvstore.protocol import Engine

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
    options = getattr(engine, "options", None)
    limits = options if isinstance(options, Options) else Options()
    bytes_max = limits.max_request_bytes
    for key, value in items.items():
        if len(key) + len(value) > bytes_max:
            raise RequestTooLarge(len(key) + len(value), bytes_max, key=key)
    revision, revisions = 0, 0
    for group in _groups(items, lease, limits.max_txn_ops, bytes_max):
        if len(group) == 1:
            revision = engine.put(group[0]).revision
        else:
            revision = engine.txn(TxnRequest((), tuple(group))).revision
        revisions += 1
    return PutManyResponse(revision or engine.revision, len(items), revisions)


def _groups(
    items: Mapping[bytes, bytes], lease: int, ops_max: int, bytes_max: int
) -> Iterator[list[PutRequest]]:
    group: list[PutRequest] = []
    size = _OP_BYTES
    for key, value in items.items():
        put = PutRequest(key, value, lease)
        cost = len(key) + len(value) + _OP_BYTES
        if group and (len(group) == ops_max or size + cost > bytes_max):
            yield group
            group, size = [], _OP_BYTES
        group.append(put)
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


def incr(engine: Engine, key: bytes, by: int, numbers: Codec[int] = INTEGER) -> int:
    """Add to a number, 0 where there is no key. Returns the sum."""
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
