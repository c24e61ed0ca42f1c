"""Stores that are to be the same elsewhere: what is written into one, and everything that one has."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from kvstore import Store
from kvstore.ops import delete, put

needs_etcd = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)
Rows = list[tuple[Any, ...]]


def rows(store: Store, revision: int = 0) -> Rows:
    """Everything that a store has at a revision, with all numbers."""
    found = store.range(prefix=b"", revision=revision).kvs
    return [(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in found]


def write(store: Store) -> int:
    """Every kind of change, in some revisions; the newest."""
    for number in range(20):
        store.put(b"k%d" % (number % 7), b"%d" % store.revision)
    store.txn([], [put(b"a", b"1"), delete(b"k1"), put(b"b", b"2"), delete(b"k2")])
    lease = store.grant_lease(600).id
    store.put(b"leased/1", b"", lease=lease)
    store.put(b"leased/2", b"", lease=lease)
    store.put(b"leased/1", b"not any more")
    gone = store.grant_lease(600).id
    store.put(b"gone", b"", lease=gone)
    store.revoke_lease(gone)
    store.delete(prefix=b"k3")
    return store.revision
