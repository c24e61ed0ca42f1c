"""All kept versions of a store in key order, in memory that does not grow with the store.

    rows as they lie there  --numbers of each, sorted in a temporary file-->  versions, key by key, oldest first
                            --walked again, only the chosen revisions------>  their values

A store is walked once for its numbers, whatever its kind, and once more where values are shown.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from kvstore.backend import Progress
from kvstore.decoding.kubernetes import last_writer
from kvstore.mvcc.kept import Kept, kept_rows
from kvstore.mvcc.read import read_revision
from kvstore.mvcc.schema import history_key, split_history_key
from kvstore.row_sort import RowSorter
from kvstore.store import Store

DIGEST_BYTES = 16
_BATCH_ROWS = 256
_NUMBERS = struct.Struct(f"<QqQq{DIGEST_BYTES}s")


class Version(NamedTuple):
    """One version of a key, or a delete (``version`` 0), without its value."""

    key: bytes
    main: int
    sub: int
    version: int
    lease: int
    value_bytes: int
    seconds: int
    """When it was written, in seconds since 1970, as far as the value tells; 0: it does not."""
    digest: bytes
    """BLAKE2b of the value."""
    writer: bytes
    """The Kubernetes field manager that wrote it, as far as the value tells."""

    @property
    def size_bytes(self) -> int:
        return len(self.key) + self.value_bytes


def versions_by_key(
    store: Store, *, prefix: bytes = b"", last: int = 0, progress: Progress | None = None
) -> Iterator[tuple[bytes, Iterator[Version]]]:
    """The kept versions of each key up to revision ``last`` (0: the newest), oldest first; keys ascend.

    There may be none, of a key that was deleted before the compaction. Take them before the next key.
    """
    state = store.engine.state
    compacted, last = state.compacted, last or state.published
    with RowSorter() as sorter:
        _sort(sorter, kept_rows(state), prefix, last, progress)
        versions = (_version(*row) for rows in sorter.in_order() for row in rows)
        for key, same in groupby(versions, key=attrgetter("key")):
            yield key, still_kept(same, compacted)


def still_kept(versions: Iterable[Version], compacted: int) -> Iterator[Version]:
    """Of the versions up to the compaction only the last, and that only if it is no delete."""
    at_compaction: Version | None = None
    for version in versions:
        if version.main <= compacted:
            at_compaction = version
            continue
        if at_compaction is not None and at_compaction.version:
            yield at_compaction
        at_compaction = None
        yield version
    if at_compaction is not None and at_compaction.version:
        yield at_compaction


def live_versions(store: Store, *, prefix: bytes = b"", revision: int = 0) -> Iterator[Version]:
    """The version of each key that is live at a revision (0: the newest), by key.

    Raises ``Compacted``, ``FutureRevision``.
    """
    at = read_revision(revision, store.revision, store.compact_revision)
    for _key, versions in versions_by_key(store, prefix=prefix, last=at):
        newest: Version | None = None
        for version in versions:
            newest = version
        if newest is not None and newest.version:
            yield newest


def _sort(
    sorter: RowSorter, rows: Iterator[Kept], prefix: bytes, last: int, progress: Progress | None
) -> None:
    batch: list[tuple[bytes, bytes]] = []
    for row in rows:
        if row.main > last or not row.key.startswith(prefix):
            continue
        batch.append((history_key(row.key, row.main, row.sub), _packed(row)))
        if len(batch) == _BATCH_ROWS:
            sorter.add(batch)
            if progress is not None:
                progress(row.main, last)
            batch = []
    sorter.add(batch)


def _packed(row: Kept) -> bytes:
    writer, seconds = last_writer(row.value)
    digest = hashlib.blake2b(row.value, digest_size=DIGEST_BYTES).digest()
    return _NUMBERS.pack(row.version, row.lease, len(row.value), seconds, digest) + writer


def _version(at: bytes, packed: bytes) -> Version:
    key, main, sub = split_history_key(at)
    version, lease, value_bytes, seconds, digest = _NUMBERS.unpack_from(packed)
    return Version(key, main, sub, version, lease, value_bytes, seconds, digest, packed[_NUMBERS.size :])
