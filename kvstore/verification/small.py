"""The small tables: marks, leases, attachments, alarms."""

from __future__ import annotations

from kvstore.backend import ReadTx
from kvstore.keyvalue import row_numbers
from kvstore.mvcc.marks import NUMBERS, Marks
from kvstore.mvcc.schema import (
    ALARM,
    ATTACHMENT,
    FORMAT_VERSION,
    LATEST,
    LEASE,
    META,
    META_FORMAT,
    parse_lease_key,
    parse_u64,
)
from kvstore.verification.report import Collector
from kvstore.wire import WireError, fields, signed

FORMATS_MAX = 1 << 16
"""A number that no release will ever reach is damage."""


def read_marks(tx: ReadTx) -> Marks:
    """The marks, whatever their length; ``check_marks`` reports a wrong one."""
    return Marks.of(dict(tx.scan(META)), _number)


def _number(_name: bytes, value: bytes) -> int:
    return int.from_bytes(value[:8], "big")


def newer_format(tx: ReadTx) -> int:
    """The format of a store that a newer version wrote, unless that mark alone is damaged; 0: it is none."""
    found = tx.get(META, META_FORMAT)
    if found is None or len(found) != 8 or not FORMAT_VERSION < parse_u64(found) < FORMATS_MAX:
        return 0
    return parse_u64(found)


def check_marks(tx: ReadTx, found: Collector) -> Marks:
    meta = dict(tx.scan(META))
    found.counts[META] = len(meta)
    for name in NUMBERS:
        if name in meta and len(meta[name]) != 8:
            found.add_row(META, f"{name.decode()} has {len(meta[name])} bytes, not 8")
    marks = Marks.of(meta, _number)
    if meta and marks.format != FORMAT_VERSION:
        found.add_row(META, f"the format is {marks.format or 0}, not {FORMAT_VERSION}")
    if meta and not (marks.cluster_id and marks.member_id):
        found.add_row(META, "the identity of the store is missing")
    if marks.revision < 1:
        found.add_row(META, f"the revision is {marks.revision}")
    if marks.finished > marks.compacted:
        found.add_row(
            META, f"compaction {marks.finished} is finished, but only {marks.compacted} was scheduled"
        )
    if marks.compacted > marks.revision:
        found.add_row(META, f"compacted up to {marks.compacted}, beyond revision {marks.revision}")
    return marks


def check_leases(tx: ReadTx, found: Collector) -> None:
    """Check lease rows, and attachments against leases and against the lease that each key names."""
    for key, row in _rows(tx, LEASE, found):
        try:
            ident = dict(fields(row)).get(1, 0)
        except WireError as error:
            found.add_row(LEASE, f"lease {key.hex()}: {error}")
            continue
        if len(key) != 8 or not isinstance(ident, int) or signed(ident) != parse_lease_key(key):
            found.add_row(LEASE, f"the row of lease {key.hex()} belongs to another lease")
    for key, value in _rows(tx, ATTACHMENT, found):
        lease, attached = parse_lease_key(key), key[8:]
        if len(key) <= 8 or value:
            found.add_row(ATTACHMENT, f"malformed row {key!r}")
            continue
        if tx.get(LEASE, key[:8]) is None:
            found.add_row(ATTACHMENT, f"is attached to lease {lease:x}, which does not exist", attached)
        named = tx.get(LATEST, attached)
        if named is None or _lease_of(named) != lease:
            found.add_row(
                ATTACHMENT, f"is attached to lease {lease:x}, but the key does not say so", attached
            )


def _lease_of(row: bytes) -> int:
    try:
        return row_numbers(row)[3]
    except WireError:
        return 0


def check_alarms(tx: ReadTx, found: Collector) -> None:
    for key, value in _rows(tx, ALARM, found):
        if len(key) <= 8 or value or not key[8:].isalpha():
            found.add_row(ALARM, f"malformed row {key!r}")


def _rows(tx: ReadTx, table: str, found: Collector) -> list[tuple[bytes, bytes]]:
    rows = tx.scan(table)
    found.counts[table] = len(rows)
    return rows
