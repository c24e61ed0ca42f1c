"""Data directories of clusters: which database, which entries are pending, and who votes."""

from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import messages, rows
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.data_dir import EtcdDataDir
from kvstore.migrations.etcd.wal_frame import ENTRY, SNAPSHOT, crc_of
from kvstore.migrations.etcd.wal_read import segment_name

from kvstore.errors import Corruption
from tests.etcd_log import LogWriter

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

    def change(self, index: int, kind: str, node_id: int) -> None:
        number = messages.NAMES["ConfChangeType"].index(kind)
        data = messages.ConfChange(type=number, node_id=node_id).SerializeToString()
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


def test_a_missing_database_is_damage(directory: Directory) -> None:
    """A log without a database file beside it is refused, as etcd does."""
    directory.entries(1, 3)
    with pytest.raises(Corruption, match="database file is missing"):
        directory.open()
