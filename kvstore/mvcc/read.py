"""Range, answered as in etcd, and the reads that etcd lacks: history and differences.

A range is answered in this order: bounds and revision, then filters, sort, limit. ``count`` is the number of keys
in the range, whatever filters and limit say. Without a sort, or sorted by key in either direction, the limit is
pushed down, so a limited range costs only its limit, and the count; any other sort needs every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from kvstore.backend import ReadTx, Row
from kvstore.errors import Compacted, FutureRevision
from kvstore.keyvalue import KeyValue, KeyValues, encode_key_value, row_mod_revision, row_numbers
from kvstore.model import Change, RangeRequest, RangeResponse, SortOrder, SortTarget
from kvstore.mvcc.backwards import last_rows
from kvstore.mvcc.overlay import Generation
from kvstore.mvcc.schema import (
    HISTORY,
    LATEST,
    REVISION_BYTES,
    REVISION_LIMIT,
    escape,
    history_key,
    parse_revision,
    split_history_key,
)
from kvstore.mvcc.state import PAGE_ROWS, State
from kvstore.mvcc.validate import range_bounds

Rows = list[Row]
_HISTORY_FIRST_ROWS = 64


def read_revision(asked: int, newest: int, compacted: int) -> int:
    """The revision that a read is answered at; raises ``FutureRevision`` or ``Compacted``."""
    if asked > newest:
        raise FutureRevision(asked, newest)
    if asked <= 0:
        return newest
    if asked < compacted:
        raise Compacted(compacted, asked)
    return asked


NOT_COUNTED = -1


def answer_range(
    state: State, request: RangeRequest, revision: int, header_revision: int, *, counted: bool = True
) -> RangeResponse:
    """Answer a validated range request at ``revision``.

    ``counted`` false: the keys beyond a limit are not counted, and ``count`` is ``NOT_COUNTED`` where there are any.
    """
    start, end = range_bounds(request.key, request.range_end)
    if request.count_only:
        return RangeResponse(header_revision, KeyValues([]), False, _count(state, request, revision))
    if not request.range_end:
        row = state.row_at(request.key, revision)
        rows, more, count = ([(request.key, row)] if row is not None else []), False, int(row is not None)
    elif is_as_stored(request) or _is_from_the_end(request):
        read = first_rows if is_as_stored(request) else last_rows
        rows, more = read(state, start, end, revision, request.limit)
        count = len(rows)
        if more:
            count = state.count(start, end, revision) if counted else NOT_COUNTED
    else:
        rows = _all_rows(state, start, end, revision)
        count = len(rows)
        rows, more = _sorted_and_limited(rows, request)
    if _filtered(request):
        rows = [row for row in rows if _passes(request, row[1])]
        if 0 < request.limit < len(rows):
            rows, more = rows[: request.limit], True
    if request.keys_only:
        return RangeResponse(header_revision, KeyValues([without_value(row) for _, row in rows]), more, count)
    return RangeResponse(header_revision, KeyValues([row for _, row in rows]), more, count)


def is_as_stored(request: RangeRequest) -> bool:
    """Whether it is answered with the rows of a range as they come: all of them, or the first ones."""
    return (
        bool(request.range_end)
        and not request.count_only
        and request.sort_target == SortTarget.KEY
        and request.sort_order != SortOrder.DESCEND
        and not _filtered(request)
    )


def _is_from_the_end(request: RangeRequest) -> bool:
    """Whether it asks for the last keys of a range, so that the others need not be read."""
    return (
        request.limit > 0
        and request.sort_target == SortTarget.KEY
        and request.sort_order == SortOrder.DESCEND
        and not _filtered(request)
    )


def _count(state: State, request: RangeRequest, revision: int) -> int:
    if not request.range_end:
        return int(state.row_at(request.key, revision) is not None)
    start, end = range_bounds(request.key, request.range_end)
    return 0 if end is not None and end <= start else state.count(start, end, revision)


def first_rows(state: State, start: bytes, end: bytes | None, revision: int, limit: int) -> tuple[Rows, bool]:
    """The first ``limit`` rows (0: all), and whether there are more."""
    wanted = limit + 1 if limit > 0 else 0
    rows: Rows = []
    at: bytes | None = start
    while at is not None and (end is None or at < end):
        size = min(max(wanted - len(rows), 2), PAGE_ROWS * 10) if wanted else PAGE_ROWS * 10
        page, at = state.page(at, end, revision, size)
        rows = rows + page if rows else page
        if wanted and len(rows) >= wanted:
            return rows[:limit], True
    return rows, False


def _all_rows(state: State, start: bytes, end: bytes | None, revision: int) -> Rows:
    return first_rows(state, start, end, revision, 0)[0]


_SORT_KEYS: dict[int, Callable[[tuple[bytes, bytes]], Any]] = {
    SortTarget.KEY: lambda row: row[0],
    SortTarget.VERSION: lambda row: row_numbers(row[1])[2],
    SortTarget.CREATE: lambda row: row_numbers(row[1])[0],
    SortTarget.MOD: lambda row: row_numbers(row[1])[1],
    SortTarget.VALUE: lambda row: KeyValue.from_row(row[1]).value,
}


def _sorted_and_limited(rows: Rows, request: RangeRequest) -> tuple[Rows, bool]:
    """Filter, sort (ties stay in ascending key order) and cut.

    As in etcd, a sort target without an order sorts ascending, but after the limit: it sees only the first
    limit + 1 keys. With a filter it sorts before the limit.
    """
    limit = request.limit if request.limit > 0 else 0
    if _filtered(request):
        rows = [row for row in rows if _passes(request, row[1])]
    elif request.sort_order == SortOrder.NONE and limit:
        rows = rows[: limit + 1]
    if request.sort_order != SortOrder.NONE or request.sort_target != SortTarget.KEY:
        rows = sorted(
            rows, key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == SortOrder.DESCEND
        )
    return (rows[:limit], True) if limit and len(rows) > limit else (rows, False)


def _filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _passes(request: RangeRequest, row: bytes) -> bool:
    create_revision, mod_revision, _, _ = row_numbers(row)
    return not (
        (request.max_mod_revision and mod_revision > request.max_mod_revision)
        or (request.min_mod_revision and mod_revision < request.min_mod_revision)
        or (request.max_create_revision and create_revision > request.max_create_revision)
        or (request.min_create_revision and create_revision < request.min_create_revision)
    )


def without_value(row: bytes) -> bytes:
    kv = KeyValue.from_row(row)
    return encode_key_value(kv.key, kv.create_revision, kv.mod_revision, kv.version, b"", kv.lease)


# --- what etcd lacks -------------------------------------------------------------------


def scan_keys(
    state: State, start: bytes, end: bytes | None, revision: int, page_rows: int = PAGE_ROWS
) -> Iterator[KeyValue]:
    """Live keys of [start, end) at ``revision``, ascending, a page at a time; nothing is held in between."""
    for _, row in scan_rows(state, start, end, revision, page_rows):
        yield KeyValue.from_row(row)


def scan_rows(
    state: State, start: bytes, end: bytes | None, revision: int, page_rows: int = PAGE_ROWS
) -> Iterator[tuple[bytes, bytes]]:
    """(key, row) of the live keys of [start, end) at ``revision``, as ``scan_keys``."""
    at: bytes | None = start
    while at is not None and (end is None or at < end):
        page, at = state.page(at, end, revision, page_rows)
        yield from page


def key_history(
    state: State, key: bytes, first_revision: int, last_revision: int, compacted: int
) -> Iterator[KeyValue]:
    """Every kept version of ``key`` with first <= mod_revision <= last, oldest first.

    A delete shows as a ``KeyValue`` with version 0: it is the end of a version that no update followed. Versions that
    ended at or before ``compacted``, the compact revision when this was asked for, are not kept, even if their rows
    are not deleted yet. Raises ``Compacted`` on the way if a later compaction overtakes it.
    """
    if first_revision > last_revision:
        return
    ended = 0
    for row, end in _lives(state, key, max(first_revision, compacted + 1)):
        kv = KeyValue.from_row(row)
        if ended and kv.version == 1 and first_revision <= ended <= last_revision:
            yield KeyValue(key, mod_revision=ended)
        if kv.mod_revision > last_revision:
            return
        if kv.mod_revision >= first_revision:
            yield kv
        ended = end
    if ended and first_revision <= ended <= last_revision:
        yield KeyValue(key, mod_revision=ended)


def past_keys(state: State, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
    """The first ``limit`` keys of [start, end) that have a past, ascending: a version that has ended is kept.

    Deleted keys are among them. So are live ones, also some that were made since the last checkpoint. Costs a seek for
    each key, however many versions it has. Raises ``Compacted`` if the store is compacted meanwhile.
    """
    compacted, published = state.compacted, state.published
    generations, tx = state.look(compacted)
    with tx:
        found = _ended_keys(tx, start, end, limit, compacted)
    for generation in generations:
        keys = _changed_since(generation, start, end, compacted, published)
        found.update(islice(keys, limit))
    return sorted(found)[:limit]


def _changed_since(
    generation: Generation, start: bytes, end: bytes | None, compacted: int, published: int
) -> Iterator[bytes]:
    """The keys that were changed after ``compacted``, ascending."""
    at = start
    while keys := generation.keys(at, end, PAGE_ROWS):
        for key in keys:
            change = generation.at(key, published)
            if change is not None and change[0] > compacted:
                yield key
        at = keys[-1] + b"\0"


def _ended_keys(tx: ReadTx, start: bytes, end: bytes | None, limit: int, compacted: int) -> set[bytes]:
    found = set[bytes]()
    at, stop = escape(start) if start else b"", None if end is None else escape(end)
    while len(found) < limit and (rows := tx.scan(HISTORY, at, stop, limit=1)):
        key, ended, _ = split_history_key(rows[0][0])
        past_all = escape(key) + REVISION_LIMIT
        if ended > compacted or tx.scan(HISTORY, history_key(key, compacted + 1, 0), past_all, limit=1):
            found.add(key)
        at = past_all
    return found


def _lives(state: State, key: bytes, since: int) -> Iterator[tuple[bytes, int]]:
    """(row, main revision of its end, 0 if it is live) of every version that did not end before ``since``."""
    at, told, ended, limit = history_key(key, since, 0), since - 1, 0, _HISTORY_FIRST_ROWS
    while True:
        rows, living = _history_page(state, key, at, told, ended, limit)
        for ended_key, row in rows:
            ended = parse_revision(ended_key[-REVISION_BYTES:])[0]
            yield row, ended
        if len(rows) < limit:
            yield from living
            return
        at, told, limit = rows[-1][0] + b"\0", ended - 1, min(4 * limit, PAGE_ROWS)


def _history_page(
    state: State, key: bytes, at: bytes, told: int, ended: int, limit: int
) -> tuple[list[Row], list[tuple[bytes, int]]]:
    """Rows of ``history`` from ``at`` on, and the versions after them, if they are the key's last.

    ``told``: the revision up to which all ends are known; ``ended``: the last of these ends.
    """
    generations, tx = state.look(told)
    with tx:
        rows = tx.scan(HISTORY, at, escape(key) + REVISION_LIMIT, limit=limit)
        latest = tx.get(LATEST, key)
    if latest is not None:
        ended = row_mod_revision(latest)
    elif rows:
        ended = parse_revision(rows[-1][0][-REVISION_BYTES:])[0]
    pending = [
        change
        for generation in reversed(generations)
        for change in generation.of(key, told + 1)
        if change[0] > ended
    ]
    ends = [change[0] for change in pending] + [0]
    living = [] if latest is None else [(latest, ends[0])]
    living += [(row, end) for (_, _, _, row), end in zip(pending, ends[1:], strict=True) if row is not None]
    return rows, [(row, end) for row, end in living if end == 0 or end > told]


def difference(
    state: State, start: bytes, end: bytes | None, older: int, newer: int, keys: Iterator[bytes]
) -> Iterator[Change]:
    """What ``keys`` (ascending, each once) were at two revisions, if that differs."""
    for key in keys:
        if key < start or (end is not None and key >= end):
            continue
        before, after = state.row_at(key, older), state.row_at(key, newer)
        if before != after:
            yield Change(
                key,
                None if before is None else KeyValue.from_row(before),
                None if after is None else KeyValue.from_row(after),
            )
