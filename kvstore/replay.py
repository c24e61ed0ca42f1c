"""Replay: the state of a store is its backend plus the log entries after it, taken in by ``effects.apply``.

Used when a store is opened, and while it is open when a full disk left planned writes behind that never
reached the log (``reload``): what the backend and the log hold is the truth, and memory is made from it again.
"""

from __future__ import annotations

import logging

from kvstore.core import Core
from kvstore.errors import Corruption
from kvstore.mvcc import effects
from kvstore.mvcc.checkpoint import no_pause, write_generation
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.overlay import Generation
from kvstore.mvcc.state import State
from kvstore.wal import Log

logger = logging.getLogger("kvstore")


def load_leases(state: State) -> Lessor:
    """The leases that the backend holds."""
    lessor = Lessor()
    with state.backend.read() as tx:
        lessor.load(tx)
    return lessor


def replay(log: Log, state: State, lessor: Lessor, overlay_limit_bytes: int = 0) -> int:
    """Apply what the backend does not hold yet, and publish it; the time of the last record in ms, or 0.

    Checkpoints on the way whenever more than ``overlay_limit_bytes`` (0: no limit) wait in memory.
    """
    last_ms = 0
    try:
        for batch in log.replay():
            if batch.first_index != state.index + 1:
                raise Corruption(f"log entry {batch.first_index} follows entry {state.index}")
            for entry in batch.entries:
                effects.apply(entry, state, lessor)
            last_ms = batch.time_ms
            if overlay_limit_bytes and state.active.size_bytes > overlay_limit_bytes:
                _checkpoint(state, last_ms)
    except Corruption as damage:
        if damage.last_good_revision:
            raise
        raise Corruption(damage.reason, damage.path, damage.offset, state.head) from damage
    if state.index != state.applied_index:
        logger.info("replayed %d log entries, to revision %d", state.index - state.applied_index, state.head)
    state.publish(state.head, state.head_compacted)
    return last_ms


def _checkpoint(state: State, now_ms: int) -> None:
    generation = state.active
    generation.last_index, generation.last_revision = state.index, state.head
    write_generation(state.backend, generation, now_ms, no_pause)
    state.backend_revision, state.applied_index = state.head, state.index
    state.generations = (Generation(),)


def reload(core: Core) -> None:
    """Drop what was planned but never logged. The caller holds ``checkpointing`` and ``planning``."""
    state = State(core.backend)
    lessor = load_leases(state)
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
