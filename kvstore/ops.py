"""Building transactions: compares and ops as expressions.

from kvstore import ops

store.txn(
    compare=[ops.version(b"k") == 1, ops.value(b"lock") != b"held"],
    success=[ops.put(b"k", b"w"), ops.get(b"other")],
    failure=[ops.delete(b"k")],
)

They only build: nothing is read or written before the transaction is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, TypedDict, Unpack

from kvstore.arguments import Data, as_bytes, check_bounds, check_bytes
from kvstore.errors import EmptyKey
from kvstore.model import (
    FROM_KEY,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
    prefix_end,
    put_request,
)
from kvstore.mvcc.validate import check_int64


def key_range(key: bytes | None, range_end: bytes | None, prefix: bytes | None) -> tuple[bytes, bytes]:
    """The (key, range_end) of a request, however the caller named the range."""
    if prefix is not None:
        if key is not None or range_end is not None:
            raise TypeError("give either a key (and range_end) or a prefix")
        check_bytes("prefix", prefix)
        return (prefix, prefix_end(prefix)) if prefix else (FROM_KEY, FROM_KEY)
    if key is None:
        raise TypeError("a key or a prefix is needed")
    if type(key) is not bytes:
        check_bytes("key", key)
    if not key:
        raise EmptyKey
    if range_end is None:
        return key, b""
    check_bytes("range_end", range_end)
    return key, range_end


def watch(
    key: bytes | None,
    range_end: bytes | None,
    prefix: bytes | None,
    start_revision: int,
    resume: tuple[int, int] | None,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    progress_notify: bool,
) -> WatchRequest:
    """A watch request, however the caller named its range and its start."""
    # The empty key with a range_end means the first key there is, as in etcd's watches.
    start, end = key_range(FROM_KEY if key == b"" and range_end else key, range_end, prefix)
    check_bounds(start_revision=start_revision)
    revision, sub = _watch_start(start_revision, resume)
    return WatchRequest(start, end, revision, prev_kv, no_put, no_delete, progress_notify, sub)


def _watch_start(start_revision: int, resume: tuple[int, int] | None) -> tuple[int, int]:
    """The (revision, sub) of the first change that a watch wants."""
    if resume is None:
        return start_revision, 0
    if start_revision:
        raise TypeError("give either a start_revision or the position to resume at")
    if not isinstance(resume, tuple | list) or len(resume) != 2:
        raise TypeError(f"resume must be a watch's position (two numbers), not {resume!r}")
    revision, sub = resume
    check_int64("resume", revision)
    check_int64("resume", sub)
    return revision, sub


class RangeOptions(TypedDict, total=False):
    """What a range in a transaction may be given beside its keys; see ``Store.range``."""

    limit: int
    revision: int
    sort_order: int
    sort_target: int
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class Target:
    """A property of a key that can be compared; the comparison makes a ``Compare``."""

    __slots__ = ("_key", "_range_end", "_target")

    def __init__(self, target: CompareTarget, key: bytes, range_end: bytes) -> None:
        self._target = target
        self._key = key
        self._range_end = range_end

    def _compare(self, result: CompareResult, operand: Any) -> Compare:
        wanted = bytes if self._target == CompareTarget.VALUE else int
        if type(operand) is not wanted:
            raise TypeError(
                f"a {self._target.name.lower()} compares with {wanted.__name__}, not with {operand!r:.80}"
            )
        return Compare(self._key, self._target, result, operand, self._range_end)

    def __eq__(self, operand: object) -> Compare:  # type: ignore[override]  # an expression, not an equality
        return self._compare(CompareResult.EQUAL, operand)

    def __ne__(self, operand: object) -> Compare:  # type: ignore[override]  # an expression, not an equality
        return self._compare(CompareResult.NOT_EQUAL, operand)

    def __gt__(self, operand: Any) -> Compare:
        return self._compare(CompareResult.GREATER, operand)

    def __lt__(self, operand: Any) -> Compare:
        return self._compare(CompareResult.LESS, operand)

    def __ge__(self, operand: Any) -> NoReturn:
        raise TypeError("etcd has no >=: write `version(k) > 4` for `version(k) >= 5`")

    def __le__(self, operand: Any) -> NoReturn:
        raise TypeError("etcd has no <=: write `version(k) < 6` for `version(k) <= 5`")

    __hash__ = None  # type: ignore[assignment]  # not a value

    def __bool__(self) -> NoReturn:
        raise TypeError("compare it with ==, !=, < or >")

    def __repr__(self) -> str:
        return f"<{self._target.name.lower()} of {self._key!r}, not compared with anything yet>"


def _target(kind: CompareTarget, key: bytes | None, range_end: bytes | None, prefix: bytes | None) -> Target:
    return Target(kind, *key_range(key, range_end, prefix))


def version(
    key: bytes | None = None, *, range_end: bytes | None = None, prefix: bytes | None = None
) -> Target:
    """How often the key was put since it was created; 0 if it does not exist."""
    return _target(CompareTarget.VERSION, key, range_end, prefix)


def create_revision(
    key: bytes | None = None, *, range_end: bytes | None = None, prefix: bytes | None = None
) -> Target:
    """The revision that created the key; 0 if it does not exist."""
    return _target(CompareTarget.CREATE, key, range_end, prefix)


def mod_revision(
    key: bytes | None = None, *, range_end: bytes | None = None, prefix: bytes | None = None
) -> Target:
    """The revision of the key's last put; 0 if it does not exist."""
    return _target(CompareTarget.MOD, key, range_end, prefix)


def value(key: bytes | None = None, *, range_end: bytes | None = None, prefix: bytes | None = None) -> Target:
    """The key's value; a compare is false if the key does not exist."""
    return _target(CompareTarget.VALUE, key, range_end, prefix)


def lease(key: bytes | None = None, *, range_end: bytes | None = None, prefix: bytes | None = None) -> Target:
    """The id of the lease attached to the key; 0 if there is none."""
    return _target(CompareTarget.LEASE, key, range_end, prefix)


def put(
    key: bytes,
    value: Data = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> PutRequest:
    """A put, as an op of a transaction."""
    if type(value) is not bytes:
        value = as_bytes("value", value)
    request: PutRequest = put_request((key, value, lease, prev_kv, ignore_value, ignore_lease))
    return request


def get(
    key: bytes | None = None,
    *,
    range_end: bytes | None = None,
    prefix: bytes | None = None,
    **options: Unpack[RangeOptions],
) -> RangeRequest:
    """A range, as an op of a transaction; ``options`` are those of ``RangeRequest``."""
    request = RangeRequest(*key_range(key, range_end, prefix), **options)
    check_bounds(
        limit=request.limit,
        revision=request.revision,
        min_mod_revision=request.min_mod_revision,
        max_mod_revision=request.max_mod_revision,
        min_create_revision=request.min_create_revision,
        max_create_revision=request.max_create_revision,
    )
    return request


def delete(
    key: bytes | None = None,
    *,
    range_end: bytes | None = None,
    prefix: bytes | None = None,
    prev_kv: bool = False,
) -> DeleteRangeRequest:
    """A delete, as an op of a transaction."""
    return DeleteRangeRequest(*key_range(key, range_end, prefix), prev_kv)


def txn(
    compare: Iterable[Compare] = (), success: Iterable[Op] = (), failure: Iterable[Op] = ()
) -> TxnRequest:
    """A transaction, also for use as an op of another."""
    return TxnRequest(_listed("compare", compare), _listed("success", success), _listed("failure", failure))


def _listed(name: str, items: Iterable[Any]) -> tuple[Any, ...]:
    """The items of a list of compares or ops. (A single one is itself a tuple, of its fields.)"""
    if type(items) in _ALONE or isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"{name} is a list: write {name}=[...], also around a single one; not {items!r:.80}")
    return tuple(items)


_ALONE = (Compare, RangeRequest, PutRequest, DeleteRangeRequest, TxnRequest, Target)
