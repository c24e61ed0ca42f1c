"""Numbered writes: a counter in a key, advanced in the same transaction as what is written under its numbers.

The key holds the last number given and a token of who was given it: ``b"41 9f86d081884c7d65"``. A write compares the
key's revision, so it is made once however often it is sent; and where its outcome was unknown, the version that came
after the compared one tells by its token whose it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from kvstore.errors import BadArgument
from kvstore.keyvalue import KeyValue
from kvstore.ops import get, mod_revision, put
from kvstore.recipes.access import Access, backoff_seconds


def number_of(kv: KeyValue | None) -> int:
    """The last number given. Raises ``BadArgument`` if the key holds something else."""
    if kv is None:
        return 0
    number, _, _ = kv.value.partition(b" ")
    if not number.isdigit() or len(number) > 18:
        raise BadArgument(f"the key {kv.key!r} holds no counter: {kv.value[:40]!r}")
    return int(number)


def _no_writes(_first: int) -> Sequence[Any]:
    return ()


async def take_numbers(
    access: Access, key: bytes, amount: int = 1, writes: Callable[[int], Sequence[Any]] = _no_writes
) -> int:
    """The first of ``amount`` numbers that nobody else is given; ``writes(first)`` are carried out with that."""
    token = secrets.token_hex(8).encode()
    kv = await access.get(key)
    for tries in count():
        last, revision = number_of(kv), kv.mod_revision if kv else 0
        value = b"%d %b" % (last + amount, token)
        taken = await access.txn(
            [mod_revision(key) == revision], [put(key, value), *writes(last + 1)], [get(key)]
        )
        if taken.succeeded:
            return last + 1
        kv = next(iter(taken.found()), None)
        if taken.doubt and (await access.successor(key, revision, kv, taken.doubt)).value == value:
            return last + 1
        if tries > 2:
            await access.pause(backoff_seconds(tries - 3))
    raise AssertionError  # the count has no end
