"""Ranges whose answers may be large: measured in a thread, and made a page at a time, as the client takes them.

    thread of the many   read, up to 64 KiB            short: answered at once
    thread of the few    read through, for the size    one or two at a time, while the connection has room
    loop                 a page -> the client takes it -> the next page, kept or read again in a thread

So a large range holds up neither short ones nor the loop, and costs its pages only: those that were kept are a few
megabytes, and counted as an answer that waits (``budget``). The revision is not held in between: a compaction that
passes it ends the call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from kvstore.errors import KVStoreError
from kvstore.etcdpb.responses import encode_pages, encode_rows
from kvstore.model import RangeRequest
from kvstore.mvcc.pages import RangePages
from kvstore.network import limits
from kvstore.network.call import Call, Running
from kvstore.network.endpoint import Endpoint


class _TooLong(Exception):
    """The answer is to be sent in pages."""


class _Gone(KVStoreError):
    """Nobody waits for the answer."""


class PagedRange(Running):
    """The answer to one range."""

    def __init__(self, endpoint: Endpoint, call: Call, request: RangeRequest) -> None:
        self.call = call
        self._endpoint = endpoint
        self._request = request
        self._seen_bytes = 0
        self._pages: RangePages | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._piece: bytes | None = None
        self._message = b""
        self._is_busy = True
        """A piece is being made, or its turn is near."""
        self.measure = endpoint.reading(call, request, self._measure)
        """Reads it through, in a thread."""
        endpoint.read(endpoint.reading(call, request, self._read_short), self._has_read_short)

    # --- short --------------------------------------------------------------------------------------

    def _read_short(self) -> None:
        if self.call.alive:
            pages = self._endpoint.engine.range_pages(self._request, self._encode_short)
            self._message = b"".join(encode_pages(pages, self._endpoint.header)[1])

    def _encode_short(self, rows: list[bytes]) -> bytes:
        page = encode_rows(rows)
        self._seen_bytes += len(page)
        if self._seen_bytes > limits.PAGED_BYTES:
            raise _TooLong
        return page

    def _has_read_short(self, error: BaseException | None) -> None:
        if isinstance(error, _TooLong):
            self._endpoint.long_reads.put(self)
        elif error is not None:
            self._endpoint.fail(self.call, error)
        else:
            self.call.answer(self._message)

    # --- long ---------------------------------------------------------------------------------------

    def _measure(self) -> None:
        self._pages = self._endpoint.engine.range_pages(self._request, self._encode)

    def _encode(self, rows: list[bytes]) -> bytes:
        if not self.call.alive:
            raise _Gone
        time.sleep(0)  # else the loop waits for a whole switch interval, each time it has something to do
        return encode_rows(rows)

    def measured(self, error: BaseException | None) -> None:
        """Begin to send, or say why not."""
        pages = self._pages
        if error is not None:
            self._endpoint.fail(self.call, error)
        elif pages is not None and self.call.alive:
            size_bytes, self._pieces = encode_pages(pages, self._endpoint.header)
            self._is_busy = False
            self.call.begin_answer(size_bytes, size_bytes if pages.is_kept else 0)
            self._go_on()

    def drained(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        if self._is_busy or not self.call.alive or self.call.is_blocked or self._pages is None:
            return
        self._is_busy = True
        if self._pages.is_kept:
            self._endpoint.loop.call_soon(self._take_turn)
        else:
            self._endpoint.read(self._next, self._has_next)

    def _take_turn(self) -> None:
        self._next()
        self._has_next(None)

    def _next(self) -> None:
        self._piece = next(self._pieces, None)

    def _has_next(self, error: BaseException | None) -> None:
        self._is_busy = False
        if not self.call.alive:
            return
        if error is not None:
            self._endpoint.fail(self.call, error)
        elif self._piece is None:
            self.call.end()
        else:
            self.call.write(self._piece)
            self._go_on()

    def closed(self) -> None:
        self._pages = None
        self._pieces = iter(())
        self._piece = None
