"""The client of one store: calls and streams, over one connection at a time to whichever of its servers answers.

    caller's thread     ask, ask_soon ──put down──┐                       ┌──> waiter, future
    the client's loop                             └─> attempt ──> answered, refused, lost
                                                        ^            |
                                                        └── again ───┘      (outcome.py: what may be repeated)

A call is tried until it is answered or its time is up; the pauses between attempts grow. What ends an attempt:

    never sent, or refused before anything was proposed     tried again, whatever it is
    nobody knows                                            tried again if that does no harm; else OutcomeUnknown
    a token that is none any more                           a new one, once, and tried again
    refused                                                 the caller's error

A connection that fails, is too quiet, or leads to a member in trouble is given up for one to the next server. Before a
connection is used, its server has said which cluster it belongs to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.errors import (
    Corruption,
    DeadlineExceeded,
    IsReplica,
    KVStoreError,
    OutcomeUnknown,
    Reentered,
    StoreClosed,
    Unavailable,
    said_of,
)
from kvstore.life import Life, Phase
from kvstore.network.grpc import framed
from kvstore.network.http2.connection import CannotRequest
from kvstore.network.remote.calls import Asked, Call, StreamCall
from kvstore.network.remote.connecting import Connecting
from kvstore.network.remote.connection import Connection
from kvstore.network.remote.endpoints import Endpoints
from kvstore.network.remote.keepalives import KeepAlives
from kvstore.network.remote.methods import Kind, Method, Parsed
from kvstore.network.remote.options import ClientOptions, Target
from kvstore.network.remote.outcome import Outcome, error_of, is_members, outcome_of, wants_token
from kvstore.network.remote.streams import Receiver, Stream, Timer, backoff
from kvstore.network.remote.thread import LoopThread
from kvstore.network.remote.tokens import Tokens
from kvstore.network.remote.watches import Watches

logger = logging.getLogger("kvstore.remote")

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """A client with a thread of its own. ``ask``, ``ask_soon``, ``soon`` and ``close`` are for any thread."""

    def __init__(self, target: Target, options: ClientOptions) -> None:
        """Raises ``BadOption`` for files of TLS that cannot be used, and ``NoThread``."""
        self.target = target
        self.options = options
        self._timeout_seconds = options.timeout_seconds
        self.life = Life()
        self.cluster_id = 0
        """As the first answer had it; 0: nobody has said yet."""
        self.member_id = 0
        """Of whom the newest answer came from."""
        self.revision_seen = 0
        self.version = ""
        """Of the server that the connection leads to."""
        self.tokens = Tokens(self)
        self.connecting = Connecting(self)
        self.connection: Connection | None = None
        """To where calls go now."""
        self._open: dict[Call, None] = {}
        """Calls that are not done; those with the usual time are in the order of their deadlines."""
        self._streams: dict[StreamCall, None] = {}
        self._waiting: deque[Call | StreamCall] = deque()
        """What waits for a connection, or for room on it."""
        self.answered: list[Call] = []
        """Calls that have ended with OK in this turn."""
        self._told: dict[asyncio.AbstractEventLoop, list[Call]] = {}
        """Calls that are done, by the loop that their callers wait on."""
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[Running] = set()
        self.watches = Watches(self, self.check, options.watch_buffer)
        self.keepalives = KeepAlives(self)
        self._thread = LoopThread(self._take)
        self.loop = self._thread.loop
        self.endpoints = Endpoints(target.addresses, self.loop.time)
        if options.auto_sync_seconds:
            self.soon(self.connecting.begin_sync)
        _clients.add(self)

    # --- from any thread --------------------------------------------------------------

    def check(self) -> None:
        """Raise why nothing can be asked."""
        self.life.check_readable()

    def ask(self, call: Call) -> Any:
        """The answer to a call, as its method parses it. Raises why there is none."""
        if self.life.read_refusal is not None:
            raise self.life.read_refusal()
        if self._thread.is_current:
            raise Reentered
        call.waiter = waiter = threading.Lock()
        waiter.acquire()
        try:
            self._thread.put_down(call)
            waiter.acquire()
        except BaseException:
            self.soon(self._abandon, call)
            raise
        if call.error is not None:
            raise call.error
        return call.answer

    def ask_soon(self, call: Call) -> asyncio.Future[Any]:
        """The same for a task of the loop that runs here."""
        if self.life.read_refusal is not None:
            raise self.life.read_refusal()
        future = call.future = asyncio.get_running_loop().create_future()
        self._thread.put_down(call)
        return future

    def give_up(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self.soon(self._abandon, call)

    def soon(self, call: Callable[..., Any], *args: Any) -> None:
        self._thread.soon(call, *args)

    def run(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run something of several steps on the client's loop, and wait for it."""
        self.check()
        if self._thread.is_current:
            raise Reentered
        running = Running(self.loop, begin)
        done = threading.Lock()
        done.acquire()
        running.future.add_done_callback(lambda _: done.release())
        self._running.add(running)
        try:
            self.soon(running.start)
            done.acquire()
        except BaseException:
            self.soon(running.cancel)
            raise
        finally:
            self._running.discard(running)
        return running.future.result()

    async def run_soon(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The same for a task of the loop that runs here."""
        self.check()
        running = Running(self.loop, begin)
        self._running.add(running)
        try:
            self.soon(running.start)
            return await asyncio.wrap_future(running.future)
        except asyncio.CancelledError:
            self.soon(running.cancel)
            raise
        finally:
            self._running.discard(running)

    def close(self) -> None:
        """End everything that is open. Idempotent."""
        if self.life.phase in (Phase.CLOSED, Phase.FORKED):
            return
        self.life.move(Phase.CLOSED)
        self.soon(self._shut)
        self._thread.join(self.options.timeout_seconds)

    def refuse_in_child(self) -> None:
        self.life.move(Phase.FORKED)

    # --- streams: everything from here on is called on the loop -------------------------

    def open(self, path: bytes, receiver: Receiver) -> Stream:
        stream = StreamCall(self, path, receiver)
        self._streams[stream] = None
        if self.life.read_refusal is not None:
            self.loop.call_soon(stream.end, self.life.read_refusal())
            return stream
        connection = self.connection
        if connection is not None and connection.takes_calls:
            stream.begin(connection, self.tokens.block(connection, path, is_stream=True))
        else:
            stream.deadline = self.loop.time() + self.options.timeout_seconds
            self.loop.call_later(self.options.timeout_seconds, self._expire_stream, stream)
            self._wait(stream)
        return stream

    def forget(self, stream: StreamCall) -> None:
        self._streams.pop(stream, None)

    def unary(self, path: bytes, message: bytes) -> Awaitable[bytes]:
        """A call that may be repeated, for streams of this client."""
        call = Call(self, _Unparsed(path), message, _as_it_is)
        call.future = self.loop.create_future()
        self._start(call, self.loop.time())
        return call.future

    def later(self, delay_seconds: float, call: Callable[[], Any]) -> Timer:
        return self.loop.call_later(delay_seconds, call)

    async def reauthenticate(self) -> None:
        await self.tokens.reauthenticate()

    def _expire_stream(self, stream: StreamCall) -> None:
        if stream.stream is None:
            stream.end(self._unreached())

    # --- calls --------------------------------------------------------------------------

    def _take(self, put_down: deque[Call]) -> None:
        """Begin what was put down, and write it at once."""
        connection = self.connection
        if connection is not None:
            connection.is_flush_due = True
        now = self.loop.time()
        while put_down:
            self._start(put_down.popleft(), now)
        if connection is not None:
            connection.flush()

    def _start(self, call: Call, now: float) -> None:
        if call.is_done:
            return
        if self.life.read_refusal is not None:
            self._fail(call, self.life.read_refusal())
            self.turn()
            return
        if call.timeout_seconds:
            call.deadline = now + call.timeout_seconds
            call.timer = self.loop.call_later(call.timeout_seconds, self._expire, call)
        else:
            call.deadline = now + self._timeout_seconds
        self._open[call] = None
        if self._timer is None:
            self._timer = self.loop.call_at(call.deadline, self._expire_due)
        if self.watches.pins.pending and call.method.kind is not Kind.READ:
            self.watches.pins.after(lambda: self._attempt(call))
        else:
            self._attempt(call)

    def _attempt(self, call: Call) -> None:
        if call.is_done:
            return
        connection = self.connection
        if connection is None or connection.is_retired:
            self._wait(call)
            return
        if call.stream is not None:  # it was begun before
            call.message_bytes = call.pieces = None
            call.size_bytes = 0
        call.seen_revision = self.revision_seen
        call.sent_at = connection.heard_at
        path = call.method.path
        block = connection.blocks.get(path) or self.tokens.block(connection, path)
        try:
            connection.ask(call, block)
        except CannotRequest:
            self._wait(call)

    def _wait(self, item: Call | StreamCall) -> None:
        self._waiting.append(item)
        self.connecting.soon()

    def _look_at_answers(self) -> None:
        answered, self.answered = self.answered, []
        for call in answered:
            try:
                cluster_id, member_id, revision, answer = call.method.parse(call.message_bytes)  # type: ignore[arg-type]
            except DecodeError as error:
                self._fail(call, Corruption(f"the answer to {call} is no message: {error}", str(self.target)))
                continue
            if cluster_id == self.cluster_id and revision >= self.revision_seen:
                self.member_id, self.revision_seen = member_id, revision
            elif not self._is_sound(call, cluster_id, member_id, revision):
                continue
            call.answer = answer
            self._settle(call)

    def _is_sound(self, call: Call, cluster_id: int, member_id: int, revision: int) -> bool:
        """Whether an answer is of this cluster, and no older than others that were there before it was asked."""
        if cluster_id != self.cluster_id:
            if not cluster_id:
                return True  # an answer of etcd 3.4 that says nothing of where it comes from
            if self.cluster_id:
                self._leave(call.connection, self.connecting.wrong(cluster_id))
                self._fail(call, self.connecting.wrong(cluster_id))
                return False
            self.cluster_id = cluster_id
        self.member_id = member_id
        if revision > self.revision_seen:
            self.revision_seen = revision
        elif revision < call.seen_revision and call.method.is_ordered:
            return self._is_excused(call, revision)
        return True

    def _is_excused(self, call: Call, revision: int) -> bool:
        """A revision went back. A read is asked once more, of another server; then it is an error."""
        reason = (
            f"a server answered at revision {revision} after one had answered at {call.seen_revision}: "
            "its data is older than what was acknowledged, as after a restore from a backup"
        )
        logger.warning("%s: %s", self.target, reason)
        if call.method.kind is not Kind.READ:
            return True  # it was carried out; the next read says the rest
        if call.is_stale:
            self._fail(call, Corruption(reason, str(self.target)))
        else:
            call.is_stale = True
            self._leave(call.connection, Unavailable(reason))
            self._again(call, Unavailable(reason))
        return False

    def refused(self, call: Call, code: int, text: str) -> None:
        """A call has ended with another status."""
        if wants_token(code, text) and self.options.user and not call.has_new_token:
            self._with_new_token(self.tokens.renew(), call)
            return
        error = error_of(code, text)
        if isinstance(error, IsReplica) and len(self.endpoints) == 1:
            self._fail(call, error)  # there is no other server that might take it
            return
        if is_members(code, text) and self.endpoints.has_others:
            self._leave(call.connection, error)
        self._ended(call, outcome_of(code, text), error)

    def lost(self, call: Call, was_unprocessed: bool, reason: str) -> None:
        """A call has ended without a status."""
        outcome = Outcome.NOT_DONE if was_unprocessed else Outcome.UNKNOWN
        self._ended(call, outcome, Unavailable(f"the connection is lost: {reason}"))

    def _ended(self, call: Call, outcome: Outcome, error: KVStoreError) -> None:
        """An attempt has ended without an answer."""
        if outcome is Outcome.REFUSED:
            self._fail(call, error)
        elif outcome is Outcome.UNKNOWN and call.method.kind is Kind.ONCE:
            self._fail(call, self._unknown(call, error))
        else:
            call.is_uncertain |= outcome is Outcome.UNKNOWN
            self._again(call, error)

    def _again(self, call: Call, error: KVStoreError) -> None:
        call.last_error = error
        call.attempts += 1
        self.loop.call_later(backoff(call.attempts), self._attempt, call)

    def _with_new_token(self, renewal: asyncio.Task[None], call: Call) -> None:
        """Repeat a call when there is another token; or with the old one, if the connection was lost meanwhile."""

        def ended(ended: asyncio.Task[None]) -> None:
            if ended.cancelled():
                return
            error = ended.exception()
            if error is None:
                call.has_new_token = True
                self._attempt(call)
            elif isinstance(error, Unavailable):
                self._again(call, error)
            else:
                self._fail(call, error if isinstance(error, KVStoreError) else Unavailable(said_of(error)))
                self.turn()

        renewal.add_done_callback(ended)

    def _unknown(self, call: Call, error: KVStoreError) -> OutcomeUnknown:
        found = OutcomeUnknown(f"{call} may have been made or not: {error}")
        found.__cause__ = error
        return found

    def _fail(self, call: Call, error: KVStoreError) -> None:
        call.error = error
        self._settle(call)

    def _settle(self, call: Call) -> None:
        """The call is done: wake a thread now, a task at the end of this turn."""
        if call.is_done:
            return
        call.is_done = True
        self._open.pop(call, None)
        if call.timer is not None:
            call.timer.cancel()
        if call.waiter is not None:
            call.waiter.release()
        elif call.future is not None:
            self._told.setdefault(call.future.get_loop(), []).append(call)

    def turn(self) -> None:
        """What came in one turn has been passed on: tell each loop of its tasks' answers, all at once."""
        if self.answered:
            self._look_at_answers()
        if self._waiting and self.connection is not None and self.connection.takes_calls:
            self.use(self.connection)
        if self._told:
            told, self._told = self._told, {}
            for loop, calls in told.items():
                if loop is self.loop:
                    _tell(calls)
                    continue
                try:
                    loop.call_soon_threadsafe(_tell, calls)
                except RuntimeError:
                    if not loop.is_closed():
                        raise

    def _abandon(self, call: Call) -> None:
        if not call.is_done:
            call.is_done = True
            self._open.pop(call, None)
            if call.timer is not None:
                call.timer.cancel()
            call.cancel()

    # --- deadlines ----------------------------------------------------------------------

    def _expire_due(self) -> None:
        """The first call may be due."""
        self._timer = None
        now = self.loop.time()
        for call in list(self._open):
            if call.timeout_seconds:
                continue
            if call.deadline > now:
                self._timer = self.loop.call_at(call.deadline, self._expire_due)
                break
            self._expire(call)
        self.turn()

    def _expire(self, call: Call) -> None:
        if call.is_done:
            return
        seconds = call.timeout_seconds or self.options.timeout_seconds
        if call.is_under_way:
            connection = call.connection
            call.cancel()
            error: KVStoreError = Unavailable(f"no answer in {seconds:g} seconds")
            if connection is not None and connection.heard_at <= call.sent_at:
                self._suspect(connection, error)
            if call.method.kind is Kind.READ:
                error = DeadlineExceeded(f"{call}: no answer in {seconds:g} seconds")
            else:
                error = self._unknown(call, error)
        else:
            error = call.last_error or self._unreached()
            if call.is_uncertain and call.method.kind is not Kind.READ:
                error = self._unknown(call, error)
        self._fail(call, error)
        self.turn()

    def _suspect(self, connection: Connection, error: KVStoreError) -> None:
        """Not a byte has come for as long as a call may take."""
        self._leave(connection, error)
        connection.close(str(error))

    def _unreached(self) -> KVStoreError:
        connection = self.connection
        if connection is not None and connection.takes_calls:
            return Unavailable(
                f"{self.target}: a watch was begun before this, and no server says where it begins"
            )
        if connection is not None and not connection.is_leaving:
            return Unavailable(
                f"{self.target}: {len(connection.http2.streams)} calls and streams of watches are under way on the "
                "connection, and the server takes no more (its --max-concurrent-streams): close some, or connect "
                "another client"
            )
        why = self.connecting.why_not
        return why if not isinstance(why, Unavailable) else Unavailable(f"{self.target}: {why}")

    # --- connections: what `connecting` and they themselves say -------------------------

    def leaving(self, connection: Connection) -> None:
        """A connection takes no further calls, by the server's will or because it is over."""
        if connection is self.connection:
            self.connection = None
            self.connecting.why_not = Unavailable(connection.reason or "the server is going away")
            self.endpoints.failed(connection.address)
        if connection.http2.dead:
            self.connecting.all.discard(connection)
        if self._waiting:
            self.connecting.soon()

    def _leave(self, connection: Connection | None, error: KVStoreError) -> None:
        """Go elsewhere. Calls on the connection may still be answered; streams begin anew."""
        if connection is None or connection is not self.connection:
            return
        logger.info("%s: leaving %s: %s", self.target, connection.address, error)
        self.connection = None
        self.connecting.why_not = error
        self.endpoints.failed(connection.address)
        for stream in [each for each in self._streams if each.connection is connection]:
            stream.end(Unavailable(f"{connection.address} is left: {error}"))
            if stream.stream is not None:
                connection.cancel(stream.stream)
        connection.retire()

    def is_awaited(self) -> bool:
        while self._waiting and self._waiting[0].is_done:
            self._waiting.popleft()
        return bool(self._waiting)

    def use(self, connection: Connection) -> None:
        self.connection = connection
        waiting, self._waiting = self._waiting, deque()
        connection.is_flush_due = True
        for item in waiting:
            if item.is_done:
                continue
            if isinstance(item, Call):
                self._attempt(item)
            elif connection.takes_calls:
                item.begin(connection, self.tokens.block(connection, item.path, is_stream=True))
            else:
                self._waiting.append(item)
        connection.flush()

    def fail_waiting(self, error: KVStoreError) -> None:
        """There is no point in waiting."""
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if isinstance(item, Call):
                self._fail(item, error)
            else:
                item.end(error)
        self.turn()

    async def ask_on(
        self,
        connection: Connection,
        method: Method,
        message: bytes,
        *,
        has_token: bool = True,
        timeout_seconds: float = 0.0,
    ) -> bytes:
        """One attempt on a certain connection."""
        seconds = timeout_seconds or self.options.timeout_seconds
        if not connection.takes_calls:
            raise Unavailable(connection.reason or "the server is going away")
        future: asyncio.Future[bytes] = self.loop.create_future()
        asked = Asked(future)
        asked.data = framed(message)
        connection.ask(asked, self.tokens.block(connection, method.path, has_token=has_token))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise Unavailable(f"{method.name}: no answer in {seconds:g} seconds") from None
        finally:
            asked.cancel()

    # --- the end ------------------------------------------------------------------------

    def _shut(self) -> None:
        """Called on the loop, once closed."""
        error = StoreClosed()
        for call in list(self._open):
            self._fail(call, error)
            call.cancel()
        self.keepalives.close(error)
        self.watches.ring()
        for stream in list(self._streams):
            if stream.stream is not None and stream.connection is not None:
                stream.connection.cancel(stream.stream)
            stream.end(StoreClosed())
        self.tokens.cancel()
        self.connecting.cancel()
        for running in list(self._running):
            running.cancel()
        self.connection = None
        for connection in list(self.connecting.all):
            connection.retire()
            connection.flush()
        self.turn()
        self.loop.call_soon(self._cut)

    def _cut(self) -> None:
        self.loop.call_soon(self._thread.stop)
        for connection in list(self.connecting.all):
            connection.close("closed")


class Running:
    """Something of several steps on the client's loop, and what will come of it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, begin: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        self.future: Future[Any] = Future()
        self._loop = loop
        self._begin = begin
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        if not self.future.done():
            self._task = self._loop.create_task(self._begin())
            self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.future.done():
            self.future.set_exception(StoreClosed())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self.future.done():
            return
        error = StoreClosed() if task.cancelled() else task.exception()
        if error is None:
            self.future.set_result(task.result())
        else:
            self.future.set_exception(error)


class _Unparsed(Method):
    """A method whose answer is wanted as bytes."""

    __slots__ = ()

    def __init__(self, path: bytes) -> None:
        self.name = path.rpartition(b"/")[2].decode()
        self.path = path
        self.kind = Kind.READ
        self.parse = _unparsed
        self.is_ordered = False


def _unparsed(message: bytes) -> Parsed:
    return 0, 0, 0, message


def _as_it_is(answer: Any) -> Any:
    return answer


def _tell(calls: list[Call]) -> None:
    for call in calls:
        future = call.future
        if future is None or future.done():
            continue
        if call.error is None:
            future.set_result(call.answer)
        else:
            future.set_exception(call.error)


def _refuse_in_child() -> None:
    for client in list(_clients):
        client.refuse_in_child()


os.register_at_fork(after_in_child=_refuse_in_child)
