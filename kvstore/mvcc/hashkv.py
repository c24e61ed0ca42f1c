"""HashKV: etcd's checksum of the key space, so that a store can be compared with an etcd.

CRC-32C over ``"key"`` and then, in revision order, over the row key and row value that etcd would keep:

    main u64 | 0x5f | sub u64 [| 0x74 for a delete]     KeyValue (a delete: one with only the key)

up to revision R. Rows at or below the compaction count only if they are still live at R; a delete at exactly the
compaction revision never counts (as in etcd since 3.4.34). If nothing at all is live at R, etcd skips the first of
these rules and hashes every row it still has; so do we.

What the compaction left has to be sorted by revision: in a temporary file, if it is large.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from kvstore.checksum import crc32c
from kvstore.errors import Corruption
from kvstore.keyvalue import encode_key_value, row_mod_revision, split_row
from kvstore.mvcc.changes import change_page
from kvstore.mvcc.read import scan_rows
from kvstore.mvcc.state import State

if TYPE_CHECKING:
    from kvstore.row_sort import RowSorter

PAGE_ROWS = 50
"""Few, for they may be large, and are in memory together."""
_ROW_KEY = struct.Struct(">Q1sQ")


def hash_kv(state: State, revision: int, compacted: int) -> int:
    """The hash at ``revision`` (a kept one). Raises ``Compacted`` if a compaction to a later one comes meanwhile."""
    from kvstore.row_sort import RowSorter  # brings modules that opening a store has no use for

    value = crc32c(b"key")
    with RowSorter() as below:
        any_live = _add_below(below, state, revision, compacted)
        if not any_live and compacted > 0:
            _add_below(below, state, compacted, compacted)
        old = chain.from_iterable(below.in_order())
        for row_key, row_value in heapq.merge(old, _rows_above(state, revision, compacted)):
            value = crc32c(row_value, crc32c(row_key, value))
    return value


def _row_key(main: int, sub: int) -> bytes:
    try:
        return _ROW_KEY.pack(main, b"_", sub)
    except struct.error:
        raise Corruption(f"a row has the impossible revision {main}.{sub}") from None


def _add_below(below: RowSorter, state: State, revision: int, compacted: int) -> bool:
    """Add the versions written at or below the compaction and live at ``revision``. Whether anything is live."""
    any_live = False
    for _, row in scan_rows(state, b"", None, revision, PAGE_ROWS):
        any_live = True
        main = row_mod_revision(row)
        if main <= compacted:
            sub, key_value = split_row(row)
            below.add([(_row_key(main, sub), key_value)])
    return any_live


def _rows_above(state: State, revision: int, compacted: int) -> Iterator[tuple[bytes, bytes]]:
    """Every change after the compaction up to ``revision``."""
    first = max(compacted + 1, 1)
    while first <= revision:
        page, covered = change_page(state, first, revision, PAGE_ROWS)
        state.check_kept(compacted)
        for main, sub, key, row in page:
            row_key = _row_key(main, sub)
            if row is None:
                yield row_key + b"t", encode_key_value(key, 0, 0, 0, b"", 0)
            else:
                yield row_key, split_row(row)[1]
        first = covered + 1
