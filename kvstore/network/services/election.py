"""Election: who has the turn in the queue of a name (``turns``) leads. It proclaims the value of its key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from kvstore.errors import Code, Compacted
from kvstore.etcdpb.messages import mvccpb
from kvstore.etcdpb.messages import v3electionpb as pb
from kvstore.keyvalue import KeyValue
from kvstore.model import DeleteRangeRequest, EventType, PutRequest, TxnRequest, TxnResponse, WatchRequest
from kvstore.network.call import Call, Failed, Kind, Method, Running, Serve, decoded, methods
from kvstore.network.endpoint import Endpoint, Send
from kvstore.network.turns import Queue, as_unknown, made_at

SERVICE = "v3electionpb.Election"


def _coroutine(request_class: Any, service: Any) -> Serve:
    """A unary method, written as a coroutine that returns the revision and the answer."""

    async def answered(endpoint: Endpoint, call: Call, request: Any) -> None:
        revision, response = await service(endpoint, call, request)
        call.answer(endpoint.header.at(revision) + response.SerializeToString())

    def serve(endpoint: Endpoint, call: Call, message: bytes) -> Running:
        request = decoded(request_class, message)
        return endpoint.spawn(call, lambda: as_unknown(answered(endpoint, call, request)))

    return serve


# --- to lead -------------------------------------------------------------------------------------


async def _campaign(endpoint: Endpoint, call: Call, request: Any) -> tuple[int, Any]:
    queue = Queue(endpoint, call, request.name)
    lease = await queue.session(request.lease)
    key = queue.key(lease)
    place = await queue.enter(key, request.value, lease)
    leader = pb.LeaderKey(name=request.name, key=key, rev=place.create_revision, lease=lease)
    if place.found is not None and place.found.value != request.value:
        try:
            await _change(endpoint, call, leader, PutRequest(key, request.value, lease))
        except BaseException:
            queue.leave(key, place.create_revision)
            raise
    try:
        await queue.turn(place.create_revision)
    except asyncio.CancelledError:
        queue.leave(key, place.create_revision)
        raise
    return place.revision, pb.CampaignResponse(leader=leader)


async def _proclaim(endpoint: Endpoint, call: Call, request: Any) -> tuple[int, Any]:
    lease = await _resumed(endpoint, call, request)
    response = await _change(
        endpoint, call, request.leader, PutRequest(request.leader.key, request.value, lease)
    )
    return response.revision, pb.ProclaimResponse()


async def _resign(endpoint: Endpoint, call: Call, request: Any) -> tuple[int, Any]:
    """Who does not lead has nothing to give up, and that is all right."""
    await _resumed(endpoint, call, request)
    response = await _if_made(endpoint, call, request.leader, DeleteRangeRequest(request.leader.key))
    return response.revision, pb.ResignResponse()


async def _resumed(endpoint: Endpoint, call: Call, request: Any) -> int:
    if not request.HasField("leader"):
        raise Failed(Code.UNKNOWN, '"leader" field must be provided')
    return await Queue(endpoint, call, request.leader.name).session(request.leader.lease)


async def _change(endpoint: Endpoint, call: Call, leader: Any, op: PutRequest) -> TxnResponse:
    response = await _if_made(endpoint, call, leader, op)
    if not response.succeeded:
        raise Failed(Code.UNKNOWN, "election: not leader")
    return response


async def _if_made(
    endpoint: Endpoint, call: Call, leader: Any, op: PutRequest | DeleteRangeRequest
) -> TxnResponse:
    """Carry an op out if the leader's key is still the one that it got."""
    request = TxnRequest((made_at(leader.key, leader.rev),), (op,))
    response: TxnResponse = await endpoint.asked(endpoint.guarded(call, request))
    return response


# --- to look on ----------------------------------------------------------------------------------


async def _leader(endpoint: Endpoint, call: Call, request: Any) -> tuple[int, Any]:
    found = await Queue(endpoint, call, request.name).first()
    if not found.kvs:
        raise Failed(Code.UNKNOWN, "election: no leader")
    return found.revision, _answer(found.kvs[0])


def _answer(kv: KeyValue) -> Any:
    return pb.LeaderResponse(kv=mvccpb.KeyValue.FromString(kv.to_protobuf()))


def observe(endpoint: Endpoint, call: Call, message: bytes) -> Running:
    queue = Queue(endpoint, call, decoded(pb.LeaderRequest, message).name)
    return endpoint.stream(call, lambda send: as_unknown(_observe(endpoint, queue, send)))


async def _observe(endpoint: Endpoint, queue: Queue, send: Send) -> None:
    """Each leader, and what it proclaims. Where a compaction overtakes this, it looks who leads by then."""
    while True:
        with suppress(Compacted):
            found = await queue.first()
            revision, kv = found.revision, found.kvs[0] if found.kvs else None
            if kv is None:
                kv = await queue.first_put(revision)
                revision = kv.mod_revision
            await send(endpoint.header.at(revision) + _answer(kv).SerializeToString())
            await _follow(endpoint, queue, kv.key, revision, send)


async def _follow(endpoint: Endpoint, queue: Queue, key: bytes, revision: int, send: Send) -> None:
    """What a leader proclaims after a revision, until its key is gone."""
    with queue.changes(WatchRequest(key, start_revision=revision + 1)) as changes:
        while True:
            response = await changes.next()
            for event in response.events:
                if event.type == EventType.DELETE:
                    return
                await send(endpoint.header.at(event.kv.mod_revision) + _answer(event.kv).SerializeToString())


METHODS = [
    *methods(
        SERVICE,
        pb,
        Campaign=_coroutine(pb.CampaignRequest, _campaign),
        Proclaim=_coroutine(pb.ProclaimRequest, _proclaim),
        Leader=_coroutine(pb.LeaderRequest, _leader),
        Resign=_coroutine(pb.ResignRequest, _resign),
    ),
    Method(SERVICE, "Observe", Kind.SERVER_STREAM, observe, pb.LeaderRequest, pb.LeaderResponse),
]
