"""What an etcd file holds besides keys, as our rows, and back.

    lease     id, granted TTL, remaining TTL   ->  id, TTL, deadline = now + what remains
    alarm     member, kind                     ->  the same
    meta      compaction marks                 ->  compact_scheduled, compact_finished
              consistent index                 ->  applied_index
    members, members_removed, cluster,
    auth, authUsers, authRoles                 ->  verbatim: meta "etcd/<bucket>/<key>"

As when a server starts, a lease without a checkpoint gets its whole TTL again, a TTL below the minimum is raised to it,
and keys of unknown leases are attached to nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from kvstore.backend import Row
from kvstore.mvcc.lessor import TTL_MAX_SECONDS, Lease
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import FORMAT_VERSION, META_CARRIED, lease_key, pack_u64

from . import rows
from .etcd_file import EtcdFile

MIN_TTL_SECONDS = 2
"""The smallest TTL of an etcd with the default election timeout."""

CARRIED_BUCKETS = (
    rows.AUTH,
    rows.AUTH_ROLES,
    rows.AUTH_USERS,
    rows.CLUSTER,
    rows.MEMBERS,
    rows.MEMBERS_REMOVED,
)


def deadline_ms(granted_ttl_seconds: int, remaining_ttl_seconds: int, now_ms: int) -> int:
    left = remaining_ttl_seconds if remaining_ttl_seconds > 0 else granted_ttl_seconds
    return now_ms + 1000 * _effective(left)


def _effective(ttl_seconds: int) -> int:
    return min(max(ttl_seconds, MIN_TTL_SECONDS), TTL_MAX_SECONDS)


def lease_rows(file: EtcdFile, now_ms: int) -> list[Row]:
    found = file.bare_leases()
    return [
        (
            lease_key(each.id),
            Lease(
                each.id,
                _effective(each.granted_ttl_seconds),
                deadline_ms(each.granted_ttl_seconds, each.remaining_ttl_seconds, now_ms),
            ).encode(),
        )
        for each in found
    ]


def alarm_rows(file: EtcdFile) -> list[Row]:
    return [
        (pack_u64(alarm.member_id) + alarm.alarm.encode(), b"")
        for alarm in file.alarms()
        if alarm.alarm in ("NOSPACE", "CORRUPT")
    ]


def meta_rows(file: EtcdFile) -> list[Row]:
    cluster_id, member_id, name = identity(file)
    marks = Marks(
        format=FORMAT_VERSION,
        cluster_id=cluster_id,
        member_id=member_id,
        name=name,
        applied_index=file.consistent_index,
        revision=file.revision,
        compacted=file.compact_revision,
        finished=file.compact_revision,
    )
    return marks.rows() + carried_rows(file)


def carried_rows(file: EtcdFile) -> list[Row]:
    """Rows of the buckets that are kept verbatim."""
    return [
        (carried_key(name, row.key), row.value)
        for name in CARRIED_BUCKETS
        if (bucket := file.file.bucket(name)) is not None
        for row in bucket.scan()
    ]


def carried_key(bucket: bytes, key: bytes) -> bytes:
    return META_CARRIED + bucket + b"/" + key


def carried_bucket(bucket: bytes, meta: Iterable[Row]) -> list[Row]:
    """The rows of one such bucket, from the rows of ``meta``."""
    prefix = carried_key(bucket, b"")
    return [(key[len(prefix) :], value) for key, value in meta if key.startswith(prefix)]


def identity(file: EtcdFile) -> tuple[int, int, str]:
    """(cluster id, member id, name), as far as the database shows: those of its first member.

    The cluster id is that of a cluster founded by these members; the log of a data directory knows the true one.
    """
    return founded_by(file.members())


def founded_by(found: Iterable[rows.Member]) -> tuple[int, int, str]:
    """(cluster id, member id, name) of a cluster founded by these members, as its first one; zeros without any."""
    members = sorted(found, key=lambda member: member.id)
    if not members or not 0 <= members[0].id <= members[-1].id < 1 << 64:
        return 0, 0, ""
    founded = hashlib.sha1(b"".join(pack_u64(member.id) for member in members), usedforsecurity=False)
    return int.from_bytes(founded.digest()[:8], "big"), members[0].id, members[0].name
