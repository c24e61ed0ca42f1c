"""Checkpoints of an open store: what waits in memory moves into the backend, and what writers notice of it.

    freeze     under the planner's lock: the active generation is put behind a new one
    barrier    everything frozen is durable in the log: the backend is never ahead of it
    write      one backend transaction (mvcc/checkpoint.py), in small steps, beside the writers
    drop       under the planner's lock: the frozen generation goes, for the backend has it

Only a disk that failed, or is damaged, poisons the store. Anything else that ends a checkpoint (no room, no memory, no
descriptor, a lock that another process holds on the backend's file) is no harm: the frozen generation stays in memory,
and the next checkpoint writes it, unless it finds that the commit went through all the same.

Memory is bounded: when the active generation outgrows ``overlay_limit`` while a checkpoint is on its way,
writers wait (``wait_for_room``), and the checkpoint hurries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.bell import Gate
from kvstore.errors import Busy, Corruption, DiskFull, Overloaded
from kvstore.files import is_disk_failure
from kvstore.mvcc import checkpoint
from kvstore.mvcc.overlay import Generation, Remains
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, META_LOG_MARK, parse_u64
from kvstore.upkeep.background import COMMIT

if TYPE_CHECKING:
    from kvstore.engine import LocalEngine


class Checkpointer:
    """The checkpoints of one engine."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._room = Gate()
        """Opened, and another put in its place, whenever a checkpoint has made room."""
        self._limit_bytes = engine.options.overlay_limit
        self.batch_limit = engine.options.backend_batch_limit
        """As many changes in the active generation ask for a checkpoint at once."""
        self.obstacle: BaseException | None = None
        """Why the last checkpoint failed, if it did."""

    @property
    def overloaded(self) -> bool:
        """Whether more waits in memory than may."""
        return self._engine.state.active.size_bytes > self._limit_bytes

    def run(self) -> bool:
        """Move what waits in memory into the backend; whether there was anything."""
        engine = self._engine
        with engine.checkpointing:
            generation = self._freeze()
            if generation is None:
                return False
            engine.barrier()
            if engine.options.durability != "always":
                engine.sync_log()
            engine.state.backend_revision = generation.last_revision
            self._write(generation)
            with engine.writer.still():
                engine.state.generations = engine.state.generations[:1]
                engine.state.applied_index = generation.last_index
            engine.space.measure()
            if engine.state.head_compacted > engine.state.compact_finished:
                engine.background.upkeep_wanted.ring()
            made, self._room = self._room, Gate()
            made.open()
            remains = Remains(generation)
            del generation
            remains.drain()
            return True

    def _freeze(self) -> Generation | None:
        """The generation to write: one left from an attempt that found the disk full, or the active one."""
        engine, state = self._engine, self._engine.state
        with engine.writer.still():
            if len(state.generations) > 1:
                return state.generations[1]
            active = state.active
            if state.index == state.applied_index:
                return None
            active.last_index = state.index
            active.last_revision = state.head
            if engine.log is not None:
                active.set_row(META, META_LOG_MARK, engine.log.mark)
            state.generations = (Generation(), active)
            engine.space.reckon()
            return active

    def _write(self, generation: Generation) -> None:
        engine = self._engine
        pace = checkpoint.Pacer()

        def pause() -> None:
            if not self.overloaded and not engine.refuses_writes:
                pace(hurry=len(engine.state.active.changes) > self.batch_limit)

        try:
            if self.obstacle is None or not self._is_written(generation):
                with engine.timed(COMMIT):
                    checkpoint.write_generation(engine.backend, generation, engine.now_ms(), pause)
        except BaseException as failure:
            self.obstacle = failure
            if isinstance(failure, Corruption) or (
                is_disk_failure(failure) and not isinstance(failure, DiskFull)
            ):
                engine.poison(failure)
            raise
        self.obstacle = None

    def _is_written(self, generation: Generation) -> bool:
        """Whether an attempt that failed did so only after its commit. Written twice, rows would end themselves."""
        applied = self._engine.backend.get(META, META_APPLIED_INDEX)
        return parse_u64(applied) >= generation.last_index

    def wait_for_room(self) -> None:
        """Return when the active generation is small again.

        Raises ``DiskFull`` if the backend's disk is full, ``Overloaded`` if checkpoints fail for another reason.
        """
        engine = self._engine
        if not engine.options.background or engine.background.at_rest:
            self.run()
            return
        while self.overloaded and not engine.refuses_writes and not engine.stalled:
            engine.background.want_work()
            self._room.wait(0.1)
            obstacle = self.obstacle
            if isinstance(obstacle, DiskFull):
                raise DiskFull(str(obstacle)) from obstacle
            if obstacle is not None and not isinstance(obstacle, Busy) and not engine.refuses_writes:
                raise Overloaded(f"the memory is full, for checkpoints fail: {obstacle}") from obstacle
