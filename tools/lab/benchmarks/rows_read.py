"""Reads: of the newest revision, and of the past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from operator import attrgetter
from pathlib import Path
from random import Random

from kvstore.keyvalue import KeyValue
from kvstore.store import Store

from . import ours
from .contest import Contest, Sample, reachable, row
from .entrants import KEYS, RAW_STORE, Work, add_ours, add_peers, ours_name, peer_store
from .peers import LMDB, Peer
from .timing import rate
from .workload import Workload, values

CHUNK = 1000
RANGE_KEYS = 1000
TWO_LOOK_UPS = "lmdb, two look-ups"
VERSIONS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


def _reading(contest: Contest, work: Callable[[Store], Work]) -> Callable[[str, Path, int], Sample]:
    """Open the store, and read for as long as a sample takes. Nothing waits in memory: it was just opened."""

    def measure(backend: str, path: Path, keys: int) -> Sample:
        with ours.open_store(contest.settings, path, backend) as store:
            return rate(contest.settings.seconds, work(store))

    return measure


@row("get", "get, newest revision", "gets/s")
def get(contest: Contest) -> None:
    """One thread gets random ones of 100,000 keys and takes the value ("not looked at": leaves it undecoded); LMDB in
    a transaction of its own for each (begin and get), SQLite by a prepared point select, the others by their get."""
    keys = contest.settings.count(KEYS)
    wanted = Workload(keys).some_keys(20 * CHUNK)
    chunks = cycle([wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)])

    def lazily(store: Store) -> Work:
        def read() -> int:
            get = store.get
            for key in next(chunks):
                get(key)
            return CHUNK

        return read

    def work(store: Store) -> Work:
        def read() -> int:
            get, value_of = store.get, attrgetter("value")
            for key in next(chunks):
                value_of(get(key))
            return CHUNK

        return read

    def peer_work(peer: Peer, _: Workload) -> Work:
        def read() -> int:
            peer.get_each(next(chunks))
            return CHUNK

        return read

    add_ours(contest, _reading(contest, work), keys)
    add_ours(contest, _reading(contest, lazily), keys, ", not looked at")
    add_peers(contest, peer_work, keys)
    for backend in contest.settings.backends:
        contest.goal(ours_name(backend), RAW_STORE.get(backend, "lmdb"), at_least=reachable(0.5, 0.8))


@row("range-1000", "range of 1000", "keys/s")
def range_of_1000(contest: Contest) -> None:
    """One thread reads random ranges of 1000 keys with their values into a list; ours of KeyValue objects that decode
    when they are looked at, LMDB by a cursor, SQLite by a prepared range select, the others by their iterator."""
    _add_ranges(contest, lambda kvs: len(list(kvs)), at_least=reachable(0.4, 0.63))


@row("range-read", "range of 1000, every key and value read", "keys/s")
def range_read(contest: Contest) -> None:
    """As range-1000, and every key and every value is looked at. The peers' lists hold them already."""
    at_least = reachable(0.2, 0.45)
    _add_ranges(contest, lambda kvs: len([(kv.key, kv.value) for kv in kvs]), at_least=at_least)


def _add_ranges(contest: Contest, take: Callable[[Sequence[KeyValue]], int], at_least: float) -> None:
    """Ours, which ``take`` takes from, and all peers."""
    keys = contest.settings.count(KEYS, at_least=2 * RANGE_KEYS)
    ranges = cycle(Workload(keys).ranges(500, RANGE_KEYS))

    def work(store: Store) -> Work:
        return lambda: take(store.range(*next(ranges)).kvs)

    def peer_work(peer: Peer, _: Workload) -> Work:
        return lambda: peer.range(*next(ranges))

    add_ours(contest, _reading(contest, work), keys)
    add_peers(contest, peer_work, keys)
    for backend in contest.settings.backends:
        contest.goal(ours_name(backend), RAW_STORE.get(backend, "lmdb"), at_least=at_least)


@row("get-past", "get at an old revision", "gets/s")
def get_past(contest: Contest) -> None:
    """One thread gets a key as it was at a random one of its revisions, for keys with 10 to 1,000,000 versions, and
    takes the value; "newest" gets the newest version of random ones of 100,000 keys of the same store. LMDB: a key and
    the row that follows another one, in one transaction, which is what such a read cannot do without."""
    keys = contest.settings.count(KEYS)
    versions = [count for count in VERSIONS if count <= contest.settings.count(VERSIONS[-1], at_least=1000)]

    def build(backend: str, path: Path) -> None:
        ours.build_store(path, backend, lambda store: _write_versions(store, keys, versions))

    if (path := peer_store(contest, "lmdb", keys)) is not None:
        contest.add(TWO_LOOK_UPS, partial(_two_look_ups, contest, path, keys))
    for backend in contest.settings.backends:
        path = contest.place.once(f"{backend}-versions", partial(build, backend))
        newest = f"{ours_name(backend)}, newest"
        contest.add(newest, partial(_newest, contest, backend, path, keys))
        for count in versions:
            subject = f"{ours_name(backend)}, {count:,} versions"
            contest.add(subject, partial(_past, contest, backend, path, count))
            contest.goal(subject, TWO_LOOK_UPS, at_least=reachable(0.3, 0.4))


def _key_with(versions: int) -> bytes:
    return b"/history/%d" % versions


def _write_versions(store: Store, keys: int, versions: list[int]) -> None:
    for pairs in Workload(keys).all_pairs():
        ours.put_all(store, pairs)
    for count in versions:
        ours.put_versions(store, [_key_with(count)] * count, values())


def _newest(contest: Contest, backend: str, path: Path, keys: int) -> Sample:
    wanted, value_of = cycle(Workload(keys).some_keys(20 * CHUNK)), attrgetter("value")

    def read() -> int:
        for _ in range(CHUNK):
            value_of(store.get(next(wanted)))
        return CHUNK

    with ours.open_store(contest.settings, path, backend) as store:
        return rate(contest.settings.seconds, read)


def _two_look_ups(contest: Contest, path: Path, keys: int) -> Sample:
    peer = LMDB(path)
    wanted = cycle(Workload(keys).some_keys(20 * CHUNK))

    def read() -> int:
        begin = peer.env.begin
        for _ in range(CHUNK):
            key = next(wanted)
            with begin() as tx, tx.cursor() as cursor:
                tx.get(key)
                cursor.set_range(key)
                cursor.value()
        return CHUNK

    try:
        return rate(contest.settings.seconds, read)
    finally:
        peer.close()


def _past(contest: Contest, backend: str, path: Path, versions: int) -> Sample:
    key, value_of = _key_with(versions), attrgetter("value")
    with ours.open_store(contest.settings, path, backend) as store:
        newest = store.get(key)
        assert newest is not None
        oldest, draw = newest.mod_revision - versions + 1, Random(6)
        revisions = cycle([oldest + int(draw.random() * versions) for _ in range(20 * CHUNK)])

        def read() -> int:
            for _ in range(CHUNK):
                value_of(store.get(key, revision=next(revisions)))
            return CHUNK

        return rate(contest.settings.seconds, read)
