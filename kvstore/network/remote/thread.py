"""The thread of a client: an event loop of its own (uvloop's where it is installed), which goes on while the loops and
threads of its callers wait.

Callers put calls down and are woken; what is put down between two turns of the loop is begun together. A caller on
the main thread may be interrupted at any step (a signal handler raises): the next one that puts something down, or
gives up, wakes the loop again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from kvstore.errors import NoThread
from kvstore.network.event_loop import check_a_loop_can_start, new_event_loop
from kvstore.shelter import start

CLOSING_TURNS = 5


class LoopThread:
    """A loop that runs in a daemon thread, until ``stop``."""

    def __init__(self, take: Callable[[deque[Any]], None]) -> None:
        """``take`` is called on the loop with what was put down, empties it. Raises ``NoThread``, ``Unsupported``."""
        check_a_loop_can_start()
        self.loop = new_event_loop()
        self._take = take
        self._put_down: deque[Any] = deque()
        self._is_waking = False
        self._thread = threading.Thread(target=self._run, name="kvstore-remote", daemon=True)
        try:
            start(self._thread)
        except RuntimeError as error:
            self.loop.close()
            raise NoThread from error

    def put_down(self, item: object) -> None:
        """Have the loop take something, soon."""
        self._put_down.append(item)
        if not self._is_waking:
            try:
                self._is_waking = True
                self.soon(self._wake)
            except BaseException:
                self._is_waking = False
                raise

    def _wake(self) -> None:
        self._is_waking = False
        self._take(self._put_down)

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have something called on the loop. Nothing happens once it is stopped."""
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    @property
    def is_current(self) -> bool:
        return self._thread.ident == threading.get_ident()

    def stop(self) -> None:
        """Let the loop end. Called on it."""
        self.loop.stop()

    def join(self, timeout_seconds: float) -> None:
        if not self.is_current and self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_end_all())
        finally:
            self.loop.close()


async def _end_all() -> None:
    """Cancel what still runs, and let sockets be closed, which takes some turns of the loop.

    A TLS connection that is canceled before its handshake has begun would stay open: that, too, takes a turn.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(CLOSING_TURNS):
        await asyncio.sleep(0)
