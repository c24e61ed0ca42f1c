"""The index finds exactly the watchers whose range holds a key."""

from hypothesis import given
from hypothesis import strategies as st

from kvstore.watch.index import Shares, Span, WatchIndex

KEYS = st.binary(max_size=3).map(lambda key: bytes(byte % 4 for byte in key))
SPANS = st.one_of(
    KEYS.map(lambda key: (key, key + b"\0")),
    KEYS.map(lambda key: (key, None)),
    st.tuples(KEYS, KEYS).filter(lambda span: span[0] < span[1]),
)


def find(index: WatchIndex[int], key: bytes) -> list[int]:
    """The watchers that get a change of the key."""
    shares: Shares[int] = {}
    index.share([(1, 0, key, None)], shares)
    return [watcher for group in shares for watcher in group.watchers]


def holds(span: Span, key: bytes) -> bool:
    return span[0] <= key and (span[1] is None or key < span[1])


@given(st.lists(st.tuples(SPANS, st.booleans()), max_size=25), st.lists(KEYS, max_size=12))
def test_find_agrees_with_looking_at_every_range(
    steps: list[tuple[tuple[bytes, bytes | None], bool]], keys: list[bytes]
) -> None:
    """Whatever was added and removed, a key finds those whose range holds it, each once."""
    index: WatchIndex[int] = WatchIndex()
    there: dict[int, Span] = {}
    for number, (span, remove_one) in enumerate(steps):
        if remove_one and there:
            gone = min(there)
            index.remove(there.pop(gone), gone)
        index.add(span, number)
        there[number] = span
        for key in keys:
            expected = sorted(watcher for watcher, span in there.items() if holds(span, key))
            assert sorted(find(index, key)) == expected
    assert len(index) == len(there)
    assert sorted(index) == sorted(there)


@given(st.lists(SPANS, max_size=25))
def test_an_index_that_was_emptied_is_as_new(spans: list[Span]) -> None:
    """No bound outlives the ranges that needed it."""
    index: WatchIndex[int] = WatchIndex()
    for number, span in enumerate(spans):
        index.add(span, number)
    for number, span in enumerate(spans):
        index.remove(span, number)
    assert (index._bounds, index._covers, index._keys, index._ranges) == ([], [()], {}, {})
