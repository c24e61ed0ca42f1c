"""A real etcd as the judge: our files restored and served by it, its files read by us.

Skipped where no ``etcd`` and ``etcdctl`` are on PATH (``make etcd`` installs Debian's).
"""

import base64
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import rows
from kvstore.migrations.etcd.bbolt_check import check
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.data_dir import EtcdDataDir
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.rows import KeyValueRow, Lease, encode_key_value, encode_lease, encode_revision

import kvstore
from kvstore.foreign import ImportOptions, find_foreign
from tests.etcd.etcd_samples import dump_row
from tests.etcd.etcd_servers import (
    RELEASE,
    etcd,
    etcdctl,
    restore,
)
from tests.harness.ports import free_ports

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)

ETCD = find_foreign("etcd")


def made_up_store(compact_revision: int) -> tuple[list[KeyValueRow], dict[bytes, bytes], int]:
    """Rows, leases and the revision of a store with deletes, transactions, big values and odd keys."""
    chance = random.Random(5)
    keys = [b"\0", b"a", b"a\0", b"\xff\xfe", b"k" * 3000, *(b"key/%d" % number for number in range(40))]
    leases = [Lease(7, 3600), Lease(9, 4000)]
    live: dict[bytes, KeyValueRow] = {}
    written: list[KeyValueRow] = []
    revision = 1
    for _round in range(300):
        revision += 1
        for sub, key in enumerate(chance.sample(keys, chance.choice((1, 1, 1, 3)))):
            old = live.pop(key, None)
            if old and chance.random() < 0.3:
                written.append(KeyValueRow(revision, sub, True, key, b"", 0, 0, 0, 0))
                continue
            created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
            value = chance.randbytes(chance.choice((0, 10, 100, 20_000)))
            lease = chance.choice((0, 0, 7, 9))
            live[key] = KeyValueRow(revision, sub, False, key, value, created, revision, version, lease)
            written.append(live[key])
    newest = {row.key: row for row in written if row.main <= compact_revision}
    kept = [
        row
        for row in written
        if row.main > compact_revision or (newest[row.key] is row and not row.is_tombstone)
    ]
    return kept, dict(map(encode_lease, leases)), revision


def test_etcd_serves_the_file_we_write(tmp_path: Path) -> None:
    """Status, restore, boot, reads, HashKV at many revisions and further writes: etcd takes our file as its own."""
    compact_revision = 120
    kept, leases, revision = made_up_store(compact_revision)
    mark = encode_revision(compact_revision)
    path = tmp_path / "ours.db"
    write_bbolt(
        path,
        [
            (rows.KEY, map(encode_key_value, kept)),
            (rows.LEASE, sorted(leases.items())),
            (rows.META, [(rows.FINISHED_COMPACT, mark), (rows.SCHEDULED_COMPACT, mark)]),
        ],
    )
    with EtcdFile(path) as file:
        status = file.status(count_live_keys=RELEASE >= "3.6")
        hashes = {at: file.hash_kv(at).hash for at in range(compact_revision + 1, revision + 1, 9)}
        dumps = {at: [dump_row(row) for row in file.live(at)] for at in (compact_revision, 200, revision)}
    if RELEASE < "3.6":
        del status["version"]
    assert etcdctl("snapshot", "status", str(path)) == status
    etcdctl("snapshot", "restore", str(path), "--data-dir", str(tmp_path / "data"))
    with EtcdDataDir(tmp_path / "data") as restored:
        assert (restored.is_alone, restored.pending()) == (True, [])
        assert restored.file is not None and restored.file.revision == revision
    with etcd(tmp_path / "data", tmp_path / "log") as server:
        for at, expected in hashes.items():
            answer = server.hash_kv(at)
            assert (answer["hash"], answer["compact_revision"]) == (expected, compact_revision)
        for at, dump in dumps.items():
            assert sorted_by_key(server.dump(at)) == dump
        assert sorted(lease["id"] for lease in server.ctl("lease", "list")["leases"]) == [7, 9]
        assert server.ctl("put", "key/1", "written by etcd")["header"]["revision"] == revision + 1
        server.ctl("defrag")
        server.ctl("snapshot", "save", str(tmp_path / "theirs.db"))
    with EtcdFile(tmp_path / "theirs.db") as file:
        assert file.revision == revision + 1
        assert file.file.verify_hash()
        found = file.get(b"key/1")
        assert found is not None and found.value == b"written by etcd"
    with EtcdDataDir(tmp_path / "data") as stopped:
        assert stopped.is_alone
        assert stopped.wal.entries[-1].index == stopped.commit_index
        assert [entry.kind for entry in stopped.wal.entries].count("put") == 1


def sorted_by_key(dump: list[list[Any]]) -> list[list[Any]]:
    return sorted(dump, key=lambda row: base64.b64decode(row[0]))


def test_we_read_what_etcd_writes(tmp_path: Path) -> None:
    """A server's snapshot and its stopped data directory say what the server said at each revision."""
    with etcd(tmp_path / "data", tmp_path / "log") as server:
        lease = f"{server.ctl('lease', 'grant', '3600')['ID']:x}"
        for number in range(25):
            server.ctl(
                "put", f"k{number % 7}", f"value {number}", *(["--lease", lease] if number % 5 == 0 else [])
            )
        server.ctl("txn", stdin=b"\nput t1 1\nput t2 2\ndel k3\n\n\n")
        server.ctl("put", "big", stdin=bytes(range(1, 256)) * 200)
        server.ctl("del", "k5")
        server.ctl("compact", "20", "--physical")
        server.ctl("put", "k5", "back")
        server.ctl("role", "add", "reader")
        server.ctl("role", "grant-permission", "reader", "read", "k", "l")
        server.ctl("user", "add", "ann:secret")
        server.ctl("user", "grant-role", "ann", "reader")
        snapshot = tmp_path / "snapshot.db"
        server.ctl("snapshot", "save", str(snapshot))
        status = etcdctl("snapshot", "status", str(snapshot))
        revision = status["revision"]
        hashes = {at: server.hash_kv(at) for at in range(21, revision + 1)}
        dumps = {at: server.dump(at) for at in (20, 26, revision)}
        members = server.ctl("member", "list")["members"]
        server.ctl("put", "after", "the snapshot")
    with EtcdFile(snapshot) as file:
        hold_against_server(file, hashes, dumps)
        assert file.file.verify_hash()
        found = file.status(count_live_keys=RELEASE >= "3.6")
        assert {key: found[key] for key in status} == status
        assert list(check(file.file)) == []
        assert [[member.id, member.name] for member in file.members()] == [
            [m["ID"], m["name"]] for m in members
        ]
        assert [(user.name, user.roles) for user in file.users()] == [(b"ann", (b"reader",))]
        assert file.roles() == [rows.Role(b"reader", (rows.Permission("READ", b"k", b"l"),))]
        assert [f"{each.id:x}" for each in file.leases()] == [lease]
    with EtcdDataDir(tmp_path / "data") as data_dir:
        assert data_dir.is_alone
        assert data_dir.node_id == members[0]["ID"]
        assert data_dir.file is not None
        kinds = [entry.kind for entry in data_dir.wal.entries]
        assert kinds.count("put") == 28
        assert {"txn", "compaction", "lease_grant", "auth_user_add", "auth_role_grant_permission"} <= set(
            kinds
        )
        assert kinds[-1] == "put"
        assert (
            data_dir.file.revision + sum(entry.kind == "put" for entry in data_dir.pending()) == revision + 1
        )
        assert list(check(data_dir.file.file)) == []


def hold_against_server(
    file: EtcdFile, hashes: dict[int, dict[str, Any]], dumps: dict[int, list[list[Any]]]
) -> None:
    for at, answer in hashes.items():
        found = file.hash_kv(at)
        assert (found.hash, found.compact_revision) == (answer["hash"], answer["compact_revision"])
    for at, dump in dumps.items():
        assert [dump_row(row) for row in file.live(at)] == dump


# --- directories with half of their files ---------------------------------------------------------


def half(whole: Path, into: Path, *gone: str) -> Path:
    """A copy of a data directory without the files that fit."""
    shutil.copytree(whole, into)
    for pattern in gone:
        for path in into.glob(pattern):
            path.unlink()
    return into


@pytest.mark.parametrize("every", [5, 100_000])
def test_a_database_that_is_gone_is_rebuilt_where_etcd_rebuilds_it(tmp_path: Path, every: int) -> None:
    """With raft snapshots and without: the same revision and the same keys; what etcd refuses is refused."""
    whole, ours = tmp_path / "whole", tmp_path / "ours"
    with etcd(whole, tmp_path / "log", "--snapshot-count", str(every)) as server:
        for number in range(12):
            server.ctl("put", f"k{number % 5}", f"{number}")
        server.ctl("del", "k1")
        server.ctl("compact", "6")
        server.ctl("put", "last", "x")
    assert bool(list(whole.glob("member/snap/*.snap"))) is (every == 5)
    emptied = half(whole, tmp_path / "emptied", "member/snap/*")
    no_database = half(whole, tmp_path / "no database", "member/snap/db")
    ETCD.import_store(emptied, ours, ImportOptions())
    with kvstore.open(ours) as store, etcd(emptied, tmp_path / "log") as server:
        assert store.hash_kv().hash == server.hash_kv(0)["hash"]
        assert (store.revision, store.compact_revision) == (15, 6)
    if every == 5:
        with pytest.raises(kvstore.Corruption, match="stands for a part of it"):
            ETCD.import_store(no_database, tmp_path / "refused", ImportOptions())
    else:
        assert ETCD.import_store(no_database, tmp_path / "moved", ImportOptions()).revision == 15


@pytest.mark.parametrize("every", [4, 100_000])
def test_members_are_those_that_the_server_lists(tmp_path: Path, every: int) -> None:
    """Learners that came and went, addresses that changed, and changes that were refused only when applied."""
    whole = tmp_path / "whole"
    learner, other = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    with etcd(whole, tmp_path / "log", "--snapshot-count", str(every)) as server:
        (own,) = server.ctl("member", "list")["members"]
        added = server.ctl("member", "add", "gone", "--learner", "--peer-urls", learner)["member"]["ID"]
        with pytest.raises(AssertionError, match="Peer URLs already exists"):
            server.ctl("member", "add", "twice", "--learner", "--peer-urls", own["peerURLs"][0])
        with pytest.raises(AssertionError, match="too many learner"):
            server.ctl("member", "add", "second", "--learner", "--peer-urls", other)
        server.ctl("put", "k", "v")
        server.ctl("member", "remove", f"{added:x}")
        server.ctl("member", "add", "stays", "--learner", "--peer-urls", other)
        server.ctl("member", "update", f"{own['ID']:x}", "--peer-urls", learner)
        for number in range(5):
            server.ctl("put", f"k{number}", "v")
        listed = sorted(
            (each["ID"], each.get("name", "")) for each in server.ctl("member", "list")["members"]
        )
    assert len(listed) == 2
    for source in (whole, half(whole, tmp_path / "emptied", "member/snap/*")):
        with ETCD.open(source) as store:
            assert [(member.id, member.name) for member in store.members] == listed  # type: ignore[attr-defined]


def test_a_restored_cluster_without_its_database_is_refused(tmp_path: Path) -> None:
    """etcd starts there, at revision 1, with the keys gone; whether it was started since makes no difference."""
    with etcd(tmp_path / "old", tmp_path / "log") as server:
        server.ctl("put", "k", "v")
        server.ctl("snapshot", "save", str(tmp_path / "saved.db"))
    restore(tmp_path / "saved.db", tmp_path / "new", "new", "http://127.0.0.1:23800")
    for place in ("never started", "started"):
        emptied = half(tmp_path / "new", tmp_path / place, "member/snap/*")
        with pytest.raises(kvstore.Corruption, match="with it what the cluster was restored from"):
            ETCD.open(emptied)
        with etcd(tmp_path / "new", tmp_path / "log", "--name", "new") as server:
            server.ctl("put", "after", "x")
