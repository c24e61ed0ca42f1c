"""Data directories of clusters: which database, which entries are pending, and who votes."""

import json
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import messages, rows
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.data_dir import EtcdDataDir
from kvstore.migrations.etcd.wal_frame import ENTRY, SNAPSHOT, crc_of
from kvstore.migrations.etcd.wal_read import segment_name

import kvstore
from kvstore.errors import Corruption, NotAStore
from kvstore.foreign import recognize_foreign
from tests.etcd.etcd_log import LogWriter

TERM = 2


class Directory:
    """A data directory in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.snap = path / "member" / "snap"
        self.wal = path / "member" / "wal"
        self.snap.mkdir(parents=True)
        self.wal.mkdir()
        self.log = LogWriter(messages.Metadata(NodeID=1, ClusterID=9).SerializeToString())
        self.log.snapshot(0, 0)

    def database(self, consistent_index: int, name: str = "db") -> None:
        meta = [(rows.CONSISTENT_INDEX, rows.encode_u64(consistent_index))]
        write_bbolt(self.snap / name, [(rows.KEY, []), (rows.META, meta)], trailer=False)

    def raft_snapshot(self, index: int, *voters: int) -> Path:
        mark = {"index": index, "term": TERM, "conf_state": {"voters": voters}}
        data = messages.RaftSnapshot(data=b"{}", metadata=mark).SerializeToString()
        path = self.snap / f"{TERM:016x}-{index:016x}.snap"
        path.write_bytes(messages.SnapFile(crc=crc_of(data, 0), data=data).SerializeToString())
        return path

    def change(self, index: int, kind: str, node_id: int, **said: Any) -> None:
        number = messages.NAMES["ConfChangeType"].index(kind)
        said = {"id": node_id, "peerURLs": [f"http://peer{node_id}"], **said}
        context = b"" if kind == "ConfChangeRemoveNode" else json.dumps(said).encode()
        data = messages.ConfChange(type=number, node_id=node_id, context=context).SerializeToString()
        entry = messages.Entry(Type=1, Term=TERM, Index=index, Data=data)
        self.log.record(ENTRY, entry.SerializeToString())

    def entries(self, first: int, last: int) -> None:
        for index in range(first, last + 1):
            self.log.entry(index, TERM)

    def open(self, **options: Any) -> EtcdDataDir:
        (self.wal / segment_name(0, 0)).write_bytes(self.log.out)
        return EtcdDataDir(self.path, **options)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "data")


def pending(found: EtcdDataDir) -> list[int]:
    return [entry.index for entry in found.pending()]


def test_a_member_alone_commits_all_that_its_log_has(directory: Directory) -> None:
    """With one voter everything after the consistent index is pending, whatever the hard state says."""
    directory.change(1, "ConfChangeAddNode", 1)
    directory.entries(2, 6)
    directory.log.state(4, TERM)
    directory.database(3)
    with directory.open() as found:
        assert (found.is_alone, found.node_id, found.cluster_id) == (True, 1, 9)
        assert (found.consistent_index, found.commit_index, pending(found)) == (3, 6, [4, 5, 6])


def test_of_a_cluster_only_committed_entries_are_pending(directory: Directory) -> None:
    """With more voters, entries beyond the commit index may never have happened."""
    directory.change(1, "ConfChangeAddNode", 1)
    directory.change(2, "ConfChangeAddNode", 2)
    directory.change(3, "ConfChangeAddNode", 3)
    directory.entries(4, 8)
    directory.log.state(6, TERM)
    directory.database(3)
    with directory.open() as found:
        assert (found.is_alone, pending(found)) == (False, [4, 5, 6])


def test_learners_and_removed_members_have_no_vote(directory: Directory) -> None:
    """Who was removed, or only learns, does not keep a member from being alone."""
    directory.change(1, "ConfChangeAddNode", 1)
    directory.change(2, "ConfChangeAddNode", 2)
    directory.change(3, "ConfChangeAddLearnerNode", 3)
    directory.change(4, "ConfChangeRemoveNode", 2)
    directory.log.state(4, TERM)
    directory.database(4)
    with directory.open() as found:
        assert found.is_alone
        assert [entry.kind for entry in found.wal.entries] == ["conf_change"] * 4


@pytest.mark.parametrize("voters_in_log", [(), (1, 2)])
def test_reading_starts_at_the_newest_snapshot_that_the_database_holds(
    directory: Directory, voters_in_log: tuple[int, ...]
) -> None:
    """Entries before it are not kept in memory; the voters come from its record or its own file."""
    directory.entries(1, 10)
    mark = messages.WalSnapshot(
        index=8, term=TERM, conf_state={"voters": voters_in_log} if voters_in_log else None
    )
    directory.log.record(SNAPSHOT, mark.SerializeToString())
    directory.entries(11, 12)
    directory.log.state(11, TERM)
    directory.raft_snapshot(8, 1, 2)
    directory.database(9)
    with directory.open() as found:
        assert (found.wal.start.index, found.is_alone) == (8, False)
        assert [entry.index for entry in found.wal.entries] == [9, 10, 11, 12]
        assert pending(found) == [10, 11]


def received_snapshot(directory: Directory) -> Path:
    directory.entries(1, 10)
    directory.log.snapshot(10, TERM)
    directory.log.state(10, TERM)
    directory.database(5)
    return directory.raft_snapshot(10, 1)


def test_a_database_received_from_the_leader_takes_the_place_of_an_older_one(directory: Directory) -> None:
    """Where the raft snapshot is ahead of the database, the snapshot's own database is read."""
    received_snapshot(directory)
    with pytest.raises(Corruption, match="whose own is missing"):
        directory.open()
    directory.database(10, f"{10:016x}.snap.db")
    with directory.open() as found:
        assert (found.consistent_index, pending(found)) == (10, [])


def test_a_damaged_raft_snapshot_does_not_count(directory: Directory) -> None:
    """A raft snapshot with a wrong checksum is passed over, as etcd does; the log has what it had."""
    path = received_snapshot(directory)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with directory.open() as found:
        assert (found.consistent_index, found.wal.start.index) == (5, 0)
        assert [entry.index for entry in found.wal.entries] == list(range(1, 11))


def test_a_log_elsewhere_is_found_where_it_is_said_to_be(directory: Directory, tmp_path: Path) -> None:
    """The log may lie in a directory of its own."""
    directory.entries(1, 3)
    directory.log.state(3, TERM)
    directory.database(3)
    (directory.wal / segment_name(0, 0)).write_bytes(directory.log.out)
    elsewhere = directory.wal.rename(tmp_path / "elsewhere")
    with EtcdDataDir(directory.path, wal_dir=elsewhere) as found:
        assert found.wal.last_index == 3


def rebuilt(found: EtcdDataDir) -> bool:
    return found.file is None and found.consistent_index == 0


@pytest.mark.parametrize("what", ["no file", "an empty file", "no folder", "a raft snapshot's mark"])
def test_a_missing_database_is_rebuilt_from_a_log_that_has_everything(
    directory: Directory, what: str
) -> None:
    """Whatever is left of the folder, entries from the first on make the database again, as in etcd."""
    directory.change(1, "ConfChangeAddNode", 1)
    directory.entries(2, 4)
    directory.log.state(4, TERM)
    if what == "a raft snapshot's mark":
        directory.log.snapshot(3, TERM)
    elif what == "an empty file":
        (directory.snap / "db").touch()
    elif what == "no folder":
        directory.snap.rmdir()
    with directory.open() as found:
        assert (rebuilt(found), found.is_alone, pending(found)) == (True, True, [1, 2, 3, 4])


def test_half_a_log_rebuilds_nothing(directory: Directory) -> None:
    """Where the log's first segments are gone, what they had was in the missing database alone."""
    directory.entries(1, 9)
    segment = directory.wal / segment_name(3, 40)
    segment.write_bytes(directory.log.out)
    with pytest.raises(Corruption, match="the log begins with entry 40: earlier ones"):
        EtcdDataDir(directory.path)


def test_a_raft_snapshot_without_any_database_is_refused(directory: Directory) -> None:
    """As in etcd, which looks for the database that belongs to the snapshot; the message says what makes it start."""
    received_snapshot(directory)
    (directory.snap / "db").unlink()
    with pytest.raises(Corruption, match="raft snapshot 10 stands for a part of it"):
        directory.open()
    for path in directory.snap.glob("*.snap"):
        path.unlink()
    with directory.open() as found:
        assert (rebuilt(found), found.commit_index) == (True, 10)


def test_a_restored_cluster_is_not_rebuilt(directory: Directory) -> None:
    """Its log begins with the new members, and has no entry for the keys that were restored."""
    directory.change(1, "ConfChangeAddNode", 1)
    directory.log.state(1, 1)
    directory.log.snapshot(1, 1)
    directory.entries(2, 5)
    directory.log.state(5, TERM)
    with pytest.raises(
        Corruption, match="what the cluster was restored from: the log begins after that, with entry 2"
    ):
        directory.open()


V2_KEYS = messages.V2Request(ID=7, Method=b"PUT", Path=b"/1/message", Val=b"hello").SerializeToString()
V2_VERSION = messages.V2Request(ID=8, Method=b"PUT", Path=b"/0/version", Val=b"2.3.0").SerializeToString()
V3_VERSION = messages.V2Request(ID=8, Method=b"PUT", Path=b"/0/version", Val=b"3.4.0").SerializeToString()
V3_PUT = messages.InternalRaftRequest(put={"key": b"k"}).SerializeToString()


@pytest.mark.parametrize("requests", [(V2_KEYS,), (V2_VERSION,), (V2_VERSION, V2_KEYS)])
def test_a_log_of_etcd_2_is_no_empty_store(directory: Directory, requests: tuple[bytes, ...]) -> None:
    """Keys of the v2 API are not read; a log of nothing else is refused in words, not taken for a store of no keys."""
    directory.change(1, "ConfChangeAddNode", 1)
    for index, request in enumerate(requests, 2):
        directory.log.entry(index, TERM, request)
    with pytest.raises(NotAStore, match="only the log of an etcd 2"):
        directory.open()


@pytest.mark.parametrize(
    "requests", [(), (V3_VERSION,), (V3_VERSION, V2_KEYS), (V2_VERSION, V2_KEYS, V3_PUT)]
)
def test_a_log_of_etcd_3_may_have_requests_of_v2(directory: Directory, requests: tuple[bytes, ...]) -> None:
    """Up to 3.4 members and version are written so, and a server may have served both: a note says what is not read."""
    directory.change(1, "ConfChangeAddNode", 1)
    for index, request in enumerate(requests, 2):
        directory.log.entry(index, TERM, request)
    with directory.open() as found:
        assert any("v2 API" in note for note in found.notes) == (V2_KEYS in requests)
        assert (rebuilt(found), found.wal.last_index) == (True, 1 + len(requests))


@pytest.mark.parametrize("log", ["no folder", "no segment"])
def test_a_missing_log_is_told_with_what_can_still_be_read(directory: Directory, log: str) -> None:
    """The message names the folder that is missing, and the command that reads the database by itself."""
    directory.database(3)
    if log == "no folder":
        directory.wal.rmdir()
    else:
        (directory.wal / "0.tmp").touch()
    with pytest.raises(Corruption, match=f"{directory.wal}: the log is missing") as refused:
        EtcdDataDir(directory.path)
    assert f"kvstore import etcd {directory.snap / 'db'} --skip-hash-check" in str(refused.value)


def test_neither_log_nor_database_is_no_data_directory(directory: Directory) -> None:
    """Two empty folders are nobody's store."""
    with pytest.raises(NotAStore, match="there is neither a log in"):
        EtcdDataDir(directory.path)


@pytest.mark.parametrize("etcds", [True, False])
def test_a_folder_called_member_is_whose_it_is(tmp_path: Path, etcds: bool) -> None:
    """etcd's is recognized by what lies in it; a store of ours may have the same name, and the same names inside."""
    place = tmp_path / "member"
    if etcds:
        directory = Directory(tmp_path)
        directory.entries(1, 2)
        (directory.wal / segment_name(0, 0)).write_bytes(directory.log.out)
    else:
        with kvstore.open(place) as store:
            store.put(b"k", b"v")
    assert (recognize_foreign(place) is not None) is etcds
