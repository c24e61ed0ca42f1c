"""The gateway: calls of etcd's services as JSON over HTTP.

    POST /v3/kv/range {"key": "YQ=="}      -->  {"header": {...}, "kvs": [...]}
    POST /v3/watch {"create_request": {}}  -->  {"result": {...}}\n {"result": {...}}\n ...      as long as it goes on
    what went wrong                        -->  a status of HTTP, and {"code": 3, "message": "..."}

The body of a request is one JSON value, or, where a call takes several messages, a sequence of them; what follows the
last one is passed over. Its end does not end a watch: the client closes the connection. Metadata are header fields:
``Authorization`` as it is, ``Grpc-Metadata-X`` as ``x``; ``Grpc-Timeout`` bounds the call.

Short messages become JSON on the spot, long ones and heaps of short ones in a thread; whatever the call says after one
of those waits for its turn.
"""

from __future__ import annotations

import codecs
import json
import re
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, NoReturn

from kvstore.errors import BadArgument, Code, StoreClosed
from kvstore.etcdpb.json import GATEWAY, GATEWAY_SINCE_3_6, from_json, to_json
from kvstore.etcdpb.status import status_of
from kvstore.network import grpc, limits
from kvstore.network.call import Call, Failed, Kind, Method, Running
from kvstore.network.dialect import V3_5, V3_6, Dialect
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import METHOD_NOT_ALLOWED, Exchange, Headers, Page, Reply, Request, text
from kvstore.network.gateway_paths import http_status, methods_by_path
from kvstore.network.services import TABLE

JSON_HEADERS: Headers = [("Content-Type", "application/json")]
ANSWER_HEADERS: Headers = [*JSON_HEADERS, ("Grpc-Metadata-Content-Type", "application/grpc")]
_METADATA = "grpc-metadata-"

# --- JSON ------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_BLANKS = re.compile(r"[ \t\n\r]*")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def first_value(body: str) -> Any:
    """The JSON value that a body begins with, None if there is none. ``BadArgument`` where it is broken."""
    return _next_value(body, 0)[0]


def _next_value(body: str, at: int) -> tuple[Any, int]:
    """The value there, and where it ends: at the end of the body, if there is none."""
    blanks = _BLANKS.match(body, at)
    start = blanks.end() if blanks else at
    if start == len(body):
        return None, start
    try:
        found, end = _DECODER.raw_decode(body, start)
    except (ValueError, RecursionError) as error:
        raise BadArgument(str(error)) from None
    return found, end


class Values:
    """The JSON values of a body that is a sequence of them, as its pieces come."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    def receive(self, data: bytes) -> list[Any]:
        """What is complete now. What is broken looks like what is not complete, until ``end``."""
        text = self._text + self._decoder.decode(data)
        found, at = [], 0
        try:
            while at < len(text):
                value, at = _next_value(text, at)
                if value is not None:
                    found.append(value)
        except BadArgument:
            pass
        self._text = text[at:]
        if len(self._text) > limits.STREAM_VALUE_CHARACTERS:
            raise Failed(
                Code.RESOURCE_EXHAUSTED,
                f"a JSON value of a stream is longer than {limits.STREAM_VALUE_CHARACTERS} characters",
            )
        return found

    def end(self) -> None:
        """A value ends here. ``BadArgument`` if this is the middle of one."""
        _next_value(self._text, 0)


# --- calls -----------------------------------------------------------------------------------------


def open_call(endpoint: Endpoint, request: Request, path: str, reply: Reply) -> Exchange:
    """Begin the call of that path."""
    dialect = endpoint.dialect
    name = methods_by_path(dialect).get(path)
    if name is None or request.method != "POST":
        reply.answer(*_no_way(name is None, dialect))
        return Exchange()
    method = TABLE.get(name)
    if method is None:
        service, _slash, name = name[1:].partition("/")
        error = Failed(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")
        reply.answer(*error_page(error, dialect))
        return Exchange()
    return (_Single if method.kind is not Kind.BIDI else _Conversation)(endpoint, request, method, reply)


def _no_way(is_unknown: bool, dialect: Dialect) -> Page:
    if dialect < V3_5:
        return text(404, "Not Found\n") if is_unknown else text(405, METHOD_NOT_ALLOWED)
    if is_unknown:
        return error_page(Failed(Code.NOT_FOUND, "Not Found"), dialect)
    return error_page(Failed(Code.UNIMPLEMENTED, METHOD_NOT_ALLOWED.strip()), dialect)


def error_page(error: BaseException, dialect: Dialect) -> Page:
    """What a call that failed is answered with."""
    code, message = status_of(error)
    found: dict[str, Any] = {"code": int(code), "message": message}
    headers = JSON_HEADERS
    if dialect < V3_5:
        found = {"error": message, "message": message, "code": int(code)}
    elif code is Code.UNAUTHENTICATED:
        headers = [*JSON_HEADERS, ("Www-Authenticate", message)]
    return Page(http_status(code, dialect), headers, _encode(found).encode())


def error_line(error: BaseException, dialect: Dialect) -> bytes:
    """How a stream ends that failed."""
    code, message = status_of(error)
    found: dict[str, Any] = {"code": int(code), "message": message}
    if dialect < V3_5:
        status = http_status(code, dialect)
        phrase = HTTPStatus(status).phrase
        found = {"grpc_code": int(code), "http_code": status, "message": message, "http_status": phrase}
    return _encode({"error": found}).encode() + b"\n"


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What header fields say to a service."""
    found = {
        name.removeprefix(_METADATA): value for name, value in headers.items() if name.startswith(_METADATA)
    }
    if "authorization" in headers:
        found.setdefault("authorization", headers["authorization"])
    return found


Then = Callable[[bytes], None]


class _JsonCall(Exchange, Call):
    """A call under way, to the service on one side and to HTTP on the other."""

    def __init__(self, endpoint: Endpoint, request: Request, method: Method, reply: Reply) -> None:
        self.peer = request.peer
        self.alive = True
        self.waits_for_body = True
        self._metadata = metadata_of(request.headers)
        self._endpoint = endpoint
        self._dialect = endpoint.dialect
        self._method = method
        self._reply = reply
        self._counts = endpoint.traffic.of(method.path, self._metadata.get("client-api-version"))
        self._running: Running | None = None
        self._has_asked_for_place = False
        self._is_served = False
        self._has_written = False
        self._pieces: list[bytes] | None = None
        """Those of an answer that comes in pieces."""
        self._unsaid: deque[tuple[bytes, Then]] = deque()
        """Messages that wait to become JSON, and what then happens to each."""
        self._said_bytes = 0
        self._timer: TimerHandle | None = None
        self._deadline: float | None = None
        try:
            self._bound(request.headers.get("grpc-timeout"))
        except Failed as error:
            self.fail(error)

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    @property
    def is_blocked(self) -> bool:
        return bool(self._unsaid) or self._reply.is_blocked

    def _bound(self, timeout: str | None) -> None:
        if timeout is not None:
            seconds = timeout_seconds(timeout)
            self._deadline = monotonic() + seconds
            self._timer = self._endpoint.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.fail(Failed(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))

    # --- the client -------------------------------------------------------------------

    def drained(self) -> None:
        if self._running is not None and not self.is_blocked:
            self._running.drained()

    def closed(self) -> None:
        if self.alive:
            self._over(Code.CANCELLED)
        self._unsaid.clear()

    def stop(self) -> None:
        if self._method.kind is not Kind.UNARY:
            self.fail(StoreClosed())

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """Whatever a step raises fails the call."""
        try:
            step(*arguments)
        except Exception as error:
            self._endpoint.fail(self, error)

    def _message(self, value: Any) -> bytes:
        """The message that a JSON value spells."""
        spelling = GATEWAY if self._dialect < V3_6 else GATEWAY_SINCE_3_6
        value = {} if value is None else value
        message: bytes = from_json(self._method.request, value, spelling).SerializeToString()
        limit = self._endpoint.settings.max_message_bytes
        if len(message) > limit:
            raise _too_large(len(message), limit)
        return message

    def _ask_for_place(self) -> None:
        """``_placed`` is called when this call may be one of those under way."""
        self._has_asked_for_place = True
        self._endpoint.gateway_places.take(self._placed)

    def _placed(self) -> None:
        raise NotImplementedError

    def _serve(self, message: bytes) -> None:
        if self._deadline is not None and monotonic() >= self._deadline:
            self._expire()
            return
        self.waits_for_body = False
        self._is_served = True
        self._counts.started += 1
        if self._method.kind is not Kind.BIDI:
            self._counts.took(message)
        running = self._method.serve(self._endpoint, self, message)
        if self.alive:
            self._running = running
        elif running is not None:
            running.closed()

    # --- the service ------------------------------------------------------------------

    def begin(self) -> None:
        """HTTP can say nothing before it says everything: an error may still need a status."""

    def answer(self, message: bytes) -> None:
        if self.alive:
            self._counts.gave(message)
            self._over(Code.OK)
            self._say(message, self._answer)

    def begin_answer(self, size_bytes: int, kept_bytes: int) -> None:
        """It becomes JSON as a whole."""
        self._pieces = []

    def write(self, piece: bytes) -> None:
        if self._pieces is not None:
            self._pieces.append(piece)

    def send(self, message: bytes) -> None:
        if self.alive:
            self._counts.gave(message)
            self._say(message, self._write)

    def end(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            self.answer(b"".join(pieces))
        elif self.alive:
            self._over(Code.OK)
            self._say(b"", self._finish)

    def fail(self, error: BaseException) -> None:
        if self.alive:
            self._over(status_of(error)[0])
            self._say(b"", partial(self._fail, error))

    def _over(self, code: Code) -> None:
        self.alive = False
        self.waits_for_body = False
        if self._is_served:
            self._counts.ended(code)
        if self._timer is not None:
            self._timer.cancel()
        running, self._running = self._running, None
        if running is not None:
            running.closed()
        if self._has_asked_for_place:
            self._endpoint.gateway_places.leave(self._placed)

    # --- on the way to the client, in order -------------------------------------------

    def _say(self, message: bytes, then: Then) -> None:
        if not self._unsaid and self._is_short(message):
            then(self._spelled(message))
            return
        self._unsaid.append((message, then))
        if len(self._unsaid) == 1:
            self._spell_long()

    def _is_short(self, message: bytes) -> bool:
        """With all that was said in this turn of the loop."""
        if not self._said_bytes:
            self._endpoint.loop.call_soon(self._next_turn)
        self._said_bytes += len(message)
        return self._said_bytes <= limits.LONG_MESSAGE_BYTES

    def _next_turn(self) -> None:
        self._said_bytes = 0

    def _spelled(self, message: bytes) -> bytes:
        return _encode(to_json(self._method.response.FromString(message))).encode()

    def _spell_long(self) -> None:
        self._long = b""
        self._endpoint.read(self._spell, self._has_spelled)

    def _spell(self) -> None:
        self._long = self._spelled(self._unsaid[0][0])

    def _has_spelled(self, error: BaseException | None) -> None:
        if not self._unsaid:  # the client has gone
            return
        if error is not None:
            self._unsaid.clear()
            self._fail(error, b"")
            return
        _message, then = self._unsaid[0]
        then(self._long)
        self._unsaid.popleft()
        if self._unsaid:
            self._spell_long()
        else:
            self.drained()

    def _answer(self, body: bytes) -> None:
        self._reply.answer(200, ANSWER_HEADERS, body)

    def _write(self, body: bytes) -> None:
        self._begin()
        self._reply.write(b'{"result":%b}\n' % body)

    def _begin(self) -> None:
        if not self._has_written:
            self._has_written = True
            self._reply.begin(200, ANSWER_HEADERS)

    def _finish(self, _body: bytes) -> None:
        self._begin()
        self._reply.finish()

    def _fail(self, error: BaseException, _body: bytes) -> None:
        if self._has_written:
            self._reply.write(error_line(error, self._dialect))
            self._reply.finish()
        elif self._is_served and self._method.kind is not Kind.UNARY:
            status = http_status(status_of(error)[0], self._dialect)
            self._reply.answer(status, JSON_HEADERS, error_line(error, self._dialect))
        else:
            self._reply.answer(*error_page(error, self._dialect))


class _Single(_JsonCall):
    """A call with one request: the first JSON value of its body."""

    def __init__(self, endpoint: Endpoint, request: Request, method: Method, reply: Reply) -> None:
        super().__init__(endpoint, request, method, reply)
        self._limit_bytes = endpoint.settings.max_message_bytes * limits.BODY_FACTOR
        self._body = bytearray()
        self._request = b""
        self._is_complete = False
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit_bytes:
            self.fail(_too_large(int(length), self._limit_bytes))

    def received(self, data: bytes) -> None:
        if not self.alive or self._is_complete:
            return
        if len(self._body) + len(data) > self._limit_bytes:
            self.fail(_too_large(len(self._body) + len(data), self._limit_bytes))
            self._body.clear()
            return
        self._body += data

    def ended(self) -> None:
        if not self.alive or self._is_complete:
            return
        self._is_complete = True
        if len(self._body) <= limits.LONG_MESSAGE_BYTES:
            self._guarded(self._serve_body)
        else:
            self.waits_for_body = False
            self._endpoint.read(self._read_body, self._has_read_body)

    def _serve_body(self) -> None:
        self._read_body()
        self._ask_for_place()

    def _placed(self) -> None:
        self.waits_for_body = False
        if self.alive:
            self._guarded(self._serve, self._request)

    def _read_body(self) -> None:
        body = self._body.decode("utf-8", "replace")
        self._body.clear()
        self._request = self._message(first_value(body))

    def _has_read_body(self, error: BaseException | None) -> None:
        if self.alive and error is not None:
            self._endpoint.fail(self, error)
        elif self.alive:
            self._ask_for_place()


class _Conversation(_JsonCall):
    """A call with many requests. It begins with the first one, or with the end of a body that has none.

    What cannot be read fails the call before its first request; after that it is the end of them.
    """

    def __init__(self, endpoint: Endpoint, request: Request, method: Method, reply: Reply) -> None:
        super().__init__(endpoint, request, method, reply)
        self._values = Values()
        self._early: bytearray | None = bytearray()
        """Of the body, what came while the call waited for its place; None: it has one."""
        self._has_early_end = False
        self._has_ended = False
        if self.alive:
            self._ask_for_place()

    def _placed(self) -> None:
        early, self._early = self._early, None
        if early:
            self.received(bytes(early))
        if self._has_early_end:
            self.ended()

    def received(self, data: bytes) -> None:
        if not self.alive or self._has_ended:
            return
        if self._early is None:
            self._guarded(self._receive, data)
        elif len(self._early) + len(data) > limits.WAITING_BYTES:
            self.fail(_too_large(len(self._early) + len(data), limits.WAITING_BYTES))
        else:
            self._early += data

    def message(self, data: bytes) -> None:
        """No value goes on in the next one."""
        self.received(data + b"\n")
        if self.alive and not self._has_ended and self._early is None:
            self._guarded(self._end_value)

    def ended(self) -> None:
        if not self.alive or self._has_ended:
            return
        if self._early is None:
            self._guarded(self._end)
        else:
            self._has_early_end = True

    def _receive(self, data: bytes) -> None:
        for value in self._values.receive(data):
            try:
                message = self._message(value)
            except (BadArgument, Failed) as error:
                self._end_with(error)
                return
            if not self._is_served:
                self._serve(b"")
            self._counts.took(message)
            if self.alive and self._running is not None:
                self._running.received(message)

    def _end_value(self) -> None:
        try:
            self._values.end()
        except BadArgument as error:
            self._end_with(error)

    def _end(self) -> None:
        self._end_value()
        if self.alive and not self._has_ended:
            self._half_close()

    def _end_with(self, error: Failed | BadArgument) -> None:
        if self._is_served:
            self._half_close()
        else:
            code = Code.UNKNOWN if self._dialect < V3_5 else status_of(error)[0]
            self.fail(Failed(code, str(error)))

    def _half_close(self) -> None:
        self._has_ended = True
        if not self._is_served:
            self._serve(b"")
        if self.alive and self._running is not None:
            self._running.half_closed()


def _too_large(size_bytes: int, limit_bytes: int) -> Failed:
    return Failed(
        Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size_bytes} vs. {limit_bytes})"
    )


def timeout_seconds(timeout: str) -> float:
    """What ``Grpc-Timeout`` says."""
    try:
        return grpc.timeout_seconds(timeout.encode())
    except ValueError:
        raise Failed(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {timeout}") from None
