"""What an endpoint is sent, as fuzz targets (see fuzz_targets).

A fault of ours is caught by the endpoint and logged, so that it harms one client alone: here it is raised.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from functools import cache

import kvstore
from kvstore.network.endpoint import Endpoint, Settings
from tests.network.web_client import WebClient
from tests.proof.fuzz_files import SCRATCH

BODIES = (b"/v3/kv/range", b"/v3/kv/txn", b"/v3/lease/grant", b"/v3/watch", b"/v3/lease/keepalive")


class Raising(logging.Handler):
    """Remembers the first fault that was logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.fault: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self.fault is None:
            self.fault = record.exc_info[1]

    def check(self) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault


FAULTS = Raising()


@cache
def endpoint() -> Endpoint:
    """One for all inputs."""
    logging.getLogger("kvstore.network").addHandler(FAULTS)
    store = kvstore.open(SCRATCH / "served", "memory", background=False)
    loop = asyncio.new_event_loop()
    made = Endpoint(store.engine, loop, Settings())
    for end in (loop.close, store.close, made.close):
        atexit.register(end)
    return made


def gateway(data: bytes) -> None:
    """As all that a connection sends, and as the body of some calls."""
    seen = [data]
    for path in BODIES:
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path, len(data))
        seen.append(head + data)
    for sent in seen:
        client = WebClient(endpoint())
        client.peer.receive(sent)
        client.rest()
        client.peer.lost()
        FAULTS.check()


def gateway_seeds() -> list[bytes]:
    """Requests, and bodies of requests."""
    bodies = [
        b'{"key":"YQ==","rangeEnd":"AA==","limit":"5","sort_order":"DESCEND","sortTarget":1}',
        b'{"compare":[{"key":"YQ==","target":"MOD","modRevision":"2"}],'
        b'"success":[{"requestPut":{"key":"YQ==","value":"Yg=="}}],"failure":[{"request_txn":{}}]}',
        b'{"ID":"-7","TTL":60}{"ID":7}',
        b'{"create_request":{"key":"YQ==","start_revision":1,"filters":["NOPUT"]}}'
        b'{"cancelRequest":{"watch_id":"0"}}{"progress_request":{}}',
    ]
    heads = [
        b"GET /readyz?verbose&exclude=x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nHost: [::1]:2379\r\nGrpc-Timeout: 5S\r\nAuthorization: a.1\r\n"
        b'Grpc-Metadata-X: y\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{"key":"YQ=="}\r\n0\r\n\r\n',
        b"OPTIONS * HTTP/1.0\r\nOrigin: http://a\r\n\r\n",
    ]
    return bodies + heads


TARGETS = (gateway,)
