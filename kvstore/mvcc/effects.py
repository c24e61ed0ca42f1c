"""A log entry: what one write decided, as a list of effects.

    Entry (protobuf) = 1 revision   varint    main revision of the puts and deletes; absent if there are none
                       2 put        bytes     KeyValue (its mod_revision is the entry's revision)
                       3 delete     bytes     user key
                       4 grant      Lease     {1 id, 2 ttl_seconds, 3 deadline_ms}
                       5 revoke     varint    lease id
                       6 attach     Attach    {1 lease id, 2 user key}
                       7 detach     Attach
                       8 renew      Lease     {1 id, 3 deadline_ms}
                       9 compact    varint    revision + 1 (so that 0 has a byte)
                      10 alarm      Alarm     {1 on, 2 member id, 3 name}
                      11 row        Row       {1 name in ``meta``, 2 value; absent: deleted}

Fields are in the order in which they take effect; the nth put or delete has sub revision n. An entry says what
happened, not what was requested: replaying it evaluates nothing and reads nothing.

``apply`` interprets entries wherever a log is read. A live write is carried out from its plan (plan.py) instead, which
must have the same result: see twin.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.errors import Corruption, TooNew
from kvstore.implementation import native
from kvstore.keyvalue import make_row, row_mod_revision
from kvstore.mvcc.schema import META_CARRIED
from kvstore.wire import (
    WireError,
    bytes_field,
    counter,
    counter_field,
    fields,
    int_field,
    read_varint,
    signed,
    varint,
)

if TYPE_CHECKING:
    from kvstore.mvcc.lessor import Lessor
    from kvstore.mvcc.state import State

REVISION, PUT, DELETE, GRANT, REVOKE, ATTACH, DETACH, RENEW, COMPACT, ALARM, ROW = range(1, 12)


def revision(main: int) -> bytes:
    return b"\x08" + varint(main)


def put(key_value: bytes) -> bytes:
    return b"\x12%b%b" % (varint(len(key_value)), key_value)


def lone_put(main: int, key_value: bytes) -> bytes:
    """``revision`` and ``put`` in one: the usual entry."""
    return b"".join((b"\x08", counter(main), b"\x12", varint(len(key_value)), key_value))


def puts(main: int, key_values: Sequence[bytes]) -> bytes:
    """``revision``, and ``put`` for each."""
    parts = [b"\x08", counter(main)]
    for key_value in key_values:
        parts += (b"\x12", varint(len(key_value)), key_value)
    return b"".join(parts)


def delete(*keys: bytes) -> bytes:
    return b"".join([b"\x1a%b%b" % (varint(len(key)), key) for key in keys])


def grant(lease: int, ttl_seconds: int, deadline_ms: int) -> bytes:
    return bytes_field(GRANT, int_field(1, lease) + int_field(2, ttl_seconds) + int_field(3, deadline_ms))


def revoke(lease: int) -> bytes:
    return b"\x28" + varint(lease)


def attach(lease: int, key: bytes) -> bytes:
    return bytes_field(ATTACH, int_field(1, lease) + bytes_field(2, key))


def detach(lease: int, *keys: bytes) -> bytes:
    ident = int_field(1, lease)
    return b"".join([bytes_field(DETACH, b"%b\x12%b%b" % (ident, varint(len(key)), key)) for key in keys])


def renew(lease: int, deadline_ms: int) -> bytes:
    return renewed(int_field(1, lease), deadline_ms)


def renewed(ident: bytes, deadline_ms: int) -> bytes:
    """``renew`` of a lease whose id is encoded already (``Lease.ident``)."""
    return bytes_field(RENEW, ident + counter_field(3, deadline_ms))


def compact(to_revision: int) -> bytes:
    return b"\x48" + varint(to_revision + 1)


def alarm(on: bool, member_id: int, name: str) -> bytes:
    return bytes_field(ALARM, int_field(1, int(on)) + int_field(2, member_id) + bytes_field(3, name.encode()))


def row(name: bytes, value: bytes | None) -> bytes:
    return bytes_field(ROW, bytes_field(1, name) + (b"" if value is None else bytes_field(2, value)))


def apply(entry: bytes, state: State, lessor: Lessor) -> None:
    """Apply the effects of one entry to the state. Deterministic; raises ``Corruption`` for a bad entry."""
    try:
        if not _apply_lone_put(entry, state):
            _apply_fields(entry, state, lessor)
    except WireError as error:
        raise Corruption(f"log entry {state.index + 1}: {error}", last_good_revision=state.head) from None
    state.index += 1


def _apply_lone_put(entry: bytes, state: State) -> bool:
    """Apply the usual entry, a revision and one put, without the cost of the general case. False if it is another."""
    parts = lone_put_of(entry)
    if parts is None:
        return False
    main, mod_revision, key, key_value = parts
    _advance(state, main)
    _check_put(mod_revision, main)
    state.change((main, 0, key, key_value))
    return True


@native
def lone_put_of(entry: bytes) -> tuple[int, int, bytes, bytes] | None:
    """(revision, the put's mod_revision, key, KeyValue bytes) of an entry that is a revision and one put; else None."""
    if entry[:1] != b"\x08":
        return None
    main, at = read_varint(entry, 1)
    if entry[at : at + 1] != b"\x12":
        return None
    length, at = read_varint(entry, at + 1)
    if at + length != len(entry):
        return None
    key_value = entry[at:]
    return main, row_mod_revision(key_value), _key_of(key_value), key_value


def _advance(state: State, main: int) -> None:
    if main != state.head + 1:
        raise WireError(f"revision {main} follows revision {state.head}")
    state.head = main


def _apply_put(key_value: bytes, main: int, sub: int, state: State) -> None:
    _check_put(row_mod_revision(key_value), main)
    state.change((main, sub, _key_of(key_value), make_row(key_value, sub)))


def _check_put(mod_revision: int, main: int) -> None:
    if mod_revision != main:
        raise WireError(f"a put of revision {mod_revision} in an entry of revision {main}")


def _key_of(key_value: bytes) -> bytes:
    length, at = read_varint(key_value, 1)
    return key_value[at : at + length]


def _apply_fields(entry: bytes, state: State, lessor: Lessor) -> None:
    main = sub = 0
    for number, value in fields(entry):
        if number in (PUT, DELETE) and not main:
            raise WireError("a change without a revision")
        if number == PUT and isinstance(value, bytes):
            _apply_put(value, main, sub, state)
            sub += 1
        elif number == DELETE and isinstance(value, bytes):
            state.change((main, sub, value, None))
            sub += 1
        elif number == REVISION and isinstance(value, int):
            _advance(state, value)
            main = value
        else:
            _apply_other(number, value, state, lessor)


def _apply_other(number: int, value: int | bytes, state: State, lessor: Lessor) -> None:
    if isinstance(value, int):
        if number == REVOKE:
            lessor.apply_revoke(state.active, signed(value))
        elif number == COMPACT:
            if not 0 < value <= state.head + 1:
                raise WireError(f"a compaction to revision {value - 1} at revision {state.head}")
            state.compact(value - 1)
        else:
            raise _unknown(number)
        return
    parts = dict(fields(value))
    if number == ROW:
        _apply_row(parts, state)
        return
    ident = signed(_int(parts, 1))
    if number == GRANT:
        lessor.apply_grant(state.active, ident, _int(parts, 2), _int(parts, 3))
    elif number == RENEW:
        lessor.apply_renew(state.active, ident, _int(parts, 3))
    elif number == ATTACH:
        lessor.apply_attach(state.active, ident, _bytes(parts, 2))
    elif number == DETACH:
        lessor.apply_detach(state.active, ident, [_bytes(parts, 2)])
    elif number == ALARM:
        state.set_alarm(_int(parts, 2), _bytes(parts, 3).decode("ascii", "replace"), bool(ident))
    else:
        raise _unknown(number)


def _apply_row(parts: dict[int, int | bytes], state: State) -> None:
    name = _bytes(parts, 1)
    if not name.startswith(META_CARRIED):
        raise WireError(f"a row {name!r}, which is none of those that are carried")
    state.set_carried(name, _bytes(parts, 2) if 2 in parts else None)


def _int(parts: dict[int, int | bytes], number: int) -> int:
    value = parts.get(number, 0)
    if not isinstance(value, int):
        raise WireError(f"field {number} is not a number")
    return value


def _bytes(parts: dict[int, int | bytes], number: int) -> bytes:
    value = parts.get(number, b"")
    if not isinstance(value, bytes):
        raise WireError(f"field {number} is not bytes")
    return value


def _unknown(number: int) -> TooNew:
    return TooNew(f"the log holds an effect of kind {number}, which this version does not know")
