"""The marks of a store: the rows of its table ``meta``, which say what the backend holds and whose it is.

    format                       version of the tables and encodings
    cluster_id, member_id, name  identity of the store
    applied_index, revision      the last log entry that is in the backend, and the newest revision
    compact_scheduled            reads below it are refused, rows at or below it may be deleted
    compact_finished             rows that no revision from there on needs are deleted
    closed_ms                    time of day of the last checkpoint
    log_mark                     where in the log a replay after the applied index may begin reading

A missing row stands for the value in a store without any write. (Names that begin with ``etcd/`` are no marks: under
them the table has what etcd keeps beside its keys.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvstore.backend import ReadTx, Row
from kvstore.errors import Corruption
from kvstore.mvcc.schema import (
    META,
    META_APPLIED_INDEX,
    META_CLOSED_MS,
    META_CLUSTER_ID,
    META_COMPACT_FINISHED,
    META_COMPACT_SCHEDULED,
    META_FORMAT,
    META_LOG_MARK,
    META_MEMBER_ID,
    META_NAME,
    META_REVISION,
    pack_u64,
    parse_u64,
)

IDS = (META_CLUSTER_ID, META_MEMBER_ID)
_NUMBERS = {
    "format": META_FORMAT,
    "cluster_id": META_CLUSTER_ID,
    "member_id": META_MEMBER_ID,
    "applied_index": META_APPLIED_INDEX,
    "revision": META_REVISION,
    "compacted": META_COMPACT_SCHEDULED,
    "finished": META_COMPACT_FINISHED,
    "closed_ms": META_CLOSED_MS,
}
NUMBERS = tuple(_NUMBERS.values())
_NAMES = (*NUMBERS, META_LOG_MARK, META_NAME)


def number(name: bytes, value: bytes) -> int:
    """The number in a mark. Raises ``Corruption`` if it is not one."""
    found = parse_u64(value)
    if found >> 63 and name not in IDS:
        raise Corruption(f"the mark {name.decode()!r} is out of range: {found}")
    return found


class Marks(NamedTuple):
    """What a store says about itself, at one commit of its backend."""

    format: int | None = None
    """None: not known."""
    cluster_id: int = 0
    member_id: int = 0
    """0: not known yet."""
    name: str = ""
    applied_index: int = 0
    revision: int = 1
    compacted: int = -1
    """The scheduled compaction; -1: never compacted, as in etcd."""
    finished: int = -1
    """The finished compaction."""
    closed_ms: int = 0
    log_mark: bytes = b""

    @classmethod
    def read(cls, tx: ReadTx) -> Marks:
        """Read the marks. Raises ``Corruption`` for a mark that is not a number."""
        values = zip(_NAMES, tx.get_many(META, _NAMES), strict=True)
        return cls.of({name: value for name, value in values if value is not None})

    @classmethod
    def of(cls, rows: Mapping[bytes, bytes], number: Callable[[bytes, bytes], int] = number) -> Marks:
        """The marks among ``rows``; ``number`` reads (name, value)."""
        numbers = {field: number(name, rows[name]) for field, name in _NUMBERS.items() if name in rows}
        name = rows.get(META_NAME, b"").decode("utf-8", "replace")
        return cls(**numbers, name=name, log_mark=rows.get(META_LOG_MARK, b""))

    def identity(self) -> list[Row]:
        """The rows that identify the store: what a new one begins with."""
        told = [] if self.format is None else [(META_FORMAT, pack_u64(self.format))]
        return [
            *told,
            (META_CLUSTER_ID, pack_u64(self.cluster_id)),
            (META_MEMBER_ID, pack_u64(self.member_id)),
            (META_NAME, self.name.encode("utf-8", "replace")),
        ]

    def rows(self) -> list[Row]:
        """The identity, and how far the store is. Leaves out the time of the checkpoint and the place in the log."""
        rows = [
            *self.identity(),
            (META_APPLIED_INDEX, pack_u64(self.applied_index)),
            (META_REVISION, pack_u64(self.revision)),
        ]
        if self.compacted >= 0:
            rows.append((META_COMPACT_SCHEDULED, pack_u64(self.compacted)))
        if self.finished >= 0:
            rows.append((META_COMPACT_FINISHED, pack_u64(self.finished)))
        return rows


def compacted_at(tx: ReadTx) -> int:
    """Only the scheduled compaction, for callers that ask often."""
    value = tx.get(META, META_COMPACT_SCHEDULED)
    return Marks.of({} if value is None else {META_COMPACT_SCHEDULED: value}).compacted
