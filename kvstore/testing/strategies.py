"""Hypothesis strategies for programs that use a store: what keys, values, ranges and transactions may look like.

    @given(keys(), values())
    def test_what_is_written_is_read(key, value): ...

Keys are drawn from few and short ones mostly, so that they meet: the interesting cases are a key that is there
already, and one that is a prefix of another. ``over``: the keys to draw from instead. Needs hypothesis, which nothing
else here imports.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from kvstore import ops
from kvstore.model import Compare, Op, prefix_end
from kvstore.testing.keys import EDGES, PLAIN

__all__ = ["compares", "keys", "leases", "operations", "ranges", "transactions", "values"]


def keys(max_size: int = 64) -> st.SearchStrategy[bytes]:
    """Keys of 1 to ``max_size`` bytes: plain ones, awkward ones, any."""
    known = [key for key in (*PLAIN, *EDGES) if len(key) <= max_size]
    return st.one_of(st.sampled_from(known), st.binary(min_size=1, max_size=max_size))


def values(max_size: int = 256) -> st.SearchStrategy[bytes]:
    """Values of up to ``max_size`` bytes; the shortest is empty."""
    return st.binary(max_size=max_size)


@st.composite
def ranges(draw: st.DrawFn, over: st.SearchStrategy[bytes] | None = None) -> tuple[bytes, bytes]:
    """(key, range_end) of one key (the end is b""), of a prefix, of all from a key on (b"\\0"), or of a span."""
    drawn = keys() if over is None else over
    key = draw(drawn)
    end = draw(
        st.one_of(st.just(b""), st.just(prefix_end(key)), st.just(b"\0"), drawn.filter(lambda end: end > key))
    )
    return key, end


def compares(over: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[Compare]:
    """Comparisons of one key's value, version, revisions or lease, some of which hold."""
    drawn = keys() if over is None else over
    numbers = st.integers(0, 5)
    return st.one_of(
        st.builds(lambda key, number: ops.version(key) == number, drawn, numbers),
        st.builds(lambda key, number: ops.version(key) > number, drawn, numbers),
        st.builds(lambda key, number: ops.mod_revision(key) != number, drawn, numbers),
        st.builds(lambda key, number: ops.create_revision(key) < number, drawn, numbers),
        st.builds(lambda key, number: ops.lease(key) == number, drawn, st.just(0)),
        st.builds(lambda key, value: ops.value(key) == value, drawn, values(4)),
    )


def operations(over: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[Op]:
    """One put, delete or get, of a key or a range."""
    drawn = keys() if over is None else over
    spans = ranges(drawn)
    return st.one_of(
        st.builds(ops.put, drawn, values()),
        spans.map(lambda span: ops.delete(span[0], range_end=span[1])),
        spans.map(lambda span: ops.get(span[0], range_end=span[1])),
    )


@st.composite
def transactions(
    draw: st.DrawFn, over: st.SearchStrategy[bytes] | None = None, max_ops: int = 8
) -> tuple[Sequence[Compare], Sequence[Op], Sequence[Op]]:
    """(compares, then, else) for ``Store.txn`` that it accepts: no branch writes a key twice."""
    drawn = keys() if over is None else over

    def branch() -> list[Op]:
        written = draw(st.lists(drawn, unique=True, max_size=max_ops))
        puts = [ops.put(key, draw(values())) for key in written]
        gets = [
            ops.get(key, range_end=end)
            for key, end in draw(st.lists(ranges(drawn), max_size=max_ops - len(puts)))
        ]
        return draw(st.permutations([*puts, *gets]))

    return draw(st.lists(compares(drawn), max_size=4)), branch(), branch()


def leases() -> st.SearchStrategy[int]:
    """TTLs in seconds, from the shortest that a store grants (the option ``lease_min_ttl_seconds``) to an hour."""
    return st.integers(2, 3600)
