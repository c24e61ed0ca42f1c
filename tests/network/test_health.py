"""Health: gRPC's own service of that name."""

from __future__ import annotations

import pytest

from kvstore.errors import Code
from kvstore.network.services.health import pb
from tests.network.fake_call import Client, Refused

HEALTH = "/grpc.health.v1.Health/"
SERVING, SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.SERVICE_UNKNOWN


def test_the_server_serves(client: Client) -> None:
    """Asked once, and watched: the stream says so and stays open."""
    assert client.ask(HEALTH + "Check", pb.HealthCheckRequest()).status == SERVING
    watch = client.begin(HEALTH + "Watch", pb.HealthCheckRequest())
    client.turn()
    assert watch.alive
    assert [answer.status for answer in watch.answers] == [SERVING]


def test_services_by_name_are_unknown(client: Client) -> None:
    """As etcd says: an error when asked once, a status when watched."""
    request = pb.HealthCheckRequest(service="etcdserverpb.KV")
    with pytest.raises(Refused) as raised:
        client.ask(HEALTH + "Check", request)
    assert (raised.value.code, raised.value.text) == (Code.NOT_FOUND, "unknown service")
    watch = client.begin(HEALTH + "Watch", request)
    assert watch.alive
    assert [answer.status for answer in watch.answers] == [SERVICE_UNKNOWN]


def test_the_numbers_are_those_of_the_protocol() -> None:
    """SERVING is 1 on the wire, in field 1."""
    assert pb.HealthCheckResponse(status="SERVING").SerializeToString() == b"\x08\x01"
    assert pb.HealthCheckRequest(service="a").SerializeToString() == b"\x0a\x01a"
