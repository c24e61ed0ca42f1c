"""Replay: the state of a store is its backend plus the log entries after it, applied by ``effects.apply``.

``apply_log`` is the one place where the entries of a log meet a state: when a store is opened (``replay``); while it is
open, when (on a full disk, say) planned writes never reached the log (``reload``); when a store is restored to a point
of its past (snapshot/point.py); and when a backend is rebuilt for comparison (verification/deep.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from kvstore.core import Core
from kvstore.errors import Corruption
from kvstore.mvcc import effects
from kvstore.mvcc.checkpoint import write_now
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.state import State
from kvstore.wal import Log
from kvstore.wal.format import Batch

logger = logging.getLogger("kvstore")

CHECKPOINT_BYTES = 32 << 20
"""Replayed changes held in memory before a checkpoint moves them into the backend, where no option says otherwise."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where in a log to stop: right after this revision or entry, or before the first batch that was written later than
    a time. All zero: at the end.
    """

    revision: int = 0
    time_ms: int = 0
    index: int = 0

    def is_reached(self, revision: int, index: int = 0) -> bool:
        return 0 < self.revision <= revision or 0 < self.index <= index

    def is_before(self, batch: Batch) -> bool:
        return 0 < self.time_ms < batch.time_ms


def apply_log(
    batches: Iterable[Batch],
    state: State,
    lessor: Lessor,
    *,
    until: Point | None = None,
    checkpoint_bytes: int = 0,
) -> int:
    """Apply batches that continue from ``state``. Returns the time of the last one in ms, 0 if there were none.

    Checkpoints whenever more than ``checkpoint_bytes`` (0: no limit) are waiting in memory. Raises ``Corruption`` for
    an entry that is damaged, or does not follow the one before it.
    """
    last_ms = 0
    try:
        for batch in batches:
            if until is not None and until.is_before(batch):
                break
            if batch.first_index != state.index + 1:
                raise Corruption(f"log entry {batch.first_index} follows entry {state.index}")
            last_ms = batch.time_ms
            for entry in batch.entries:
                effects.apply(entry, state, lessor)
                if until is not None and until.is_reached(state.head, state.index):
                    return last_ms
            if checkpoint_bytes and state.waiting_bytes > checkpoint_bytes:
                write_now(state, last_ms)
    except Corruption as damage:
        if damage.last_good_revision:
            raise
        raise Corruption(damage.reason, damage.path, damage.offset, state.head) from damage
    return last_ms


def replay(log: Log, state: State, lessor: Lessor, overlay_limit_bytes: int = 0) -> int:
    """Apply what the backend does not hold yet, and publish it. Returns the time of the last record in ms, or 0.

    Checkpoints on the way whenever more than ``overlay_limit_bytes`` (0: no limit) are waiting in memory.
    """
    last_ms = apply_log(log.replay(), state, lessor, checkpoint_bytes=overlay_limit_bytes)
    if state.index != state.applied_index:
        logger.info("replayed %d log entries, to revision %d", state.index - state.applied_index, state.head)
    state.publish(state.head, state.head_compacted)
    return last_ms


def reload(core: Core) -> None:
    """Drop what was planned but never logged. The caller holds ``checkpointing`` and ``planning``."""
    state = State(core.backend)
    lessor = Lessor.loaded(core.backend)
    log = Log.open(core.disk, core.directory.wal, after_index=state.applied_index, read_only=True)
    try:
        replay(log, state, lessor)
    finally:
        log.close()
    if state.index != core.log.last_index:
        raise Corruption(
            f"the log has entries up to {core.log.last_index}, of which {state.index} can be read"
        )
    core.state.adopt(state)
    core.lessor.adopt(lessor)
