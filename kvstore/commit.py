"""Group commit: many writers, one record, one sync.

    writer:  ask (put a ticket down) -> wait for it
    leader:  plan what was asked (under the planner's lock) -> take the whole queue -> one log record -> one sync
             -> publish -> wake everybody it served -> hand the lead to one who is still waiting, if any

Whoever waits while nobody leads becomes the leader, so a lone writer plans and syncs inline and pays no thread switch.
While the leader is in ``fdatasync`` (without the GIL) others ask; they are the next group. That the leader plans for
all of them keeps threads from meeting at the planner's lock, where each would hold the lock and wait for the
GIL, or the reverse: with 64 threads it is twice as fast.

Who does not want to wait (``put_nowait``, asyncio) plans at once and puts the planned ticket into the queue. A thread
of ours then plays the leader; asyncio callers are woken once per group, not once per ticket.

After a failed write or sync the log is in an unknown state: the ticket's writers get ``StorePoisoned``, and so
does every later write. The queue is in the order of plans, so what is published never has a gap.

A disk that is full before anything was written is milder: the log is as it was. Everybody in the queue gets
``DiskFull``, and the commit is *stalled*: nothing more is planned until the engine has dropped the plans that
never reached the log (``resume``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from kvstore.errors import DiskFull, StorePoisoned

Notify = Callable[[list["Ticket"]], None]


class Appender(Protocol):
    """What the log does for us."""

    @property
    def failure(self) -> BaseException | None: ...

    def append(self, entries: list[bytes], time_ms: int) -> int: ...


UNPLANNED = -1


class Ticket:
    """A write on its way to the disk: asked for, then planned, then done."""

    __slots__ = (
        "compacted",
        "done",
        "entry",
        "error",
        "future",
        "notify",
        "plan",
        "response",
        "revision",
        "waiter",
    )

    def __init__(self, plan: Any = None) -> None:
        self.plan = plan
        """How to plan it: for ``GroupCommit``'s owner, who sets the next four."""
        self.entry: bytes | None = None
        self.response: Any = None
        self.revision = UNPLANNED
        self.compacted = UNPLANNED
        self.done = False
        self.error: BaseException | None = None
        self.waiter: threading.Lock | None = None
        self.notify: Notify | None = None
        self.future: Any = None
        """Room for what the ``notify`` owner needs to find its caller again."""

    def is_done(self) -> bool:
        """Durable, or failed. Another thread may make it so at any moment."""
        return self.done


class GroupCommit:
    """The queue in front of the log, and its only writer."""

    def __init__(
        self,
        log: Appender,
        publish: Callable[[int, int], None],
        now_ms: Callable[[], int],
        group_bytes_max: int,
        planning: threading.Lock,
        plan: Callable[[Ticket], None],
    ) -> None:
        """``plan``: plan a ticket and ``enqueue`` it, or raise; called under ``planning``."""
        self._log = log
        self._publish = publish
        self._now_ms = now_ms
        self._group_bytes_max = group_bytes_max
        self._planning = planning
        self._plan = plan
        self.asked: list[Ticket] = []
        """Not planned yet."""
        self._queue: list[Ticket] = []
        """Planned, in order."""
        self._in_flight: list[Ticket] = []
        """What the leader has taken from either and not settled yet."""
        self._mutex = threading.Lock()
        self.log_lock = threading.Lock()
        """Held while the log is being changed: by the leader, and by whoever syncs or releases segments."""
        self._leading = False
        self._flusher: threading.Thread | None = None
        self._wake = threading.Semaphore(0)
        self._signaled = False
        self._stopping = False
        self.failure: BaseException | None = None
        """What poisoned the store; final."""
        self.stalled: DiskFull | None = None
        """Set under the planner's lock while the disk is full."""

    # --- writers ----------------------------------------------------------------------

    def enqueue(self, ticket: Ticket) -> None:
        """Queue a ticket. Call it under the planner's lock: queue order is plan order."""
        if self.failure is not None or self.stalled is not None:
            self.check()
        self._queue.append(ticket)

    def ask(self, ticket: Ticket) -> Any:
        """Have a ticket planned; block until it is durable and return its response."""
        self.asked.append(ticket)
        return self.wait(ticket)

    def wait(self, ticket: Ticket) -> Any:
        """Block until the ticket is durable and return its response."""
        waiter = None
        leads = False
        with self._mutex:
            if not ticket.done:
                if self._leading:
                    ticket.waiter = waiter = threading.Lock()
                    waiter.acquire()
                else:
                    self._leading = leads = True
        try:
            if waiter is not None:
                waiter.acquire()  # released when the ticket is done, or to make this thread the leader
                leads = not ticket.is_done()
            while not ticket.done:
                self._flush()
        except BaseException as interruption:  # raised by a signal handler, as KeyboardInterrupt is
            self._leave(ticket, interruption)
            raise
        if leads:
            self._hand_over()
        if ticket.error is not None:
            raise self.error_of(ticket)
        return ticket.response

    def _leave(self, ticket: Ticket, interruption: BaseException) -> None:
        """This thread waits no more. Its write goes on; if it was the leader, another one takes over."""
        with self._mutex:
            leads = ticket.waiter is None
            ticket.waiter = None
        if not leads:
            return
        if self._in_flight:  # interrupted between two steps: what became of the group is unknown
            self.poison(interruption)
            self._settle(self._in_flight, interruption)
        self._hand_over()
        self.flush_soon()

    def flush_soon(self) -> None:
        """Have the queue flushed by the flusher thread: for tickets that nobody waits for."""
        if self._signaled:
            return
        with self._mutex:
            if self._flusher is None:
                self._flusher = threading.Thread(
                    target=self._run_flusher, name="kvstore-flusher", daemon=True
                )
                self._flusher.start()
            if not self._signaled:
                self._signaled = True
                self._wake.release()

    # --- the leader -------------------------------------------------------------------

    def _flush(self) -> None:
        """Make what was asked for, and the front of the queue, durable. Only the leader calls this."""
        interruption = self._plan_asked() if self.asked else None
        batch = self._take()
        if not batch:
            if interruption is not None:
                raise interruption
            return
        last = batch[-1]
        error: BaseException | None = self.failure
        if error is None:
            try:
                entries = [ticket.entry for ticket in batch if ticket.entry is not None]
                if entries:
                    with self.log_lock:
                        self._log.append(entries, self._now_ms())
                self._publish(last.revision, last.compacted)
            except DiskFull as full:
                error = full
                batch += self._stall(full)
            except BaseException as failure:  # whatever it was, the log's state is unknown now
                error = failure
                self.poison(failure)
                if not isinstance(failure, Exception):
                    interruption = failure  # KeyboardInterrupt and its like are for this thread too
        self._settle(batch, error)
        if interruption is not None:
            raise interruption

    def _plan_asked(self) -> BaseException | None:
        """Plan for everybody who waits; tell those whose request is refused. An interruption of this thread, if any."""
        asked = self._in_flight = self.asked[:]
        del self.asked[: len(asked)]  # writers append to the same list meanwhile
        refused = []
        interruption: BaseException | None = None
        with self._planning:
            for ticket in asked:
                try:
                    self._plan(ticket)
                except BaseException as error:
                    ticket.error = error
                    refused.append(ticket)
                    if not isinstance(error, Exception):
                        interruption = error
        if refused:
            self._settle(refused)
        return interruption

    def _settle(self, batch: list[Ticket], error: BaseException | None = None) -> None:
        """Tell everybody whose tickets these are; ``error``: what all of them failed with."""
        waiters: list[threading.Lock] = []
        notified: dict[Notify, list[Ticket]] = {}
        with self._mutex:
            for ticket in batch:
                if error is not None:
                    ticket.error = error
                ticket.done = True
                if ticket.waiter is not None:
                    waiters.append(ticket.waiter)
                if ticket.notify is not None:
                    notified.setdefault(ticket.notify, []).append(ticket)
            self._in_flight = []
        for waiter in waiters:
            waiter.release()
        for notify, tickets in notified.items():
            notify(tickets)

    def _take(self) -> list[Ticket]:
        """The whole queue, unless it is more than one record may carry."""
        batch = self._queue[:]
        if len(batch) > 1:
            count, size_bytes = 0, 0
            for ticket in batch:
                size_bytes += len(ticket.entry) if ticket.entry is not None else 0
                if count and size_bytes > self._group_bytes_max:
                    break
                count += 1
            del batch[count:]
        self._in_flight = batch
        del self._queue[: len(batch)]  # writers append to the same list meanwhile, only behind what was taken
        return batch

    def _hand_over(self) -> None:
        """Give the lead to a waiting writer, or to nobody."""
        chosen = None
        with self._mutex:
            for ticket in (*self._queue, *self.asked) if self._queue or self.asked else ():
                if ticket.waiter is not None:
                    chosen, ticket.waiter = ticket.waiter, None
                    break
            else:
                self._leading = False
        if chosen is not None:
            chosen.release()
        elif self._queue and self._flusher is not None:
            self.flush_soon()  # nobody waits for these (yet)

    def _run_flusher(self) -> None:
        while True:
            self._wake.acquire()
            self._signaled = False
            if self._stopping:
                return
            with self._mutex:
                if self._leading:
                    continue  # the leader signals again if it leaves anything
                self._leading = True
            while self._queue or self.asked:
                self._flush()
            self._hand_over()

    # --- the end ----------------------------------------------------------------------

    def poison(self, failure: BaseException) -> None:
        """Refuse every write from now on."""
        if self.failure is None:
            self.failure = failure

    def _stall(self, full: DiskFull) -> list[Ticket]:
        """The log had no room. Plan nothing more; what was planned after the failed group fails with it."""
        if self._log.failure is not None:  # met half-way
            self.poison(full)
            return []
        with self._planning:
            self.stalled = full
            rest = self._queue[:]
            self._queue.clear()
        return rest

    def resume(self) -> None:
        """End a stall. Call it under the planner's lock, with no unlogged plan left in memory."""
        self.stalled = None

    def check(self) -> None:
        """Raise what keeps writes from being planned."""
        if self.failure is not None:
            raise self.poisoned()
        if self.stalled is not None:
            raise DiskFull(str(self.stalled)) from self.stalled

    def error_of(self, ticket: Ticket) -> BaseException:
        """What to tell the caller of a failed ticket."""
        if ticket.revision == UNPLANNED and ticket.error is not None:
            return ticket.error
        if isinstance(ticket.error, DiskFull) and ticket.error is not self.failure:
            return DiskFull(str(ticket.error))
        return self.poisoned()

    def poisoned(self) -> StorePoisoned:
        error = StorePoisoned(f"{StorePoisoned.message} (first failure: {self.failure!r})")
        error.__cause__ = self.failure
        return error

    def stop(self) -> None:
        """End the flusher thread. The engine has drained the queue and lets nobody in any more."""
        self._stopping = True
        if self._flusher is not None:
            self._wake.release()
            self._flusher.join()
