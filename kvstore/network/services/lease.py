"""Lease: grant, revoke, keep alive, how long it has left, which there are."""

from __future__ import annotations

from functools import partial
from typing import Any

from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.requests import from_message
from kvstore.etcdpb.responses import encode
from kvstore.model import LeaseKeepAliveRequest
from kvstore.network.call import Call, Kind, Running, Serve, decoded, methods
from kvstore.network.endpoint import Endpoint

SERVICE = "etcdserverpb.Lease"


def _ask(message_class: Any) -> Serve:
    """A method that is one logged request."""

    def serve(endpoint: Endpoint, call: Call, message: bytes) -> None:
        endpoint.ask(call, from_message(decoded(message_class, message)))

    return serve


def keep_alive(endpoint: Endpoint, call: Call, _message: bytes) -> Running:
    call.begin()
    return _KeepAlive(endpoint, call)


class _KeepAlive(Running):
    """Answers each request, in their order. The client's end of its side ends the call, after the last answer."""

    def __init__(self, endpoint: Endpoint, call: Call) -> None:
        self._endpoint = endpoint
        self._call = call
        self._answers: dict[int, bytes | None] = {}
        """By number of the request: what is not sent yet; None: not known yet."""
        self._asked = 0
        self._ends = False

    def received(self, message: bytes) -> None:
        number = self._asked
        self._asked += 1
        self._answers[number] = None
        request = LeaseKeepAliveRequest(decoded(pb.LeaseKeepAliveRequest, message).ID)
        guarded = self._endpoint.guarded(self._call, request)
        self._endpoint.ask_for(guarded, partial(self._finish, number))

    def _finish(self, number: int, response: Any, error: BaseException | None) -> None:
        if not self._call.alive:
            return
        if error is not None:
            self._endpoint.fail(self._call, error)
            return
        self._answers[number] = encode(response, self._endpoint.header)
        self._send()

    def _send(self) -> None:
        for number, answer in list(self._answers.items()):
            if answer is None:
                return
            del self._answers[number]
            self._call.send(answer)
        if self._ends:
            self._call.end()

    def half_closed(self) -> None:
        self._ends = True
        self._send()


METHODS = [
    *methods(
        SERVICE,
        pb,
        LeaseGrant=_ask(pb.LeaseGrantRequest),
        LeaseRevoke=_ask(pb.LeaseRevokeRequest),
        LeaseTimeToLive=_ask(pb.LeaseTimeToLiveRequest),
        LeaseLeases=_ask(pb.LeaseLeasesRequest),
    ),
    *methods(SERVICE, pb, Kind.BIDI, LeaseKeepAlive=keep_alive),
]
