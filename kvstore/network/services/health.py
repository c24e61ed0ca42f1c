"""Health, as gRPC has it for any server: whether it serves.

The server as a whole goes by the empty name, and serves as long as it answers. Others it does not know, as etcd.
"""

from __future__ import annotations

from kvstore.errors import Code
from kvstore.network.call import Call, Failed, Kind, Method, Running, decoded
from kvstore.network.endpoint import Endpoint
from kvstore.protobuf import Messages

TABLE = """
package grpc.health.v1
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 ServingStatus
enum HealthCheckResponse.ServingStatus: UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN
"""

pb = Messages(TABLE).package("grpc.health.v1")


def check(_endpoint: Endpoint, call: Call, message: bytes) -> None:
    if decoded(pb.HealthCheckRequest, message).service:
        raise Failed(Code.NOT_FOUND, "unknown service")
    call.answer(_status("SERVING"))


def watch(_endpoint: Endpoint, call: Call, message: bytes) -> Running:
    """Nothing changes, until the end of the call."""
    is_known = not decoded(pb.HealthCheckRequest, message).service
    call.send(_status("SERVING" if is_known else "SERVICE_UNKNOWN"))
    return Running()


def _status(name: str) -> bytes:
    encoded: bytes = pb.HealthCheckResponse(status=name).SerializeToString()
    return encoded


METHODS = [
    Method("grpc.health.v1.Health", name, kind, serve, pb.HealthCheckRequest, pb.HealthCheckResponse)
    for name, kind, serve in (("Check", Kind.UNARY, check), ("Watch", Kind.SERVER_STREAM, watch))
]
