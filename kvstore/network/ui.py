"""The page to look at the store with: the document, and what it asks for that the gateway does not say.

    GET  /ui/               the document: scripts and style are in it, under a policy that lets nothing else run
    GET  /ui/api/NAME?...   what the page shows (ui_answers), as JSON, for whoever the token says
    POST /ui/api/put, delete    where the page may write

Everything else the page gets from the gateway and /metrics as any client does. No other site's page may use any of it:
answers allow no other origin, every request of the page has a header that a form or a link cannot send, and what a
browser says about where a request comes from has to be here. A token is only in the page's memory, so no request has
one by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from kvstore.errors import BadArgument, Code, KVStoreError
from kvstore.network import limits, ui_answers
from kvstore.network.call import Asking, Failed
from kvstore.network.endpoint import Endpoint
from kvstore.network.exchange import METHOD_NOT_ALLOWED, Exchange, Headers, Page, Reply, Request, text
from kvstore.network.gateway import JSON_HEADERS, error_page, metadata_of
from kvstore.ui.document import LIVE, document, policy

logger = logging.getLogger("kvstore.network")

API = "/ui/api/"
ASKED_BY_THE_PAGE = "x-kvstore-ui"

_HEADERS: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
_NO_FRAME = "; frame-ancestors 'none'"


def open_ui(endpoint: Endpoint, request: Request, path: str, reply: Reply) -> Exchange:
    """Begin to answer a request of the page, or for it."""
    answer = _Guarded(reply)
    if path.startswith(API):
        return _open_api(endpoint, request, path.removeprefix(API), answer)
    if path == "/ui":
        answer.answer(Page(308, [("Location", "/ui/")], b""))
    elif path != "/ui/":
        answer.answer(text(404, "404 page not found\n"))
    elif request.method not in ("GET", "HEAD"):
        answer.answer(text(405, METHOD_NOT_ALLOWED, ("Allow", "GET")))
    else:
        kind = ("Content-Type", "text/html; charset=utf-8")
        answer.answer(Page(200, [kind], _document(endpoint.settings.ui_writes)))
    return Exchange()


@cache
def _document(may_write: bool) -> bytes:
    return document({"writes": may_write}, LIVE, is_live=True).encode()


class _Guarded:
    """A reply whose answers no other page can read, hold in a frame, or take for something else."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._policy = [("Content-Security-Policy", policy(LIVE, is_live=True) + _NO_FRAME)]

    def answer(self, page: Page) -> None:
        own = [(name, value) for name, value in page.headers if name != "X-Content-Type-Options"]
        self._reply.answer(page.status, [*own, *_HEADERS, *self._policy], page.body)


# --- what the page asks for ----------------------------------------------------------------


def _open_api(endpoint: Endpoint, request: Request, name: str, answer: _Guarded) -> Exchange:
    try:
        _check_origin(request)
        write = ui_answers.WRITES.get(name)
        read = ui_answers.READS.get(name)
        if write is not None:
            if not endpoint.settings.ui_writes:
                raise Failed(Code.PERMISSION_DENIED, "the page may not write: that takes --ui-writes")
            if request.method != "POST":
                raise Failed(Code.UNIMPLEMENTED, METHOD_NOT_ALLOWED.strip())
            return _Writing(endpoint, write, request, answer)
        if read is None:
            raise Failed(Code.NOT_FOUND, "Not Found")
        if request.method != "GET":
            raise Failed(Code.UNIMPLEMENTED, METHOD_NOT_ALLOWED.strip())
        query = {name: values[0] for name, values in request.query.items()}
        work = read(endpoint, _Asking(request), query)
    except Exception as error:
        _refuse(endpoint, answer, error)
        return Exchange()
    return _Reading(endpoint, work, answer)


def _check_origin(request: Request) -> None:
    """Refuse what was not asked for by a script of this server's page."""
    headers = request.headers
    scheme = "https" if request.peer.is_tls else "http"
    origin = headers.get("origin")
    is_ours = origin is None or urlsplit(origin)[:2] == (scheme, headers.get("host"))
    if headers.get("sec-fetch-site", "same-origin") != "same-origin" or not is_ours:
        raise Failed(Code.PERMISSION_DENIED, "this is for the page of this server alone")
    if ASKED_BY_THE_PAGE not in headers:
        raise Failed(
            Code.PERMISSION_DENIED, f"the header {ASKED_BY_THE_PAGE} is missing: this is for the page"
        )


def _refuse(endpoint: Endpoint, answer: _Guarded, error: BaseException) -> None:
    if not isinstance(error, KVStoreError):
        logger.error("a request of the page failed", exc_info=error)
    answer.answer(error_page(error, endpoint.dialect))


class _Asking(Asking):
    """Whose request it is."""

    def __init__(self, request: Request) -> None:
        self.peer = request.peer
        self._metadata = metadata_of(request.headers)

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata


class _Reading(Exchange):
    """What a thread finds out, on its way."""

    def __init__(self, endpoint: Endpoint, work: Callable[[], Any], answer: _Guarded) -> None:
        self._endpoint = endpoint
        self._work = work
        self._answer = answer
        self._body = b""
        endpoint.read(self._read, self._finish)

    def _read(self) -> None:
        self._body = json.dumps(self._work(), separators=(",", ":")).encode()

    def _finish(self, error: BaseException | None) -> None:
        if error is not None:
            _refuse(self._endpoint, self._answer, error)
        else:
            self._answer.answer(Page(200, JSON_HEADERS, self._body))


class _Writing(Exchange):
    """A request to write: its body, then its answer when it is durable."""

    waits_for_body = True

    def __init__(
        self, endpoint: Endpoint, write: ui_answers.Write, request: Request, answer: _Guarded
    ) -> None:
        self._endpoint = endpoint
        self._write = write
        self._asking = _Asking(request)
        self._answer = answer
        self._is_answered = False
        self._body = bytearray()
        self._limit_bytes = endpoint.settings.max_message_bytes * limits.BODY_FACTOR

    def received(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._limit_bytes:
            self._fail(Failed(Code.RESOURCE_EXHAUSTED, f"more than {self._limit_bytes} bytes"))
        elif not self._is_answered:
            self._body += data

    def ended(self) -> None:
        self.waits_for_body = False
        if self._is_answered:
            return
        try:
            asked = json.loads(self._body)
            if not isinstance(asked, dict):
                raise BadArgument("a JSON object was expected")
            request = self._write(asked)
            self._endpoint.ask_for(self._endpoint.guarded(self._asking, request), self._finish)
        except (ValueError, RecursionError) as error:
            self._fail(error if isinstance(error, BadArgument) else BadArgument(f"no JSON: {error}"))
        except Exception as error:
            self._fail(error)

    def _finish(self, response: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        found = {"written": response.succeeded, "revision": response.revision}
        self._answer.answer(Page(200, JSON_HEADERS, json.dumps(found).encode()))

    def _fail(self, error: BaseException) -> None:
        if not self._is_answered:
            self._is_answered = True
            _refuse(self._endpoint, self._answer, error)
