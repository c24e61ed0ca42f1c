"""Maintenance: status, alarms, hashes, defragmentation, snapshots."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from kvstore.migrations.etcd import export_store

import kvstore
from kvstore import layout
from kvstore.errors import Code, Compacted
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network import snapshot_stream
from kvstore.network.dialect import DIALECTS, V3_4, V3_5, V3_6, Dialect
from kvstore.network.endpoint import Settings
from tests.network.fake_call import Client, FakeCall, Refused

MAINTENANCE = "/etcdserverpb.Maintenance/"
GET, ACTIVATE, DEACTIVATE = pb.AlarmRequest.GET, pb.AlarmRequest.ACTIVATE, pb.AlarmRequest.DEACTIVATE
VALIDATE, ENABLE, CANCEL = (
    pb.DowngradeRequest.VALIDATE,
    pb.DowngradeRequest.ENABLE,
    pb.DowngradeRequest.CANCEL,
)


@contextmanager
def speaking(store: kvstore.Store, dialect: Dialect) -> Iterator[Client]:
    with Client(store.engine, Settings(dialect=dialect)) as client:
        yield client


def ask(client: Client, method: str, **fields: Any) -> Any:
    return client.ask(MAINTENANCE + method, getattr(pb, f"{method}Request")(**fields))


def refusal(client: Client, method: str, **fields: Any) -> tuple[Code, str]:
    with pytest.raises(Refused) as raised:
        ask(client, method, **fields)
    return raised.value.code, raised.value.text.removeprefix("etcdserver: ")


# --- status --------------------------------------------------------------------------------------


def test_status_has_the_facts(store: kvstore.Store, client: Client) -> None:
    """Sizes and index as the store has them; it leads itself."""
    store.put(b"a", b"1")
    answer, status = ask(client, "Status"), store.status()
    assert (answer.header.revision, answer.header.raft_term) == (store.revision, 2)
    assert (answer.version, answer.leader, answer.raftTerm) == (V3_5.version, store.engine.member_id, 2)
    assert (answer.dbSize, answer.dbSizeInUse) == (status.size_bytes, status.in_use_bytes)
    assert answer.raftIndex == answer.raftAppliedIndex == status.last_index > 0
    assert not answer.isLearner
    assert list(answer.errors) == []
    assert (answer.storageVersion, answer.HasField("downgradeInfo")) == ("", False)


def test_status_of_3_6_says_more(store: kvstore.Store) -> None:
    """The version of what is stored, the quota, and that no downgrade is under way."""
    with speaking(store, V3_6) as client:
        answer = ask(client, "Status")
        assert (answer.version, answer.storageVersion) == (V3_6.version, "3.6.0")
        assert answer.dbSizeQuota == store.status().quota_bytes
        assert answer.HasField("downgradeInfo")
        assert not answer.downgradeInfo.enabled


# --- alarms --------------------------------------------------------------------------------------


def test_alarms_are_raised_listed_and_put_out(client: Client) -> None:
    """Raising again and putting out what is out changes nothing; the answer names what is raised, or was put out."""

    def alarm(**fields: Any) -> list[tuple[int, int]]:
        return [(each.memberID, each.alarm) for each in ask(client, "Alarm", **fields).alarms]

    assert alarm() == []
    assert alarm(action=ACTIVATE, memberID=5, alarm="CORRUPT") == [(5, 2)]
    assert alarm(action=ACTIVATE, memberID=5, alarm="CORRUPT") == [(5, 2)]
    assert alarm() == alarm(action=GET, alarm="CORRUPT") == [(5, 2)]
    assert alarm(action=GET, alarm="NOSPACE") == []
    assert list(ask(client, "Status").errors) == ["memberID:5 alarm:CORRUPT "]
    assert alarm(action=DEACTIVATE, memberID=6, alarm="CORRUPT") == []
    assert alarm(action=DEACTIVATE, memberID=5, alarm="CORRUPT") == [(5, 2)]
    assert alarm(action=DEACTIVATE, memberID=5, alarm="CORRUPT") == []
    assert alarm(action=ACTIVATE, alarm="NONE") == []
    assert alarm() == []


def test_the_answer_about_alarms_has_a_header_since_3_5(store: kvstore.Store) -> None:
    """3.4 sends none."""
    for dialect in DIALECTS.values():
        with speaking(store, dialect) as client:
            assert ask(client, "Alarm").HasField("header") == (dialect >= V3_5)


# --- hashes, upkeep ------------------------------------------------------------------------------


def test_hash_kv_is_the_stores(store: kvstore.Store, client: Client) -> None:
    """At any kept revision; what is not kept, or not yet written, is refused."""
    for number in range(5):
        store.put(b"a", b"%d" % number)
    store.compact(3)
    expected = store.hash_kv(4)
    answer = ask(client, "HashKV", revision=4)
    assert (answer.hash, answer.compact_revision) == (expected.hash, 3)
    assert answer.header.revision == store.revision
    assert ask(client, "HashKV").hash == store.hash_kv().hash
    assert ask(client, "HashKV", revision=3).hash == store.hash_kv(3).hash
    compacted = (Code.OUT_OF_RANGE, "mvcc: required revision has been compacted")
    assert refusal(client, "HashKV", revision=2) == compacted
    assert refusal(client, "HashKV", revision=99)[1] == "mvcc: required revision is a future revision"


def test_hash_kv_at_the_compaction_by_dialect(store: kvstore.Store) -> None:
    """3.4 refuses it; 3.6 says of which revision the hash is."""
    for _ in range(3):
        store.put(b"a", b"")
    store.compact(3)
    with speaking(store, V3_4) as client:
        assert refusal(client, "HashKV", revision=3)[0] == Code.OUT_OF_RANGE
        assert ask(client, "HashKV", revision=4).hash_revision == 0
    with speaking(store, V3_6) as client:
        assert ask(client, "HashKV").hash_revision == 4


def test_hash_is_the_same_until_something_changes(store: kvstore.Store, client: Client) -> None:
    """And it comes with the revision."""
    store.put(b"a", b"1")
    first = ask(client, "Hash")
    assert first.header.revision == store.revision
    assert ask(client, "Hash").hash == first.hash
    store.put(b"a", b"2")
    assert ask(client, "Hash").hash != first.hash


def test_defragment_makes_the_store_smaller(store: kvstore.Store, client: Client) -> None:
    """The answer is empty."""
    for number in range(200):
        store.put(b"%d" % number, b"x" * 10_000)
    store.checkpoint()
    store.delete(prefix=b"")
    store.compact(store.revision, physical=True)
    before = store.status().size_bytes
    assert ask(client, "Defragment").SerializeToString() == b""
    assert store.status().size_bytes < before


def test_the_leader_moves_to_where_it_is(store: kvstore.Store, client: Client) -> None:
    """Anywhere else it cannot go."""
    assert ask(client, "MoveLeader", targetID=store.engine.member_id).SerializeToString() == b""
    bad = (Code.FAILED_PRECONDITION, "bad leader transferee")
    assert refusal(client, "MoveLeader", targetID=0) == refusal(client, "MoveLeader", targetID=5) == bad


def test_a_downgrade_is_only_judged(client: Client) -> None:
    """One minor lower would be all right; nothing is carried out."""
    for version in ("3.4", "3.4.0", "3.4.9-rc.1"):
        answer = ask(client, "Downgrade", action=VALIDATE, version=version)
        assert (answer.version, answer.header.raft_term) == ("3.5.0", 2)
    invalid = (Code.INVALID_ARGUMENT, "invalid downgrade target version")
    for version in ("3.5", "3.6", "3.3.0", "2.4"):
        assert refusal(client, "Downgrade", action=VALIDATE, version=version) == invalid
    assert refusal(client, "Downgrade", action=ENABLE, version="3.4") == invalid
    for version in ("", "3", "a.b", "3.4.0.1"):
        assert refusal(client, "Downgrade", action=VALIDATE, version=version) == (
            Code.INVALID_ARGUMENT,
            "wrong downgrade target version format",
        )
    assert refusal(client, "Downgrade", action=CANCEL) == (
        Code.FAILED_PRECONDITION,
        "no inflight downgrade job",
    )


def test_since_3_6_there_is_nothing_wrong_with_cancelling_no_downgrade(store: kvstore.Store) -> None:
    """And of its version it says only which release it is."""
    with speaking(store, V3_6) as client:
        for asked in ({"action": VALIDATE, "version": "3.5"}, {"action": CANCEL}):
            assert ask(client, "Downgrade", **asked).version == "3.6"


def test_an_etcd_3_4_knows_of_no_downgrade(store: kvstore.Store) -> None:
    """It has no such method."""
    with speaking(store, V3_4) as client:
        assert refusal(client, "Downgrade", action=VALIDATE, version="3.3") == (
            Code.UNIMPLEMENTED,
            "unknown method Downgrade for service etcdserverpb.Maintenance",
        )


# --- snapshots -----------------------------------------------------------------------------------


def fill(store: kvstore.Store, size_bytes: int = 300_000) -> None:
    for number in range(size_bytes // 10_000):
        store.put(b"k%d" % number, os.urandom(10_000))


def snap_files(store: kvstore.Store) -> list[str]:
    return sorted(path.name for path in store.engine.core.directory.snap.iterdir())


def test_a_snapshot_is_a_file_of_etcds_in_parts(store: kvstore.Store, client: Client, tmp_path: Path) -> None:
    """Parts of 32 KiB that say how much is left, then the SHA-256 of all of them."""
    fill(store)
    files = snap_files(store)
    parts = client.all(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
    assert snap_files(store) == files
    *body, digest = parts
    size_bytes = sum(len(part.blob) for part in body)
    for part in body:
        size_bytes -= len(part.blob)
        assert part.remaining_bytes == size_bytes
    assert {len(part.blob) for part in body[:-1]} == {32 << 10}
    data = b"".join(part.blob for part in body)
    assert (digest.blob, digest.remaining_bytes) == (hashlib.sha256(data).digest(), 0)
    assert not any(part.HasField("header") or part.version for part in parts)
    (tmp_path / "saved").write_bytes(data + digest.blob)
    with kvstore.open_snapshot(tmp_path / "saved") as saved:
        assert saved.hash_kv().hash == store.hash_kv().hash


def test_snapshots_of_3_6_say_their_version(store: kvstore.Store) -> None:
    """In every part."""
    with speaking(store, V3_6) as client:
        parts = client.all(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
        assert {part.version for part in parts} == {"3.6.0"}


def test_a_snapshot_waits_for_its_client(store: kvstore.Store, client: Client) -> None:
    """What the client has not taken is not added to."""
    fill(store)
    slow = client.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
    slow.is_blocked = True
    client.until(lambda: bool(slow.answers))
    client.turn(200)
    assert len(slow.answers) == 1
    slow.take()
    client.until(lambda: not slow.alive)
    assert slow.error is None
    assert len(slow.answers) > 2


def test_one_snapshot_at_a_time(store: kvstore.Store, client: Client) -> None:
    """The second begins when the first has ended, or its client has gone."""
    first = client.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
    first.is_blocked = True
    client.until(lambda: bool(first.answers))
    second = client.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
    client.turn(200)
    assert second.answers == []
    first.go()
    client.until(lambda: not second.alive)
    assert second.error is None


def test_two_endpoints_of_a_store_send_their_snapshots_apart(store: kvstore.Store, client: Client) -> None:
    """Neither takes the file of the other."""
    gate, started = threading.Barrier(2, timeout=30), list[int]()
    files = snap_files(store)
    with Client(store.engine) as other, hold_export(started, gate.wait):
        calls = [each.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest()) for each in (client, other)]
        other.turn()
        client.until(lambda: not calls[0].alive)
        other.until(lambda: not calls[1].alive)
    assert [call.error for call in calls] == [None, None]
    assert snap_files(store) == files


def hold_export(started: list[int], release: Callable[[], object]) -> Any:
    """An export that says that it has begun, and ends when it may."""
    whole = export_store.export_store

    def held(*arguments: Any) -> Any:
        started.append(1)
        release()
        return whole(*arguments)

    return patch.object(export_store, "export_store", held)


def test_a_client_that_goes_during_the_export_leaves_nothing(store: kvstore.Store, client: Client) -> None:
    """No file, and no open descriptor."""
    gate, started = threading.Event(), list[int]()
    files, descriptors = snap_files(store), len(os.listdir("/proc/self/fd"))
    with hold_export(started, lambda: gate.wait(30)):
        gone = client.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
        client.until(lambda: bool(started))
        gone.go()
        client.turn()
        gate.set()
        client.until(lambda: snap_files(store) == files)
    client.all(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the backend may keep one more open


def test_an_export_that_a_compaction_overtakes_is_begun_again(store: kvstore.Store, client: Client) -> None:
    """A few times; then the client is told."""
    store.put(b"a", b"1")
    failures = [Compacted(1)] * (snapshot_stream.ATTEMPTS - 1)

    def fail() -> None:
        if failures:
            raise failures.pop()

    started = list[int]()
    with hold_export(started, fail):
        assert len(client.all(MAINTENANCE + "Snapshot", pb.SnapshotRequest())) > 1
        assert len(started) == snapshot_stream.ATTEMPTS
        failures += [Compacted(1)] * snapshot_stream.ATTEMPTS
        call: FakeCall = client.begin(MAINTENANCE + "Snapshot", pb.SnapshotRequest())
        client.until(lambda: not call.alive)
        assert isinstance(call.error, Compacted)


def test_what_a_crash_left_of_a_snapshot_goes_at_opening(tmp_path: Path) -> None:
    """Half made, or whole with its name still on."""
    with kvstore.open(tmp_path / "store") as store:
        whole = store.engine.core.directory.etcd_snapshot(7)
    for path in (whole, layout.temporary(whole)):
        path.write_bytes(b"some of it")
    with kvstore.open(tmp_path / "store") as store:
        assert not [name for name in snap_files(store) if name.startswith("etcd")]
