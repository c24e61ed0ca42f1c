"""A sequence: numbers from 1 on, each given once, without a gap, in the order in which they are asked for.

What it does not promise: a number that was given and not used is not given again; and deleting the key begins anew.
All who ask change one key, so it is as fast as the store's transactions are one after another: ``reserve`` many at once
where that matters. After an unknown outcome the number is found by reading the past of the key; if that was compacted
meanwhile, the unknown outcome is raised, and one number may be nobody's.
"""

from __future__ import annotations

from kvstore.aio import AsyncStore
from kvstore.arguments import check_number
from kvstore.recipes.access import Access, AnyStore
from kvstore.recipes.faces import blocking
from kvstore.recipes.line import checked_name
from kvstore.recipes.numbered import number_of, take_numbers
from kvstore.store import Store


class SequenceSteps:
    """Numbers, each given out once."""

    def __init__(self, store: AnyStore, name: bytes) -> None:
        """``name``: the key that holds the last number."""
        self._access = Access(store)
        self._key = checked_name(name)

    async def next_(self) -> int:
        """The next number."""
        return await take_numbers(self._access, self._key)

    async def reserve_(self, amount: int) -> range:
        """The next ``amount`` numbers."""
        check_number("amount", amount, 1)
        first = await take_numbers(self._access, self._key, amount)
        return range(first, first + amount)

    async def last_(self) -> int:
        """The last number that was given; 0 if none was."""
        return number_of(await self._access.get(self._key))


class AsyncSequence(SequenceSteps):
    """``await AsyncSequence(store, b"name").next()``"""

    def __init__(self, store: AsyncStore, name: bytes) -> None:
        super().__init__(store, name)

    next = SequenceSteps.next_
    reserve = SequenceSteps.reserve_
    last = SequenceSteps.last_


class Sequence(SequenceSteps):
    """``Sequence(store, b"name").next()``"""

    def __init__(self, store: Store, name: bytes) -> None:
        super().__init__(store, name)

    next = blocking(SequenceSteps.next_)
    reserve = blocking(SequenceSteps.reserve_)
    last = blocking(SequenceSteps.last_)
