"""Planning is all or nothing: what is refused has changed nothing, in memory as on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyNotFound
from kvstore.model import FROM_KEY, DeleteRangeRequest, PutRequest, TxnRequest
from kvstore.ops import delete, put, txn

EVERYTHING = delete(FROM_KEY, range_end=FROM_KEY)


@pytest.mark.parametrize("flag", ["ignore_value", "ignore_lease"])
@pytest.mark.parametrize("nested", ["flat", "delete nested", "put nested", "both nested"])
def test_a_put_that_keeps_what_the_transaction_has_deleted_is_refused_before_anything_happens(
    tmp_path: Path, flag: str, nested: str
) -> None:
    """etcd overlooks such a put and stops half-way; here it is refused, and the deletes have not happened."""
    flags: dict[str, Any] = {flag: True}
    keep: PutRequest | TxnRequest = put(b"a", **flags)
    remove: DeleteRangeRequest | TxnRequest = EVERYTHING
    if nested in ("delete nested", "both nested"):
        remove = txn(success=[remove])
    if nested in ("put nested", "both nested"):
        keep = txn(success=[keep])
    with kvstore.open(tmp_path, "memory") as store:
        store.put(b"a", b"1")
        store.put(b"b", b"2")
        with pytest.raises((KeyNotFound, kvstore.DuplicateKey)):
            store.txn(success=[remove, keep])
        assert store.put(b"c", b"3").revision == 4
        assert [(kv.key, kv.value) for kv in store.scan(prefix=b"")] == [
            (b"a", b"1"),
            (b"b", b"2"),
            (b"c", b"3"),
        ]


def test_a_put_after_a_delete_of_its_key_begins_a_new_life(tmp_path: Path) -> None:
    """Where etcd's check of duplicate keys overlooks the pair, the put creates the key anew."""
    with kvstore.open(tmp_path, "memory") as store:
        store.put(b"a", b"1")
        store.put(b"a", b"2")
        store.txn(success=[EVERYTHING, put(b"a", b"3")])
        kv = store.get(b"a")
        assert kv is not None
        assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"3", 4, 4, 1)
