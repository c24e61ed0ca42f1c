"""Rows of etcd's buckets that a store of ours keeps verbatim (members, users, roles ...), while a log is replayed."""

from __future__ import annotations

from kvstore.mvcc.schema import META
from kvstore.mvcc.state import State

from .beside_keys import carried_key


class Carried:
    """These rows, read and changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        with state.backend.read() as tx:
            self._rows = dict(tx.scan(META, carried_key(b"", b"")[:-1], carried_key(b"\xff", b"")))

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._rows.get(carried_key(bucket, key))

    def set(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        name = carried_key(bucket, key)
        if value is None:
            self._rows.pop(name, None)
        else:
            self._rows[name] = value
        self._state.active.set_row(META, name, value)

    def all(self, bucket: bytes) -> dict[bytes, bytes]:
        prefix = carried_key(bucket, b"")
        return {key[len(prefix) :]: value for key, value in self._rows.items() if key.startswith(prefix)}
