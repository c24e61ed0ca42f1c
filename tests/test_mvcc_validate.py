"""Checks of requests that need no state: which refusal wins is etcd's choice."""

from __future__ import annotations

import pytest

from kvstore.errors import DuplicateKey, EmptyKey, LeaseProvided
from kvstore.model import PutRequest, TxnRequest
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
