"""etcd's storage bugs in what is answered: compaction and HashKV, transactions, leases and alarms.

As in test_etcd_regressions.py, the names begin with etcd's issue or pull request number.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout
from kvstore.keyvalue import encode_key_value
from kvstore.model import NOSPACE, Alarm, Op, RangeRequest, RangeResponse
from kvstore.store import Store
from kvstore.testing.fake_clock import FakeClock
from tests.etcd.lives import BACKENDS, EVERYWHERE, content, copied, live
from tests.harness.watching import TIMEOUT_SECONDS, open_store, settle

# --- compaction and HashKV -------------------------------------------------------------------------

TINY = {"compaction_batch_limit": 7, "low_disk_bytes": 0}


def hashes(store: Store, first: int) -> list[tuple[int, int]]:
    return [(revision, store.hash_kv(revision).hash) for revision in range(first, store.revision + 1)]


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_hashkv_does_not_change_while_a_compaction_goes_on(tmp_path: Path, backend: str) -> None:
    """At the compact revision too, and between any two steps of the sweep (etcd 3.4.26, 3.5.9)."""
    with open_store(tmp_path, backend, **TINY) as store:
        live(store, 120)
        settle(store)
        mark = store.revision - 10
        store.compact(mark)
        before = hashes(store, mark)
        settle(store)
        steps = 0
        while store.engine.compaction.step():
            steps += 1
            assert hashes(store, mark) == before
        assert steps > 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_15919_an_interrupted_compaction_does_not_change_the_hash(tmp_path: Path, backend: str) -> None:
    """One that was killed half-way and went on gives the hash of one that was not, for that and the next mark."""
    with open_store(tmp_path, backend, **TINY) as store:
        live(store, 120)
        settle(store)
        mark = store.revision - 20
        copied(tmp_path, "whole")
        store.compact(mark)
        settle(store)
        for _ in range(3):
            store.engine.compaction.step()
        copied(tmp_path, "killed")
    found = []
    for name in ("whole", "killed"):
        with open_store(tmp_path / name, backend, **TINY) as store:
            if name == "whole":
                store.compact(mark, physical=True)
            store.engine.run_compaction()
            first = hashes(store, mark)
            store.compact(mark + 10, physical=True)
            found.append((first, hashes(store, mark + 10)))
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_17119_a_delete_in_memory_hides_what_the_backend_has(tmp_path: Path, backend: str) -> None:
    """Deleted and not yet checkpointed: no read, count, hash or later delete finds it, before and after."""
    with open_store(tmp_path, backend) as store:
        for key in (b"a", b"b", b"c"):
            store.put(key, b"v")
        settle(store)
        store.delete(b"a", b"c")
        expected = store.hash_kv().hash
        for _ in range(2):
            assert store.get(b"a") is None
            assert store.range(prefix=b"", limit=1).kvs[0].key == b"c"
            assert store.count(prefix=b"") == 1
            assert store.delete(b"a", b"c").deleted == 0
            assert store.hash_kv().hash == expected
            assert [kv.key for kv in store.at(4).scan(prefix=b"")] == [b"a", b"b", b"c"]
            settle(store)
        store.put(b"a", b"again")
        assert store.get(b"a").version == 1  # type: ignore[union-attr]  # it is there


# --- transactions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_18667_a_range_that_is_compacted_refuses_the_whole_transaction_everywhere(
    tmp_path: Path, backend: str
) -> None:
    """Live, beside a compaction, and read-only, the answer is the same; replay has nothing left to decide."""
    past = kvstore.ops.get(b"k", revision=2)
    with open_store(tmp_path, backend) as store:
        live(store, 20)
        store.compact(10)
        revision = store.revision
        branches: tuple[list[kvstore.Op], ...] = (
            [kvstore.ops.put(b"n", b"v"), past],
            [kvstore.ops.txn(success=[past, kvstore.ops.put(b"n", b"v")])],
            [past],
        )
        for ops in branches:
            with pytest.raises(kvstore.Compacted):
                store.txn(success=ops)
        assert (store.revision, store.get(b"n")) == (revision, None)
        store.put(b"last", b"v")
        everything = content(store)
        path = store.snapshot(tmp_path / "copy.snap").path
        copied(tmp_path, "crashed")
    with open_store(tmp_path / "crashed", backend) as store:
        assert content(store) == everything
    with kvstore.open_snapshot(path) as snapshot, pytest.raises(kvstore.Compacted):
        snapshot.txn(success=[past])


def test_21432_a_range_at_a_revision_inside_a_transaction_is_of_that_revision(tmp_path: Path) -> None:
    """Not of the transaction's own, whatever stands before it in the transaction."""
    with open_store(tmp_path, "lmdb") as store:
        store.put(b"k", b"old")
        store.put(b"k", b"new")
        for _ in range(2):
            ops: list[kvstore.Op] = [
                kvstore.ops.put(b"k", b"own"),
                kvstore.ops.get(b"k", revision=2),
                kvstore.ops.get(b"k"),
            ]
            _, past, now = store.txn(success=ops).responses
            assert isinstance(past, RangeResponse) and isinstance(now, RangeResponse)
            assert [past.kvs[0].value, now.kvs[0].value] == [b"old", b"own"]
            settle(store)


@pytest.mark.parametrize("backend", BACKENDS)
def test_partial_write_txn_leaves_nothing(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle of a transaction that nobody foresaw: none of it is seen or comes back (3.5.16)."""
    from kvstore.mvcc import plan

    with open_store(tmp_path, backend) as store:
        store.put(b"a", b"old")
        calls: list[object] = []

        def failing(*arguments: Any) -> bytes:
            calls.append(arguments)
            if len(calls) == 2:
                raise MemoryError
            return encode_key_value(*arguments)

        monkeypatch.setattr(plan, "encode_key_value", failing)
        ops: list[Op] = [
            kvstore.ops.put(b"a", b"1"),
            kvstore.ops.put(b"b", b"2"),
            kvstore.ops.get(b"a"),
        ]  # one by one
        with pytest.raises(MemoryError):
            store.txn(success=ops)
        assert len(calls) == 2
        monkeypatch.undo()
        assert content(store) == {b"a": (b"old", 2)}
        assert store.put(b"c", b"3").revision == 3
    with open_store(tmp_path, backend) as store:
        assert content(store) == {b"a": (b"old", 2), b"c": (b"3", 3)}


# --- leases and alarms -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_11935_grants_and_revocations_are_applied_once(tmp_path: Path, backend: str) -> None:
    """Wherever between log and backend a process ends: a lease that ended does not come back, nor do its keys."""
    with open_store(tmp_path, backend) as store:
        for checkpoint in (False, True):
            store.grant_lease(1000, 7)
            store.put(b"k", b"v", lease=7)
            if checkpoint:
                settle(store)
            copied(tmp_path, f"granted-{checkpoint}")
            store.revoke_lease(7)
            copied(tmp_path, f"revoked-{checkpoint}")
            store.grant_lease(1000, 7)
            copied(tmp_path, f"again-{checkpoint}")
            store.revoke_lease(7)
    for name, leases, keys in (("granted", (7,), 1), ("revoked", (), 0), ("again", (7,), 0)):
        for checkpoint in (False, True):
            for _ in range(2):
                with open_store(tmp_path / f"{name}-{checkpoint}", backend) as store:
                    assert store.leases() == leases
                    assert store.count(prefix=b"") == keys
                    attached = store.lease_time_to_live(7, keys=True).keys
                    assert attached == ((b"k",) if keys else ())


@pytest.mark.parametrize("backend", BACKENDS)
def test_lease_revoke_takes_lease_and_keys_in_one_entry(tmp_path: Path, backend: str) -> None:
    """By hand or by expiry: no state on disk has one without the other (etcd 3.2)."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        for lease in (1, 2):
            store.grant_lease(10, lease)
            for key in (b"a", b"b"):
                store.put(b"%d%b" % (lease, key), b"v", lease=lease)
        settle(store)
        index = store.engine.state.index
        store.revoke_lease(1)
        clock.advance(20)
        store.engine.leasing.expire()
        assert store.engine.state.index == index + 2
        copied(tmp_path, "crashed")
    log = layout.segments(tmp_path / "crashed" / "data" / "wal")[-1].path
    whole = log.read_bytes().rstrip(b"\0")
    for cut in range(len(whole) - 200, len(whole), 7):
        at = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "crashed", at)
        torn = bytearray(whole)
        torn[cut:] = bytes(len(whole) - cut)
        layout.segments(at / "data" / "wal")[-1].path.write_bytes(torn)
        try:
            store = open_store(at, backend, clock=clock)
        except kvstore.Corruption:
            continue  # the cut is in what was synced long ago
        with store:
            for lease in (1, 2):
                assert store.count(prefix=b"%d" % lease) == 2 * (lease in store.leases())
        shutil.rmtree(at)


def test_renew_after_revoke_answers_that_the_lease_is_gone(tmp_path: Path) -> None:
    """A keep-alive that comes with or after the end never reports a TTL for a lease that is not there (etcd 3.5.23)."""
    clock = FakeClock()
    with open_store(tmp_path, "memory", clock=clock) as store:
        lease = store.grant_lease(10).id
        store.revoke_lease(lease)
        assert store.engine.lease_keep_alive(lease).ttl == 0
        lease = store.grant_lease(10).id
        clock.advance(10)
        assert store.engine.lease_keep_alive(lease).ttl == 0
        assert lease in store.leases()
        store.engine.leasing.expire()
        assert store.leases() == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_20273_a_restart_does_not_renew_leases(tmp_path: Path, backend: str) -> None:
    """Opened again and again in shorter intervals than its TTL, a lease still ends at its time (also #9395)."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        store.grant_lease(60, 1)
        store.put(b"k", b"v", lease=1)
    left = []
    for _ in range(7):
        clock.advance(10)
        with open_store(tmp_path, backend, clock=clock) as store:
            store.engine.leasing.expire()
            left.append(store.lease_time_to_live(1).ttl)
    assert left == [50, 40, 30, 20, 10, -1, -1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_14429_alarms_are_replayed(tmp_path: Path, backend: str) -> None:
    """Raised, listed and put out, then a crash: the store opens, with the alarms that were on."""
    options = {"low_disk_bytes": 0}
    with open_store(tmp_path, backend, quota_backend_bytes=1, **options) as store:
        alarm = Alarm(store.engine.member_id, NOSPACE)
        for name in ("first", "second"):
            with pytest.raises(kvstore.QuotaExceeded):
                store.put(b"k", b"v")
            assert store.alarms() == (alarm,)
            copied(tmp_path, f"{name}-on")
            assert store.disarm(alarm) == (alarm,)
            copied(tmp_path, f"{name}-off")
    for name in ("first", "second"):
        for state, alarms in (("on", (alarm,)), ("off", ())):
            with open_store(tmp_path / f"{name}-{state}", backend, quota_backend_bytes=1, **options) as store:
                assert store.alarms() == alarms


PAUSED = """
import sys, kvstore
with kvstore.open(sys.argv[1], background=False) as store:
    store.put(b"k", b"1")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.startswith("put"):
            store.put(b"k", line.split()[1].encode())
        print(store.get(b"k").value.decode(), store.revision, flush=True)
"""


def test_20418_a_paused_process_does_not_serve_what_is_stale(tmp_path: Path) -> None:
    """Nobody takes over while it stands still, so what it answers afterwards is the newest there is."""
    command = [sys.executable, "-c", PAUSED, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(kvstore.StoreLocked):
            kvstore.open(tmp_path / "data")
        with kvstore.open(tmp_path / "data", read_only=True) as beside:
            assert beside.get(b"k").value == b"1"  # type: ignore[union-attr]  # it is there
        child.send_signal(signal.SIGCONT)
        print("get", file=child.stdin, flush=True)
        assert child.stdout.readline() == "1 2\n"
        print("put 2", file=child.stdin, flush=True)
        assert child.stdout.readline() == "2 3\n"
        with kvstore.open(tmp_path / "data", read_only=True) as beside:
            assert beside.get(b"k").value == b"2"  # type: ignore[union-attr]  # it is there
        child.stdin.close()
        assert child.wait(TIMEOUT_SECONDS) == 0


def test_12342_a_large_range_is_read_in_pages(tmp_path: Path) -> None:
    """A scan holds a page, whatever its range; it is not all made in memory first (also #14809)."""
    with open_store(tmp_path, "lmdb") as store:
        for part in range(10):
            store.txn(success=[kvstore.ops.put(b"%d/%03d" % (part, at), b"v" * 1000) for at in range(100)])
        settle(store)
        asked: list[int] = []
        page = store.engine.state.page

        def counted(*arguments: Any) -> Any:
            asked.append(arguments[3])
            return page(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.engine.state, "page", counted)
            rows = store.scan(prefix=b"", page_rows=50)
            next(rows)
            assert len(asked) == 1 and asked[0] <= 50
            assert sum(1 for _ in rows) == 999
        assert len(asked) >= 20
        assert store.engine.range(RangeRequest(b"0", b"\0", limit=3)).more
