"""Faults that a killed process shows, planted before the crash loop runs:

python -m tests.proof.planted_kills FAULT [arguments of the crash loop]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from kvstore.tools.lab import crashloop

from kvstore.mvcc import checkpoint
from kvstore.mvcc.overlay import Generation
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, pack_u64
from kvstore.mvcc.state import State
from kvstore.wal.log import Log


def acknowledge_before_logging() -> None:
    """Each group is written to the log when the next one comes, and acknowledged at once."""
    append = Log.append
    late: list[Any] = []

    def append_the_last(self: Log, entries: Sequence[bytes], time_ms: int) -> int:
        late.append((entries, time_ms))
        return append(self, *late.pop(0)) if len(late) > 1 else 0

    Log.append = append_the_last  # type: ignore[method-assign]  # that is the fault


def applied_index_first() -> None:
    """A checkpoint commits the applied index, then the rows that it stands for."""
    write_generation = checkpoint.write_generation

    def write(backend: Any, generation: Generation, now_ms: int, pause: Callable[[], None]) -> None:
        with backend.write() as tx:
            tx.put_many(META, [(META_APPLIED_INDEX, pack_u64(generation.last_index))])
        time.sleep(0.005)
        write_generation(backend, generation, now_ms, pause)

    checkpoint.write_generation = write


def compaction_without_its_mark() -> None:
    """A compaction takes effect in memory and in the log, and leaves no mark in the backend."""

    def compact(self: State, revision: int) -> None:
        self.head_compacted = revision

    State.compact = compact  # type: ignore[method-assign]  # that is the fault


FAULTS = {
    plant.__name__: plant
    for plant in (acknowledge_before_logging, applied_index_first, compaction_without_its_mark)
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(crashloop.main(sys.argv[2:]))
