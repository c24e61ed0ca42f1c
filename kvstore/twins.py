"""How a synchronous method becomes an asynchronous one with the same parameters, types and docstring.

A class of asynchronous twins is a list of these, so it cannot drift:

    range = threaded(Store.range)          -> await store.range(prefix=b"a")

    threaded    awaited; runs in the loop's executor
    composed    awaited; runs in the loop's executor, in any kind of store: for what takes several requests
    apart       awaited; runs in a thread of its own: for long work
    at_once     awaited; runs on the loop, because it never waits (``threaded`` unless the store is embedded)
    written     awaited; put down on the loop and durable when it returns (``awaited_writes``)
    streamed    an asynchronous iterator; its items are fetched a page at a time in the executor
    plain       not awaited: it only records something

A twin written out by hand takes its docstring from the original with ``twin``, which also makes a type checker compare
the parameters. (A test compares everything.)
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial, update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from kvstore.loops import Awaited, in_thread, pages

P = ParamSpec("P")
S = TypeVar("S")
A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


class Twin:
    """An asynchronous face of something synchronous."""

    _twin: Any
    """The synchronous object behind it."""
    _writes: Any = None
    """The same, but its writes return awaitables; None if no part of it answers without waiting."""
    _calls: Any = None
    """The same, but whatever it asks returns an awaitable (or asynchronous iterator); None if it is in this process."""


def threaded(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[Twin, P], Coroutine[Any, Any, T]]:
    async def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._calls is not None:
            return await _asked(method, self._calls, *args, **kwargs)
        return await in_thread(partial(method, self._twin, *args, **kwargs))

    return _named(call, method)


def composed(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[Twin, P], Coroutine[Any, Any, T]]:
    async def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(partial(method, self._twin, *args, **kwargs))

    return _named(call, method)


def apart(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Twin, P], Coroutine[Any, Any, T]]:
    async def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await Awaited(partial(method, self._twin, *args, **kwargs)).wait()

    return _named(call, method)


def at_once(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Twin, P], Coroutine[Any, Any, T]]:
    async def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._calls is not None:
            return await _asked(method, self._calls, *args, **kwargs)
        if self._writes is None:
            return await in_thread(partial(method, self._twin, *args, **kwargs))
        return method(self._twin, *args, **kwargs)

    return _named(call, method)


def written(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Twin, P], Coroutine[Any, Any, T]]:
    async def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._writes is None:
            return await in_thread(partial(method, self._twin, *args, **kwargs))
        answer: Any = method(self._writes, *args, **kwargs)
        return await answer  # type: ignore[no-any-return]  # what the twin of T answers with is an awaitable of T

    return _named(call, method)


def streamed(
    method: Callable[Concatenate[S, P], Iterator[T]],
) -> Callable[Concatenate[Twin, P], AsyncIterator[T]]:
    def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        if self._calls is not None:
            return cast(AsyncIterator[T], method(self._calls, *args, **kwargs))
        return pages(method(self._twin, *args, **kwargs))

    named: Any = _named(call, method)
    signature = inspect.signature(method)
    named.__signature__ = signature.replace(return_annotation=f"Async{signature.return_annotation}")
    return call


def _asked(method: Callable[..., T], calls: Any, *args: Any, **kwargs: Any) -> Awaitable[T]:
    """What a method returns whose engine answers later."""
    return cast(Awaitable[T], method(calls, *args, **kwargs))


def plain(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Twin, P], T]:
    name = method.__name__

    def call(self: Twin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = getattr(self._twin, name)(*args, **kwargs)
        return answer

    return _named(call, method)


def twin(
    method: Callable[Concatenate[S, P], Any],
) -> Callable[[Callable[Concatenate[A, P], R]], Callable[Concatenate[A, P], R]]:
    """For a twin of ``method`` that is written out by hand: copies the docstring."""

    def document(call: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
        call.__doc__ = method.__doc__
        return call

    return document


def _named(call: C, method: Callable[..., Any]) -> C:
    """The twin, with the name and docstring of the original."""
    update_wrapper(call, method)
    call.__qualname__ = f"Async{method.__qualname__}"
    return call
