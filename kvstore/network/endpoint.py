"""The endpoint: what all services share.

ask         a logged request: put down for the leader of the writers, answered when it is durable
in_thread   anything that may take longer than the loop may stand still
spawn       a service written as a coroutine
stream      the same, with many answers, as fast as the client takes them
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

from kvstore.errors import Code, KVStoreError, NoThread
from kvstore.etcdpb.responses import Header, SharedEvents, encode
from kvstore.model import RangeRequest, Request
from kvstore.network.alone import Alone
from kvstore.network.budget import Budget
from kvstore.network.call import Asking, Call, Failed, Running
from kvstore.network.dialect import V3_5, Dialect
from kvstore.network.fanout import Fanout
from kvstore.network.http2.limits import LIMITS, STREAMS_MAX, Limits
from kvstore.network.long_reads import LongReads
from kvstore.network.places import Places
from kvstore.network.slowness import Slowness
from kvstore.network.tokens import Tokens, tokens
from kvstore.network.traffic import Traffic
from kvstore.network.users import Users
from kvstore.options import BadOption
from kvstore.protocol import EmbeddedEngine
from kvstore.write.ticket import Ticket

logger = logging.getLogger("kvstore.network")

T = TypeVar("T")

Finish = Callable[[Any, BaseException | None], None]
"""Gets the response of a request, or why it failed."""

Send = Callable[[bytes], Awaitable[None]]
"""Gives one of many answers, and returns when there is room for the next."""


PENDING_MAX = 5000
"""Logged requests under way; one more is refused, as etcd does."""
SWEEP_SECONDS = 0.5
PROGRESS_JITTER = 0.1
"""Of the interval between notices of progress, so that servers do not tell all their clients at once."""


_serving: weakref.WeakSet[Endpoint] = weakref.WeakSet()
"""All that there are: a store may be served by several, on loops of their own."""
_serving_lock = threading.Lock()


class Flushed(Protocol):
    """A connection."""

    def flush(self) -> None: ...


_Waiting = tuple[float, Call | None, Finish | None]
"""When a logged request was asked for, and the call that its response answers, or who else is given it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an endpoint serves its store."""

    dialect: Dialect = V3_5
    name: str = "default"
    max_request_bytes: int = 1_572_864
    advertised_urls: tuple[str, ...] = ()
    peer_urls: tuple[str, ...] = ("http://localhost:2380",)
    progress_interval_seconds: float = 600.0
    """Between two notices of progress to a watch that asked for them and has nothing else to hear."""
    request_timeout_seconds: float = 7.0
    """After which a write that found no room, or no disk, is answered ``request timed out``."""
    max_concurrent_streams: int = LIMITS.concurrent_streams
    """Calls under way on one connection. A smaller number than the default is also that of all calls over JSON."""
    keepalive_min_time_seconds: float = 5.0
    """A client that pings faster, again and again, is sent away."""
    keepalive_interval_seconds: float = 7200.0
    """A client that is silent for so long is pinged; 0: never."""
    keepalive_timeout_seconds: float = 20.0
    """How long it has to answer; 0: for ever."""
    has_gateway: bool = True
    """Whether calls over JSON are served."""
    cors: tuple[str, ...] = ("*",)
    """Origins that browsers may come from."""
    has_ui: bool = False
    """Whether there is a page to look at the store with."""
    ui_writes: bool = False
    """Whether it may also change the store."""
    host_whitelist: tuple[str, ...] = ("*",)
    """Host names that HTTP without TLS is answered for."""
    auth_token: str = "simple"
    """Which tokens users get: ``simple``, or ``jwt`` and its options."""
    auth_token_ttl_seconds: int = 300
    """How long a simple token lives unused."""
    bcrypt_cost: int = 10
    metrics: str = "basic"
    """``extensive``: durations of calls too."""
    warning_apply_seconds: float = 0.1
    """A write that takes longer to be durable is logged."""
    warning_unary_request_seconds: float = 0.3
    """So is a call that takes longer to be answered."""

    def __post_init__(self) -> None:
        if self.has_ui and not self.has_gateway:
            raise BadOption("--ui needs the JSON gateway: leave --enable-grpc-gateway as it is")
        if self.ui_writes and not self.has_ui:
            raise BadOption("--ui-writes allows the page of --ui to write: give both")

    @property
    def http2_limits(self) -> Limits:
        """What one connection is allowed."""
        return Limits(
            concurrent_streams=min(self.max_concurrent_streams, STREAMS_MAX),
            ping_interval_seconds=self.keepalive_min_time_seconds,
        )

    @property
    def max_gateway_calls(self) -> float:
        """Calls over JSON under way. By default only connections have a limit, so none takes the others' places."""
        count = self.max_concurrent_streams
        return count if count < LIMITS.concurrent_streams else math.inf

    @property
    def max_message_bytes(self) -> int:
        """Of a call's request, before anything is known of it."""
        return self.max_request_bytes + (512 << 10)


class Endpoint:
    """One store, served on one loop."""

    def __init__(
        self, engine: EmbeddedEngine, loop: asyncio.AbstractEventLoop, settings: Settings, raft_term: int = 2
    ) -> None:
        self.engine = engine
        self.loop = loop
        self.settings = settings
        self.dialect = settings.dialect
        self.raft_term = raft_term
        self.header = Header(engine.cluster_id, engine.member_id, raft_term)
        """``header.at(revision)`` is the field that every answer begins with."""
        self.http2_limits = settings.http2_limits
        self.traffic = Traffic()
        self.times_calls = settings.metrics == "extensive"
        self.users = Users(
            engine,
            settings.dialect,
            tokens(settings.auth_token, settings.auth_token_ttl_seconds),
            settings.bcrypt_cost,
        )
        self.users_are_on = self.users.rules.enabled
        """Whether calls have to say whose they are."""
        with _serving_lock:
            _serving.add(self)
        self.slow_requests = Slowness("a request took long: %s")
        self.slow_writes = Slowness("a write took long to be durable: %s")
        self.fanout = Fanout(loop)
        self.shared_events = SharedEvents()
        """Encodes what several watches are told of once."""
        self.gateway_places = Places(loop, settings.max_gateway_calls)
        self.exporting = asyncio.Lock()
        """Held by the one client that gets a snapshot."""
        self._threads = ThreadPoolExecutor(8, "kvstore-serve")
        self._writing_threads = ThreadPoolExecutor(8, "kvstore-serve-writing")
        self._slow_threads = ThreadPoolExecutor(2, "kvstore-serve-slow")
        self._waiting: dict[Ticket, _Waiting] = {}
        """Logged requests that are not answered, in the order in which they came."""
        self._asked: list[Ticket] = []
        """Those that came in this turn of the loop."""
        self._told = self._wake
        """The same object for all of them, by which whoever leads tells that they are of one endpoint."""
        self._flushes: deque[Flushed] = deque()
        self._is_flush_due = False
        self.alone = Alone(engine.lead_alone, monotonic)
        self._sweeper: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.long_reads = LongReads(self._call)
        self.budget = Budget(loop)
        self.budget.on_room = self.long_reads.look

    def start(self) -> None:
        """Begin what happens by itself. On the loop."""
        interval_seconds = self.settings.progress_interval_seconds
        jittered_seconds = interval_seconds * (1 + random.random() * PROGRESS_JITTER)
        self._progress = self.loop.call_later(jittered_seconds, self._tell_progress)

    def _tell_progress(self) -> None:
        if self.engine.hub is not None:
            self.engine.hub.ask_quiet()
        self.start()

    # --- logged requests --------------------------------------------------------------

    def ask(self, call: Call, request: Request) -> None:
        """Have a request made durable, and answer the call with its response."""
        if self.users_are_on:
            request = self.users.guarded(call, request)
        self._ask(request, call, None)

    def guarded(self, call: Asking, request: Request, name: str = "") -> Request:
        """The request of a call: its user has to be allowed it when it is planned. ``name``: as what (``access``)."""
        return self.users.guarded(call, request, name) if self.users_are_on else request

    def reading(
        self, call: Asking, request: Request | RangeRequest, read: Callable[[], T]
    ) -> Callable[[], T]:
        """``read``, for a call whose user may read what the request asks for. Raises what refuses it."""
        return self.users.reading(call, request, read) if self.users_are_on else read

    def users_changed(self, forget: Callable[[Tokens], None]) -> None:
        """Users or roles are others now: see to that, and have all see to it who serve this store.

        ``forget`` drops tokens that are none any more.
        """
        with _serving_lock:
            others = [each for each in _serving if each.engine is self.engine and each is not self]
        self._look_at_users(forget)
        for each in others:
            each._call(each._look_at_users, forget)

    def _look_at_users(self, forget: Callable[[Tokens], None]) -> None:
        forget(self.users.tokens)
        self.users_are_on = self.users.rules.enabled

    def ask_for(self, request: Request, finish: Finish) -> None:
        """Have a request made durable; ``finish`` is called on the loop. Raises what refuses the request as it is."""
        self._ask(request, None, finish)

    def _ask(self, request: Request, call: Call | None, finish: Finish | None) -> None:
        if len(self._waiting) >= PENDING_MAX:
            raise Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        try:
            ticket = self.engine.ask_soon(request, self._told, at_once=False)
        except NoThread:
            ticket = None
        if ticket is None:  # there is no room now, or background work has to begin: a thread waits for that
            ticket = Ticket(request)
            self._writing_threads.submit(self.engine.ask, request).add_done_callback(
                partial(self._was_asked, ticket)
            )
        else:
            if not self._asked:
                self.loop.call_soon(self._have_led)
            self._asked.append(ticket)
        self._waiting[ticket] = monotonic(), call, finish
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _have_led(self) -> None:
        """Have those served that came in this turn of the loop: here, or by the thread that leads the writers."""
        asked, self._asked = self._asked, []
        if len(self._waiting) > 1:
            self.alone.is_broken()
        elif self.alone.serve(asked[0]):
            self._settle(asked)
            return
        self.engine.flush_soon()

    def _was_asked(self, ticket: Ticket, future: Future[Any]) -> None:
        self._call(self._finish_asked, ticket, future)

    def _finish_asked(self, ticket: Ticket, future: Future[Any]) -> None:
        error = future.exception()
        response = None if error is not None else future.result()
        self._finish(ticket, response, error, monotonic())

    def _finish(self, ticket: Ticket, response: Any, error: BaseException | None, now: float) -> None:
        waiting = self._waiting.pop(ticket, None)
        if waiting is None:  # it has been answered already: its time was up
            return
        since, call, finish = waiting
        if now - since > self.settings.warning_apply_seconds:
            self.slow_writes.note(now - since, now)
        if finish is not None:
            finish(response, error)
        elif call is not None and call.alive:
            if error is None:
                call.answer(encode(response, self.header))
            else:
                call.fail(error)
        elif call is not None:
            call.done()

    def _sweep(self) -> None:
        """Answer those that have waited too long: they came first, so they stand first."""
        self._sweeper = None
        now = monotonic()
        over = now - self.settings.request_timeout_seconds
        for ticket, _ in list(itertools.takewhile(lambda each: each[1][0] <= over, self._waiting.items())):
            ticket.withdrawn = True
            self._finish(ticket, None, Failed(Code.UNAVAILABLE, "etcdserver: request timed out"), now)
        if self._waiting:
            self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    async def asked(self, request: Request) -> Any:
        """The response of a request, once it is durable."""
        future: asyncio.Future[Any] = self.loop.create_future()

        def finish(response: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(response)
            else:
                future.set_exception(error)

        self.ask_for(request, finish)
        return await future

    def _wake(self, tickets: list[Ticket]) -> None:
        """Called by whoever leads the writers: one call into the loop for a group."""
        self._call(self._settle, tickets)

    def _settle(self, tickets: list[Ticket]) -> None:
        self._is_flush_due = True  # at the end of this
        try:
            now = monotonic()
            for ticket in tickets:
                error = None if ticket.error is None else self.engine.error_of(ticket)
                self._finish(ticket, ticket.response, error, now)
        finally:
            self._flush()

    def flush_soon(self, connection: Flushed) -> None:
        """Have a connection flushed once this turn of the loop is over, or what answers just now has answered."""
        self._flushes.append(connection)
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        try:
            while self._flushes:
                self._flushes.popleft().flush()
        finally:
            if self._flushes:
                self.flush_soon(self._flushes.popleft())

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have something called on the loop; nothing, once that is closed: nobody is left to be answered."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass

    # --- threads and coroutines -------------------------------------------------------

    def in_thread(self, call: Call, work: Callable[[], bytes], *, slow: bool = False) -> None:
        """Answer a call with what ``work`` returns. ``slow``: it takes seconds, and others like it wait for it."""
        threads = self._slow_threads if slow else self._threads
        threads.submit(_wanted, call, work).add_done_callback(partial(self._worked, call))

    def _worked(self, call: Call, future: Future[bytes]) -> None:
        self._call(self._answer_with, call, future)

    def _answer_with(self, call: Call, future: Future[bytes]) -> None:
        if not call.alive:
            call.done()
            return
        error = future.exception()
        if error is None:
            call.answer(future.result())
        else:
            self.fail(call, error)

    def read(self, work: Callable[[], Any], finish: Callable[[BaseException | None], None]) -> None:
        """Have ``work`` done in a thread, and ``finish`` called on the loop with what it raised."""

        def done(future: Future[Any]) -> None:
            if not future.cancelled():
                self._call(finish, future.exception())

        self._threads.submit(work).add_done_callback(done)

    async def worked(self, work: Callable[[], Any], *, slow: bool = False) -> Any:
        """What ``work`` returns, called in a thread."""
        return await self.loop.run_in_executor(self._slow_threads if slow else self._threads, work)

    def spawn(self, call: Call, service: Callable[[], Coroutine[Any, Any, None]]) -> Running:
        """Run a service that is a coroutine, in the next turn of the loop. It is canceled when the client goes."""
        spawned = _Spawned(call)
        self._start(spawned, service)
        return spawned

    def stream(self, call: Call, service: Callable[[Send], Coroutine[Any, Any, None]]) -> Running:
        """Run a service that is a coroutine and gives many answers; when it is done, the call is."""
        spawned = _Spawned(call)

        async def streamed() -> None:
            await service(spawned.send)
            call.end()

        self._start(spawned, streamed)
        return spawned

    def _start(self, spawned: _Spawned, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        spawned.task = task = self.loop.create_task(self._run(spawned.call, service))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, call: Call, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await service()
        except Exception as error:
            self.fail(call, error)

    def fail(self, call: Call, error: BaseException) -> None:
        """Fail a call; what is no error of ours is a fault, and logged."""
        if not isinstance(error, KVStoreError):
            logger.error("a request failed", exc_info=error)
        call.fail(error)

    def close(self) -> None:
        """Let go of threads and coroutines. The store stays open."""
        for task in self._tasks:
            task.cancel()
        for timer in (self._sweeper, self._progress):
            if timer is not None:
                timer.cancel()
        self.budget.close()
        self.long_reads.close()
        self.users.close()
        self._writing_threads.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._slow_threads.shutdown(wait=False, cancel_futures=True)


def _wanted(call: Call, work: Callable[[], bytes]) -> bytes:
    """What ``work`` returns, if somebody still waits for it when its turn comes."""
    return work() if call.alive else b""


class _Spawned(Running):
    task: asyncio.Task[None]

    def __init__(self, call: Call) -> None:
        self.call = call
        self._room = asyncio.Event()

    async def send(self, message: bytes) -> None:
        self.call.send(message)
        while self.call.is_blocked:
            self._room.clear()
            await self._room.wait()

    def drained(self) -> None:
        self._room.set()

    def closed(self) -> None:
        self.task.cancel()
