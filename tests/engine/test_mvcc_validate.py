"""Checks of requests that need no state: which refusal wins is etcd's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvstore
from kvstore import implementation
from kvstore.errors import DuplicateKey, EmptyKey, LeaseProvided
from kvstore.model import Compare, CompareTarget, PutRequest, RangeRequest, TxnRequest
from kvstore.mvcc.validate import PLAIN_KINDS, check_txn, plain_parts_bytes
from tests.native.arguments import BRANCHES, compares

PLAIN = [implementation.references["plain_parts_bytes"], plain_parts_bytes]
"""In Python, and as it is used."""

TWICE = TxnRequest(success=(PutRequest(b"k"), PutRequest(b"k")))


def test_a_bad_op_anywhere_is_refused_before_a_duplicate_key_in_a_nested_transaction() -> None:
    """etcd looks for duplicate keys only once all ops, however deep, have passed their own checks."""
    check = [
        (TxnRequest(success=(TWICE, PutRequest(b""))), EmptyKey),
        (
            TxnRequest(success=(TWICE,), failure=(PutRequest(b"k", lease=1, ignore_lease=True),)),
            LeaseProvided,
        ),
        (TxnRequest(success=(TxnRequest(success=(TWICE,), failure=(PutRequest(b""),)),)), EmptyKey),
        (TxnRequest(success=(TWICE, PutRequest(b"other"))), DuplicateKey),
    ]
    for request, error in check:
        with pytest.raises(error):
            check_txn(request, 128)


@pytest.mark.parametrize(
    ("compare", "error"),
    [
        (Compare(b"k", CompareTarget.VERSION, operand=b""), TypeError),
        (Compare(b"k", CompareTarget.VERSION, operand=b"1"), TypeError),
        (Compare(b"k", CompareTarget.VERSION, operand=None), TypeError),  # type: ignore[arg-type]  # on purpose
        (Compare(b"k", CompareTarget.VALUE, operand=1), TypeError),
        (Compare(b"k", 5), ValueError),
        (Compare(b"k", CompareTarget.VERSION, 4), ValueError),
    ],
)
def test_a_compare_that_means_nothing_is_a_type_error(compare: Compare, error: type[Exception]) -> None:
    """An operand of the wrong type, or a number outside the enum, is refused before planning begins."""
    with pytest.raises(error):
        check_txn(TxnRequest(compare=(compare,)), 128)


def test_a_value_compare_without_operand_compares_with_the_empty_value() -> None:
    """An operand that was not given is etcd's default for each target."""
    check_txn(TxnRequest(compare=(Compare(b"k", CompareTarget.VALUE), Compare(b"k", CompareTarget.MOD))), 128)


def test_a_wrong_type_inside_a_transaction_is_refused_before_planning(tmp_path: Path) -> None:
    """A revision or lease that is no number is a ``TypeError``, and the store goes on."""
    with kvstore.open(tmp_path / "data") as store:
        for op in (RangeRequest(b"k", revision="x"), kvstore.ops.put(b"k", lease="x")):  # type: ignore[arg-type]  # on purpose
            with pytest.raises(TypeError):
                store.txn(success=[op, kvstore.ops.put(b"other", b"v")])
        assert store.put(b"k", b"v").revision == 2


@given(st.lists(compares(), max_size=2).map(tuple), BRANCHES, BRANCHES)
def test_what_is_plain_passes_every_check(compares: Any, success: Any, failure: Any) -> None:
    """A transaction that is told to be plain needs no other check, and is as large as that says."""
    request = TxnRequest(compares, success, failure)
    for plain in PLAIN:
        size_bytes = plain(compares, (success, failure), PLAIN_KINDS)
        if size_bytes >= 0:
            check_txn(request, 128)
            keys = [*compares, *success, *failure]
            assert size_bytes >= sum(len(each.key) for each in keys)


@pytest.mark.parametrize("holds", [True, False])
def test_a_branch_of_plain_puts_says_which_it_was(tmp_path: Path, holds: bool) -> None:
    """And the puts of the other are not made."""
    with kvstore.open(tmp_path / "store", "memory") as store:
        store.put(b"k", b"v")
        response = store.txn(
            compare=[kvstore.value(b"k") == (b"v" if holds else b"w")],
            success=[kvstore.ops.put(b"a", b"1"), kvstore.ops.put(b"b", b"1")],
            failure=[kvstore.ops.put(b"a", b"2")],
        )
        assert response.succeeded is holds and len(response.responses) == (2 if holds else 1)
        assert store.revision == 3
        assert [kv.value for kv in store.range(b"a", b"c").kvs] == ([b"1", b"1"] if holds else [b"2"])
