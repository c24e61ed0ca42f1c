"""Histories of clients of a cluster while its members and connections fail, and what judges them.

    clients (threads, tasks), watches, keep-alives ──> a proxy before each member ──> the cluster
                                                            ^ a fault                    ^ a fault

A history begins with an empty store, whatever was there before: its revisions are counted from that one on. A call
that raises ``OutcomeUnknown`` stays open for the checker; one that raises ``Unavailable`` promises that nothing was
done, and is left out. What really happened is told by a watch that no proxy disturbs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import Any, Literal

import kvstore
from kvstore.aio import AsyncStore
from kvstore.errors import Compacted, DeadlineExceeded, OutcomeUnknown, Unavailable
from kvstore.model import WatchResponse
from kvstore.store import Store
from tests.etcd.etcd_cluster import ELECTION_SECONDS, ROOT, TOKEN_TTL_SECONDS, Cluster, users
from tests.harness.checkers import linearizability, revision_order
from tests.harness.checkers.store_model import Answer, ChangeLog, Event, Get, KeyValue, Put, Request, Txn
from tests.harness.checkers.watch_validators import WatchRecord, WatchRequest, validate
from tests.harness.cutting_proxy import CuttingProxy, Fault
from tests.harness.drawn_operations import draw, perform, perform_async
from tests.harness.watching import model_event, model_kv, recorded
from tests.remote.watched import Recorder, read_until, until

THREADS = TASKS = 2
TTL_SECONDS = 60
PATIENT: dict[str, Any] = {"timeout_seconds": 30}
HASTY: dict[str, Any] = {"timeout_seconds": 1.5, "dial_timeout_seconds": 0.5}
"""Elections take half a second, what waits for a dead leader seven: clients give that up."""
WATCHES = (
    WatchRequest(b"\0", b"\0", 2, prev_kv=True),
    WatchRequest(b"a", None, 2),
    WatchRequest(b"a", b"c", 2, filters=frozenset({"delete"})),
)
LAST = Put(b"a", b"the last")
"""What every watch hears of."""


class History:
    """One history. Made by ``lived``; afterwards ``found`` has what cannot be."""

    def __init__(self, cluster: Cluster, seed: str, login: dict[str, Any]) -> None:
        self.cluster = cluster
        self.seed = seed
        self.chance = Random(seed)
        self.proxies = [CuttingProxy(*member.address) for member in cluster.members]
        self.direct = kvstore.connect(cluster.url, **PATIENT, **login)
        self.outcomes = {"answered": 0, "unknown": 0, "refused": 0, "kept": 0}
        self.errors: list[BaseException] = []
        """What no client may ever see."""
        self.compacted: int = 0
        """The revision of a compaction that watches cannot have followed; 0: there is none."""
        self._login = login
        self._recorder: linearizability.Recorder[Request, Answer] = linearizability.Recorder()
        self.found: list[object] = []
        """What cannot be, once it is judged."""
        self._over = threading.Event()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._base = self.direct.delete(prefix=b"").revision - 1
        self._last_seen: dict[bytes, int] = {}
        self._truth: list[Event] = []
        self._stores = [self.connect() for _ in range(THREADS + 2)]
        self._lease = self.direct.grant_lease(TTL_SECONDS).id
        self._watches = [
            self._watch(self._stores[THREADS + number % 2], one) for number, one in enumerate(WATCHES)
        ]
        work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            *((self._work, (store, f"{number}")) for number, store in enumerate(self._stores[:THREADS])),
            (self._run_tasks, ()),
            (self._keep_alive, (self._stores[THREADS],)),
        ]
        self._threads = [threading.Thread(target=self._guard, args=each, daemon=True) for each in work]

    @property
    def url(self) -> str:
        """Of the proxies."""
        return f"etcd://{','.join('{}:{}'.format(*proxy.address) for proxy in self.proxies)}"

    def connect(self) -> Store:
        """A client. A cluster that has just got well may let it wait for longer than it is willing to."""
        while True:
            try:
                return kvstore.connect(self.url, **HASTY, **self._login)
            except (Unavailable, DeadlineExceeded):
                continue

    # --- what a fault needs -----------------------------------------------------------

    def progress(self, count: int = 10) -> None:
        """Wait until clients have been answered so often."""
        wanted = self.outcomes["answered"] + count
        until(lambda: self.errors or self.outcomes["answered"] >= wanted)

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut(self.chance.choice(["cut", "reset"]))

    def pause(self, seconds: float) -> None:
        """Nobody asks anything for so long."""
        self._goes_on.clear()
        time.sleep(seconds)
        self._goes_on.set()

    def write(self, request: Request) -> int:
        """By a client that no fault disturbs. The cluster's revision."""
        answer = self._recorder.perform(request, lambda: self._moved(perform(self.direct, request)), "direct")
        return (answer.revision or 0) + self._base

    def note_truth(self) -> int:
        """Keep what has happened up to now, before it can be compacted away. The newest revision."""
        last = self.direct.revision
        first = self._base + 2 + (self._truth[-1].revision - 1 if self._truth else 0)
        if last >= first:
            with self.direct.watch(prefix=b"", start_revision=first, prev_kv=False) as watch:
                self._truth += [self._event(each) for each in _events_until(watch, last)]
        return last

    # --- clients ----------------------------------------------------------------------

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.end()
        for _, recorder in self._watches:
            recorder.watch.close()
        for store in (*self._stores, self.direct):
            store.close()
        for proxy in self.proxies:
            proxy.close()

    def _guard(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self.errors.append(error)

    def _work(self, store: Store, name: str) -> None:
        for request, asked in self._requests(name):
            ticket = self._recorder.called(request, name)
            with self._outcome(request, ticket):
                self._answered(request, ticket, perform(store, asked))

    def _run_tasks(self) -> None:
        async def task(store: AsyncStore, name: str) -> None:
            for request, asked in self._requests(name):
                ticket = self._recorder.called(request, name)
                with self._outcome(request, ticket):
                    self._answered(request, ticket, await perform_async(store, asked))
                await asyncio.sleep(0)

        async def run() -> None:
            async with await self._connect_async() as store:
                await asyncio.gather(*(task(store, f"task {number}") for number in range(TASKS)))

        asyncio.run(run())

    async def _connect_async(self) -> AsyncStore:
        while True:
            try:
                return await kvstore.connect_async(self.url, **HASTY, **self._login)
            except (Unavailable, DeadlineExceeded):
                continue

    def _keep_alive(self, store: Store) -> None:
        while not self._over.wait(0.02):
            self._goes_on.wait()
            try:
                answer = store.keep_alive(self._lease)
            except (Unavailable, DeadlineExceeded):
                continue
            assert answer.ttl == TTL_SECONDS
            self.outcomes["kept"] += 1

    def _requests(self, name: str) -> Iterator[tuple[Request, Request]]:
        """Random requests, and the same in revisions of the cluster."""
        chance = Random(f"{self.seed} {name}")
        turn = 0
        while not self._over.is_set():
            self._goes_on.wait()
            request = draw(chance, f"{name}.{turn}")
            if isinstance(request, Txn) and request.compare[0].target == "mod_revision":
                known = self._last_seen.get(request.compare[0].key, 0)
                asked = known + self._base if known else 0
                yield _guarded(request, known), _guarded(request, asked)
            else:
                yield request, request
            turn += 1
            time.sleep(0.001)

    @contextmanager
    def _outcome(self, request: Request, ticket: int) -> Iterator[None]:
        """What the checker has to know of a call that fails."""
        try:
            yield
        except OutcomeUnknown:
            assert not isinstance(request, Get)
            self.outcomes["unknown"] += 1
        except Unavailable:
            self._recorder.refuse(ticket)
            self.outcomes["refused"] += 1
        except DeadlineExceeded:
            assert isinstance(request, Get)
            self._recorder.refuse(ticket)
            self.outcomes["refused"] += 1

    def _answered(self, request: Request, ticket: int, answer: Answer) -> None:
        answer = self._moved(answer)
        self._recorder.returned(ticket, answer)
        if isinstance(request, Get):
            self._last_seen.update((kv.key, kv.mod_revision) for kv in answer.kvs)
        self.outcomes["answered"] += 1

    # --- revisions of the cluster as those of a store that began empty -------------------

    def _moved(self, answer: Answer) -> Answer:
        return replace(
            answer,
            revision=None if answer.revision is None else answer.revision - self._base,
            kvs=tuple(map(self._kv, answer.kvs)),
            answers=tuple(map(self._moved, answer.answers)),
        )

    def _kv(self, kv: KeyValue) -> KeyValue:
        created = kv.create_revision and kv.create_revision - self._base
        return replace(kv, create_revision=created, mod_revision=kv.mod_revision - self._base)

    def _event(self, event: Event) -> Event:
        before = event.prev_kv and self._kv(event.prev_kv)
        return replace(event, kv=self._kv(event.kv), prev_kv=before)

    # --- watches and judgement ----------------------------------------------------------

    def _watch(self, store: Store, request: WatchRequest) -> tuple[WatchRequest, Recorder]:
        watch = store.watch(
            request.key,
            request.range_end,
            start_revision=request.start_revision + self._base,
            prev_kv=request.prev_kv,
            no_delete="delete" in request.filters,
        )
        return request, Recorder(watch)

    def judge(self) -> list[object]:
        """What cannot be, or was promised otherwise."""
        last = self.write(LAST)
        self.note_truth()
        log = ChangeLog(self._truth, max(self.compacted - self._base, 0))
        found: list[object] = [*self.errors, *revision_order.check(self._recorder.history(), log)]
        now = self.direct.range(prefix=b"").kvs
        if tuple(self._kv(model_kv(kv)) for kv in now) != log.select(b"\0", b"\0", log.revision):
            found.append(f"the store has {now}, which the watch of it has not")
        for request, recorder in self._watches:
            found += self._judge_watch(request, recorder, last, log)
        return found

    def _judge_watch(
        self, request: WatchRequest, recorder: Recorder, last: int, log: ChangeLog
    ) -> list[object]:
        if not self.compacted:
            return [*validate(self._record(request, recorder.up_to(last)), log)]
        until(lambda: recorder.error)
        error = recorder.error
        if not isinstance(error, Compacted) or error.compact_revision != self.compacted:
            return [error]
        later = replace(request, start_revision=self.compacted - self._base)
        again = self._watch(self._stores[THREADS], later)[1].up_to(last)
        records = [self._record(request, recorder.responses), self._record(later, again)]
        return [wrong for record in records for wrong in validate(record, log)]

    def _record(self, request: WatchRequest, responses: list[WatchResponse]) -> WatchRecord:
        record: WatchRecord = recorded(request, [each for each in responses if not each.canceled])
        moved = (
            replace(
                response,
                revision=response.revision - self._base,
                events=tuple(map(self._event, response.events)),
            )
            for response in record.responses
        )
        return replace(record, responses=tuple(moved))


def _guarded(request: Txn, mod_revision: int) -> Txn:
    return replace(request, compare=(replace(request.compare[0], operand=mod_revision),))


def _events_until(watch: Any, last: int) -> list[Event]:
    return [model_event(event) for response in read_until(watch, last) for event in response.events]


# --- faults -----------------------------------------------------------------------------


def kill_leader(history: History) -> None:
    history.cluster.leader().kill()


def kill_follower(history: History) -> None:
    history.cluster.follower().kill()


def stop_leader(history: History) -> None:
    """For three election timeouts."""
    history.cluster.leader().stop()
    time.sleep(3 * ELECTION_SECONDS)


def stop_follower(history: History) -> None:
    history.cluster.follower().stop()
    time.sleep(3 * ELECTION_SECONDS)


def terminate_leader(history: History) -> None:
    history.cluster.leader().terminate()


def restart_all(history: History) -> None:
    """One after the other, as for an upgrade."""
    for member in history.cluster.members:
        member.terminate()
        history.progress(3)
        history.cluster.restore()


def lose_majority(history: History) -> None:
    """Two of three are gone for a while."""
    for member in history.chance.sample(history.cluster.members, 2):
        member.kill()
    time.sleep(2 * ELECTION_SECONDS)
    history.cluster.restore()


def cut_connections(history: History) -> None:
    for _ in range(10):
        history.cut()
        history.progress(3)


def cut_requests(history: History) -> None:
    """Within what goes to the server, so that a frame comes by halves or a request has no answer."""
    _cut_within(history, "up", 4)


def cut_answers(history: History) -> None:
    """After a request was carried out, before its answer has come, or in the middle of that."""
    _cut_within(history, "down", 4)


def _cut_within(history: History, direction: Literal["up", "down"], rounds: int) -> None:
    chance = history.chance
    for _ in range(rounds):
        for proxy in history.proxies:
            how: Any = [chance.choice(["cut", "reset"]) for _ in range(5)]
            proxy.plan(*(Fault(direction, chance.randrange(200, 3000), each) for each in how))
        history.cut()
        history.progress(5)


def stall_connections(history: History) -> None:
    """Nothing passes, and no connection ends."""
    for proxy in history.proxies:
        proxy.plan(
            *[Fault(history.chance.choice(["up", "down"]), history.chance.randrange(200, 2000), "stall")] * 2
        )
    history.cut()
    history.progress(5)
    for proxy in history.proxies:
        proxy.forget_plans()


def compact_during_a_cut(history: History) -> None:
    """What watches have not seen is compacted before they can come back."""
    for proxy in history.proxies:
        proxy.refuse()
    history.cut()
    for number in range(4):
        history.write(Put(b"a", b"unseen %d" % number))
    history.compacted = history.note_truth()
    history.direct.compact(history.compacted)
    for proxy in history.proxies:
        proxy.refuse(False)


def let_tokens_expire(history: History) -> None:
    """Nobody asks for longer than a token lives; then a member forgets those of everybody."""
    history.pause(TOKEN_TTL_SECONDS + 1.5)
    history.progress()
    history.cluster.follower().kill()


FAULTS: tuple[Callable[[History], None], ...] = (
    kill_leader,
    kill_follower,
    stop_leader,
    stop_follower,
    terminate_leader,
    restart_all,
    lose_majority,
    cut_connections,
    cut_requests,
    cut_answers,
    stall_connections,
    compact_during_a_cut,
    let_tokens_expire,
)


def lived(cluster: Cluster, fault: Callable[[History], None], seed: str) -> History:
    """A history in which this happens; it is over, and judged."""
    with ExitStack() as stack:
        has_users = fault is let_tokens_expire
        if has_users:
            stack.enter_context(users(cluster))
        history = History(cluster, seed, ROOT if has_users else {})
        stack.callback(history.close)
        history.start()
        history.progress()
        try:
            fault(history)
            history.progress()
        finally:
            cluster.restore()
        history.progress()
        history.end()
        history.found = history.judge()
    return history
