"""One implementation, two faces: recipes are coroutines that are awaited, or run to their end on the spot.

    class LockSteps:  async def acquire_(self) -> int: ... await self._access.txn(...)
    class AsyncLock(LockSteps):  acquire = LockSteps.acquire_
    class Lock(LockSteps):       acquire = blocking(LockSteps.acquire_)

What a coroutine awaits goes through ``Access``, which makes calls of the store it was given. Those of a ``Store`` have
waited by the time they return, so that a coroutine over one never suspends: a single step runs it to its end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def run(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a synchronous store."""
    try:
        steps.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    steps.close()
    raise TypeError("this store is asynchronous: use the recipe's asynchronous class")


def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], T]:
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self, *args, **kwargs))

    update_wrapper(call, method)
    call.__name__ = method.__name__.rstrip("_")
    return call


def iterating(
    method: Callable[Concatenate[S, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[S, P], Iterator[T]]:
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self, *args, **kwargs)

        async def following() -> T:
            return await anext(items)

        try:
            while True:
                try:
                    item = run(following())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            run(items.aclose())

    update_wrapper(call, method)
    call.__name__ = method.__name__.rstrip("_")
    return call


class Steps:
    """What a recipe does on the way into a block and out of it."""

    async def enter_block(self) -> None:
        """What a ``with`` block begins with."""

    async def leave_block(self, error: BaseException | None) -> None:
        """What it ends with. ``error``: what came out of it."""


class Block(Steps):
    """A recipe that is a context manager."""

    def __enter__(self) -> Self:
        run(self.enter_block())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self.leave_block(error))


class AsyncBlock(Steps):
    """A recipe that is an asynchronous context manager."""

    async def __aenter__(self) -> Self:
        await self.enter_block()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave_block(error)
