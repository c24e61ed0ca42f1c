"""The methods of etcd's API that a client asks: where they are, how they may be repeated, what their answers are.

A method is a constant. ``message`` parses an answer; ``parse`` has what is in its header beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from kvstore.etcdpb.messages import etcdserverpb
from kvstore.network.remote.answers import put_answer, range_answer
from kvstore.network.remote.messages import remote


class Kind(Enum):
    """What may be done about a call that got no answer."""

    READ = "read"
    """Repeated."""
    REPEATABLE = "repeatable"
    """A write, which comes to the same if it is made twice: repeated."""
    ONCE = "once"
    """A write: its caller is told that nobody knows."""


Parsed = tuple[int, int, int, Any]
"""An answer: the cluster and the member that it is from (0 if it does not say), its revision, and what else it says."""


class Method:
    """One method."""

    __slots__ = ("is_ordered", "kind", "message", "name", "parse", "path")

    def __init__(
        self,
        service: str,
        name: str,
        kind: Kind,
        answer: Any = None,
        parse: Callable[[bytes], Parsed] | None = None,
        *,
        is_ordered: bool = False,
    ) -> None:
        self.name = name
        self.path = f"/etcdserverpb.{service}/{name}".encode()
        self.kind = kind
        answer = answer or getattr(etcdserverpb, f"{name}Response")
        self.message: Callable[[bytes], Any] = answer.FromString
        self.parse: Callable[[bytes], Parsed] = parse or self._parse
        self.is_ordered = is_ordered
        """Whether the revision in its header is as new as anything that was answered before it was asked."""

    def _parse(self, data: bytes) -> Parsed:
        found = self.message(data)
        header = found.header
        return header.cluster_id, header.member_id, header.revision, found


RANGE = Method("KV", "Range", Kind.READ, remote.Range, range_answer, is_ordered=True)
SERIALIZABLE_RANGE = Method("KV", "Range", Kind.READ, remote.Range, range_answer)
PUT = Method("KV", "Put", Kind.ONCE, remote.Put, put_answer, is_ordered=True)
DELETE_RANGE = Method("KV", "DeleteRange", Kind.ONCE, remote.DeleteRange, is_ordered=True)
TXN = Method("KV", "Txn", Kind.ONCE, remote.Txn, is_ordered=True)
READ_TXN = Method("KV", "Txn", Kind.READ, remote.Txn, is_ordered=True)
COMPACT = Method("KV", "Compact", Kind.REPEATABLE, remote.Plain)
LEASE_GRANT = Method("Lease", "LeaseGrant", Kind.REPEATABLE)
LEASE_REVOKE = Method("Lease", "LeaseRevoke", Kind.REPEATABLE)
LEASE_TIME_TO_LIVE = Method("Lease", "LeaseTimeToLive", Kind.READ)
LEASE_LEASES = Method("Lease", "LeaseLeases", Kind.READ)
HASH_KV = Method("Maintenance", "HashKV", Kind.READ)
ALARM = Method("Maintenance", "Alarm", Kind.REPEATABLE)
STATUS = Method("Maintenance", "Status", Kind.READ)
DEFRAGMENT = Method("Maintenance", "Defragment", Kind.REPEATABLE, remote.Plain)
MEMBER_LIST = Method("Cluster", "MemberList", Kind.READ)
AUTHENTICATE = Method("Auth", "Authenticate", Kind.READ)

SNAPSHOT = b"/etcdserverpb.Maintenance/Snapshot"
WATCH = b"/etcdserverpb.Watch/Watch"
KEEP_ALIVE = b"/etcdserverpb.Lease/LeaseKeepAlive"
