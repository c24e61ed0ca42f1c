"""Keys and values: the same, in the same order, for all contestants."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle

PREFIX = b"/registry/pods/"
VALUE_BYTES = 256
TXN_PUTS = 100


def key(number: int) -> bytes:
    return b"/registry/pods/%08d" % number


Pair = tuple[bytes, bytes]


@cache
def values() -> list[bytes]:
    return [random.Random(n).randbytes(VALUE_BYTES) for n in range(4096)]


@cache
def _random_pairs(keys: int) -> list[Pair]:
    """Made beforehand, so that no clock runs while keys are drawn."""
    draw, pool = random.Random(1), values()
    numbers = (int(draw.random() * keys) for _ in range(20_000))
    return [(key(number), pool[number * 7 % len(pool)]) for number in numbers]


@cache
def _random_batches(keys: int) -> list[list[Pair]]:
    draw, pool = random.Random(2), values()
    batches = (draw.sample(range(keys), TXN_PUTS) for _ in range(500))
    return [[(key(number), pool[number * 7 % len(pool)]) for number in batch] for batch in batches]


class Workload:
    """Random keys from ``keys``, and values that do not compress. ``turn``: each writer starts somewhere else.

    Everything is drawn when this is made: make it before the clock runs.
    """

    def __init__(self, keys: int, turn: int = 0) -> None:
        self.keys = keys
        pairs = _random_pairs(keys)
        at = turn * 309 % len(pairs)
        self._pairs = cycle(pairs[at:] + pairs[:at])
        self._batches = cycle(_random_batches(keys)) if keys >= TXN_PUTS else cycle(())

    def all_pairs(self) -> Iterator[list[Pair]]:
        """Every key once, in random order, in lists of ``TXN_PUTS``."""
        numbers, pool = list(range(self.keys)), values()
        random.Random(3).shuffle(numbers)
        for start in range(0, self.keys, TXN_PUTS):
            yield [(key(n), pool[n % len(pool)]) for n in numbers[start : start + TXN_PUTS]]

    def pair(self) -> Pair:
        return next(self._pairs)

    def batch(self) -> list[Pair]:
        """``TXN_PUTS`` pairs with distinct keys."""
        return next(self._batches)

    def some_keys(self, count: int) -> list[bytes]:
        draw = random.Random(4)
        return [key(int(draw.random() * self.keys)) for _ in range(count)]

    def ranges(self, count: int, length: int) -> list[tuple[bytes, bytes]]:
        """Random (first key, end) of ranges that hold ``length`` keys each."""
        draw = random.Random(5)
        starts = [int(draw.random() * (self.keys - length)) for _ in range(count)]
        return [(key(start), key(start + length)) for start in starts]
