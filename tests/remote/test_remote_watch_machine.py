"""The machine behind remote watches, against a scripted server: every cut, full buffers, refusals, notices."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from kvstore.errors import Corruption, WrongStore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.model import WatchPosition, WatchRequest, WatchResponse
from kvstore.network.remote.watch_machine import RemoteWatch, State, WatchMachine
from tests.remote.scripted_watch import EVERYTHING, Change, Consumer, ScriptedServer, converse, history

LAST = 13
ROOM_BYTES = 1 << 20


@dataclass
class Watching:
    """A machine with watches, a consumer and a server."""

    consumer: Consumer
    server: ScriptedServer

    @classmethod
    def of(cls, *watches: tuple[WatchRequest, WatchPosition], room_bytes: int = ROOM_BYTES) -> Watching:
        self = cls(Consumer(), ScriptedServer(history(LAST)))
        for number, (request, start) in enumerate(watches):
            self.consumer.machine.create(RemoteWatch(number, request, room_bytes, self.consumer), start)
        return self

    def run(self, responses: int | None = None) -> int:
        """Connect and go on, until nothing is left to say, or so many responses have come. Returns how many have."""
        machine, count = self.consumer.machine, 0
        self.server.connect()
        machine.opened()

        def is_over() -> bool:
            nonlocal count
            count += 1
            return responses is not None and count > responses

        converse(machine, self.server, is_over)
        return count - 1

    def cut(self) -> None:
        self.consumer.machine.lost()


ONE_KEY = WatchRequest(b"k1")
TWO = ((EVERYTHING, WatchPosition(2)), (ONE_KEY, WatchPosition(4)))


def expected(request: WatchRequest, start: int) -> list[Change]:
    return [
        change
        for change in history(LAST)
        if change[0] >= start and (request is EVERYTHING or change[1] == request.key)
    ]


def responses_of_a_run() -> int:
    return Watching.of(*TWO).run()


@pytest.mark.parametrize("first_cut", range(responses_of_a_run() + 1))
def test_nothing_is_lost_or_repeated_wherever_the_connection_is_cut(first_cut: int) -> None:
    """Before a create is answered, after it, between fragments, between events; and then once more."""
    for second_cut in range(responses_of_a_run() + 1):
        watching = Watching.of(*TWO)
        for responses in (first_cut, second_cut):
            watching.run(responses)
            watching.cut()
        watching.run()
        for number, (request, start) in enumerate(TWO):
            assert watching.consumer.changes(number) == expected(request, start.revision)
            created = [each for of, each in watching.consumer.responses if of == number and each.created]
            assert len(created) == 1


def test_a_revision_comes_whole_in_one_response() -> None:
    """However it was cut into fragments, and however the connection was."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    for responses in range(1, 6):
        watching.run(responses)
        watching.cut()
    watching.run()
    seen: set[int] = set()
    for _, response in watching.consumer.responses:
        revisions = {event.kv.mod_revision for event in response.events}
        assert not revisions & seen
        seen |= revisions
        if revisions:
            assert response.revision == max(revisions)


def test_watches_are_created_one_at_a_time_in_their_order() -> None:
    """The next is asked for when the one before was answered, on every connection."""
    watching = Watching.of(*[(WatchRequest(b"k%d" % number), WatchPosition(2)) for number in range(3)])
    machine, server = watching.consumer.machine, watching.server
    for _ in range(2):
        server.connect()
        machine.opened()
        asked = 0
        while machine.out:
            assert len(machine.out) == 1
            server.receive(machine.out.pop())
            asked += 1
            created = server.out.popleft()
            server.out.clear()
            machine.received(created)
        assert server.log == [f"create k{number} from 2" for number in range(3)]
        assert asked == 3
        machine.lost()


def test_a_watch_resumes_after_its_last_whole_response() -> None:
    """From the revision after the last event, not from the header's."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    watching.run(3)  # created, and the two fragments of revisions 2 and 3
    watching.cut()
    watching.run(0)
    assert watching.server.log == []
    watching.server.connect()
    watching.consumer.machine.lost()
    watching.run(1)
    assert watching.server.log == ["create \0 from 4"]


def test_a_watch_begins_in_the_middle_of_a_revision() -> None:
    """``start_sub`` counts the watch's events of the first revision; a cut before them changes nothing."""
    start = WatchPosition(6, 2)
    for responses in range(4):
        watching = Watching.of((EVERYTHING, start))
        watching.run(responses)
        watching.cut()
        watching.run()
        of_six = [change for change in history(LAST) if change[0] == 6]
        later = [change for change in history(LAST) if change[0] > 6]
        assert watching.consumer.changes(0) == of_six[2:] + later


def test_a_position_names_each_event() -> None:
    """Revision, and number of the event in its revision."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    watching.run()
    positions = []
    for _, response in watching.consumer.responses:
        positions += [response.events.position(at) for at in range(len(response.events))]  # type: ignore[attr-defined]
    of_revision: dict[int, int] = {}
    for revision, sub in positions:
        assert sub == of_revision.get(revision, -1) + 1
        of_revision[revision] = sub


def test_a_compaction_ends_the_watch_and_says_so() -> None:
    """While it was cut off the server forgot what it had not sent: no jump."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    watching.run(3)
    watching.cut()
    watching.server.compact_revision = 9
    watching.run()
    number, last = watching.consumer.responses[-1]
    assert (number, last.canceled, last.compact_revision) == (0, True, 9)
    assert max(change[0] for change in watching.consumer.changes(0)) == 3
    watching.cut()
    assert not watching.consumer.machine.needs_stream


def test_a_full_watch_is_canceled_and_goes_on_when_there_is_room() -> None:
    """The server is told to stop, nothing is kept beyond that, and nothing is missing in the end."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)), room_bytes=60)
    consumer = watching.consumer
    consumer.takes = False
    watching.run()
    (watch,) = consumer.watches
    assert watching.server.log == ["create \0 from 2", "cancel 0"]
    rounds = 0
    while watch.state is State.PAUSED:
        assert watch.buffered_bytes < 4 * watch.room_bytes
        consumer.take()
        consumer.machine.drained(watch)
        converse(consumer.machine, watching.server)
        rounds += 1
        assert rounds < 20
    consumer.take()
    assert rounds > 1
    assert consumer.changes(0) == history(LAST)


def test_a_full_watch_that_is_cut_off_waits_for_room() -> None:
    """Only those that have room are created again."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)), room_bytes=60)
    consumer = watching.consumer
    consumer.takes = False
    watching.run()
    watching.cut()
    assert not consumer.machine.needs_stream
    consumer.take()
    consumer.machine.drained(next(iter(consumer.watches)))
    consumer.takes = True
    watching.run()
    assert consumer.changes(0) == history(LAST)


def test_a_canceled_watch_is_canceled_at_the_server() -> None:
    """Whether it was created there or the answer was still due."""
    for responses in (0, 1, 3):
        watching = Watching.of((EVERYTHING, WatchPosition(2)))
        machine = watching.consumer.machine
        watching.run(responses)
        if not responses:
            watching.server.receive(machine.out.pop()) if machine.out else None
        before = len(watching.consumer.responses)
        machine.cancel(*watching.consumer.watches)
        converse(machine, watching.server)
        assert watching.server.log == ["create \0 from 2", "cancel 0"]
        assert len(watching.consumer.responses) == before
        watching.cut()
        assert not machine.needs_stream


@pytest.mark.parametrize("takes", [True, False])
def test_a_watch_moves_to_another_stream_at_any_moment(takes: bool) -> None:
    """Before it is created, between fragments, stopped or paused: nothing is lost or repeated, and the first server is
    told that nobody watches any more."""
    for responses in range(responses_of_a_run() + 1):
        here = Watching.of((EVERYTHING, WatchPosition(2)), room_bytes=ROOM_BYTES if takes else 60)
        here.consumer.takes = takes
        here.run(responses)
        consumer, there = here.consumer, Watching(Consumer(WatchMachine(7)), ScriptedServer(history(LAST)))
        (watch,) = consumer.watches
        here.consumer.machine.cancel(watch)
        there.consumer.machine.adopt(watch)
        there.run()
        converse(consumer.machine, here.server)
        for _ in range(20):
            consumer.takes = True
            consumer.take()
            there.consumer.machine.drained(watch)
            converse(there.consumer.machine, there.server)
        assert consumer.changes(0) == history(LAST)
        assert not here.server.watches and not here.consumer.machine.needs_stream
        assert len([each for _, each in consumer.responses if each.created]) == 1


def test_a_token_error_asks_for_another_stream() -> None:
    """The watch is created again on the next one; in Go's words or in plain ones."""
    for reason in (
        "etcdserver: invalid auth token",
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
    ):
        watching = Watching.of((EVERYTHING, WatchPosition(2)))
        watching.server.refusals.append(reason)
        watching.run()
        assert watching.consumer.machine.refused in reason
        assert watching.consumer.responses == []
        watching.cut()
        watching.run()
        assert watching.consumer.machine.refused == ""
        assert watching.consumer.changes(0) == history(LAST)


def test_a_watch_that_is_not_permitted_ends_alone() -> None:
    """Its last response says why; the next watch is created."""
    watching = Watching.of(*TWO)
    watching.server.refusals.append("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    watching.run()
    assert watching.consumer.responses[0] == (
        0,
        WatchResponse(LAST, (), True, 0, "etcdserver: permission denied", True),
    )
    assert watching.consumer.changes(1) == expected(ONE_KEY, 4)


def progress_of(watching: Watching, *, trusts: bool) -> list[WatchResponse]:
    watching.run()
    machine = watching.consumer.machine
    machine.ask_progress()
    assert machine.out == []
    machine.trust_progress(trusts)
    converse(machine, watching.server)
    return [response for number, response in watching.consumer.responses if number == -1]


def test_a_notice_moves_every_watch() -> None:
    """After it, each resumes behind the notice's revision."""
    watching = Watching.of(
        (WatchRequest(b"k1"), WatchPosition(2)), (WatchRequest(b"nothing"), WatchPosition(2))
    )
    assert progress_of(watching, trusts=True) == [WatchResponse(LAST)]
    watching.cut()
    watching.run()
    assert watching.server.log == [f"create k1 from {LAST + 1}", f"create nothing from {LAST + 1}"]


def test_a_notice_that_is_not_believed_says_what_has_come() -> None:
    """A server that is old may send it ahead of events: it moves no watch."""
    watching = Watching.of((WatchRequest(b"nothing"), WatchPosition(2)))
    assert progress_of(watching, trusts=False) == [WatchResponse(1)]
    watching.cut()
    watching.run()
    assert watching.server.log == ["create nothing from 2"]


def test_a_question_for_progress_outlives_its_connection() -> None:
    """It is asked again on the next one, once all watches are there."""
    watching = Watching.of(*TWO)
    watching.run()
    watching.consumer.machine.ask_progress()
    watching.cut()
    watching.run()
    watching.consumer.machine.trust_progress(True)
    converse(watching.consumer.machine, watching.server)
    assert watching.consumer.responses[-1] == (-1, WatchResponse(LAST))
    assert watching.server.log[-1] == "progress"


def test_a_second_question_gets_an_answer_of_its_own() -> None:
    """The answer to the first may be older than it."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    watching.run()
    machine = watching.consumer.machine
    machine.ask_progress()
    machine.trust_progress(True)
    machine.ask_progress()
    converse(machine, watching.server)
    assert watching.server.log[-2:] == ["progress", "progress"]


def test_a_periodic_notice_moves_its_watch() -> None:
    """And nothing goes back: one that is older than what has come, or has no revision, is dropped."""
    watching = Watching.of((WatchRequest(b"nothing"), WatchPosition(2)), (EVERYTHING, WatchPosition(2)))
    watching.run()
    for number, revision in ((0, 11), (1, 0), (1, 5), (0, 9)):
        watching.server.say(number, revision)
    converse(watching.consumer.machine, watching.server)
    notices = [each for each in watching.consumer.responses if not (each[1].events or each[1].created)]
    assert notices == [(0, WatchResponse(11))]
    watching.cut()
    watching.run(1)
    assert watching.server.log[0] == "create nothing from 12"


def test_another_cluster_is_refused() -> None:
    """A watch does not go on in a store that has other revisions."""
    watching = Watching.of((EVERYTHING, WatchPosition(2)))
    watching.run()
    other = pb.WatchResponse(header={"cluster_id": 8, "revision": 99}, events=[]).SerializeToString()
    with pytest.raises(WrongStore, match="cluster 8"):
        watching.consumer.machine.received(other)


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x0a\x05\x08", pb.WatchResponse(created=True).SerializeToString()]
)
def test_what_is_no_answer_is_refused(message: bytes) -> None:
    """Bytes that are no response, and a watch that nobody asked for."""
    watching = Watching.of()
    watching.run()
    with pytest.raises(Corruption):
        watching.consumer.machine.received(message)


class Storm:
    """Anything in any order: single messages, cuts, writes, consumers that stop taking, watches that come and go."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.consumer = Consumer()
        self.machine = self.consumer.machine
        self.server = ScriptedServer(history(LAST))
        self.watches: dict[int, tuple[RemoteWatch, WatchPosition]] = {}
        self.canceled: set[int] = set()
        self.is_open = False
        self.moves = [self.create, self.cut, self.write, self.take, self.stop_taking, self.cancel, self.ask]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.random.random() < 0.7:
                self.step()
            else:
                self.random.choice(self.moves)()
        self.settle()

    def step(self) -> None:
        """One message either way."""
        if not self.is_open:
            if self.machine.needs_stream:
                self.server.connect()
                self.machine.opened()
                self.machine.trust_progress(True)
                self.is_open = True
        elif self.machine.out:
            self.server.receive(self.machine.out.pop(0))
        elif self.server.out:
            self.machine.received(self.server.out.popleft())

    def create(self) -> None:
        number = len(self.watches)
        request = self.random.choice([EVERYTHING, ONE_KEY, WatchRequest(b"k0", b"k2")])
        start = WatchPosition(self.random.randrange(2, self.server.revision + 3))
        watch = RemoteWatch(number, request, self.random.choice([50, 200, ROOM_BYTES]), self.consumer)
        self.watches[number] = watch, start
        self.machine.create(watch, start)

    def cut(self) -> None:
        self.machine.lost()
        self.is_open = False

    def write(self) -> None:
        revision = self.server.revision + 1
        changes = [(revision, b"k%d" % number, b"w") for number in range(3) if self.random.random() < 0.6]
        if changes:
            self.server.write(*changes)

    def take(self) -> None:
        self.consumer.takes = True
        self.consumer.take()
        for watch, _ in self.watches.values():
            if watch.is_full and watch.has_room:
                self.machine.drained(watch)

    def stop_taking(self) -> None:
        self.consumer.takes = False

    def cancel(self) -> None:
        if self.watches:
            number = self.random.choice(list(self.watches))
            self.canceled.add(number)
            self.machine.cancel(self.watches[number][0])

    def ask(self) -> None:
        self.machine.ask_progress()

    def settle(self) -> None:
        """Let everything come."""
        quiet = 0
        while quiet < 3:
            self.take()
            before = len(self.consumer.responses), len(self.server.log)
            while self.is_talking() if self.is_open else self.machine.needs_stream:
                self.step()
            self.take()
            quiet = quiet + 1 if before == (len(self.consumer.responses), len(self.server.log)) else 0

    def is_talking(self) -> bool:
        return bool(self.machine.out or self.server.out)


def storm(seed: int) -> None:
    """All changes, once, in order, of those that were not canceled; no more than a beginning of those of others."""
    found = Storm(seed)
    found.run(150)
    for number, (watch, start) in found.watches.items():
        key, end = watch.request.key, watch.request.range_end
        due = [
            change
            for change in found.server.changes
            if change[0] >= start.revision
            and key <= change[1]
            and (end == b"\0" or change[1] < (end or key + b"\0"))
        ]
        came = found.consumer.changes(number)
        assert came == (due[: len(came)] if number in found.canceled else due), (
            f"watch {number} of seed {seed}"
        )
        created = [each for of, each in found.consumer.responses if of == number and each.created]
        assert len(created) <= 1
    notices = [each.revision for of, each in found.consumer.responses if of == -1]
    assert notices == sorted(notices)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_or_repeated_in_a_storm(seed: int) -> None:
    """Ten storms each."""
    for number in range(10):
        storm(10 * seed + number)


@pytest.mark.soak
def test_nothing_is_lost_or_repeated_in_many_storms() -> None:
    """The same, for long."""
    for seed in range(1_000, 11_000):
        storm(seed)
