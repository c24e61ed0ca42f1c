"""A scan: the keys of a range as an iterator that knows its revision, forwards or from the end.

    rows = store.scan(prefix=b"jobs/")
    for kv in rows: ...
    store.watch(prefix=b"jobs/", start_revision=rows.revision + 1)     nothing is missed, nothing comes twice

It works on any engine, a page at a time. An embedded store says its revision at once; elsewhere the first page does,
and the others are asked for at that revision. Pages are not counted where that can be helped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import cast

from kvstore.keyvalue import KeyValue
from kvstore.model import RangeRequest, RangeResponse, SortOrder
from kvstore.protocol import EmbeddedEngine, Engine, is_embedded


class Scan(Iterator[KeyValue]):
    """The keys of a range, all of one revision, however long the iteration takes."""

    def __init__(self, engine: Engine, request: RangeRequest, limit: int, page_rows: int) -> None:
        self._request = request
        self._limit = limit
        self._page_rows = min(page_rows, limit) if limit else page_rows
        self._page: RangeResponse | None = None
        self._ask: Callable[[RangeRequest], RangeResponse] = engine.range
        self._rows = self._read()
        engine.check_readable()
        if is_embedded(engine):
            self._begin_embedded(cast(EmbeddedEngine, engine))

    def _begin_embedded(self, engine: EmbeddedEngine) -> None:
        key, range_end, _, asked, *_ = self._request
        revision = asked or engine.revision
        self._request = self._request._replace(revision=revision)
        self._ask = engine.page
        rows = engine.scan(key, range_end, revision, self._page_rows)  # raises now what refuses the revision
        if not (self._is_reverse or self._request.keys_only):
            self._rows = islice(rows, self._limit) if self._limit else rows

    @property
    def revision(self) -> int:
        """The revision that all keys are of: a watch from the next one continues where this scan ends."""
        if not self._request.revision:
            self._first_page()
        return self._request.revision

    @property
    def is_known(self) -> bool:
        """Whether ``revision`` is known without asking."""
        return self._request.revision > 0

    def __iter__(self) -> Iterator[KeyValue]:
        return self._rows

    def __next__(self) -> KeyValue:
        return next(self._rows)

    @property
    def _is_reverse(self) -> bool:
        return self._request.sort_order == SortOrder.DESCEND

    def _first_page(self) -> RangeResponse:
        if self._page is None:
            self._page = self._ask(self._request._replace(limit=self._page_rows))
            self._request = self._request._replace(revision=self._request.revision or self._page.revision)
        return self._page

    def _read(self) -> Iterator[KeyValue]:
        page, left = self._first_page(), self._limit
        while True:
            yield from page.kvs
            left -= len(page.kvs)
            if not page.more or (self._limit and left <= 0):
                return
            last = page.kvs[-1].key
            size = min(self._page_rows, left) if self._limit else self._page_rows
            rest = self._request._replace(limit=size)
            page = self._ask(
                rest._replace(range_end=last) if self._is_reverse else rest._replace(key=last + b"\0")
            )


class AsyncScan(AsyncIterator[KeyValue]):
    """The keys of a range, all of one revision, however long the iteration takes."""

    def __init__(self, scan: Scan) -> None:
        from kvstore.loops import pages

        self._scan = scan
        self._rows = pages(iter(scan))

    @property
    def revision(self) -> int:
        """The revision that all keys are of. Known at once in an embedded store, elsewhere with the first key.

        Raises ``RuntimeError`` before that.
        """
        if not self._scan.is_known:
            raise RuntimeError("the revision of this scan is known once its first key has been asked for")
        return self._scan.revision

    def __aiter__(self) -> AsyncIterator[KeyValue]:
        return self._rows

    async def __anext__(self) -> KeyValue:
        return await anext(self._rows)
