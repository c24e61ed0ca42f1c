"""The last keys of a range, at the newest revision and at past ones: what a sort of all of them says, without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import Store
from kvstore.model import FROM_KEY, RangeRequest, SortOrder
from kvstore.mvcc import backwards
from kvstore.mvcc.validate import range_bounds
from tests.harness.drawn_requests import KEYS, SLOW, ends, keys
from tests.harness.watching import BACKENDS, open_store, settle


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param) as store:
        yield store


def fill(store: Store) -> None:
    """Awkward keys: put, overwritten, deleted and put again, in the backend, frozen and in memory."""
    for round_number in range(3):
        for number, key in enumerate(KEYS):
            if (number + round_number) % 3:
                store.put(key, b"%d" % round_number)
            elif round_number:
                store.delete(key)
        if round_number < 2:
            settle(store)
    for number in range(300):
        store.put(b"many", b"%d" % number)


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def check_all(store: Store, data: st.DataObject) -> None:
    key, end, limit = data.draw(keys), data.draw(ends), data.draw(st.sampled_from((1, 2, 3, 5, 100)))
    revision = data.draw(st.integers(1, store.revision))
    request = RangeRequest(key, end, 0, revision)
    ascending = list(store.engine.range(request).kvs)
    descending = store.engine.range(request._replace(limit=limit, sort_order=SortOrder.DESCEND))
    assert list(descending.kvs) == ascending[::-1][:limit]
    assert descending.more == (len(ascending) > limit)
    assert descending.count == len(ascending)
    page = store.engine.page(request._replace(limit=limit, sort_order=SortOrder.DESCEND))
    assert page.kvs == descending.kvs
    assert page.count == (-1 if page.more else len(ascending))


def test_the_last_keys_are_those_of_a_sort(store: Store) -> None:
    """Any range, limit and revision; rows in the backend, in memory, and gone."""
    fill(store)
    check_all(store)


def test_pages_stay_pages_where_nothing_was_live(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that all came later: a page ends after so many, and the next goes on below."""
    monkeypatch.setattr(backwards, "_SEEKS_MAX", 3)
    first = store.put(b"a").revision
    for _ in range(2):
        for number in range(10):
            store.put(b"b%d" % number)
    settle(store)
    start, end = range_bounds(FROM_KEY, FROM_KEY)
    rows, below = backwards.page_below(store.engine.state, start, end, first, 5)
    assert (rows, below) == ([], b"b7")
    assert [kv.key for kv in store.scan(prefix=b"", revision=first, reverse=True)] == [b"a"]


def test_the_last_key_needs_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys there are, a page with the last one has few rows in hand."""
    for number in range(300):
        store.put(b"%04d" % number)
        if number == 200:
            settle(store)
    sizes: list[int] = []
    real = backwards.page_below

    def noted(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(backwards, "page_below", noted)
    monkeypatch.setattr(type(store.engine.state), "count", None)  # nothing is counted
    assert [kv.key for kv in store.scan(prefix=b"", reverse=True, limit=1)] == [b"0299"]
    assert store.range(prefix=b"", limit=1, counted=False).count == -1
    assert sum(sizes) <= 3
