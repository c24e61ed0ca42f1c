"""The backend's tables: the present, the past, and the order of changes.

    table        key                              value                        serves
    -----------  -------------------------------  ---------------------------  ----------------------------
    latest       user key                         row (keyvalue.py)            reads at the newest revision
    history      escaped user key, end revision   row of a version that ended  reads in the past
    changes      revision                         kind byte, user key          watch, diff, compaction
    lease        lease id                         protobuf {1 id, 2 ttl, 3 deadline_ms}
    attachment   lease id, user key               empty
    alarm        member id, alarm name            empty
    meta         name                             see META_* below

A revision is (main, sub), 64 bits each, big-endian, so that byte order is revision order.
A version lives from the revision that wrote it (its mod_revision) up to, not including, its *end*: the revision
that superseded or deleted it. ``history`` is keyed by that end, which makes three things one seek each:

    read key k at revision R    latest if its mod_revision <= R; else the first row of k with end > R,
                                if its mod_revision <= R; else k did not exist
    all versions of k           the rows of k are adjacent, in order
    compaction up to C          for each change below C with kind "update" or "delete": the row (k, that revision)
                                is the version it ended; delete both. No lookup, no scan of live data.

Example: put k at 2, put k at 5, delete k at 9:

    history   (k, 5.0) -> version 1 (mod 2)      changes   2.0 -> create k
              (k, 9.0) -> version 2 (mod 5)                5.0 -> update k
    latest    -                                            9.0 -> delete k

User keys are escaped so that no key's rows interleave with another's: 00 becomes 00 ff, and 00 01 ends the key.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kvstore.errors import Corruption

LATEST = "latest"
HISTORY = "history"
CHANGES = "changes"
LEASE = "lease"
ATTACHMENT = "attachment"
ALARM = "alarm"
META = "meta"
TABLES = (LATEST, HISTORY, CHANGES, LEASE, ATTACHMENT, ALARM, META)

FORMAT_VERSION = 1

REVISION_END = (1 << 63) - (1 << 40)
"""Revisions have 63 bits. A store that is opened at this revision or later is not written any more. The distance to
the last revision is more than a process can write in its life."""

META_FORMAT = b"format"
META_CLUSTER_ID = b"cluster_id"
META_MEMBER_ID = b"member_id"
META_APPLIED_INDEX = b"applied_index"
META_REVISION = b"revision"
META_COMPACT_SCHEDULED = b"compact_scheduled"
META_COMPACT_FINISHED = b"compact_finished"
META_CLOSED_MS = b"closed_ms"
"""Wall clock of the last checkpoint: with the lease policy ``pause`` time has stood still since then."""
META_LOG_MARK = b"log_mark"
"""Where in the log a replay after the applied index may begin reading (``wal.Log.mark``)."""
META_NAME = b"name"
META_CARRIED = b"etcd/"
"""How the names of rows begin that the store only carries, for a server of etcd's API: users, roles, members. They are
no marks."""
META_RAFT_TERM = META_CARRIED + b"raft_term"
"""How often the store was served, plus 1: what a server says its term is."""

CREATE, UPDATE, DELETE = b"c", b"u", b"d"

_REVISION = struct.Struct(">QQ")
_U64 = struct.Struct(">Q")
REVISION_BYTES = _REVISION.size
REVISION_LIMIT = b"\xff" * (REVISION_BYTES + 1)
"""Greater than any revision key."""

revision_key = _REVISION.pack
"""(main, sub) -> 16 bytes."""
pack_u64 = _U64.pack

KEY_END = b"\0\1"


def parse_revision(key: bytes) -> tuple[int, int]:
    """16 bytes -> (main, sub)."""
    try:
        main, sub = _REVISION.unpack(key)
    except struct.error:
        raise Corruption(f"{key!r} is no revision") from None
    return main, sub


def split_revisions(keys: Sequence[bytes]) -> list[tuple[int, int]]:
    """(main, sub) of each of many revision keys."""
    joined = b"".join(keys)
    if len(joined) != REVISION_BYTES * len(keys):
        raise Corruption(f"a row of {CHANGES!r} has a key that is not a revision")
    return list(_REVISION.iter_unpack(joined))


def parse_u64(value: bytes | None, default: int = 0) -> int:
    """The number; ``default`` if there is none. Raises ``Corruption``."""
    if value is None:
        return default
    if len(value) != 8:
        raise Corruption(f"a number has {len(value)} bytes instead of 8")
    return int.from_bytes(value, "big")


def escape(key: bytes) -> bytes:
    """The order-preserving, prefix-free form of a user key."""
    return key.replace(b"\0", b"\0\xff") + KEY_END


def unescape(escaped: bytes) -> bytes:
    return escaped[:-2].replace(b"\0\xff", b"\0")


def history_key(key: bytes, main: int, sub: int) -> bytes:
    """The key in ``history`` of the version of ``key`` that ended at (main, sub)."""
    return key.replace(b"\0", b"\0\xff") + KEY_END + _REVISION.pack(main, sub)


def split_history_key(history: bytes) -> tuple[bytes, int, int]:
    """(user key, main, sub) of the version's end."""
    main, sub = parse_revision(history[-REVISION_BYTES:])
    return unescape(history[:-REVISION_BYTES]), main, sub


def lease_key(lease: int) -> bytes:
    return _U64.pack(lease & 0xFFFF_FFFF_FFFF_FFFF)


def parse_lease_key(key: bytes) -> int:
    value = int.from_bytes(key[:8], "big")
    return value - (1 << 64) if value >> 63 else value
