"""What etcd answers with instead of a response: a gRPC code, and a text that clients compare to the letter.

Most errors of ``kvstore.errors`` already have both. ``_OURS`` says what the others are on the wire, and ``CODES`` is
etcd's own list, including what a single store has no use for: users, members, leaders.
"""

from __future__ import annotations

from kvstore.errors import (
    Code,
    Corruption,
    DiskFull,
    KVStoreError,
    Overloaded,
    QuotaExceeded,
    StoreClosed,
    StorePoisoned,
)

_TEXTS = {
    Code.INVALID_ARGUMENT: """
key is not provided
key not found
value is provided
lease is provided
too many operations in txn request
duplicate key given in txn request
invalid client api version
invalid sort option
request is too large
user name is empty
role name is empty
authentication failed, invalid user ID or password
permission not given
invalid auth management
revision of auth store is old
given member URLs are invalid
wrong downgrade target version format
invalid downgrade target version
""",
    Code.OUT_OF_RANGE: """
mvcc: required revision has been compacted
mvcc: required revision is a future revision
too large lease TTL
""",
    Code.RESOURCE_EXHAUSTED: """
mvcc: database space exceeded
too many requests
""",
    Code.NOT_FOUND: """
requested lease not found
member not found
""",
    Code.FAILED_PRECONDITION: """
lease already exists
member ID already exist
Peer URLs already exists
re-configuration failed due to not enough started members
can only promote a learner member
can only promote a learner member which is in sync with leader
too many learner members in cluster
cluster ID mismatch
root user does not exist
root user does not have root role
user name already exists
user name not found
role name already exists
role name not found
role is not granted to the user
permission is not granted to the role
authentication is not enabled
not leader
not capable
rpc not supported for learner
bad leader transferee
cluster version not found during downgrade
cluster has a downgrade job in progress
no inflight downgrade job
""",
    Code.CANCELLED: """
watch canceled
request canceled
""",
    Code.DEADLINE_EXCEEDED: """
context deadline exceeded
""",
    Code.PERMISSION_DENIED: """
permission denied
""",
    Code.UNAUTHENTICATED: """
invalid auth token
""",
    Code.UNAVAILABLE: """
no leader
leader changed
server stopped
request timed out
request timed out, possibly due to previous leader failure
request timed out, possibly due to connection lost
request timed out, waiting for the applied index took too long
unhealthy cluster
""",
    Code.DATA_LOSS: """
corrupt cluster
""",
}

CODES = {f"etcdserver: {text}": code for code, texts in _TEXTS.items() for text in texts.strip().splitlines()}
"""By message, as of 3.5 and later (3.4 has UNAVAILABLE for "not capable" and "rpc not supported for learner")."""

_OURS: dict[type[KVStoreError], str] = {
    QuotaExceeded: "etcdserver: mvcc: database space exceeded",
    DiskFull: "etcdserver: mvcc: database space exceeded",
    StoreClosed: "etcdserver: server stopped",
    StorePoisoned: "etcdserver: server stopped",
    Overloaded: "etcdserver: request timed out",
    Corruption: "etcdserver: corrupt cluster",
}


def status_of(error: BaseException) -> tuple[Code, str]:
    """The code and the text that a client gets to see.

    An error that etcd does not have keeps its own code and text; one that is not ours is UNKNOWN.
    """
    for kind, text in _OURS.items():
        if isinstance(error, kind):
            return CODES[text], text
    if isinstance(error, KVStoreError):
        return error.code, error.etcd_text or str(error)
    return Code.UNKNOWN, str(error)
