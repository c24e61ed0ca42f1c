"""etcd's HashKV: one number for everything that a store keeps up to a revision.

CRC-32C over the word "key", then key and value of each row of the bucket in order, without

* rows after the revision;
* rows at or below the compact revision that no key needs any more: for each key alive at the revision,
  its newest row up to it is kept. (If nothing at all is kept, etcd skips none of these.)
* from 3.4.34, 3.5.16 and 3.6 on: a tombstone at exactly the compact revision. Those versions keep that
  row and earlier ones delete it, and so the hashes of both stay equal.

Hashes can be compared only for the same revision and the same compact revision. For revisions that it has compacted
at, a server also answers from a cache, with the previous compact revision: that number cannot be computed from its
files any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import crc32c

from .bbolt_page import Buffer, Span
from .rows import KEY, decode_revision


class KeyRows(Protocol):
    """Rows of the ``key`` bucket up to a revision, in order: where they are, and which key they belong to."""

    @property
    def data(self) -> Buffer: ...

    def spans_up_to(self, revision: int) -> Iterator[Span]: ...

    def user_key(self, span: Span) -> bytes: ...


class HashKV(NamedTuple):
    hash: int
    compact_revision: int
    revision: int


def hash_kv(rows: KeyRows, revision: int, compact_revision: int, *, before_3_4_34: bool = False) -> HashKV:
    """The hash at ``revision``; ``compact_revision`` is -1 for a store that was never compacted."""
    keep = _kept(rows, revision, before_3_4_34) if compact_revision >= 0 else frozenset()
    crc = crc32c.crc32c(KEY)
    data = rows.data
    for span in rows.spans_up_to(revision):
        row_key, value_start, value_end, _is_bucket = span
        main, _sub, is_tombstone = decode_revision(row_key)
        if main <= compact_revision:
            if keep and row_key not in keep:
                continue
            if is_tombstone and main == compact_revision and not before_3_4_34:
                continue
        crc = crc32c.crc32c(data[value_start:value_end], crc32c.crc32c(row_key, crc))
    return HashKV(crc, compact_revision, revision)


def _kept(rows: KeyRows, revision: int, before_3_4_34: bool) -> frozenset[bytes]:
    """Row keys of each live key's newest row up to the revision."""
    newest: dict[bytes, bytes] = {}
    deleted_at_revision: set[bytes] = set()
    for span in rows.spans_up_to(revision):
        main, _sub, is_tombstone = decode_revision(span.key)
        key = rows.user_key(span)
        if is_tombstone:
            newest.pop(key, None)
            if main == revision:
                deleted_at_revision.add(key)
        elif before_3_4_34 or key not in deleted_at_revision:
            newest[key] = span.key
    return frozenset(newest.values())
