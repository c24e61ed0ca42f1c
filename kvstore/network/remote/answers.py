"""The two answers that nearly all calls get, taken apart at once: that to a put, and that to a range.

An answer is a cluster id, a member id, a revision, and what else it says (``Parsed`` in ``methods``); rows stay bytes.
"""

from __future__ import annotations

from typing import Any

from kvstore.implementation import native
from kvstore.network.remote.messages import remote

PutBody = tuple[int, bytes | None]
"""The revision, and the row that was there before."""
RangeBody = tuple[int, list[bytes], bool, int]
"""The revision, the rows, whether there are more, and the number of keys."""


@native
def put_answer(message: bytes) -> tuple[int, int, int, PutBody]:
    """Raises ``DecodeError``."""
    found = remote.Put.FromString(message)
    header = found.header
    return header.cluster_id, header.member_id, header.revision, put_body(found)


def put_body(found: Any) -> PutBody:
    return found.header.revision, found.prev_kv if found.HasField("prev_kv") else None


@native
def range_answer(message: bytes) -> tuple[int, int, int, RangeBody]:
    """Raises ``DecodeError``."""
    found = remote.Range.FromString(message)
    header = found.header
    return header.cluster_id, header.member_id, header.revision, range_body(found)


def range_body(found: Any) -> RangeBody:
    return found.header.revision, list(found.kvs), found.more, found.count
