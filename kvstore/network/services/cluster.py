"""Cluster: who is a member (``members``). Its answers have a header without a revision.

A change is judged where it is planned, on the rows as they are then: no two of them can pass each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import RowsRequest
from kvstore.network.call import Call, Serve, decoded, methods
from kvstore.network.endpoint import Endpoint
from kvstore.network.members import MEMBERS_PREFIX, Member, Members


def members_of(endpoint: Endpoint, rows: Mapping[bytes, bytes]) -> Members:
    """Those that the store's rows tell of, and this server."""
    settings = endpoint.settings
    own = Member(endpoint.engine.member_id, settings.peer_urls, settings.name, settings.advertised_urls)
    return Members.loaded(own, [(name, row) for name, row in rows.items() if name.startswith(MEMBERS_PREFIX)])


def member_list(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.MemberListRequest, message)
    _answer(endpoint, call, members_of(endpoint, endpoint.engine.carried), pb.MemberListResponse())


def _change(request_class: Any, change: Callable[[Members, Any], tuple[Members, Any]]) -> Serve:
    """A method that changes who is a member: ``change`` returns the members after it, and the answer without them."""

    def serve(endpoint: Endpoint, call: Call, message: bytes) -> None:
        request = decoded(request_class, message)

        def decide(rows: Mapping[bytes, bytes]) -> Any:
            before = members_of(endpoint, rows)
            after, response = change(before, request)
            return after.changes_since(before), (after, response)

        guarded = endpoint.guarded(call, RowsRequest(decide), request.DESCRIPTOR.name)
        endpoint.ask_for(guarded, partial(_changed, endpoint, call))

    return serve


def _changed(endpoint: Endpoint, call: Call, changed: Any, error: BaseException | None) -> None:
    if error is None:
        _answer(endpoint, call, *changed)
    else:
        endpoint.fail(call, error)


def _answer(endpoint: Endpoint, call: Call, members: Members, response: Any) -> None:
    response.members.extend(map(_message, members.all()))
    call.answer(endpoint.header.at(0) + response.SerializeToString())


def _message(member: Member) -> Any:
    return pb.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


# --- changes -------------------------------------------------------------------------------------


def _add(members: Members, request: Any) -> tuple[Members, Any]:
    after, member = members.added(
        request.peerURLs, is_learner=request.isLearner, now_seconds=int(time.time())
    )
    return after, pb.MemberAddResponse(member=_message(member))


def _remove(members: Members, request: Any) -> tuple[Members, Any]:
    return members.removed(request.ID), pb.MemberRemoveResponse()


def _update(members: Members, request: Any) -> tuple[Members, Any]:
    return members.updated(request.ID, request.peerURLs), pb.MemberUpdateResponse()


def _promote(members: Members, request: Any) -> tuple[Members, Any]:
    return members.promoted(request.ID), pb.MemberPromoteResponse()


METHODS = methods(
    "etcdserverpb.Cluster",
    pb,
    MemberList=member_list,
    MemberAdd=_change(pb.MemberAddRequest, _add),
    MemberRemove=_change(pb.MemberRemoveRequest, _remove),
    MemberUpdate=_change(pb.MemberUpdateRequest, _update),
    MemberPromote=_change(pb.MemberPromoteRequest, _promote),
)
