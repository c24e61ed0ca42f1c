"""A store whose writes sometimes end without an answer, as over a network that breaks.

    made      the write is made, and the answer is lost
    lost      the write is lost
    late      the write is made later: right after the next one

Recipes must come to the same whichever it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from random import Random
from typing import Any, cast

import kvstore
from kvstore import errors
from kvstore.errors import KVStoreError, OutcomeUnknown
from kvstore.protocol import Engine

FATES = ("made", "lost", "late")


def at_random(seed: int, share: float = 0.3) -> Iterator[str]:
    """Fates for ever, a share of which is in doubt."""
    random = Random(seed)
    while True:
        yield random.choice(FATES) if random.random() < share else "answered"


class _DoubtfulEngine:
    def __init__(self, engine: Engine, fates: Iterable[str]) -> None:
        self._engine = engine
        self._fates = chain(fates, repeat("answered"))
        self._late: list[Callable[[], Any]] = []
        self._lock = threading.Lock()
        self.doubts = 0

    def __getattr__(self, name: str) -> Any:
        if name in ("submit", "ask", "ask_soon"):
            raise AttributeError(name)  # a store on the network has no such thing
        return getattr(self._engine, name)

    def _write(self, write: Callable[[], Any]) -> Any:
        with self._lock:
            fate = next(self._fates)
            late, self._late = self._late, []
            if fate == "late":
                self._late.append(write)
        try:
            if fate in ("answered", "made"):
                answer = write()
        finally:
            for earlier in late:
                self._carry_out(earlier)
        if fate != "answered":
            self.doubts += 1
            raise OutcomeUnknown(f"the write was {fate}")
        return answer

    def _carry_out(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except KVStoreError:
            pass  # nobody waits for the answer

    def put(self, *arguments: Any) -> Any:
        return self._write(lambda: self._engine.put(*arguments))

    def txn(self, request: Any) -> Any:
        return self._write(lambda: self._engine.txn(request))

    def delete_range(self, request: Any) -> Any:
        return self._write(lambda: self._engine.delete_range(request))

    def lease_grant(self, *arguments: Any) -> Any:
        return self._write(lambda: self._engine.lease_grant(*arguments))

    def lease_revoke(self, lease: int) -> Any:
        return self._write(lambda: self._engine.lease_revoke(lease))

    def close(self) -> None:
        """The store is closed by its owner."""

    def check_readable(self) -> None:
        raise errors.StoreClosed  # nothing is left open


class Doubtful(kvstore.Store):
    """The same store, over a bad line."""

    def __init__(self, store: kvstore.Store, fates: Iterable[str]) -> None:
        super().__init__(cast(Engine, _DoubtfulEngine(store.engine, fates)))

    @property
    def doubts(self) -> int:
        """How many writes had no answer."""
        return cast(Any, self._engine).doubts  # type: ignore[no-any-return]
