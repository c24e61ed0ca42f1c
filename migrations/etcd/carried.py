"""Rows of etcd's buckets that a store of ours keeps verbatim (members, users, roles ...), while a log is replayed."""

from __future__ import annotations

from kvstore.mvcc.state import State

from .beside_keys import carried_bucket, carried_key


class Carried:
    """These rows, read and changed."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._state.carried.get(carried_key(bucket, key))

    def set(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        self._state.set_carried(carried_key(bucket, key), value)

    def all(self, bucket: bytes) -> dict[bytes, bytes]:
        return dict(carried_bucket(bucket, self._state.carried.items()))
