"""Lock: a lock is held by who has the turn in the queue of its name (``turns``)."""

from __future__ import annotations

from typing import Any

from kvstore.errors import Code
from kvstore.etcdpb.messages import v3lockpb as pb
from kvstore.model import DeleteRangeRequest
from kvstore.network.call import Call, Failed, Running, decoded, methods
from kvstore.network.endpoint import Endpoint
from kvstore.network.turns import Queue, as_unknown


def lock(endpoint: Endpoint, call: Call, message: bytes) -> Running:
    request = decoded(pb.LockRequest, message)
    return endpoint.spawn(call, lambda: as_unknown(_lock(endpoint, call, request)))


async def _lock(endpoint: Endpoint, call: Call, request: Any) -> None:
    queue = Queue(endpoint, call, request.name)
    lease = await queue.session(request.lease)
    key = queue.key(lease)
    place = await queue.enter(key, b"", lease)
    revision = place.revision if place.is_first else await _turn(queue, key, place.create_revision)
    call.answer(endpoint.header.at(revision) + pb.LockResponse(key=key).SerializeToString())


async def _turn(queue: Queue, key: bytes, create_revision: int) -> int:
    """Wait for it; the revision at which the key was there and had it."""
    try:
        await queue.turn(create_revision)
        found = await queue.get(key)
    except BaseException:
        queue.leave(key)
        raise
    if not found.kvs:
        raise Failed(Code.UNKNOWN, "mutex: session is expired")
    return found.revision


def unlock(endpoint: Endpoint, call: Call, message: bytes) -> Running:
    request = decoded(pb.UnlockRequest, message)
    return endpoint.spawn(call, lambda: as_unknown(_unlock(endpoint, call, request)))


async def _unlock(endpoint: Endpoint, call: Call, request: Any) -> None:
    response = await endpoint.asked(endpoint.guarded(call, DeleteRangeRequest(request.key)))
    call.answer(endpoint.header.at(response.revision))


METHODS = methods("v3lockpb.Lock", pb, Lock=lock, Unlock=unlock)
