"""Every version and delete that a store holds, as fast as it can be read, in no order: the source of surveys.

    a backend by revision       its rows as they lie there (an etcd file)
    every other backend         latest, history: all versions; changes: all deletes
    generations                 what the backend does not have yet

``latest`` is read before ``history``: a version that is superseded meanwhile comes twice. Rows that a compaction has
still to remove come too: a reader that must leave them out groups the rows by key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from kvstore.errors import Corruption
from kvstore.keyvalue import decode_row, split_row
from kvstore.mvcc.schema import CHANGES, DELETE, HISTORY, LATEST, parse_revision, revision_key
from kvstore.mvcc.state import State
from kvstore.wire import WireError

PAGE_ROWS = 256


class Kept(NamedTuple):
    """What one change left behind. ``version`` 0: it is a delete."""

    main: int
    sub: int
    key: bytes
    version: int = 0
    value: bytes = b""
    lease: int = 0
    create_revision: int = 0


@runtime_checkable
class ByRevision(Protocol):
    """A backend whose rows lie in revision order."""

    def kept_rows(self) -> Iterator[Kept]:
        """All of them. Raises ``Corruption``."""


def kept_rows(state: State) -> Iterator[Kept]:
    """All rows up to the published revision. Raises ``Compacted`` if the store is compacted meanwhile."""
    last, compacted = state.published, state.compacted
    generations, tx = state.look(compacted)
    tx.close()
    backend = state.backend
    rows = backend.kept_rows() if isinstance(backend, ByRevision) else _from_tables(state, compacted)
    for row in rows:
        if row.main <= last:
            yield row
    for generation in generations:
        for main, sub, key, stored in generation.changes:
            if main <= last:
                yield Kept(main, sub, key) if stored is None else decode_kept(stored)


def decode_kept(row: bytes) -> Kept:
    """Raises ``Corruption``."""
    try:
        key, created, main, version, value, lease = decode_row(row)
        sub = split_row(row)[0]
    except WireError as error:
        raise Corruption(f"a row is not a KeyValue: {error}") from None
    if main < 1 or version < 1:
        raise Corruption(f"a row of the key {key!r:.80} has revision {main} and version {version}")
    return Kept(main, sub, key, version, value, lease, created)


def _from_tables(state: State, compacted: int) -> Iterator[Kept]:
    for table in (LATEST, HISTORY):
        for page in _pages(state, compacted, table, b""):
            yield from [decode_kept(row) for _, row in page]
    for page in _pages(state, compacted, CHANGES, revision_key(max(compacted, 0), 0)):
        for at, change in page:
            if change[:1] == DELETE:
                yield Kept(*parse_revision(at), change[1:])


def _pages(state: State, compacted: int, table: str, start: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """A table's rows, a transaction for each page: nothing is pinned, however long it takes."""
    while True:
        with state.backend.read() as tx:
            state.check_kept(compacted, tx)
            rows = tx.scan(table, start, limit=PAGE_ROWS)
        yield rows
        if len(rows) < PAGE_ROWS:
            return
        start = rows[-1][0] + b"\0"
