"""Two stores with different options and a pure model, side by side: every answer is the same.

Limits are tiny, so that the rare paths are the common ones: log segments of a few hundred bytes, an overlay that is
full after a few writes, watches with room for one event; checkpoints, sweeps, reopening, lost power, snapshots and
restoring at any moment, by hand or by a thread that never rests. Time passes when a rule says so.

What a watch has not delivered yet is read before a compaction: from then on the version before an event is told only
where it is still kept.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import kvstore
from kvstore import Store
from kvstore.errors import KVStoreError
from kvstore.files import OSDisk
from kvstore.model import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
)
from kvstore.mvcc.lessor import own_lease_id
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.testing.fake_clock import FakeClock
from kvstore.watch import Watch
from tests.harness.drawn_requests import (
    LEASES,
    LONG,
    SLOW,
    deletes,
    ends,
    flags,
    keys,
    one_of,
    puts,
    ranges,
    txns,
)
from tests.harness.model import Model
from tests.harness.plain import changes_since, plain
from tests.harness.watching import responses_until

SCRATCH = next(
    (folder for folder in (Path("/dev/shm"),) if folder.is_dir()), None
)  # memory: syncs cost nothing

DRAWN_LEASES = 1000

watches = st.builds(
    WatchRequest,
    keys,
    ends | one_of([b"\0"]),
    prev_kv=st.booleans(),
    no_put=flags,
    no_delete=flags,
    start_sub=st.just(0),
).filter(lambda watch: watch.range_end in (b"", b"\0") or watch.key < watch.range_end)

BACKENDS = ("lmdb", "sqlite", "memory")
WATCHES_MAX = 3
configurations = st.fixed_dictionaries(
    {
        "backend": st.sampled_from(BACKENDS),
        "background": st.booleans(),
        "backend_batch_interval_seconds": st.sampled_from((0.001, 0.01)),
        "backend_batch_limit": st.sampled_from((2, 1000)),
        "overlay_limit": st.sampled_from((1, 2000, 1 << 20)),
        "wal_file_size": st.sampled_from((400, 3000, 1 << 16)),
        "wal_buffer_size": st.sampled_from((500, 1 << 20)),
        "durability": st.sampled_from(("always", "off", "interval")),
        "compaction_batch_limit": st.sampled_from((1, 20_000)),
        "watch_buffer": st.sampled_from((1, 1 << 20)),
    }
)


def outcome(call: Callable[[], Any]) -> Any:
    """The answer, or the error with all that it tells."""
    try:
        return plain(call())
    except KVStoreError as error:
        return type(error), error.etcd_text or str(error), getattr(error, "compact_revision", None)


def told_at(revision: int, model: Model) -> Any:
    return sorted(model.at(revision).values())


def ranged(request: RangeRequest, store: Store) -> Any:
    return store.engine.range(request)


def rows_at(revision: int, store: Store) -> Any:
    return list(store.at(revision).scan(prefix=b""))


@dataclass
class Watching:
    """A watch of both stores, and from where on it has not been read."""

    request: WatchRequest
    position: int
    watches: list[Watch]


class Stores(RuleBasedStateMachine):
    """The rules. ``check`` asks the model and both stores."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kvstore-", dir=SCRATCH))
        self.model = Model()
        self.stores: list[Store] = []
        self.options: list[Options] = []
        self.folders = [self.folder / "0", self.folder / "1"]
        self.clock = FakeClock()
        self.watching: list[Watching] = []
        self.made = 0

    @initialize(
        chosen=st.tuples(configurations, configurations),
        policy=st.sampled_from(("count_downtime", "pause")),
    )
    def open(self, chosen: tuple[dict[str, Any], dict[str, Any]], policy: str) -> None:
        is_kept = all(options["backend"] != "memory" for options in chosen)
        policy = policy if is_kept else "count_downtime"  # memory keeps no mark of when it was closed
        self.counts_downtime = policy == "count_downtime"
        self.options = [
            Options(clock=self.clock, lease_restart_policy=policy, **options) for options in chosen
        ]
        self.stores = [self.open_one(number) for number in range(2)]

    @rule(chosen=st.lists(keys, min_size=6, max_size=12, unique=True), lease=st.sampled_from((0, *LEASES)))
    def fill(self, chosen: list[bytes], lease: int) -> None:
        """Many keys at once, so that ranges have something to choose from."""
        if lease and lease not in self.model.leases:
            self.grant(lease, 5)
        self.txn(TxnRequest(success=tuple(PutRequest(key, key[-1:], lease) for key in chosen)))

    def open_one(self, number: int) -> Store:
        return Store(open_engine(self.folders[number], self.options[number], OSDisk()))

    def new_path(self) -> Path:
        self.made += 1
        return self.folder / f"made-{self.made}"

    def check(self, expected: Callable[[], Any], actual: Callable[[Store], Any]) -> None:
        wanted = outcome(expected)
        for store, options in zip(self.stores, self.options, strict=True):
            got = outcome(partial(actual, store))
            assert got == wanted, f"{options.backend} says {got}, the model {wanted}"

    # --- writes ------------------------------------------------------------------------------

    @rule(request=puts)
    def put(self, request: PutRequest) -> None:
        self.check(lambda: self.model.put(request), lambda store: store.engine.put(request))

    @rule(request=puts, ttl=st.sampled_from((-1, 1, 3, 5)))
    def put_for(self, request: PutRequest, ttl: int) -> None:
        """A put with a lease of its own; both stores draw the same id."""
        self.made += 1
        lease = own_lease_id(DRAWN_LEASES + self.made)
        for store in self.stores:
            store.engine.planner._new_lease_id = lambda **_: lease  # type: ignore[method-assign]
        self.check(
            lambda: self.model.put_for(request, lease, ttl),
            lambda store: store.engine.put(request, ttl),
        )

    @rule(request=deletes)
    def delete(self, request: DeleteRangeRequest) -> None:
        self.check(lambda: self.model.delete(request), lambda store: store.engine.delete_range(request))

    @rule(request=txns)
    def txn(self, request: TxnRequest) -> None:
        self.check(lambda: self.model.txn(request), lambda store: store.engine.txn(request))

    @rule(lease=st.sampled_from(LEASES), ttl=st.integers(-1, 5))
    def grant(self, lease: int, ttl: int) -> None:
        self.check(lambda: self.model.grant(lease, ttl), lambda store: store.engine.lease_grant(ttl, lease))

    @rule(lease=st.sampled_from(LEASES))
    def revoke(self, lease: int) -> None:
        self.check(lambda: (self.model.revoke(lease),), lambda store: store.revoke_lease(lease))

    @rule(lease=st.sampled_from(LEASES))
    def keep_alive(self, lease: int) -> None:
        self.check(
            lambda: self.model.keep_alive(lease),
            lambda store: store.engine.lease_keep_alive(lease),
        )

    @rule(back=st.integers(-1, 6), physical=st.booleans())
    def compact(self, back: int, physical: bool) -> None:
        self.read_watches()
        revision = self.model.revision - back
        self.check(
            lambda: (self.model.compact(revision),), lambda store: store.engine.compact(revision, physical)
        )

    # --- what moves data without changing anything ----------------------------------------------

    @rule(number=st.integers(0, 1))
    def checkpoint(self, number: int) -> None:
        self.stores[number].checkpoint()

    @rule(number=st.integers(0, 1))
    def run_compaction(self, number: int) -> None:
        self.stores[number].engine.run_compaction()

    @rule(number=st.integers(0, 1))
    def defragment(self, number: int) -> None:
        self.stores[number].defragment()

    @rule(number=st.integers(0, 1))
    def reopen(self, number: int) -> None:
        self.stores[number].close()
        self.come_back(number)

    @rule(number=st.integers(0, 1))
    def lose_power(self, number: int) -> None:
        """Go on from a copy of the files as they lie there while the store is open and nothing moves."""
        if self.options[number].background or not self.counts_downtime:
            return
        copied = self.new_path()
        shutil.copytree(self.folders[number], copied)
        self.stores[number].close()
        self.folders[number] = copied
        self.come_back(number)

    @rule(number=st.integers(0, 1), backend=st.sampled_from(BACKENDS))
    def restore(self, number: int, backend: str) -> None:
        """A snapshot says what the store says, and is brought back on any backend; life goes on there."""
        path, restored = self.new_path(), self.new_path()
        self.stores[number].snapshot(path)
        with kvstore.open_snapshot(path) as snapshot:
            assert snapshot.revision == self.model.revision
            assert plain(list(snapshot.scan(prefix=b""))) == sorted(self.model.states[-1].values())
            assert snapshot.hash_kv().hash == self.model.hash_kv(self.model.revision)
        if not self.counts_downtime:
            return
        kvstore.restore(path, restored, backend=backend)
        self.stores[number].close()
        self.folders[number], self.options[number] = restored, self.options[number].with_(backend=backend)
        self.come_back(number)

    def come_back(self, number: int) -> None:
        """Open the store again; its watches go on from where they were read."""
        self.stores[number] = self.open_one(number)
        for watching in self.watching:
            watching.watches[number].close()
            request = watching.request._replace(start_revision=watching.position)
            watching.watches[number] = self.stores[number].engine.watch(request)
        for lease in LEASES:
            self.time_to_live(lease)

    # --- time --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 2, 3, 10)))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.model.pass_time(seconds)
        self.expire()

    @rule(seconds=st.sampled_from((1, 3)))
    def close_for_a_while(self, seconds: int) -> None:
        """Time that passes meanwhile counts, or does not: as the policy says."""
        for store in self.stores:
            store.close()
        self.clock.advance(seconds)
        self.model.pass_time(seconds, counts=self.counts_downtime)
        for number in range(2):
            self.stores[number] = self.open_one(number)
        self.expire()
        for number in range(2):
            self.reopen(number)

    def expire(self) -> None:
        """Whether the thread has been there already, is on its way, or not."""
        for store in self.stores:
            while store.engine.leasing.expire():
                pass
            store.engine.barrier()

    # --- watches -----------------------------------------------------------------------------

    @rule(request=watches, back=st.integers(-1, 12))
    def watch(self, request: WatchRequest, back: int) -> None:
        if len(self.watching) == WATCHES_MAX:
            for watch in self.watching.pop(0).watches:
                watch.close()
        start = max(self.model.revision - back, 1)
        watches = [store.engine.watch(request._replace(start_revision=start)) for store in self.stores]
        if start >= self.model.compacted:
            self.watching.append(Watching(request, start, watches))
            return
        for watch in watches:
            response = watch.get_response()
            assert (response.canceled, response.compact_revision) == (True, self.model.compacted)
            watch.close()

    @rule()
    def read_watches(self) -> None:
        """Each event once, in order, whether it came live or was read from the store."""
        for watching in self.watching:
            expected = self.model.events(watching.request, watching.position)
            for watch in watching.watches:
                responses = list(responses_until(watch, self.model.revision))
                assert [plain(event) for response in responses for event in response.events] == expected
            watching.position = max(watching.position, self.model.revision + 1)

    # --- reads -------------------------------------------------------------------------------

    @rule(requests=st.lists(ranges, min_size=1, max_size=5), back=st.integers(-1, 30))
    def range(self, requests: list[RangeRequest], back: int) -> None:
        for request in requests:
            if request.revision:
                request = request._replace(revision=self.model.revision - back)
            self.check(partial(self.model.range, request), partial(ranged, request))

    @rule(key=keys, back=st.integers(-1, 30))
    def get(self, key: bytes, back: int) -> None:
        revision = max(self.model.revision - back, 0)
        self.check(lambda: self.model.at(revision).get(key), lambda store: store.get(key, revision=revision))

    @rule(prefix=one_of([b"", b"a", b"\xff", b"\0", LONG]), back=st.integers(0, 30), page=st.integers(1, 4))
    def scan(self, prefix: bytes, back: int, page: int) -> None:
        revision = max(self.model.revision - back, 0)
        self.check(
            lambda: sorted(kv for key, kv in self.model.at(revision).items() if key.startswith(prefix)),
            lambda store: list(store.scan(prefix=prefix, revision=revision, page_rows=page)),
        )

    @rule(older=st.integers(0, 20), newer=st.integers(0, 20))
    def diff(self, older: int, newer: int) -> None:
        first, second = (max(self.model.revision - back, 1) for back in (older, newer))
        self.check(lambda: self.model.diff(first, second), lambda store: list(store.diff(first, second)))

    @rule(key=keys)
    def history(self, key: bytes) -> None:
        """All that can be read is there; of what was compacted, a part may be there still."""
        everything = self.model.history(key)
        for store in self.stores:
            kept = plain(list(store.history(key)))
            assert kept == everything[len(everything) - len(kept) :]
            alive = self.model.at(max(self.model.compacted, 0)).get(key)
            first = alive.mod_revision if alive is not None else self.model.compacted + 1
            assert len(kept) >= sum(kv.mod_revision >= first for kv in everything)

    @rule(back=st.integers(-1, 10))
    def hash_kv(self, back: int) -> None:
        revision = self.model.revision - back

        def expected() -> tuple[Any, ...]:
            at = revision if revision > 0 else self.model.revision
            return self.model.revision, self.model.hash_kv(at), self.model.compacted, at

        self.check(expected, lambda store: store.engine.hash_kv(revision))

    @rule(back=st.integers(0, 20), limit=st.integers(1, 5))
    def changes(self, back: int, limit: int) -> None:
        """What watches read: every change above the compaction, whole revisions at a time."""
        first = max(self.model.revision - back, self.model.compacted + 1, 1)
        wanted = [change for change in self.model.changes if change[0] >= first]
        for store in self.stores:
            assert changes_since(store, first, limit) == wanted

    @rule(lease=st.sampled_from(LEASES))
    def time_to_live(self, lease: int) -> None:
        self.check(
            lambda: self.model.time_to_live(lease),
            lambda store: store.lease_time_to_live(lease, keys=True),
        )

    @invariant()
    def agree(self) -> None:
        for store in self.stores:
            assert store.revision == self.model.revision
            assert store.compact_revision == self.model.compacted
            assert sorted(store.leases()) == sorted(self.model.leases)

    def teardown(self) -> None:
        try:
            if self.stores:
                self.read_watches()
                for number in range(2):
                    self.reopen(number)
                for revision in range(max(self.model.compacted, 1), self.model.revision + 1):
                    self.check(
                        partial(told_at, revision, self.model),
                        partial(rows_at, revision),
                    )
                    self.hash_kv(self.model.revision - revision)
                self.close()
                for number, options in enumerate(self.options):
                    report = kvstore.verify(self.folders[number], deep=True, backend=options.backend)
                    assert report.ok, report.findings
        finally:
            self.close()
            shutil.rmtree(self.folder)

    def close(self) -> None:
        for watching in self.watching:
            for watch in watching.watches:
                watch.close()
        for store in self.stores:
            store.close()


def test_stores_with_any_options_do_as_the_model() -> None:
    """Same requests, any options, any backend: the same answers, errors included."""
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=80, stateful_step_count=50, suppress_health_check=SLOW)
    )


@pytest.mark.soak
def test_stores_with_any_options_do_as_the_model_for_long() -> None:
    """The same with a thousand longer runs."""
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=1000, stateful_step_count=120, suppress_health_check=SLOW)
    )
