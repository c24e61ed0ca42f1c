"""The calls of a store elsewhere as awaitables, for tasks of any loop. No thread waits for an answer.

``AsyncStore`` asks through the methods of ``Store``, and what those do with an answer they do with an ``Answer``, too:
an attribute of an answer to come is itself one to come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any

from kvstore.errors import KVStoreError
from kvstore.network.remote.asking import Asking, Job, Look, Steps, Uncertain
from kvstore.network.remote.calls import Call


class Answer:
    """What a call will be answered with; asked for when it is awaited."""

    __slots__ = ("_coming",)

    def __init__(self, coming: Awaitable[Any]) -> None:
        self._coming = coming

    def __await__(self) -> Generator[Any, None, Any]:
        return self._coming.__await__()

    def __getattr__(self, name: str) -> Answer:
        return Answer(_attribute(self._coming, name))


async def _attribute(coming: Awaitable[Any], name: str) -> Any:
    return getattr(await coming, name)


class Awaiting(Asking):
    """It is no engine: ``Store`` asks it on behalf of tasks."""

    def _ask(self, call: Call) -> Answer:
        return Answer(call)

    async def _look(self, call: Call) -> Uncertain:
        try:
            return Uncertain(await call, None, call.is_uncertain)
        except KVStoreError as error:
            return Uncertain(None, error, call.is_uncertain)

    def _run(self, steps: Steps) -> Answer:
        return Answer(self._carry_out(steps))

    async def _carry_out(self, steps: Steps) -> Any:
        answer: Any = None
        error: KVStoreError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = await self._do(step)
            except KVStoreError as failed:
                error = failed

    async def _do(self, step: Call | Look | Job) -> Any:
        if isinstance(step, Call):
            return await step
        return await (self._look(step.call) if isinstance(step, Look) else self._client.run_soon(step.begin))

    async def _pages(self, steps: Generator[Any, Any, None]) -> AsyncIterator[Any]:
        answer: Any = None
        error: KVStoreError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration:
                return
            answer = error = None
            if isinstance(step, list):
                for item in step:
                    yield item
                continue
            try:
                answer = await self._do(step)
            except KVStoreError as failed:
                error = failed
