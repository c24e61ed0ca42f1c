"""Large ranges a page at a time: the same answer, its size known beforehand, and never all of it in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvstore
from kvstore import Compacted, FutureRevision, Store, StoreClosed
from kvstore.errors import RequestError
from kvstore.etcdpb.responses import Header, encode, encode_pages, encode_rows
from kvstore.model import FROM_KEY, RangeRequest, SortOrder, SortTarget
from kvstore.mvcc import pages
from kvstore.mvcc.pages import RangePages
from tests.harness.drawn_requests import KEYS, SLOW, ranges, values
from tests.harness.watching import BACKENDS, open_store, settle

HEADER = Header(1, 2, 3)
EVERYTHING = RangeRequest(FROM_KEY, FROM_KEY)


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


def fill(store: Store, count: int = 500, value_bytes: int = 1000) -> None:
    """Rows in the backend and in memory, some of them not the first of their transaction."""
    for number in range(0, count, 2):
        store.txn(
            success=[kvstore.ops.put(b"%05d" % (number + each), b"v" * value_bytes) for each in (0, 1)],
        )
        if number == count // 2:
            settle(store)


def pages_of(store: Store, request: RangeRequest = EVERYTHING) -> RangePages:
    return store.engine.range_pages(request, encode_rows)


def message(found: RangePages) -> bytes:
    size_bytes, pieces = encode_pages(found, HEADER)
    whole = b"".join(pieces)
    assert len(whole) == size_bytes
    return whole


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_answer_is_that_of_range(
    tmp_path: Path, backend: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, for any request and any revision, read once or twice; what is refused is refused alike."""
    monkeypatch.setattr(pages, "KEPT_BYTES", pages.KEPT_BYTES if is_kept else 0)
    monkeypatch.setattr(pages, "FIRST_PAGE_ROWS", 2)
    monkeypatch.setattr(pages, "PAGE_BYTES", 100)
    serial = itertools.count()

    @settings(suppress_health_check=SLOW, max_examples=25)
    @given(
        rows=st.lists(st.tuples(st.sampled_from(range(len(KEYS))), values), max_size=25),
        settled=st.integers(0, 25),
        asked=st.lists(ranges, min_size=1, max_size=8),
    )
    def check(rows: list[tuple[int, bytes]], settled: int, asked: list[RangeRequest]) -> None:
        with open_store(tmp_path / f"{next(serial)}", backend) as store:
            for number, (key, value) in enumerate(rows):
                if number % 4 == 3:
                    store.delete(KEYS[key])
                store.put(KEYS[key], value)
                if number == settled:
                    settle(store)
            for request in asked:
                try:
                    expected = encode(store.engine.range(request), HEADER)
                except RequestError as refusal:
                    with pytest.raises(type(refusal)):
                        pages_of(store, request)
                    continue
                found = pages_of(store, request)
                assert message(found) == message(found) == expected
                assert all(found)

    check()


def test_more_than_is_kept_is_read_again_at_its_revision(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes between the two passes are not in it."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 100_000)
    fill(store)
    expected = encode(store.engine.range(EVERYTHING), HEADER)
    found = pages_of(store)
    assert found._kept is None
    for number in range(0, 500, 5):
        store.put(b"%05d" % number, b"other")
        store.delete(b"%05d" % (number + 1))
    settle(store)
    assert message(found) == expected


def test_little_is_read_once(store: Store) -> None:
    """What was kept is handed out again, whatever has become of its revision."""
    fill(store, 100)
    found = pages_of(store)
    expected = message(found)
    store.delete(prefix=b"")
    store.compact(store.revision, physical=True)
    assert message(found) == expected


def test_a_compaction_ends_a_later_pass(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half way through, with ``Compacted``: what was sent so far cannot be completed."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 0)
    fill(store)
    rest = iter(pages_of(store))
    next(rest)
    store.delete(prefix=b"")
    store.compact(store.revision)
    with pytest.raises(Compacted):
        list(rest)


def test_a_closed_store_ends_a_later_pass(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins none."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 0)
    fill(store, 300)
    rest = iter(pages_of(store))
    next(rest)
    store.close()
    with pytest.raises(StoreClosed):
        list(rest)
    with pytest.raises(StoreClosed):
        pages_of(store)


def test_what_is_not_kept_is_refused(store: Store) -> None:
    """The revisions that ``range`` refuses."""
    fill(store, 10)
    store.compact(4)
    with pytest.raises(Compacted):
        pages_of(store, EVERYTHING._replace(revision=3))
    with pytest.raises(FutureRevision):
        pages_of(store, EVERYTHING._replace(revision=99))


@pytest.mark.parametrize("value_bytes", [10, 1000, 50_000])
@pytest.mark.parametrize(
    "request_", [EVERYTHING, EVERYTHING._replace(sort_order=SortOrder.DESCEND, sort_target=SortTarget.MOD)]
)
def test_pages_are_small_and_few_are_kept(
    tmp_path: Path, value_bytes: int, request_: RangeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page is much larger than ``PAGE_BYTES``, but for the first; and they are not smaller than they need to be."""
    monkeypatch.setattr(pages, "KEPT_BYTES", 1_000_000)
    with open_store(tmp_path, "lmdb") as store:
        fill(store, 1000, value_bytes)
        settle(store)
        sizes = [len(page) for page in pages_of(store, request_)]
        assert max(sizes[1:], default=0) < pages.PAGE_BYTES + 2 * value_bytes + 1000
        row_bytes = value_bytes + 30
        full = min(pages.PAGE_BYTES, pages.PAGE_ROWS_MAX * row_bytes) - row_bytes
        assert sum(size >= full * 0.6 for size in sizes) >= len(sizes) - 8
