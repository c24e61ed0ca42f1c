"""The writer: the one way from a request to the disk.

    caller:  ask (put a ticket down) -> wait for it
    leader:  plan     decide and carry out what was asked, in order; each goes to the end of the queue
             log      the front of the queue, as one record, one sync
             publish  its last revision: now readers see it
             settle   answer those whose tickets these are, and drop them from the queue

A thread that waits while nobody leads becomes the leader, so a lone writer plans and syncs inline, without a thread
switch. If nothing was asked before it, it takes the four steps for its own ticket alone (``_round_alone``).
While the leader is in ``fdatasync`` (without the GIL) other requests arrive; they are the next group. Letting the
leader plan for all of them avoids a convoy at the planner's lock, where each thread would hold it while waiting for
the GIL, or the reverse: with 64 threads it is twice as fast.

Callers that do not want to wait (``put_nowait``) have their request planned at once, after whatever was asked before.
The flusher, a thread of the store's own, then leads. One that may not even wait for a plan (an event loop) puts its
ticket down and goes on (``ask_soon``): the flusher plans it as well, unless there is nothing else to do
(``lead_alone``).

Plain puts that were asked for one after the other are decided together (``_plan_puts``): one look at the backend, one
pass over their bytes, one change of the state.

An exception can come at any step: from a signal handler on the main thread, or because memory is short. So a round
(the four steps) leaves its traces where the next leader finds them, and each step can be repeated:

    half planned    the plan is decided and kept in ``_decided``: it is carried out again, and queued
    half logged     the log knows the record it was writing: the same bytes are written again, and synced
    half settled    the tickets are still at the front of the queue: they are published and settled again

Only a disk failure ends this, or a lasting fault of ours. After a failed write or sync the state of the log is unknown:
the tickets of the group get ``StorePoisoned``, and so does every later write. The queue is in the order of plans, so
published revisions have no gap.

A disk that was full before anything was written is milder: the log is unchanged. The same goes for a log that cannot
go on for lack of a descriptor, or because its folder is out of reach. Everything in the queue fails with that error,
and the writer is *stalled*: nothing is planned until the plans that never reached the log have been dropped from
memory (``resume``).

A call from inside a write, made by a signal handler or a finalizer on the same thread, cannot be served: the thread
would wait for itself. It gets ``Reentered``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from kvstore import invariants
from kvstore.bell import Bell
from kvstore.errors import DiskFull, KVStoreError, NoDescriptor, NoThread, Reentered, StoreUnreachable, again
from kvstore.invariants import held, hold
from kvstore.life import Life
from kvstore.model import (
    BarrierRequest,
    DeleteRangeRequest,
    GuardedRequest,
    PutRequest,
    PutWithTTLRequest,
    Request,
    TxnRequest,
)
from kvstore.mvcc.plan import NO_OPTIONS, Plan, Planner
from kvstore.mvcc.state import State
from kvstore.shelter import BEGIN_SECONDS, on_main_thread, start
from kvstore.write.ticket import UNPLANNED, Notify, Ticket

logger = logging.getLogger("kvstore")

BARRIER = BarrierRequest()
WHOLE = frozenset({PutRequest, PutWithTTLRequest, DeleteRangeRequest, TxnRequest})
"""Requests that are always one entry, and may be decided before it is known who carries them out."""
RETRY_SECONDS = 0.05
NOTHING_WRITTEN = (DiskFull, NoDescriptor, StoreUnreachable)
"""The log's errors after which it is exactly as it was before the append."""
NO_ROOM = (MemoryError, RecursionError)
"""In memory, or on the stack: what was begun is finished later."""
ENTRY_OVERHEAD_BYTES = 16
"""At least what a record adds for each entry."""


class Appender(Protocol):
    """What the writer needs of the log."""

    last_index: int
    unfinished: Any
    """An append that was interrupted, or None."""

    @property
    def failure(self) -> BaseException | None:
        """What poisoned it."""

    @property
    def durable_index(self) -> int:
        """The last entry that is as durable as the options ask for."""

    def has_place_for(self, size_bytes: int) -> bool:
        """Whether this many bytes can be appended with one write and one sync, and nothing else."""

    def append(self, entries: Sequence[bytes], time_ms: int) -> int: ...

    def sync(self) -> None:
        """Make durable what durability ``interval`` or ``off`` left unsynced."""

    def resume(self) -> None:
        """Finish an interrupted append."""


_NOTIFY_OF: Callable[[Ticket], Notify] = attrgetter("notify")


def holds(lock: Any) -> bool:
    """Whether this thread holds an ``RLock``. (``threading.Condition`` asks the same way.)"""
    return bool(lock._is_owned())


@contextmanager
def _taken(lock: Any) -> Iterator[bool]:
    """Hold a lock inside, if nobody else does; whether it is held."""
    is_taken: bool = lock.acquire(blocking=False)
    try:
        yield is_taken
    finally:
        if is_taken:
            lock.release()


class Writer:
    """Plans, logs, publishes and settles. Its owner decides what a planned write triggers (``planned``)."""

    def __init__(
        self,
        log: Appender,
        state: State,
        planner: Planner,
        life: Life,
        now_ms: Callable[[], int],
        group_bytes_max: int,
        planned: Callable[[], None],
    ) -> None:
        self._log = log
        self.failed = 0
        """Writes that were planned and did not reach the disk."""
        self._state = state
        self.planner = planner
        self._life = life
        self._now_ms = now_ms
        self._group_bytes_max = group_bytes_max
        self._planned = planned
        self.asked: deque[Ticket] = deque()
        """Not planned yet, in order."""
        self._queue: list[Ticket] = []
        """Planned but not settled, in order."""
        self._decided: tuple[Sequence[Ticket], Sequence[Plan]] | None = None
        """The plan that is being carried out; or several, of puts that were decided together."""
        self._lead = threading.RLock()
        """Held by the leader."""
        self.planning = threading.RLock()
        """Guards the head of the state, the leases, and the order of the queue."""
        self.log_lock = threading.RLock()
        """Held while the log is being changed: by the leader, and by those who sync it or release segments."""
        self.listeners: list[Callable[[int], None]] = []
        """Called with each revision that is published."""
        self._told = state.published
        self._flusher = 0
        """The flusher's thread id; 0 if there is none."""
        self._flushing = threading.Lock()
        """Held by the flusher while it runs."""
        self._flusher_wanted = Bell()
        self._stopping = False

    # --- callers ----------------------------------------------------------------------

    def ask(self, request: Request) -> Any:
        """Have a request planned; block until it is durable and return its response."""
        if self._lead._is_owned() or self.planning._is_owned():  # type: ignore[attr-defined]  # is_inside, faster
            raise Reentered
        ticket = Ticket(request)
        try:
            if self.asked or not self._lead.acquire(blocking=False):
                self.asked.append(ticket)
                self._wait(ticket)
            elif self._round_alone(ticket):
                self._lead.release()
                if self.asked or self._queue:
                    self._pass_on()
            else:
                self._lead.release()
                self._wait(ticket)
        except BaseException:
            ticket.withdrawn = holds(self._lead)
            self._leave()
            raise
        if ticket.error is not None:
            raise self.error_of(ticket)
        return ticket.response

    def ask_soon(self, ticket: Ticket, *, at_once: bool = True) -> None:
        """Put a ticket down for the flusher: one step, without a lock, which may be taken anywhere.

        Not ``at_once``: ``flush_soon`` or ``lead_alone`` has to follow. Raises ``NoThread`` where there is no flusher
        and none can be had; nothing was put down then.
        """
        if not self._flusher and not self.flush_soon():
            raise NoThread
        self.asked.append(ticket)
        if at_once:
            self._flusher_wanted.ring()
        if self._stopping:  # the flusher may have looked for the last time
            self._refuse_rest()

    def lead_alone(self, ticket: Ticket) -> bool:
        """Serve a ticket that was put down, on this thread, if there is no other and nothing to wait for but a sync.

        Returns whether it is done: it is not told of then, unless it has failed. If not, ``flush_soon`` has to follow.
        What goes wrong here does so again for the flusher, which answers.
        """
        if self.is_inside or not self._lead.acquire(blocking=False):
            return False
        is_done = False
        try:
            if len(self.asked) == 1 and self.asked[0] is ticket and not ticket.withdrawn:
                with _taken(self.planning) as is_free:
                    pass
                if is_free:
                    with _taken(self.log_lock) as is_free:
                        is_done = is_free and self._round_alone(ticket, in_place=True)
            if is_done:
                with self.planning:  # a thread that planned meanwhile has dropped it: it is done
                    if self.asked and self.asked[0] is ticket:
                        self.asked.popleft()
        except BaseException as error:
            self._leave()
            if not isinstance(error, Exception):
                raise
            return False
        self._lead.release()
        if self.asked or self._queue:
            self._pass_on()
        return is_done

    def submit(self, request: Request) -> Ticket:
        """Plan a request now, or raise why it cannot be; ``wait`` for it, or have it flushed.

        One that takes several pieces (``Plan.is_part``) is not planned yet when this returns.
        """
        if self.is_inside:
            raise Reentered
        ticket = Ticket(request)
        try:
            with self.planning:
                if self.asked or self._decided is not None:
                    self._plan_asked()  # what its caller has put down before comes before it
                self._plan(ticket)
            self._planned()
        except BaseException:
            self._leave()
            raise
        return ticket

    def wait(self, ticket: Ticket) -> Any:
        """Block until the ticket is durable and return its response."""
        if not ticket.done:
            if self.is_inside:
                raise Reentered
            try:
                self._wait(ticket)
            except BaseException:
                self._leave()
                raise
        if ticket.error is not None:
            raise self.error_of(ticket)
        return ticket.response

    def barrier(self) -> None:
        """Wait until everything planned so far is durable."""
        self.ask(BARRIER)

    @property
    def is_inside(self) -> bool:
        """Whether the caller is in the middle of a write: leading or planning."""
        return holds(self._lead) or holds(self.planning)

    def _wait(self, ticket: Ticket) -> None:
        waiter: threading.Lock | None = None
        while not ticket.done:
            if self._lead.acquire(blocking=False):
                if self._lead_for(ticket):
                    return
                if waiter is None:
                    waiter = self._register(ticket)
            elif waiter is None:
                waiter = self._register(ticket)
                continue  # look again: the leader may have left before it could see us
            if not ticket.done:
                waiter.acquire(timeout=BEGIN_SECONDS)  # and look: a flusher that finds no memory ends unseen

    def _register(self, ticket: Ticket) -> threading.Lock:
        waiter = threading.Lock()
        waiter.acquire()
        ticket.is_main_threads |= on_main_thread()
        ticket.add_waiter(waiter)
        return waiter

    def _leave(self) -> None:
        """For a thread that was refused or interrupted at any step: release every lock, and let others go on."""
        for lock in (self.log_lock, self.planning, self._lead):
            while holds(lock):
                lock.release()
        self._pass_on()

    def sync_log(self) -> None:
        """Make durable what durability ``interval`` or ``off`` left unsynced."""
        try:
            with self.log_lock:
                self._log.sync()
        except BaseException:
            if self._log.failure is not None:
                self._life.poison(self._log.failure)
            raise

    # --- the leader -------------------------------------------------------------------

    def _lead_for(self, ticket: Ticket) -> bool:
        """Lead until the ticket is done; false if the flusher was asked to do it instead."""
        is_flushed_elsewhere = False
        while not ticket.done and not is_flushed_elsewhere:
            if not self._round():
                is_flushed_elsewhere = self.flush_soon() or not self._round(anyhow=True)
        self._lead.release()
        if self.asked or self._queue:
            self._pass_on()
        return not is_flushed_elsewhere

    def _round(self, *, anyhow: bool = False) -> bool:
        """Serve one group: plan, log, publish, settle.

        Returns false, with the group planned, if the log has to make room first: that cannot be repeated after an
        interruption, so the main thread leaves it to another, unless ``anyhow``.
        """
        if self.asked or self._decided is not None:
            self._plan_asked()
        batch, size_bytes = self._front()
        if not batch:
            return True
        if not anyhow and on_main_thread() and not self._log.has_place_for(size_bytes):
            return False
        self._finish(batch, self._write(batch))
        return True

    def _finish(self, batch: list[Ticket], error: BaseException | None) -> None:
        """Publish the front of the queue, or tell what it failed with; settle it."""
        if error is None:
            self._publish(batch[-1])
        else:
            if error is self._life.stalled_by:
                batch = self._queue[:]
            self.failed += len(batch)
        self._settle(batch, error)
        del self._queue[: len(batch)]

    def _round_alone(self, ticket: Ticket, *, in_place: bool = False) -> bool:
        """A round for one ticket that nothing was asked before, without the steps that only a group needs.

        Returns false if something is in the way. The ticket is then where the next round finds it, asked or planned.
        ``in_place``: so is the log, where it has to make room first.
        """
        life, log, queue = self._life, self._log, self._queue
        with self.planning:
            is_whole = type(ticket.request) in WHOLE
            is_free = is_whole and life.write_refusal is None and not queue and self._decided is None
            plan = self.planner.decide(ticket.request) if is_free else None
            if plan is None or plan.is_part:
                self.asked.append(ticket)
                return False
            self._decided = decided = (ticket,), (plan,)
            self.planner.carry_out(plan)
            self._enqueue(*decided)
            self._decided = None
        self._planned()
        entry, error = plan.entry, None
        if entry is not None:
            if life.write_refusal is not None or (
                (in_place or on_main_thread()) and not log.has_place_for(len(entry) + ENTRY_OVERHEAD_BYTES)
            ):
                return False
            try:
                with self.log_lock:
                    if log.unfinished is not None:
                        return False
                    if invariants.ON:
                        hold(10, log.failure is None, f"the log goes on after {log.failure!r}")
                    log.append((entry,), self._now_ms())
            except BaseException as failure:
                error = self._failed(failure)
        if error is not None:
            self._finish([ticket], error)
            return True
        self._publish(ticket)
        ticket.done = True
        del queue[0]
        return True

    def _plan_asked(self) -> None:
        """Plan for all who wait; answer those whose request is refused."""
        asked = self.asked
        with self.planning:
            if self._decided is not None:
                self._finish_decided()
            for _ in range(len(asked) - self._plan_puts()):
                ticket = asked[0]
                if ticket.revision == UNPLANNED and not (ticket.done or ticket.withdrawn):
                    try:
                        self._plan(ticket)
                    except Exception as error:
                        if self._decided is not None:
                            raise  # half carried out, for lack of memory perhaps: whoever leads next finishes it
                        if not isinstance(error, KVStoreError) and on_main_thread():
                            raise  # perhaps from a signal handler: it belongs to this thread
                        self._settle([ticket], error)
                asked.popleft()
        self._planned()

    def _plan_puts(self) -> int:
        """Plan the plain puts at the front of what was asked together. Returns how many. The caller holds ``planning``.

        What refuses one of them, or goes wrong, is met again where each is planned by itself.
        """
        asked = self.asked
        # [*asked] is one step; tuple(asked) is not in 3.11, where garbage may be collected in the middle of it
        tickets = [*asked] if len(asked) > 1 and self._life.write_refusal is None else []
        requests = []
        for ticket in tickets:
            request: Any = ticket.request
            if request.__class__ is not PutRequest or request[2:] != NO_OPTIONS:
                break
            if ticket.revision != UNPLANNED or ticket.done or ticket.withdrawn:
                break
            requests.append(request)
        try:
            plans = self.planner.decide_puts(requests) if requests else []
        except Exception as error:
            if not isinstance(error, KVStoreError) and on_main_thread():
                raise  # perhaps from a signal handler: it belongs to this thread
            return 0
        if not plans:
            return 0
        del tickets[len(plans) :]
        self._decided = tickets, plans
        self.planner.carry_out_puts(plans)
        self._enqueue(tickets, plans)
        self._decided = None
        for _ in plans:
            asked.popleft()
        return len(plans)

    def _plan(self, ticket: Ticket) -> None:
        """Decide, carry out, queue. The caller holds ``planning``."""
        request = ticket.request
        life = self._life
        if request is BARRIER:
            life.check_loggable()
        elif life.write_refusal is not None:
            raise life.write_refusal()
        plan = self.planner.decide(request)
        rest: Ticket | None = None
        if plan.is_part:  # a piece is a write by itself, which no caller waits for
            rest, ticket = ticket, Ticket(request)
            rest.request = (
                request.request if isinstance(request, GuardedRequest) else request
            )  # let through once
        self._decided = decided = (ticket,), (plan,)
        self.planner.carry_out(plan)
        self._enqueue(*decided)
        self._decided = None
        if rest is not None:
            self.asked.append(rest)

    def _enqueue(self, tickets: Sequence[Ticket], plans: Sequence[Plan]) -> None:
        queue, compacted = self._queue, self._state.head_compacted
        for ticket, plan in zip(tickets, plans, strict=True):
            ticket.entry, ticket.response, head, ticket.index = plan[:4]
            ticket.compacted = compacted
            ticket.revision = head
            if invariants.ON:
                held(self.planning, "planning")
                last = queue[-1] if queue else ticket
                hold(2, last.index <= ticket.index and last.revision <= head, "the queue is out of order")
            queue.append(ticket)

    def _finish_decided(self) -> None:
        """Carry out what an interrupted thread had decided. The caller holds ``planning``."""
        assert self._decided is not None
        for ticket, plan in zip(*self._decided, strict=True):
            self.planner.carry_out_again(plan)
            if ticket not in self._queue and not ticket.done:
                self._enqueue((ticket,), (plan,))
        self._decided = None

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, nothing is planned and no plan is half carried out."""
        with self.planning:
            if self._decided is not None:
                self._finish_decided()
            yield

    def _front(self) -> tuple[list[Ticket], int]:
        """The whole queue, or as much of it as one record may carry; and the bytes of its entries."""
        batch = self._queue[:]
        count = size_bytes = 0
        for ticket in batch:
            if ticket.entry is not None:
                size_bytes += len(ticket.entry) + ENTRY_OVERHEAD_BYTES
                if count and size_bytes > self._group_bytes_max:
                    size_bytes -= len(ticket.entry) + ENTRY_OVERHEAD_BYTES
                    break
            count += 1
        del batch[count:]
        return batch, size_bytes

    def _write(self, batch: list[Ticket]) -> BaseException | None:
        """Make the batch durable; returns the error it failed with. What it raises is temporary, not a disk failure."""
        life = self._life
        if life.failure is not None or life.stalled_by is not None:
            return life.failure or life.stalled_by
        log = self._log
        try:
            with self.log_lock:
                if log.unfinished is not None:
                    log.resume()
                logged = log.last_index
                entries = []
                for ticket in batch:
                    if ticket.entry is not None and ticket.index > logged:
                        entries.append(ticket.entry)
                if invariants.ON:
                    hold(10, log.failure is None, f"the log goes on after {log.failure!r}")
                if entries:
                    log.append(entries, self._now_ms())
            return None
        except BaseException as error:
            return self._failed(error)

    def _failed(self, error: BaseException) -> BaseException | None:
        """What an append that raised ``error`` has failed with; raises it again if it is temporary."""
        life, log = self._life, self._log
        if log.failure is None and isinstance(error, NOTHING_WRITTEN):
            with self.planning:
                life.stall(error)
            return error
        if log.failure is None and (on_main_thread() or isinstance(error, NO_ROOM)):
            raise error  # another thread will finish it
        life.poison(log.failure or error)
        return life.failure

    def _publish(self, last: Ticket) -> None:
        if invariants.ON:
            held(self._lead, "the lead")
            durable = self._log.durable_index
            hold(1, durable >= last.index, f"entry {last.index} is published, {durable} are durable")
        self._state.publish(last.revision, last.compacted)
        if last.revision != self._told:
            for listener in self.listeners:
                listener(last.revision)
            self._told = last.revision

    def _settle(self, batch: list[Ticket], error: BaseException | None = None) -> None:
        """Answer the tickets; ``error`` is what all of them failed with."""
        told = []
        for ticket in batch:
            if not ticket.done:
                ticket.error = error
                ticket.done = True
            if ticket.waiters:
                ticket.wake()
            if ticket.notify is not None:
                told.append(ticket)
        for notify, tickets in groupby(told, _NOTIFY_OF):
            try:
                notify(list(tickets))
            except Exception:
                if on_main_thread():
                    raise
                logger.exception("a writer could not be told that its write is done")

    def _pass_on(self) -> None:
        """If there is work left, have it led by a waiting thread or the flusher.

        Not by the main thread: it may be in a signal handler, and not come back for long.
        """
        if not (self.asked or self._queue or self._decided is not None):
            return
        tickets = [*self._queue, *self.asked]
        for ticket in tickets:
            if ticket.waiters and not ticket.is_main_threads and not ticket.done:
                ticket.wake()
                return
        if not self.flush_soon():
            for ticket in tickets:
                ticket.wake()

    # --- the flusher ------------------------------------------------------------------

    def flush_soon(self) -> bool:
        """Have the flusher lead for tickets that no thread waits for. Returns false if it cannot be started."""
        if not self._flusher:
            thread = threading.Thread(target=self._run_flusher, name="kvstore-flusher", daemon=True)
            try:
                start(thread)
            except RuntimeError:
                return False
        self._flusher_wanted.ring()
        return True

    def _run_flusher(self) -> None:
        if not self._flushing.acquire(blocking=False):
            return  # there is one already
        self._flusher = threading.get_ident()
        while not self._stopping:
            self._flusher_wanted.wait()
            while self._has_work() and self._lead.acquire(blocking=False):
                try:
                    self._round()
                except NO_ROOM as error:
                    logger.warning("a group of writes waits: %r", error)
                    time.sleep(RETRY_SECONDS)
                except BaseException as error:  # not temporary
                    self._life.poison(error)
                finally:
                    self._lead.release()
        self._flushing.release()
        self._refuse_rest()

    def _has_work(self) -> bool:
        return bool(self.asked or self._queue) and not self._stopping

    def stop(self) -> None:
        """End the flusher. The queue is drained, and no new writes are let in."""
        self._stopping = True
        if self._flusher and self._flusher != threading.get_ident():
            self.flush_soon()
            with self._flushing:
                pass
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Answer what was asked for too late. A thread that leads meanwhile looks again once it has stopped leading."""
        while self.asked and not holds(self._lead) and self._lead.acquire(blocking=False):
            try:
                self._plan_asked()
            finally:
                self._lead.release()

    # --- the end ----------------------------------------------------------------------

    def resume(self, reload: Callable[[], None]) -> None:
        """End a stall; ``reload`` drops from memory what never reached the log."""
        with self.still():
            if not self._life.is_stalled:
                return
            if self._queue:  # their callers have to be told first
                self.flush_soon()
                return
            reload()
            self._life.resume()

    def error_of(self, ticket: Ticket) -> BaseException:
        """The error for the caller of a failed ticket."""
        if ticket.revision == UNPLANNED and ticket.error is not None:
            return ticket.error
        if isinstance(ticket.error, NOTHING_WRITTEN) and ticket.error is not self._life.failure:
            return again(ticket.error)
        return self._life.poisoned()
