"""A load generator for etcd's API, in a process of its own.

    python -m kvstore.tools.lab.benchmarks.etcd_load '{...}'

Takes one job as JSON and prints what it measured as JSON. ``clients`` calls are always in flight, spread over
``connections``; whenever one returns the next goes out. ``server`` is the process whose CPU time is taken.

    {"job": "put",    "clients": 64, "connections": 8, "seconds": 2, "keys": 100000}    random keys
    {"job": "range",  ... as put}                                                       one random key each
    {"job": "txn",    ... as put}                                                       100 puts each
    {"job": "update", ... as put}          kube-apiserver's: if mod_revision is what it was, put, else range
    {"job": "keepalive", ... without keys}                 a stream for each client, which renews its lease
    {"job": "fanout", "streams": 10, "watches": 100, "seconds": 2}
                                           every watch sees every put; the next goes out when all have seen it
    {"job": "beside", "seconds": 2, "keys": 100000}        single reads while one range of everything follows another
    {"job": "fill",   "keys": 100000}                      every key once, in transactions of 100
    {"job": "single", "count": 100000, "keys": 1000}       ``count`` puts, one revision each
    {"job": "replay", "events": 1000000}                   watch from revision 1 until ``events`` events have come
    {"job": "live",   "events": 200000, "clients": 4, "together": 100}
                                           watch while transactions of 100 puts (1: single puts) are written
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from kvstore.model import prefix_end
from kvstore.wire import bytes_field, int_field

from .http2 import Broken, Call, header_block, more, prepared
from .load_loop import Client, GoOn, Line, Loop
from .server import RANGE
from .workload import PREFIX, TXN_PUTS, Pair, Workload, values

PUT = header_block("/etcdserverpb.KV/Put")
TXN = header_block("/etcdserverpb.KV/Txn")
WATCH = header_block("/etcdserverpb.Watch/Watch")
GRANT = header_block("/etcdserverpb.Lease/LeaseGrant")
KEEP_ALIVE = header_block("/etcdserverpb.Lease/LeaseKeepAlive")

PREPARED_CALLS = 10_000
"""This many different ones, again and again."""
KEYS_PER_UPDATER = 4
LEASE_SECONDS = 120
WATCHED = b"/watched"

Job = dict[str, Any]
Result = dict[str, float]


def put_message(pair: Pair) -> bytes:
    return bytes_field(1, pair[0]) + bytes_field(2, pair[1])


def txn_message(pairs: list[Pair]) -> bytes:
    """TxnRequest.success = RequestOp.request_put ..."""
    return b"".join(bytes_field(2, bytes_field(2, put_message(pair))) for pair in pairs)


def update_message(key: bytes, value: bytes, revision: int) -> bytes:
    """TxnRequest: compare mod_revision, success: request_put, failure: request_range."""
    compare = int_field(2, 2) + bytes_field(3, key) + int_field(6, revision)
    return (
        bytes_field(1, compare)
        + bytes_field(2, bytes_field(2, put_message((key, value))))
        + bytes_field(3, bytes_field(1, bytes_field(1, key)))
    )


def _loop(job: Job, lines: int) -> Loop:
    return Loop(job["port"], lines, job["server"])


def _for_seconds(job: Job) -> GoOn:
    end = time.perf_counter() + job["seconds"]
    return lambda: time.perf_counter() < end


# --- unary calls -----------------------------------------------------------------------


def unary(make: Callable[[Workload], Call], count: int, job: Job) -> Result:
    """``count`` different calls, again and again, for ``seconds``."""
    workload = Workload(job["keys"])
    calls = itertools.cycle([make(workload) for _ in range(count)])
    loop, took = _loop(job, job["connections"]), list[float]()
    clients = [Client(calls, took) for _ in range(job["clients"])]
    with loop.measured():
        loop.run(clients, _for_seconds(job))
    return loop.result(len(took), took)


def _put(workload: Workload) -> Call:
    return prepared(PUT, put_message(workload.pair()))


def _range(workload: Workload) -> Call:
    return prepared(RANGE, bytes_field(1, workload.pair()[0]))


def _txn(workload: Workload) -> Call:
    return prepared(TXN, txn_message(workload.batch()))


def _to_the_end(job: Job, calls: Iterable[Call], lines: int, clients: int) -> Result:
    loop, took = _loop(job, lines), list[float]()
    remaining = iter(calls)
    with loop.measured():
        loop.run([Client(remaining, took) for _ in range(clients)], lambda: True)
    return loop.result(len(took), took)


def fill(job: Job) -> Result:
    calls = (prepared(TXN, txn_message(pairs)) for pairs in Workload(job["keys"]).all_pairs())
    return _to_the_end(job, calls, 4, 16)


def single(job: Job) -> Result:
    workload = Workload(job["keys"])
    return _to_the_end(job, (_put(workload) for _ in range(job["count"])), 8, 64)


class Updater(Client):
    """Writes its own keys in turns, each the first time by a put, whose answer says the revision to compare with."""

    def __init__(self, keys: list[bytes], took: list[float]) -> None:
        super().__init__(iter(()), took)
        self._keys = itertools.cycle(keys)
        self._unknown = set(keys)
        self._revisions: dict[bytes, int] = {}
        self._values = itertools.cycle(values())
        self._key = b""

    @property
    def knows_all(self) -> bool:
        return not self._unknown

    def next(self) -> Call:
        self._key, value = next(self._keys), next(self._values)
        revision = self._revisions.get(self._key)
        if revision is None:
            return prepared(PUT, put_message((self._key, value)))
        return prepared(TXN, update_message(self._key, value, revision))

    def heard(self, data: bytes) -> None:
        revision, has_succeeded = revision_of(data)
        if self._key in self._revisions and not has_succeeded:
            raise Broken("the key has another revision than the server said")
        self._revisions[self._key] = revision
        self._unknown.discard(self._key)


def revision_of(data: bytes) -> tuple[int, bool]:
    """What the header of an answer says, and whether a transaction has succeeded: 0 ‖ length ‖ message."""
    at, end = 7, 7 + data[6]
    fields = {}
    while at < end:
        tag, value, shift, at = data[at], 0, 0, at + 1
        while data[at] & 0x80:
            value |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
        fields[tag >> 3] = value | data[at] << shift
        at += 1
    return fields[3], data[end : end + 2] == b"\x10\x01"


def update(job: Job) -> Result:
    clients = job["clients"]
    names = [b"/registry/leases/%04d" % number for number in range(clients * KEYS_PER_UPDATER)]
    took: list[float] = []
    updaters = [Updater(names[number::clients], took) for number in range(clients)]
    loop = _loop(job, job["connections"])
    loop.run(updaters, lambda: not all(updater.knows_all for updater in updaters))
    took.clear()
    with loop.measured():
        loop.run(updaters, _for_seconds(job))
    return loop.result(len(took), took)


def beside(job: Job) -> Result:
    """What is counted is the single reads; ``large_ranges`` of the others came to their end."""
    everything = prepared(RANGE, bytes_field(1, PREFIX) + bytes_field(2, prefix_end(PREFIX)))
    large, small = list[float](), list[float]()
    workload = Workload(job["keys"])
    singles = itertools.cycle([_range(workload) for _ in range(PREPARED_CALLS)])
    loop = _loop(job, 2)
    clients = [Client(itertools.repeat(everything), large), Client(singles, small)]
    go_on = _for_seconds(job)
    with loop.measured():
        loop.run(clients, lambda: go_on() or not large)
    return {**loop.result(len(small), small), "large_ranges": len(large)}


# --- streams ---------------------------------------------------------------------------


class Renewing:
    """A stream that keeps one lease alive: each answer is followed by the next request."""

    def __init__(self, loop: Loop, line: Line, lease_id: int, go_on: GoOn, took: list[float]) -> None:
        request = int_field(1, lease_id)
        self._line = line
        self._again = more(request)
        self._go_on = go_on
        self._took = took
        self.is_over = False
        self._asked_at = time.perf_counter()
        self._stream = loop.open(line, prepared(KEEP_ALIVE, request, last=False), self.heard)

    def heard(self, data: bytes) -> None:
        now = time.perf_counter()
        self._took.append(now - self._asked_at)
        if self._go_on():
            self._asked_at = now
            self._line.go_on(self._stream, self._again)
        else:
            self.is_over = True


def keepalive(job: Job) -> Result:
    loop = _loop(job, job["connections"])
    first = time.time_ns() // 1000
    leases = range(first, first + job["clients"])
    grants = (prepared(GRANT, int_field(1, LEASE_SECONDS) + int_field(2, lease)) for lease in leases)
    loop.run([Client(grants, []) for _ in leases], lambda: True)
    go_on, took = _for_seconds(job), list[float]()
    lines = itertools.cycle(loop.lines)
    with loop.measured():
        streams = [Renewing(loop, next(lines), lease, go_on, took) for lease in leases]
        loop.run([], go_on, until=lambda: not all(stream.is_over for stream in streams))
    return loop.result(len(took), took)


class MessageCounter:
    """Counts the messages of a stream, which come in pieces."""

    def __init__(self) -> None:
        self.messages = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size_bytes = 0, len(data)
        while at + 5 <= size_bytes:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            if end > size_bytes:
                break
            self.messages += 1
            at = end
        self._rest = data[at:]


def fanout(job: Job) -> Result:
    """What is counted is the puts, each until all watches have seen it. The first line is the writer's."""
    loop = _loop(job, 1 + job["streams"])
    counters = [_open_watches(loop, line, job["watches"]) for line in loop.lines[1:]]
    puts = itertools.cycle([prepared(PUT, put_message((WATCHED, value))) for value in values()])
    writer, took = Client(puts, []), list[float]()
    go_on = _for_seconds(job)
    with loop.measured():
        while go_on():
            begin = time.perf_counter()
            expected = counters[0].messages + job["watches"]
            loop.run([writer], lambda: False, until=partial(_lack, counters, expected))
            took.append(time.perf_counter() - begin)
    return loop.result(len(took), took)


def _open_watches(loop: Loop, line: Line, watches: int) -> MessageCounter:
    """A stream with this many watches of one key; returns when all have begun."""
    counter = MessageCounter()
    create = bytes_field(1, bytes_field(1, WATCHED))
    stream = loop.open(line, prepared(WATCH, create, last=False), counter.feed)
    for number in range(1, watches):
        loop.run([], lambda: False, until=partial(_lack, [counter], number))
        line.go_on(stream, more(create))
        line.flush()
    loop.run([], lambda: False, until=partial(_lack, [counter], watches))
    return counter


def _lack(counters: list[MessageCounter], expected: int) -> bool:
    return any(counter.messages < expected for counter in counters)


def replay(job: Job) -> Result:
    counter = EventCounter()
    loop = _watching(job, counter, start_revision=1)
    with loop.measured():
        loop.run([], lambda: False, until=lambda: counter.events < job["events"])
    return loop.result(counter.events)


def live(job: Job) -> Result:
    counter, expected = EventCounter(), job["events"]
    loop = _watching(job, counter, start_revision=0)
    loop.run([], lambda: False, until=lambda: not counter.created)
    workload = Workload(job["keys"])
    write, together = (_put, 1) if job["together"] == 1 else (_txn, TXN_PUTS)
    calls = (write(workload) for _ in range(expected // together))
    clients = [Client(calls, []) for _ in range(job["clients"])]
    with loop.measured():
        loop.run(clients, lambda: True, until=lambda: counter.events < expected)
    return loop.result(counter.events)


def _watching(job: Job, counter: EventCounter, start_revision: int) -> Loop:
    loop = _loop(job, 4)
    create = bytes_field(1, PREFIX) + bytes_field(2, prefix_end(PREFIX)) + int_field(3, start_revision)
    loop.open(loop.lines[0], prepared(WATCH, bytes_field(1, create), last=False), counter.feed)
    return loop


class EventCounter:
    """Counts the events in a stream of WatchResponse messages, which come in pieces."""

    def __init__(self) -> None:
        self.events = 0
        self.created = False
        self._pieces = bytearray()

    def feed(self, data: bytes) -> None:
        self._pieces += data
        while len(self._pieces) >= 5:
            end = 5 + int.from_bytes(self._pieces[1:5], "big")
            if len(self._pieces) < end:
                return
            self._count(bytes(self._pieces[5:end]))
            del self._pieces[:end]

    def _count(self, message: bytes) -> None:
        """Field 11 is an event, field 3 says that the watch was created; the rest is skipped."""
        at, size_bytes = 0, len(message)
        while at < size_bytes:
            tag = message[at]
            value, shift, at = 0, 0, at + 1
            while True:
                byte = message[at]
                value |= (byte & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if byte < 0x80:
                    break
            if tag & 7 == 2:
                at += value
            self.events += tag == 0x5A
            self.created |= tag == 0x18


JOBS: dict[str, Callable[[Job], Result]] = {
    "put": partial(unary, _put, PREPARED_CALLS),
    "range": partial(unary, _range, PREPARED_CALLS),
    "txn": partial(unary, _txn, PREPARED_CALLS // TXN_PUTS),
    "update": update,
    "keepalive": keepalive,
    "fanout": fanout,
    "beside": beside,
    "fill": fill,
    "single": single,
    "replay": replay,
    "live": live,
}


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job["job"]](job)))


if __name__ == "__main__":
    main()
