"""Requests of HTTP, whichever version brings them: pages for people and monitors, and calls over JSON.

Http1Peer  (h11)  --.                                            .--> pages     answered at once, or by a thread
                    |--> Web.open(request, reply) --> Exchange --|
HTTP/2 over TLS   --'      <-- answer | begin, write, finish --   |--> gateway  calls of services
                                                                  '--> ui       the page to look at the store with
"""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.network import gateway, pages
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import Exchange, Headers, Page, Reply, Request, Switch, text

_CORS_METHODS = "POST, GET, OPTIONS, PUT, DELETE"
_CORS_HEADERS = "accept, content-type, authorization"
_UNKNOWN_HOST = """
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist "{}"

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).

"""
_NO_WEBSOCKET = "WebSocket needs a package where the server runs: pip install 'kvstore-mvcc[serve]'\n"
_CERTIFICATE_NAME = (
    "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
)
V3, V3_BETA, UI = "/v3/", "/v3beta/", "/ui"


class Web:
    """What one endpoint serves over HTTP.

    ``is_for_monitors``: pages alone, and of those only what a monitor asks for.
    """

    def __init__(self, endpoint: Endpoint, *, is_for_monitors: bool = False) -> None:
        self._endpoint = endpoint
        self._is_for_monitors = is_for_monitors

    def open(self, request: Request, reply: Reply, switch: Switch | None = None) -> Exchange:
        """Begin to answer a request. ``switch``: of a connection that can go on with WebSocket."""
        path = request.path
        if path.startswith(V3_BETA):
            path = V3 + path.removeprefix(V3_BETA)
        refusal = self._refusal(request, path)
        if refusal is not None:
            reply.answer(*refusal)
            return Exchange()
        settings = self._endpoint.settings
        if settings.has_ui and not self._is_for_monitors and (path == UI or path.startswith(f"{UI}/")):
            from kvstore.network import ui  # with what it shows values with: of no use without the page

            return ui.open_ui(self._endpoint, request, path, reply)
        answer = _Allowing(reply, self._cors(request))
        if request.method == "OPTIONS":
            answer.answer(200, [], b"")
            return Exchange()
        if path.startswith(V3) and settings.has_gateway and not self._is_for_monitors:
            if switch is not None and _asks_for_websocket(request.headers):
                return self._open_socket(request, path, answer, switch)
            return gateway.open_call(self._endpoint, request, path, answer)
        return pages.open_page(self._endpoint, request, path, answer, is_for_monitors=self._is_for_monitors)

    def _open_socket(self, request: Request, path: str, reply: Reply, switch: Switch) -> Exchange:
        try:
            from kvstore.network import websocket
        except ModuleNotFoundError:
            reply.answer(*text(501, _NO_WEBSOCKET))
            return Exchange()
        refusal = websocket.refusal(request, self._endpoint.settings.cors)
        if refusal is not None:
            reply.answer(*refusal)
            return Exchange()
        answer = switch(websocket.accepting(request))
        return gateway.open_call(self._endpoint, websocket.as_call(request), path, answer)

    def _refusal(self, request: Request, path: str) -> Page | None:
        """Of a request that was sent by mistake: a browser's to another name, or one under a certificate's name."""
        if not request.peer.is_tls:
            name = _host_name(request.headers.get("host", ""))
            known = self._endpoint.settings.host_whitelist
            if known and "*" not in known and name not in known:
                return text(421, _UNKNOWN_HOST.format(name))
        elif self._endpoint.users_are_on and request.peer.common_name and path.startswith(V3):
            return text(400, _CERTIFICATE_NAME)
        return None

    def _cors(self, request: Request) -> Headers:
        origins, origin = self._endpoint.settings.cors, request.headers.get("origin", "")
        if not origins or "*" in origins:
            origin = "*"
        elif origin not in origins:
            return []
        return [
            ("Access-Control-Allow-Headers", _CORS_HEADERS),
            ("Access-Control-Allow-Methods", _CORS_METHODS),
            ("Access-Control-Allow-Origin", origin),
        ]


def _asks_for_websocket(headers: Mapping[str, str]) -> bool:
    def has(name: str, wanted: str) -> bool:
        return wanted in [word.strip().lower() for word in headers.get(name, "").split(",")]

    return has("connection", "upgrade") and has("upgrade", "websocket")


def _host_name(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _colon, port = host.rpartition(":")
    return name if name and port.isdigit() else host


class _Allowing:
    """A reply whose every answer says which pages of others may read it."""

    def __init__(self, reply: Reply, headers: Headers) -> None:
        self._reply = reply
        self._headers = headers

    @property
    def is_blocked(self) -> bool:
        return self._reply.is_blocked

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._reply.answer(status, self._headers + headers, body)

    def begin(self, status: int, headers: Headers) -> None:
        self._reply.begin(status, self._headers + headers)

    def write(self, data: bytes) -> None:
        self._reply.write(data)

    def finish(self) -> None:
        self._reply.finish()
