"""Reads: of the newest revision, and of the past."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from operator import attrgetter
from pathlib import Path
from random import Random

from kvstore.store import Store

from . import ours
from .contest import Contest, Sample, row
from .entrants import KEYS, RAW_STORE, Work, add_ours, add_peers, ours_name
from .peers import Peer
from .timing import rate
from .workload import Workload, values

CHUNK = 1000
RANGE_KEYS = 1000
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
        contest.goal(ours_name(backend), RAW_STORE.get(backend, "lmdb"), at_least=0.6)


@row("range-1000", "range of 1000", "keys/s")
def range_of_1000(contest: Contest) -> None:
    """One thread reads random ranges of 1000 keys with their values into a list; ours of KeyValue objects that decode
    when they are looked at ("all read": every key and value was looked at), LMDB by a cursor, SQLite by a
    prepared range select, the others by their iterator."""
    keys = contest.settings.count(KEYS, at_least=2 * RANGE_KEYS)
    ranges = cycle(Workload(keys).ranges(500, RANGE_KEYS))

    def lazily(store: Store) -> Work:
        return lambda: len(list(store.range(*next(ranges)).kvs))

    def fully(store: Store) -> Work:
        return lambda: len([(kv.key, kv.value) for kv in store.range(*next(ranges)).kvs])

    def peer_work(peer: Peer, _: Workload) -> Work:
        return lambda: peer.range(*next(ranges))

    add_ours(contest, _reading(contest, lazily), keys)
    add_ours(contest, _reading(contest, fully), keys, ", all read")
    add_peers(contest, peer_work, keys)
    for backend in contest.settings.backends:
        contest.goal(ours_name(backend), RAW_STORE.get(backend, "lmdb"), at_least=0.4)


@row("get-past", "get at an old revision", "gets/s")
def get_past(contest: Contest) -> None:
    """One thread gets a key as it was at a random one of its revisions, for keys with 10 to 1,000,000 versions, and
    takes the value; "newest" gets the newest version of random ones of 100,000 keys of the same store."""
    keys = contest.settings.count(KEYS)
    versions = [count for count in VERSIONS if count <= contest.settings.count(VERSIONS[-1], at_least=1000)]

    def build(backend: str, path: Path) -> None:
        ours.build_store(path, backend, lambda store: _write_versions(store, keys, versions))

    for backend in contest.settings.backends:
        path = contest.place.once(f"{backend}-versions", partial(build, backend))
        newest = f"{ours_name(backend)}, newest"
        contest.add(newest, partial(_newest, contest, backend, path, keys))
        for count in versions:
            subject = f"{ours_name(backend)}, {count:,} versions"
            contest.add(subject, partial(_past, contest, backend, path, count))
            contest.goal(subject, newest, at_least=0.5)


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
