"""The bytes of puts without leases, nearly all that is ever written: rows and log entry, from what they replace."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.implementation import native
from kvstore.keyvalue import encode_key_value, make_row, row_numbers
from kvstore.model import PutRequest
from kvstore.mvcc import effects
from kvstore.mvcc.overlay import ChangedRow


@native
def plain_put(main: int, key: bytes, value: bytes, old: bytes | None) -> tuple[bytes, bytes] | None:
    """The row of a put at revision ``main`` over the row ``old``, and its log entry. None if ``old`` has a lease."""
    create_revision, version = main, 0
    if old is not None:
        create_revision, _, version, lease = row_numbers(old)
        if lease:
            return None
    row = encode_key_value(key, create_revision, main, version + 1, value, 0)
    return row, effects.lone_put(main, row)


@native
def lone_puts(
    main: int, ops: Sequence[PutRequest], olds: Sequence[bytes | None]
) -> list[tuple[ChangedRow, bytes]]:
    """The change of each put over the rows ``olds``, and its log entry: each is a revision, the first one ``main``.

    A put over an earlier one counts that, whatever ``olds`` says. Only as many as there are before the first that
    replaces a row with a lease.
    """
    made: list[tuple[ChangedRow, bytes]] = []
    rows: dict[bytes, bytes] = {}
    for revision, (op, old) in enumerate(zip(ops, olds, strict=True), main):
        key, value = op[:2]
        put = plain_put(revision, key, value, rows.get(key, old))
        if put is None:
            break
        rows[key], entry = put
        made.append(((revision, 0, key, put[0]), entry))
    return made


@native
def plain_puts(
    main: int, ops: Sequence[PutRequest], olds: Sequence[bytes | None]
) -> tuple[list[ChangedRow], bytes] | None:
    """The changes of puts over the rows ``olds``, as one transaction, and its log entry. None if one has a lease."""
    rows: list[bytes] = []
    changes: list[ChangedRow] = []
    for sub, (op, old) in enumerate(zip(ops, olds, strict=True)):
        key, value = op[:2]
        create_revision, version = main, 0
        if old is not None:
            create_revision, _, version, lease = row_numbers(old)
            if lease:
                return None
        row = encode_key_value(key, create_revision, main, version + 1, value, 0)
        rows.append(row)
        changes.append((main, sub, key, make_row(row, sub) if sub else row))
    return changes, effects.puts(main, rows)
