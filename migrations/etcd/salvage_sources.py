"""Which files of an etcd a path holds, and the evidence in them.

a file                        a snapshot, or a copy of ``member/snap/db``
a data directory, ``member``  the database, and what the log adds to it
a directory of segments       the log alone, if it begins with the first entry

A log that begins with the first entry and has no gap makes the whole store, with a checksum over every byte. So a
database beside it that is damaged is not used at all.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kvstore.salvage.evidence import Covered, Evidence

from . import rows
from .bbolt_loose import LooseFile
from .beside_keys import carried_key
from .data_dir import member_dir
from .salvage import read_database
from .salvage_log import SalvagedLog, apply_entries
from .wal_read import has_segments, is_log


def evidence(source: Path, wal_dir: str) -> Evidence | None:
    """What can be read there; None if nothing looks like an etcd's."""
    if not source.is_dir():
        return read_database(source) if _looks_like_bbolt(source) else None
    database = member_dir(source) / "snap" / "db"
    log = Path(wal_dir) if wal_dir else source if has_segments(source) else member_dir(source) / "wal"
    is_etcds = database.is_file() and _looks_like_bbolt(database)
    if not is_etcds and not is_log(log) and not (has_segments(log) and member_dir(source).is_dir()):
        return None
    if is_etcds:
        found = read_database(database)
        found.source = str(source)
    elif database.is_file():
        found = Evidence(source=str(source), kind="etcd log, and no readable database")
    else:
        found = _nothing_yet(source)
    if has_segments(log):
        entries = SalvagedLog(log)
        if found.unread and entries.makes_all(found.index):
            found = _nothing_yet(source)
            found.kind = "etcd log from its first entry on; the database is damaged, and was not needed"
            return _with_log(found, entries)
        _with_log(found, entries)
    else:
        found.unread.append(
            f"there is no log in {log}: what etcd had not yet written to its database is lost"
        )
    if database.is_file() and not is_etcds:
        found.covered = [Covered((0, 0), None)]
        found.unread.append(f"{database.name}: no page of it can be read")
    return found


def _nothing_yet(source: Path) -> Evidence:
    return Evidence(source=str(source), kind="etcd log, without a database", covered=[Covered((0, 0), None)])


def _with_log(found: Evidence, log: SalvagedLog) -> Evidence:
    last = max(log.entries, default=found.index)
    if last < found.index:
        found.lost_later.append(f"the log ends with entry {last}, though the database holds {found.index}")
    if not found.facts and log.begins_with_a_restore:
        found.lost_later.append(
            "the cluster was restored from a snapshot, and its keys were only in the database"
        )
    found.kind += " with its log" if found.facts else ""
    found.cluster_id, found.member_id = log.cluster_id or found.cluster_id, log.node_id or found.member_id
    found.figures["log records whose checksum holds"] = log.records
    found.lost_later += log.unread
    members = [key for key, _ in found.carried if key.startswith(carried_key(rows.MEMBERS, b""))]
    following, beyond = log.after(found.index, alone=len(members) <= 1)
    if beyond:
        found.lost_later.append(
            f"log entries after {found.index + len(following)}: some are missing, and {beyond} that follow are not "
            "applied, as what they did depends on those (kvstore wal dump shows them)"
        )
    if following:
        found.figures["log entries after the database"] = len(following)
        found.replay = partial(apply_entries, entries=following)
    return found


def _looks_like_bbolt(path: Path) -> bool:
    with LooseFile(path) as file:
        return bool(file.metas) or file.has_own_numbers()
