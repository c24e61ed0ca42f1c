"""A whole etcd data directory, stopped: the database file, and the log entries it does not hold yet.

    <data-dir>/member/snap/db                        the database, at its consistent index
                      <index>.snap.db                one received from a leader, not yet put in place
                      <term>-<index>.snap            raft snapshots: cluster membership at an index
    <data-dir>/member/wal/*.wal                      the log (--wal-dir may put it elsewhere)

    entries   1 .............. 65 | 66 67 68 69        database's consistent index: 65
              in the database     | pending            etcd applies these when it starts

An entry counts as committed up to the commit index of the last hard state. A member alone commits all
it has as soon as it starts, so there every entry of the log is pending; of a larger cluster only those
known to be committed, the rest may never have happened.

An empty database file beside a log from the beginning is rebuilt from the log, as etcd does. A log that
ends before the database's consistent index has lost entries (it is synced first, always). The database
has what they did, and etcd starts; whether more was lost nobody can tell: ``notes`` says so.

Up to 3.5 a server learns who its members are not from the database but from the newest raft snapshot
(its data is the v2 store as JSON) and the log after that. Early 3.5 never updates a member's row in the
database, so addresses that changed are known there alone.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import crc32c
from google.protobuf.message import DecodeError

from kvstore.errors import Corruption, NotAStore

from . import messages
from .etcd_file import EtcdFile
from .wal_content import LogEntry, SnapshotMark, WalContent, read_wal, valid_snapshots

_SNAP_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")


class EtcdDataDir:
    """A data directory, read-only. Use it as a context manager, or ``close`` it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        wal_dir: str | os.PathLike[str] | None = None,
        as_etcd: bool = False,
    ) -> None:
        self.path = Path(path)
        member = self.path if self.path.name == "member" else self.path / "member"
        self.snap_dir = member / "snap"
        self.wal_dir = Path(wal_dir) if wal_dir else member / "wal"
        if not self.wal_dir.is_dir() or not self.snap_dir.is_dir():
            raise NotAStore(f"{self.path} is no etcd data directory", self.path)
        self._as_etcd = as_etcd
        self.notes: list[str] = []
        snapshots = valid_snapshots(self.wal_dir, as_etcd)
        self.file = self._open_database(snapshots)
        try:
            self.wal = self._read_wal(snapshots)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def __enter__(self) -> EtcdDataDir:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def consistent_index(self) -> int:
        """The last log index that the database holds; 0 without a database."""
        return self.file.consistent_index if self.file is not None else 0

    @property
    def cluster_id(self) -> int:
        return self.wal.cluster_id

    @property
    def node_id(self) -> int:
        return self.wal.node_id

    @property
    def is_alone(self) -> bool:
        """Whether this member is its cluster's only voter, by the log's configuration changes."""
        return len(self._voters()) == 1

    @property
    def commit_index(self) -> int:
        """The last entry that etcd applies when it starts from this directory."""
        if self.is_alone:
            return max(self.wal.last_index, self.wal.commit)
        return min(self.wal.commit, self.wal.last_index)

    def pending(self) -> list[LogEntry]:
        """Entries after the consistent index, as far as they are committed."""
        return [
            entry for entry in self.wal.entries if self.consistent_index < entry.index <= self.commit_index
        ]

    def members_beside_database(self) -> tuple[dict[bytes, bytes], list[LogEntry]]:
        """Rows of members in the raft snapshot where the log begins, and the entries from there to the database's
        index. Nothing from 3.6 on, where the database says who they are."""
        if self.file is None or self.file.storage_version:
            return {}, []
        entries = [entry for entry in self.wal.entries if entry.index <= self.consistent_index]
        found = self._snapshot_at_start()
        return (_v2_members(found.data) if found else {}), entries

    # --- opening -------------------------------------------------------------------------

    def _open_database(self, snapshots: list[SnapshotMark]) -> EtcdFile | None:
        """The database; a newer one that came from the leader in its place; None of an empty file."""
        path = self.snap_dir / "db"
        if not path.is_file():
            raise Corruption("the database file is missing", path)
        file = None if path.stat().st_size == 0 else EtcdFile(path)
        index = self._newest_raft_snapshot(snapshots)
        if index <= (file.consistent_index if file else 0):
            return file
        if file:
            file.close()
        received = self.snap_dir / f"{index:016x}.snap.db"
        if not received.is_file():
            raise Corruption(f"the database ends before raft snapshot {index}, whose own is missing", path)
        return EtcdFile(received)

    def _newest_raft_snapshot(self, snapshots: list[SnapshotMark]) -> int:
        """Index of the newest whole snapshot file that the log confirms; 0 if there is none."""
        confirmed = {(mark.term, mark.index) for mark in snapshots}
        found = 0
        for path in self.snap_dir.iterdir():
            match = _SNAP_NAME.fullmatch(path.name)
            if match and (int(match[1], 16), int(match[2], 16)) in confirmed and _raft_snapshot(path):
                found = max(found, int(match[2], 16))
        return found

    def _read_wal(self, snapshots: list[SnapshotMark]) -> WalContent:
        """The log from the newest snapshot that the database holds."""
        held = [mark for mark in snapshots if mark.index <= self.consistent_index]
        newest = max(held, key=lambda mark: mark.index, default=None)
        wal = read_wal(self.wal_dir, newest, self._as_etcd)
        if wal.last_index < self.consistent_index:
            told = (
                f"the log ends with entry {wal.last_index}, though the database holds {self.consistent_index}"
            )
            self.notes.append(f"{told}: its end was lost, and with it whatever else came after")
        return wal

    def _voters(self) -> set[int]:
        """Ids of the voting members at the log's end."""
        voters = self._voters_at_start()
        for entry in self.wal.entries:
            change = entry.request() if entry.type != "EntryNormal" else None
            if change is not None:
                for each in change.changes if entry.type == "EntryConfChangeV2" else (change,):
                    _change_voters(voters, messages.enum_name("ConfChangeType", each.type), each.node_id)
        return voters

    def _voters_at_start(self) -> set[int]:
        """By the log's snapshot record; up to 3.4 it leaves them to the snapshot's own file."""
        start = self.wal.start
        if start.voters or not start.index:
            return set(start.voters)
        found = self._snapshot_at_start()
        if found:
            return set(found.metadata.conf_state.voters)
        members = self.file.members() if self.file is not None else []
        return {member.id for member in members if not member.is_learner}

    def _snapshot_at_start(self) -> Any:
        start = self.wal.start
        return _raft_snapshot(self.snap_dir / f"{start.term:016x}-{start.index:016x}.snap")


def _change_voters(voters: set[int], kind: str, node_id: int) -> None:
    if kind == "ConfChangeAddNode":
        voters.add(node_id)
    elif kind in ("ConfChangeRemoveNode", "ConfChangeAddLearnerNode"):
        voters.discard(node_id)


def _raft_snapshot(path: Path) -> Any:
    """A raft snapshot's file, decoded; None if it is absent or damaged: etcd then takes the one before."""
    try:
        found = messages.SnapFile.FromString(path.read_bytes())
        if not found.data or found.crc != crc32c.crc32c(found.data):
            return None
        return messages.RaftSnapshot.FromString(found.data)
    except (FileNotFoundError, DecodeError):
        return None


def _v2_members(store: bytes) -> dict[bytes, bytes]:
    """Rows of the bucket ``members`` out of the JSON of a v2 store; none where it is no such thing."""
    found: dict[bytes, bytes] = {}
    try:
        nodes = json.loads(store)["Root"]["Children"]["0"]["Children"]["members"]["Children"] or {}
        for name, node in nodes.items():
            member = {"id": int(name, 16)}
            for part in ("raftAttributes", "attributes"):
                if part in node["Children"]:
                    member |= json.loads(node["Children"][part]["Value"])
            found[name.encode()] = json.dumps(member, separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return found
