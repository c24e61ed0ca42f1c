"""Checkpoints of an open store: how changes in memory move into the backend, and what writers notice of it.

    freeze     under the planner's lock: a new generation becomes the active one, the old one is frozen
    barrier    everything frozen is durable in the log: the backend is never ahead of it
    write      one backend transaction (mvcc/checkpoint.py), in small steps, beside the writers
    drop       under the planner's lock: the frozen generation is dropped, as the backend has it now

Only a disk that failed or is damaged poisons the store. Anything else that ends a checkpoint (no room, no memory, no
descriptor, another process's lock on the backend's file) does no harm: the frozen generation stays in memory, and the
next checkpoint writes it, unless it finds that the commit went through after all.

Memory is bounded: when the active generation outgrows ``overlay_limit`` while a checkpoint is on its way,
writers wait (``wait_for_room``), and the checkpoint hurries.
"""

from __future__ import annotations

from kvstore import invariants
from kvstore.bell import Gate
from kvstore.core import COMMIT, Core
from kvstore.errors import Busy, Corruption, DiskFull, Overloaded
from kvstore.files import is_disk_failure
from kvstore.invariants import held
from kvstore.mvcc import checkpoint
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.overlay import Generation, Remains
from kvstore.mvcc.schema import META, META_LOG_MARK
from kvstore.pacing import Pacer
from kvstore.write.room import Room
from kvstore.write.writer import Writer


class Checkpointer:
    """The checkpoints of one store."""

    def __init__(self, core: Core, writer: Writer, room: Room) -> None:
        self._core = core
        self._writer = writer
        self._room = room
        self._limit_bytes = core.options.overlay_limit
        self._finished = Gate()
        """Opened, and replaced by a new one, whenever a checkpoint has ended."""
        self.batch_limit = core.options.backend_batch_limit
        """A checkpoint starts at once when this many changes are in the active generation."""
        self.obstacle: BaseException | None = None
        """Why the last checkpoint failed, if it did."""
        self._begun: Generation | None = None
        """What may be in the backend already, though nobody has seen its commit end."""

    @property
    def overloaded(self) -> bool:
        """Whether more is waiting in memory than is allowed."""
        return self._core.state.waiting_bytes > self._limit_bytes

    def run(self) -> bool:
        """Move the changes held in memory into the backend. Returns whether there were any."""
        core, state = self._core, self._core.state
        with core.checkpointing:
            generation = self._freeze()
            if generation is None:
                return False
            self._writer.barrier()
            if core.options.durability != "always":
                self._writer.sync_log()
            state.committing(generation)
            self._write(generation)
            with self._writer.still():
                state.committed(generation)
            self._begun = None
            self._room.measure()
            if state.head_compacted > state.compact_finished:
                core.upkeep_wanted.ring()
            finished, self._finished = self._finished, Gate()
            finished.open()
            remains = Remains(generation)
            del generation
            remains.drain()
            return True

    def _freeze(self) -> Generation | None:
        """The generation to write: one left over from a failed attempt, or the active one."""
        state = self._core.state
        with self._writer.still():
            if state.frozen is not None:
                return state.frozen
            if state.index == state.applied_index:
                return None
            state.active.set_row(META, META_LOG_MARK, self._core.log.mark)
            frozen = state.freeze()
            self._room.reckon()
            return frozen

    def _write(self, generation: Generation) -> None:
        core = self._core
        if invariants.ON:
            held(core.checkpointing, "checkpointing")
        pace = Pacer()

        def pause() -> None:
            if not self.overloaded and not core.life.refuses_writes:
                pace(hurry=len(core.state.active.changes) > self.batch_limit)

        try:
            if self._begun is not generation or not self._is_written(generation):
                self._begun = generation
                with core.timed(COMMIT):
                    checkpoint.write_generation(core.backend, generation, core.clock.now_ms(), pause)
        except BaseException as failure:
            self._note(failure)
            raise
        self._note(None)

    def _note(self, failure: BaseException | None) -> None:
        self.obstacle = failure
        self._room.backend_is_full = is_full = isinstance(failure, DiskFull)
        if isinstance(failure, Corruption) or (failure and is_disk_failure(failure) and not is_full):
            self._core.life.poison(failure)

    def _is_written(self, generation: Generation) -> bool:
        """Whether an earlier attempt failed only after its commit. Written twice, rows would end themselves."""
        with self._core.backend.read() as tx:
            return Marks.read(tx).applied_index >= generation.last_index

    def wait_for_room(self) -> None:
        """Wait until background work has made the active generation small again.

        Raises ``DiskFull`` if the backend's disk is full, ``Overloaded`` if checkpoints fail for another reason.
        """
        core = self._core
        while self.overloaded and not core.life.refuses_writes:
            core.want_work()
            self._finished.wait(0.1)
            obstacle = self.obstacle
            if isinstance(obstacle, DiskFull):
                raise DiskFull(str(obstacle)) from obstacle
            if obstacle is not None and not isinstance(obstacle, Busy) and not core.life.refuses_writes:
                raise Overloaded(f"the memory is full, for checkpoints fail: {obstacle}") from obstacle
