"""Checks of a request that need no state (etcd's API layer), in etcd's order.

What is refused here is refused whatever the store holds; checks that need the store are in ``plan``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any, NoReturn

from kvstore.arguments import wrong_type
from kvstore.errors import (
    BadArgument,
    DuplicateKey,
    EmptyKey,
    InvalidSortOption,
    KeyNotFound,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from kvstore.implementation import native
from kvstore.model import (
    FROM_KEY,
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
)


def check_key(key: bytes) -> None:
    _bytes("key", key)
    if not key:
        raise EmptyKey


def check_range(request: RangeRequest) -> None:
    _bytes("key", request.key)
    _bytes("range_end", request.range_end)
    try:  # all at once: a sum of ints is an int, a sum of anything else is not
        total: object = sum((*request[2:6], *request[8:]))
    except TypeError:
        total = None
    if not isinstance(total, int):
        _refuse_number(request)
    if not request.key:
        raise EmptyKey
    if not (0 <= request.sort_order <= 2 and 0 <= request.sort_target <= 4):
        raise InvalidSortOption


def _refuse_number(request: RangeRequest) -> NoReturn:
    """Name the field of a range that should be a number and is not."""
    given: dict[str, object] = request._asdict()
    flags = ("key", "range_end", "keys_only", "count_only")
    name = next(name for name in given if name not in flags and not isinstance(given[name], int))
    raise TypeError(f"{name} must be an int, not {given[name]!r:.80}")


def check_put(request: PutRequest) -> None:
    _bytes("key", request.key)
    _bytes("value", request.value)
    lease: object = request.lease
    if lease and not isinstance(lease, int):
        its_id = ": give its .id" if hasattr(lease, "id") else ""
        raise TypeError(f"lease must be a lease id (an int), not {lease!r:.80}{its_id}")
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise ValueProvided
    if request.ignore_lease and request.lease:
        raise LeaseProvided


def check_delete(request: DeleteRangeRequest) -> None:
    _bytes("key", request.key)
    _bytes("range_end", request.range_end)
    if not request.key:
        raise EmptyKey


def plain_puts_bytes(request: TxnRequest) -> int:
    """The bytes of keys and values of a transaction that ``check_txn`` would pass whatever its number of ops: puts of
    different keys, without options. -1: it is something else, or something is wrong with it.
    """
    if request.compare or request.failure:
        return -1
    return plain_ops_bytes(request.success, PutRequest)


@native
def plain_ops_bytes(ops: tuple[Op, ...], kind: type[PutRequest]) -> int:
    """The bytes of keys and values of ops that are all plain, valid puts of different keys; else -1."""
    keys, size_bytes = set(), 0
    for op in ops:
        if op.__class__ is not kind:
            return -1
        key, value, lease, _, ignore_value, ignore_lease = op
        if (
            type(key) is not bytes
            or type(value) is not bytes
            or not key
            or lease
            or ignore_value
            or ignore_lease
        ):
            return -1
        keys.add(key)
        size_bytes += len(key) + len(value)
    return size_bytes if len(keys) == len(ops) else -1


PLAIN_KINDS = Compare, PutRequest, RangeRequest(b"key")


@native
def plain_parts_bytes(
    compares: tuple[Compare, ...], branches: tuple[tuple[Op, ...], ...], kinds: tuple[Any, ...]
) -> int:
    """The bytes of keys, values and operands of a transaction that ``check_txn`` would pass whatever its number of
    ops: compares of single keys; in each branch plain puts of different keys, and ranges that say nothing but a key.
    -1: it is something else, or something is wrong with it. ``kinds``: ``PLAIN_KINDS``.
    """
    compare_kind, put_kind, plain_range = kinds
    size_bytes = 0
    for compare in compares:
        if compare.__class__ is not compare_kind:
            return -1
        key, target, result, operand, range_end = compare
        wanted = bytes if target == CompareTarget.VALUE else int
        if type(key) is not bytes or not key or range_end != b"" or type(operand) is not wanted:
            return -1
        if not (
            isinstance(target, int) and isinstance(result, int) and 0 <= target <= 4 and 0 <= result <= 3
        ):
            return -1
        size_bytes += len(key) + (len(operand) if isinstance(operand, bytes) else 0)
    for ops in branches:
        ranges: list[Any] = [op for op in ops if op.__class__ is plain_range.__class__]
        puts = [op for op in ops if op.__class__ is not plain_range.__class__]
        put_bytes = plain_ops_bytes(tuple(puts), put_kind)
        if put_bytes < 0:
            return -1
        size_bytes += put_bytes
        for op in ranges:
            if type(op.key) is not bytes or not op.key or not all(map(is_, op[1:], plain_range[1:])):
                return -1
            size_bytes += len(op.key)
    return size_bytes


def check_txn(request: TxnRequest, max_ops: int) -> None:
    """Check counts and ops, nested ones included; only then keys that two ops would write."""
    _check_ops(request, max_ops)
    _check_branch(request.success)
    _check_branch(request.failure)


def _check_ops(request: TxnRequest, max_ops: int) -> None:
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > max_ops:
        raise TooManyOps(ops, max(max_ops, 0))
    for compare in request.compare:
        if not isinstance(compare, Compare):
            raise TypeError(f"a compare is written like version(k) == 1, not {compare!r:.80}")
        _bytes("key", compare.key)
        if not compare.key:
            raise EmptyKey
        if not (0 <= compare.target <= 4 and 0 <= compare.result <= 3):
            raise ValueError(f"no such compare: {compare!r}")
        wanted = bytes if compare.target == CompareTarget.VALUE else int
        if not isinstance(compare.operand, wanted) and compare.operand != 0:
            raise TypeError(
                f"a compare of {CompareTarget(compare.target).name} cannot take {compare.operand!r}"
            )
    for op in (*request.success, *request.failure):
        _check_op(op, max_ops - ops)


def _check_op(op: Op, max_ops: int) -> None:
    if isinstance(op, PutRequest):
        check_put(op)
    elif isinstance(op, RangeRequest):
        check_range(op)
    elif isinstance(op, DeleteRangeRequest):
        check_delete(op)
    elif isinstance(op, TxnRequest):
        _check_ops(op, max_ops)
    elif op is None:
        raise KeyNotFound
    else:
        raise TypeError(f"a transaction op is made with put, get, delete or txn, not {op!r:.80}")


Interval = tuple[bytes, bytes | None]
"""[start, end); end None: to the last key."""


def _check_branch(ops: Sequence[Op]) -> tuple[set[bytes], list[Interval]]:
    """Refuse two writes to one key. Returns what this branch puts and deletes.

    Nested transactions are checked first, in order: the puts of one may not meet puts or deletes of *earlier*
    ones (a later delete over an earlier put is fine). Then this level's puts may meet nothing at all.
    """
    put_keys = {op.key for op in ops if isinstance(op, PutRequest)}
    if len(put_keys) == len(ops):  # the usual large transaction: puts of different keys, and nothing else
        return put_keys, []
    puts: set[bytes] = set()
    deletes = [_interval(op.key, op.range_end) for op in ops if isinstance(op, DeleteRangeRequest)]
    for op in ops:
        if not isinstance(op, TxnRequest):
            continue
        then_puts, then_deletes = _check_branch(op.success)
        else_puts, else_deletes = _check_branch(op.failure)
        nested_puts = then_puts | else_puts
        if nested_puts & puts or any_inside(nested_puts, deletes):
            raise DuplicateKey(min(nested_puts & puts, default=b""))
        puts |= nested_puts
        deletes += then_deletes + else_deletes
    own: set[bytes] = set()
    for op in ops:
        if isinstance(op, PutRequest):
            if op.key in puts or op.key in own or any_inside((op.key,), deletes):
                raise DuplicateKey(op.key)
            own.add(op.key)
    return puts | own, deletes


def _interval(key: bytes, range_end: bytes) -> Interval:
    """The keys that a delete covers. As in etcd, "from key" makes an interval that covers nothing here."""
    return (key, range_end) if range_end else (key, key + b"\0")


def any_inside(keys: Iterable[bytes], intervals: list[Interval]) -> bool:
    """Whether any of the keys is in any of the intervals."""
    return any(start <= key and (end is None or key < end) for key in keys for start, end in intervals)


def range_bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """[start, end) of a range request; end None: to the last key."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == FROM_KEY else range_end


def _bytes(name: str, value: Any) -> None:
    if type(value) is not bytes:
        raise wrong_type(name, value)


def check_int64(name: str, value: Any) -> None:
    """Check for a signed 64-bit number before a plan begins: an error in the middle of one poisons the store."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r:.80}")
    if not -(1 << 63) <= value < 1 << 63:
        raise BadArgument(f"{name} must fit into 64 bits, not {value}")
