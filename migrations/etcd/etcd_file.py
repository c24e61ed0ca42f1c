"""One etcd database file, a snapshot or ``member/snap/db``, as a store at its last commit.

etcd keeps its rows by revision, not by key: ``rows`` is a scan, and so is every search for a key.
Nothing is indexed when the file is opened; ``live`` and ``leases`` remember the place of each key's
newest row, never the values.

The revision is that of the newest row, or the compact revision if that is higher (compaction may have
removed the newest tombstone). A compaction that was scheduled but not finished counts: etcd resumes it
when it starts, so what it would remove cannot be read here either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from kvstore.errors import Compacted, Corruption, FutureRevision, NotAStore

from . import rows
from .bbolt_page import Span
from .bbolt_read import BboltFile, Bucket
from .bbolt_search import spans_holding
from .hash_kv import HashKV, hash_kv
from .rows import Alarm, KeyValueRow, Lease, Member, Role, RowError, User

T = TypeVar("T")
FROM_KEY = b"\0"
"""As a range end: everything from the key on."""

_LAST_REVISION = (1 << 63) - 1


class EtcdFile:
    """An etcd database file, read-only. Use it as a context manager, or ``close`` it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = BboltFile(path)
        self.path = self.file.path
        self.data = self.file.data
        bucket = self.file.bucket(rows.KEY)
        if bucket is None:
            self.file.close()
            raise NotAStore(f"{self.path} is a bbolt file but holds no etcd store", self.path)
        self._keys = bucket

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> EtcdFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- meta ----------------------------------------------------------------------------

    @cached_property
    def finished_compact_revision(self) -> int:
        """The last finished compaction; -1 if there was none."""
        return self._meta(rows.FINISHED_COMPACT, _main_of, -1)

    @cached_property
    def scheduled_compact_revision(self) -> int:
        """The last scheduled compaction; -1 if there was none."""
        return self._meta(rows.SCHEDULED_COMPACT, _main_of, -1)

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if nothing was ever compacted."""
        return max(self.finished_compact_revision, self.scheduled_compact_revision)

    @cached_property
    def revision(self) -> int:
        newest = next(self._keys.spans(reverse=True), None)
        main = self._decoded(newest, rows.decode_revision, newest.key)[0] if newest else 1
        return max(main, self.compact_revision, 1)

    @cached_property
    def consistent_index(self) -> int:
        """The last log index whose effects are in the file; 0 if none was written."""
        return self._meta(rows.CONSISTENT_INDEX, rows.decode_u64, 0)

    @cached_property
    def term(self) -> int:
        """The raft term of that entry; 0 in files of 3.4."""
        return self._meta(rows.TERM, rows.decode_u64, 0)

    @cached_property
    def conf_state(self) -> dict[str, Any]:
        """Voters and learners by id; empty in files of 3.4."""
        return self._meta(rows.CONF_STATE, rows.decode_json, {})

    @cached_property
    def storage_version(self) -> str:
        """The version, as ``3.6.0`` and later name it; empty for earlier files."""
        return self._meta(rows.STORAGE_VERSION, _text, "")

    @cached_property
    def cluster_version(self) -> str:
        return self._value(rows.CLUSTER, rows.CLUSTER_VERSION, _text, "")

    @cached_property
    def auth_enabled(self) -> bool:
        return self._value(rows.AUTH, rows.AUTH_ENABLED, lambda value: value == b"\x01", False)

    @cached_property
    def auth_revision(self) -> int:
        return self._value(rows.AUTH, rows.AUTH_REVISION, rows.decode_u64, 0)

    def _meta(self, key: bytes, decode: Callable[[bytes], T], default: T) -> T:
        return self._value(rows.META, key, decode, default)

    def _value(self, bucket_name: bytes, key: bytes, decode: Callable[[bytes], T], default: T) -> T:
        bucket = self.file.bucket(bucket_name)
        value = bucket.get(key) if bucket else None
        if value is None:
            return default
        try:
            return decode(value)
        except RowError as error:
            where = f"{bucket_name.decode()}/{key.decode()}"
            raise Corruption(f"{where}: {error}", self.path) from None

    # --- rows by revision ----------------------------------------------------------------

    def rows(self, first: int = 0, last: int = _LAST_REVISION) -> Iterator[KeyValueRow]:
        """Every row of revisions ``first`` to ``last``, in the order it was written.

        From the compact revision + 1 on these are what a watch delivers; below, the rows that live keys still need.
        """
        for span in self._keys.spans(*_bounds(first, last)):
            yield self.row(span)

    def row(self, span: Span) -> KeyValueRow:
        value = self.data[span.value_start : span.value_end]
        self.file.release_passed(len(value))
        return self._decoded(span, rows.decode_key_value, span.key, value)

    def spans_up_to(self, revision: int) -> Iterator[Span]:
        """The places of the rows up to a revision, with keys that are valid revisions."""
        for span in self._keys.spans(*_bounds(0, revision)):
            self._decoded(span, rows.decode_revision, span.key)
            yield span

    def user_key(self, span: Span) -> bytes:
        """The key that a row is about; the rest of the row is not decoded."""
        key = rows.user_key(self.data, span.value_start, span.value_end)
        return self.row(span).key if key is None else key

    def user_key_at(self, start: int, end: int) -> bytes:
        """The same, from a row's value alone."""
        key = rows.user_key(self.data, start, end)
        if key is None:
            raise Corruption("a row does not begin with its key", self.path, start)
        return key

    def _decoded(self, span: Span, decode: Callable[..., T], *args: bytes) -> T:
        try:
            return decode(*args)
        except RowError as error:
            raise Corruption(str(error), self.path, span.value_start) from None

    # --- keys at a revision --------------------------------------------------------------

    def live(
        self, revision: int = 0, start: bytes = FROM_KEY, end: bytes | None = FROM_KEY
    ) -> Iterator[KeyValueRow]:
        """Each key of a range as it was at a revision (0: the newest), in key order.

        ``end`` as in etcd: None for ``start`` alone, one zero byte for everything from it on.
        """
        revision = self._readable(revision)
        newest: dict[bytes, Span] = {}
        for span in self.spans_up_to(revision):
            key = self.user_key(span)
            if not _inside(key, start, end):
                continue
            if _is_tombstone(span):
                newest.pop(key, None)
            else:
                newest[key] = span
        for key in sorted(newest):
            yield self.row(newest[key])

    def get(self, key: bytes, revision: int = 0) -> KeyValueRow | None:
        """A key as it was at a revision (0: the newest); None if it was absent."""
        for span in self.spans_of(key, self._readable(revision), reverse=True):
            return None if _is_tombstone(span) else self.row(span)
        return None

    def history(self, key: bytes) -> list[KeyValueRow]:
        """Every kept row of a key, tombstones included, oldest first."""
        return [self.row(span) for span in self.spans_of(key, self.revision)]

    def spans_of(self, key: bytes, revision: int, reverse: bool = False) -> Iterator[Span]:
        """The places of the rows of one key."""
        needle = rows.encoded_key(key)
        for span in spans_holding(self._keys, needle, *_bounds(0, revision), reverse):
            self._decoded(span, rows.decode_revision, span.key)
            if self.user_key(span) == key:
                yield span

    def hash_kv(self, revision: int = 0, *, before_3_4_34: bool = False) -> HashKV:
        """A server's answer to HashKV from this file (see ``hash_kv``).

        ``before_3_4_34``: as earlier versions answer, which also refuse the compact revision itself.
        """
        compact = self.compact_revision
        if before_3_4_34 and 0 < revision <= compact:
            raise Compacted(compact)
        return hash_kv(self, self._readable(revision), compact, before_3_4_34=before_3_4_34)

    def _readable(self, revision: int) -> int:
        if revision <= 0:
            return self.revision
        if revision > self.revision:
            raise FutureRevision
        if revision < self.compact_revision:
            raise Compacted(self.compact_revision)
        return revision

    # --- besides the keys ----------------------------------------------------------------

    def leases(self) -> list[Lease]:
        """Leases by id, each with the keys attached to it, as a server rebuilds them when it starts."""
        found = self.bare_leases()
        keys: dict[int, list[bytes]] = {lease.id: [] for lease in found}
        for row in self.live() if keys else ():
            if row.lease in keys:
                keys[row.lease].append(row.key)
        leases = (
            Lease(each.id, each.granted_ttl_seconds, each.remaining_ttl_seconds, tuple(keys[each.id]))
            for each in found
        )
        return sorted(leases, key=lambda lease: lease.id)

    def bare_leases(self) -> list[Lease]:
        """The leases without their keys, which every row would have to be read for."""
        return self._all(rows.LEASE, rows.decode_lease)

    def members(self) -> list[Member]:
        return self._all(rows.MEMBERS, lambda _key, value: rows.decode_member(value))

    def removed_members(self) -> list[int]:
        return self._all(rows.MEMBERS_REMOVED, lambda key, _value: _hex(key))

    def alarms(self) -> list[Alarm]:
        return self._all(rows.ALARM, lambda key, _value: rows.decode_alarm(key))

    def users(self) -> list[User]:
        return self._all(rows.AUTH_USERS, lambda _key, value: rows.decode_user(value))

    def roles(self) -> list[Role]:
        return self._all(rows.AUTH_ROLES, lambda _key, value: rows.decode_role(value))

    def _all(self, bucket_name: bytes, decode: Callable[[bytes, bytes], T]) -> list[T]:
        bucket = self.file.bucket(bucket_name)
        if bucket is None:
            return []
        return [self._decoded(span, decode, span.key, bucket.value(span)) for span in bucket.spans()]

    # --- the whole file ------------------------------------------------------------------

    def status(self, count_live_keys: bool = False) -> dict[str, int | str]:
        """The facts that ``snapshot status`` prints.

        ``totalKey`` counts the rows of all buckets, as up to 3.5, or the live keys, as from 3.6 on.
        """
        newest = next(self._keys.spans(reverse=True), None)
        return {
            "hash": self.file.status_hash(),
            "revision": self._decoded(newest, rows.decode_revision, newest.key)[0] if newest else 0,
            "totalKey": sum(1 for _ in self.live()) if count_live_keys else self._count_rows(),
            "totalSize": self.file.meta.size_bytes,
            "version": self.storage_version,
        }

    def _count_rows(self) -> int:
        buckets: Iterator[Bucket | None] = map(self.file.bucket, self.file.buckets())
        return sum(1 for bucket in buckets if bucket for _ in bucket.spans())


def _main_of(value: bytes) -> int:
    return rows.decode_revision(value)[0]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _hex(key: bytes) -> int:
    try:
        return int(key, 16)
    except ValueError:
        raise RowError("the key is not a member id") from None


def _is_tombstone(span: Span) -> bool:
    return len(span.key) > rows.REVISION_BYTES


def _bounds(first: int, last: int) -> tuple[bytes, bytes | None]:
    end = rows.encode_revision(last + 1) if last < _LAST_REVISION else None
    return rows.encode_revision(max(first, 0)), end


def _inside(key: bytes, start: bytes, end: bytes | None) -> bool:
    if end is None:
        return key == start
    return key >= start and (end == FROM_KEY or key < end)
