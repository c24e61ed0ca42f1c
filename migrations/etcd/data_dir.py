"""A whole etcd data directory, stopped: the database file, and the log entries it does not hold yet.

    <data-dir>/member/snap/db                        the database, at its consistent index
                      <index>.snap.db                one received from a leader, not yet put in place
                      <term>-<index>.snap            raft snapshots: cluster membership at an index
    <data-dir>/member/wal/*.wal                      the log (--wal-dir may put it elsewhere)

    entries   1 .............. 65 | 66 67 68 69        database's consistent index: 65
              in the database     | pending            etcd applies these when it starts

An entry counts as committed up to the commit index of the last hard state. A single member commits everything
it has as soon as it starts, so there every entry of the log is pending; in a larger cluster only those
known to be committed are, and the rest may never have happened.

A database that is missing or empty is rebuilt from a log that has everything from the first entry on, as
etcd does. The log of a cluster that ``snapshot restore`` made will not do: it has no entry for what was
restored. etcd starts there all the same, without those keys; here it is ``Corruption``. Without a log etcd
begins a new cluster over the database; here it is ``Corruption``, and the file can be read by itself.

A log that ends before the database's consistent index has lost entries (it is always synced first). The
database has their effects, and etcd starts; it is unknown whether more was lost, and ``notes`` says so.

Up to 3.5 a server learns its members not from the database but from the newest raft snapshot
(its data is the v2 store as JSON) and the log after that. Early 3.5 never updates a member's row in the
database, so only the log and the snapshot know of changed addresses; and 3.4's ``snapshot restore`` leaves
the rows of the old cluster's members in the database, although they are not in the new one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import crc32c
from google.protobuf.message import DecodeError

from kvstore.errors import Corruption, NotAStore

from . import messages, rows
from .etcd_file import EtcdFile
from .membership import MemberRows, Membership, MemberTable, v2_members
from .wal_content import LogEntry, SnapshotMark, WalContent, read_wal, valid_snapshots
from .wal_read import has_segments, list_segments

V2_KEYS = b"/1/"
"""What paths of the v2 API begin with."""

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
        self.snap_dir = member_dir(self.path) / "snap"
        self.wal_dir = find_log(self.path, wal_dir)
        self._as_etcd = as_etcd
        self.notes: list[str] = []
        snapshots = valid_snapshots(self.wal_dir, as_etcd)
        self.file = self._open_database(snapshots)
        try:
            self.wal = self._read_wal(snapshots)
            if self.file is None:
                self._check_rebuildable()
            if any(V2_KEYS in entry.data and _writes_v2_key(entry) for entry in self.wal.entries):
                self.notes.append("the log writes keys of the v2 API, which are not read")
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
        first, last = self.consistent_index + 1, self.commit_index
        return [entry for entry in self.wal.entries if first <= entry.index <= last]

    def members_beside_database(self) -> tuple[MemberRows | None, list[LogEntry]]:
        """The members where the log begins (None: those in the database), and the entries from there to the database's
        index. From 3.6 on the database itself says who the members are."""
        if self.file is None or self.file.storage_version:
            return None, []
        entries = [entry for entry in self.wal.entries if entry.index <= self.consistent_index]
        return self._members_at_start(), entries

    def _members_at_start(self) -> MemberRows | None:
        if not self.wal.start.index:
            return {rows.MEMBERS: {}, rows.MEMBERS_REMOVED: {}}
        found = self._snapshot_at_start()
        return v2_members(found.data) if found else None

    # --- opening -------------------------------------------------------------------------

    def _open_database(self, snapshots: list[SnapshotMark]) -> EtcdFile | None:
        """The database; a newer one from the leader replaces it; None if there is none, or an empty file."""
        path = self.snap_dir / "db"
        file = EtcdFile(path) if path.is_file() and path.stat().st_size else None
        index = self._newest_raft_snapshot(snapshots)
        if index <= (file.consistent_index if file else 0):
            return file
        received = self.snap_dir / f"{index:016x}.snap.db"
        if received.is_file():
            if file:
                file.close()
            return EtcdFile(received)
        if file:
            file.close()
            raise Corruption(f"the database ends before raft snapshot {index}, whose own is missing", path)
        raise Corruption(
            f"the database is missing, and raft snapshot {index} stands for a part of it (without .snap files, etcd "
            "rebuilds it from a log that has everything from the first entry on, and so does this)",
            path,
        )

    def _newest_raft_snapshot(self, snapshots: list[SnapshotMark]) -> int:
        """Index of the newest intact snapshot file that the log confirms; 0 if there is none."""
        confirmed = {(mark.term, mark.index) for mark in snapshots}
        found = 0
        for path in self.snap_dir.iterdir() if self.snap_dir.is_dir() else ():
            match = _SNAP_NAME.fullmatch(path.name)
            if match and (int(match[1], 16), int(match[2], 16)) in confirmed and _raft_snapshot(path):
                found = max(found, int(match[2], 16))
        return found

    def _read_wal(self, snapshots: list[SnapshotMark]) -> WalContent:
        """The log from the newest snapshot that the database holds and that has its own file, as etcd reads it; from
        the first entry if there is none. If the log does not reach back that far, a snapshot without its file will do.
        """
        reaches_back = not list_segments(self.wal_dir)[0].first_index
        if self.file is None and not reaches_back:
            self._refuse_half_a_log()
        held = [mark for mark in snapshots if mark.index <= self.consistent_index]
        whole = [mark for mark in held if _raft_snapshot(self._snap_path(mark))]
        start = max(whole or ([] if reaches_back else held), key=lambda mark: mark.index, default=None)
        wal = read_wal(self.wal_dir, start, self._as_etcd)
        if wal.last_index < self.consistent_index:
            told = (
                f"the log ends with entry {wal.last_index}, though the database holds {self.consistent_index}"
            )
            self.notes.append(f"{told}: its end was lost, with whatever came after it")
        return wal

    def _refuse_half_a_log(self) -> None:
        first = list_segments(self.wal_dir)[0].first_index
        raise Corruption(
            f"the database is missing, and the log begins with entry {first}: earlier ones were only in the database",
            self.snap_dir / "db",
        )

    def _check_rebuildable(self) -> None:
        """Check that the entries make up all keys. The log of a restored cluster, and one of etcd 2, is refused."""
        first = next((entry.index for entry in self.wal.entries if entry.type == "EntryNormal"), None)
        for mark in self.wal.snapshots:
            if mark.index and (first is None or mark.index < first):
                raise Corruption(
                    "the database is missing, and with it what the cluster was restored from: "
                    f"the log begins after that, with entry {mark.index + 1}",
                    self.snap_dir / "db",
                )
        if _is_etcd_2(self.wal.entries):
            raise NotAStore(
                f"{self.path} holds only the log of an etcd 2: it has no keys of the v3 API, and v2 keys are not read",
                self.path,
            )

    def _voters(self) -> set[int]:
        """Ids of the voting members at the log's end."""
        voters = self._voters_at_start()
        found = self._members_at_start()
        members = Membership(MemberTable(found)) if found is not None else None
        for entry in self.wal.entries:
            change = entry.request() if entry.type != "EntryNormal" else None
            if change is None:
                continue
            if entry.type == "EntryConfChangeV2":
                changes = list(change.changes)
            else:
                changes = [] if members is not None and not _is_accepted(members, entry, change) else [change]
            for each in changes:
                _change_voters(voters, messages.enum_name("ConfChangeType", each.type), each.node_id)
        return voters

    def _voters_at_start(self) -> set[int]:
        """The voters in the log's snapshot record; up to 3.4 they are only in the snapshot's own file."""
        start = self.wal.start
        if start.voters or not start.index:
            return set(start.voters)
        found = self._snapshot_at_start()
        if found:
            return set(found.metadata.conf_state.voters)
        members = self.file.members() if self.file is not None else []
        return {member.id for member in members if not member.is_learner}

    def _snapshot_at_start(self) -> Any:
        return _raft_snapshot(self._snap_path(self.wal.start))

    def _snap_path(self, mark: SnapshotMark) -> Path:
        return self.snap_dir / f"{mark.term:016x}-{mark.index:016x}.snap"


def member_dir(path: Path) -> Path:
    """The folder ``member`` of a data directory, or the path itself if it is that folder."""
    return path if path.name == "member" else path / "member"


def find_log(path: Path, wal_dir: str | os.PathLike[str] | None = None) -> Path:
    """The log directory of a data directory. Raises ``Corruption`` if it is missing beside a database, ``NotAStore``
    if there is no database either."""
    log = Path(wal_dir) if wal_dir else member_dir(path) / "wal"
    if has_segments(log):
        return log
    database = member_dir(path) / "snap" / "db"
    if not database.is_file():
        raise NotAStore(
            f"{path} is not an etcd data directory: there is neither a log in {log} nor a database {database}",
            path,
        )
    raise Corruption(
        f"the log is missing, and with it what etcd had not yet written to its database (a log elsewhere: --wal-dir). "
        f"The database can be read by itself: kvstore inspect meta {database}, "
        f"kvstore import etcd {database} --skip-hash-check",
        log,
    )


def _is_etcd_2(entries: list[LogEntry]) -> bool:
    """Whether keys were written through the v2 API, or a server of etcd 2 ran, and nothing came through v3."""
    is_v2 = False
    for entry in entries:
        kind = entry.kind
        if kind not in ("v2", "empty", "conf_change"):
            return False
        if kind != "v2":
            continue
        request = _v2_request(entry)
        if request.Path == b"/0/version":
            major = request.Val.split(b".")[0]
            if major.isdigit() and int(major) >= 3:
                return False
            is_v2 = True
        elif _writes_v2_key(entry):
            is_v2 = True
    return is_v2


def _writes_v2_key(entry: LogEntry) -> bool:
    """Whether a request came through the v2 API. (A server puts what it needs below ``/0/`` in the same way.)"""
    path = _v2_request(entry).Path if entry.kind == "v2" else b""
    return bool(path) and not path.startswith(b"/0/")


def _v2_request(entry: LogEntry) -> Any:
    request = entry.request()
    return request if hasattr(request, "Path") else request.v2


def _is_accepted(members: Membership, entry: LogEntry, change: Any) -> bool:
    try:
        return members.change(change)
    except (rows.RowError, TypeError) as error:
        raise Corruption(f"entry {entry.index}: {error}", entry.path, entry.offset) from None


def _change_voters(voters: set[int], kind: str, node_id: int) -> None:
    if kind == "ConfChangeAddNode":
        voters.add(node_id)
    elif kind in ("ConfChangeRemoveNode", "ConfChangeAddLearnerNode"):
        voters.discard(node_id)


def _raft_snapshot(path: Path) -> Any:
    """A raft snapshot's file, decoded; None if it is absent or damaged: etcd then takes the previous one."""
    try:
        found = messages.SnapFile.FromString(path.read_bytes())
        if not found.data or found.crc != crc32c.crc32c(found.data):
            return None
        return messages.RaftSnapshot.FromString(found.data)
    except (FileNotFoundError, DecodeError):
        return None
