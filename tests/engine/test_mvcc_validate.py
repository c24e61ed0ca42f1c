"""Checks of requests that need no state: which refusal wins is etcd's choice."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvstore
from kvstore.errors import DuplicateKey, EmptyKey, LeaseProvided
from kvstore.model import Compare, CompareTarget, PutRequest, RangeRequest, TxnRequest
from kvstore.mvcc.validate import check_txn

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
