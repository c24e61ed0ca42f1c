"""etcd's services, and the table of their methods.

A module holds one service: functions that begin a call (``call.Serve``), and a list of its methods, ``METHODS``.

With users, a call passes a door first (``users``) where that depends on nothing but who asks. What touches keys or
leases is looked at by the services themselves, when they know what the request is.
"""

from __future__ import annotations

from dataclasses import replace

from kvstore.network.call import Call, Method, Running, decoded
from kvstore.network.endpoint import Endpoint
from kvstore.network.services import auth, cluster, election, health, kv, lease, lock, maintenance, watch


def _behind_a_door(method: Method) -> Method:
    def serve(endpoint: Endpoint, call: Call, message: bytes) -> Running | None:
        if endpoint.users_are_on:
            endpoint.users.check(call, decoded(method.request, message))
        return method.serve(endpoint, call, message)

    return replace(method, serve=serve)


TABLE: dict[str, Method] = {
    method.path: method
    for service in (kv, watch, lease, lock, election, health)
    for method in service.METHODS
} | {
    method.path: _behind_a_door(method)
    for service in (cluster, maintenance, auth)
    for method in service.METHODS
}
"""By path, as a client asks for it: ``/etcdserverpb.KV/Range``."""
SERVICES = {method.service for method in TABLE.values()}
