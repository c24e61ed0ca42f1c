"""Requests drawn by hypothesis: over few, awkward keys, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck
from hypothesis import strategies as st

from kvstore.model import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    prefix_end,
)

LONG = b"long/" + b"k" * 600
KEYS = [b"\0", b"\0\0", b"\0\1", b"\0\xff", b"\1", b"a", b"a\0", b"a\0\xff", b"a\1", b"aa", b"ab", b"b", b"\xff",
        b"\xff\0", b"\xff\xff", LONG, LONG + b"\0", LONG + b"x"]  # fmt: skip
LEASES = (1, 2, -7)
ENDS = [b"", b"", b"\0", *KEYS, *map(prefix_end, KEYS)]
VALUES = [b"", b"x", b"\0\xff", b"v" * 700]


def one_of(items: list[bytes]) -> st.SearchStrategy[bytes]:
    """By position: a strategy that holds long keys itself is described at great length."""
    return st.integers(0, len(items) - 1).map(lambda position: items[position])


keys = one_of(KEYS)
ends = one_of(ENDS)
values = one_of(VALUES) | st.binary(max_size=3)
leases = st.sampled_from((0, 0, 0, *LEASES, 99))
flags = st.sampled_from((False, False, False, True))
numbers = st.integers(-1, 12)

puts = st.builds(
    PutRequest, keys, values, leases, prev_kv=flags, ignore_value=flags, ignore_lease=flags
).filter(lambda put: not ((put.ignore_value and put.value) or (put.ignore_lease and put.lease)))
deletes = st.builds(DeleteRangeRequest, keys, ends, st.booleans())


def rarely(number: int) -> st.SearchStrategy[int]:
    return st.integers(0, 9).map(lambda drawn: number if drawn == 9 else 0)


ranges = st.builds(
    RangeRequest,
    keys,
    ends | one_of([b"\0"]),
    limit=st.sampled_from((0, 0, 1, 2, 3, 5, -1)),
    revision=st.just(0) | st.integers(-1, 40),
    sort_order=st.sampled_from((0, 0, 1, 2)),
    sort_target=st.sampled_from((0, 0, 1, 2, 3, 4)),
    keys_only=flags,
    count_only=flags,
    min_mod_revision=rarely(3),
    max_mod_revision=rarely(9),
    min_create_revision=rarely(4),
    max_create_revision=rarely(8),
)

number_compares = st.builds(Compare, keys, st.sampled_from((0, 1, 2, 4)), st.integers(0, 3), numbers, ends)
value_compares = st.builds(Compare, keys, st.just(3), st.integers(0, 3), values, ends)
compares = st.lists(number_compares | value_compares, max_size=2).map(tuple)


def branches(ops: st.SearchStrategy[Any]) -> st.SearchStrategy[TxnRequest]:
    some = st.lists(ops, max_size=4).map(tuple)
    return st.builds(TxnRequest, compares, some, some)


txns = branches(puts | deletes | ranges | branches(puts | deletes | ranges))

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
