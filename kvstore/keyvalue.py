"""One version of one key: the row of bytes that the store keeps, and the lazy object over it.

A row is etcd's ``mvccpb.KeyValue``, byte for byte, so that it can go out on the wire or into
an etcd file as it is. Only the second and later changes of one transaction carry a prefix:

    [ 0x78 varint(sub) ]  0a len key  10 create  18 mod  20 version  [2a len value]  [30 lease]
      sub revision > 0    '-------------------- KeyValue, fields in order ----------------------'

(0x78 is field 15, which KeyValue does not have, so even a prefixed row parses as one.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NoReturn, overload

from kvstore.errors import Corruption
from kvstore.implementation import native, native_class, references
from kvstore.shelter import import_sheltered
from kvstore.wire import WireError, bytes_field, counter, fields, int_field, read_varint, varint

_SUB_TAG = 0x78
_KEY, _VALUE = 1, 5
_BYTES_NUMBERS = (_KEY, _VALUE)
_NUMBERS = (_KEY, 2, 3, 4, _VALUE, 6, _SUB_TAG >> 3)

KEY_VALUE_FIELDS = (
    "key=1 bytes, create_revision=2 int64, mod_revision=3 int64, version=4 int64, "
    "value=5 bytes, lease=6 int64"
)
"""``mvccpb.KeyValue`` in the notation of ``kvstore.protobuf``."""

_ROW_TABLE = f"package kvstore\nRow: {KEY_VALUE_FIELDS}, sub=15 int64"


class BadRow(Corruption, WireError):
    """Raised for bytes that are not a row. Callers with more context re-raise it with path and offset."""


@native
def encode_key_value(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """The canonical ``KeyValue`` bytes (zero fields omitted, ascending order)."""
    if not create_revision or not mod_revision or not version:
        return _encode_sparse(key, create_revision, mod_revision, version, value, lease)
    modified = counter(mod_revision)
    created = modified if create_revision == mod_revision else counter(create_revision)
    parts = [b"\n", varint(len(key)), key, b"\x10", created, b"\x18", modified, b"\x20", varint(version)]
    if value:
        parts += (b"\x2a", varint(len(value)), value)
    if lease:
        parts += (b"\x30", varint(lease))
    return b"".join(parts)


def _encode_sparse(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    parts = [b"\n%b%b" % (varint(len(key)), key) if key else b""]
    parts += [int_field(2, create_revision), int_field(3, mod_revision), int_field(4, version)]
    parts += [b"\x2a%b%b" % (varint(len(value)), value) if value else b"", int_field(6, lease)]
    return b"".join(parts)


@native
def make_row(key_value: bytes, sub: int) -> bytes:
    """The row of a version that is change number ``sub`` of its transaction."""
    return b"\x78%b%b" % (varint(sub), key_value) if sub else key_value


@native
def split_row(row: bytes) -> tuple[int, bytes]:
    """(sub, KeyValue bytes)."""
    if row and row[0] == _SUB_TAG:
        sub, at = read_varint(row, 1)
        return sub, row[at:]
    return 0, row


def value_view(row: memoryview) -> memoryview:
    """The value in a row, without a copy. Raises ``BadRow``."""
    try:
        for number, field in fields(row):  # type: ignore[arg-type]  # slices of a view are views
            if number == _VALUE and not isinstance(field, int):
                return memoryview(field)
    except WireError as error:
        raise BadRow(f"a row is not a KeyValue: {error}") from None
    return memoryview(b"")


Fields = tuple[bytes, int, int, int, bytes, int]


@native
def decode_row(row: bytes) -> Fields:
    """(key, create_revision, mod_revision, version, value, lease). Raises ``WireError``."""
    kv = _parse(row)
    return kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease


@native
def row_numbers(row: bytes) -> tuple[int, int, int, int]:
    """(create_revision, mod_revision, version, lease). Raises ``WireError``."""
    kv = _parse(row)
    return kv.create_revision, kv.mod_revision, kv.version, kv.lease


@native
def row_lease(row: bytes) -> int:
    lease: int = _parse(row).lease
    return lease


@native
def row_mod_revision(row: bytes) -> int:
    revision: int = _parse(row).mod_revision
    return revision


@native
def row_place(row: bytes) -> tuple[bytes, int]:
    """(key, mod_revision)."""
    kv = _parse(row)
    return kv.key, kv.mod_revision


@native
def row_revision(row: bytes) -> tuple[int, int]:
    """(main, sub) of the change that wrote the row."""
    kv = _parse(row)
    return kv.mod_revision, kv.sub


_revision_of = attrgetter("mod_revision", "sub")


@native
def row_revisions(rows: Sequence[bytes | None]) -> list[tuple[int, int]]:
    """``row_revision`` of each row; zeros for None."""
    _parse(b"")  # the first call loads the parser
    try:
        return list(map(_revision_of, map(_from_bytes, [row or b"" for row in rows])))
    except _DecodeError:
        return [_revision_of(_parse(row or b"")) for row in rows]  # shows what is wrong with which


_change_of = attrgetter("mod_revision", "key")


@native
def row_keys(rows: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """(mod_revision, key) of each row. Raises ``BadRow``."""
    _parse(b"")  # the first call loads the parser
    try:
        return list(map(_change_of, map(_from_bytes, rows)))
    except _DecodeError:
        return [_change_of(_parse(row)) for row in rows]  # shows what is wrong with which


def row_change(row: bytes) -> tuple[int, int, bytes]:
    """(main, sub, KeyValue bytes) of the change that wrote the row."""
    if row[:1] != b"\x78":
        return _parse(row).mod_revision, 0, row
    sub, at = read_varint(row, 1)
    return _parse(row).mod_revision, sub, row[at:]


# --- protobuf's parser -------------------------------------------------------------------
#
# A row is damaged only if protobuf says so about its bytes. That memory or the stack ran out, that protobuf could not
# be imported, or that the caller's signal handler raised something says nothing about the row.


def _parse(row: bytes) -> Any:
    """The row as a protobuf message: parsed in C, and a field costs only when it is read."""
    try:
        return _from_bytes(row)
    except _DecodeError as error:
        if _is_as_written(row):  # protobuf raises the same error when it lacks memory
            raise MemoryError("no memory to parse a row") from None
        raise BadRow(f"a row is not a KeyValue: {error}") from None


def _is_as_written(row: bytes) -> bool:
    """Whether the row has only a row's fields, each of its type, in canonical encoding."""
    again = []
    try:
        for number, value in fields(row):
            if number not in _NUMBERS or isinstance(value, bytes) is not (number in _BYTES_NUMBERS):
                return False
            again.append(bytes_field(number, value) if isinstance(value, bytes) else int_field(number, value))
    except WireError:
        return False
    return b"".join(again) == row


def _load_parser(row: bytes) -> Any:
    """Stands in for the parser until the first row: importing this module stays light."""
    global _from_bytes, _DecodeError
    import_sheltered("kvstore.protobuf")
    from google.protobuf.message import DecodeError

    from kvstore.protobuf import Messages

    from_bytes = Messages(_ROW_TABLE).package("kvstore").Row.FromString
    _DecodeError = DecodeError
    _from_bytes = from_bytes
    return from_bytes(row)


_from_bytes: Any = _load_parser
_DecodeError: type[Exception] = BadRow
"""Protobuf's, once it is loaded; until then nothing raises it."""


class _Row:
    """A ``KeyValue`` in the making: its fields can be assigned, until its class is."""

    __slots__ = ("_message", "row")

    row: bytes
    _message: Any
    """The parsed row; None until a field is asked for."""


@native_class("key_value_class", encode_key_value, decode_row, split_row, lambda kv: _shown(kv))  # noqa: PLW0108  # it is below
class KeyValue(_Row):
    """A key, its value and its numbers at one revision. Immutable; decoded on first use.

    ``create_revision``: revision of the put that began this life of the key; ``mod_revision``: of the put that
    wrote this value; ``version``: puts since creation, from 1; ``lease``: id of the attached lease, 0 for none.
    """

    __slots__ = ()

    def __init__(
        self,
        key: bytes = b"",
        value: bytes = b"",
        create_revision: int = 0,
        mod_revision: int = 0,
        version: int = 0,
        lease: int = 0,
    ) -> None:
        _set_row(self, encode_key_value(key, create_revision, mod_revision, version, value, lease))
        _set_message(self, None)

    @staticmethod
    def from_row(row: bytes) -> KeyValue:
        """Wrap a stored row; nothing is decoded yet."""
        made = _Row()
        made.row = row
        made._message = None
        made.__class__ = _KeyValue
        return made  # type: ignore[return-value]  # which it is by now

    @staticmethod
    def from_rows(rows: Iterable[bytes]) -> Iterator[KeyValue]:
        """``from_row`` of each, when it is used."""
        for row in rows:  # without a call for each
            made = _Row()
            made.row = row
            made._message = None
            made.__class__ = _KeyValue
            yield made  # type: ignore[misc]  # likewise

    @staticmethod
    def decoded(row: bytes) -> KeyValue:
        """Wrap a stored row and decode it at once. Raises ``BadRow``."""
        made = _Row()
        made.row = row
        made._message = _parse(row)
        made.__class__ = _KeyValue
        return made  # type: ignore[return-value]  # likewise

    def _decode(self) -> Any:
        message = _parse(self.row)
        _set_message(self, message)
        return message

    @property
    def key(self) -> bytes:
        """The key."""
        key: bytes = (self._message or self._decode()).key
        return key

    @property
    def value(self) -> bytes:
        """The value of this version."""
        value: bytes = (self._message or self._decode()).value
        return value

    @property
    def create_revision(self) -> int:
        """The revision at which this life of the key began."""
        revision: int = (self._message or self._decode()).create_revision
        return revision

    @property
    def mod_revision(self) -> int:
        """The revision that wrote this version."""
        revision: int = (self._message or self._decode()).mod_revision
        return revision

    @property
    def version(self) -> int:
        """How many times the key was put since it began, from 1."""
        version: int = (self._message or self._decode()).version
        return version

    @property
    def lease(self) -> int:
        """The id of the attached lease; 0: none."""
        lease: int = (self._message or self._decode()).lease
        return lease

    def to_protobuf(self) -> bytes:
        """The ``mvccpb.KeyValue`` message."""
        return split_row(self.row)[1]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"KeyValue is immutable: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"KeyValue is immutable: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _KeyValue):
            return NotImplemented
        return self.row == other.row or _tuple(self) == _tuple(other)

    def __hash__(self) -> int:
        return hash(_tuple(self))

    def __repr__(self) -> str:
        return _shown(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyValue.from_row, (self.row,)


_KeyValue: Any = references["KeyValue"]
"""The class above, also where another is used."""

# The slots' own setters: the class refuses assignment, this module does not.
_set_row = _Row.__dict__["row"].__set__
_set_message = _Row.__dict__["_message"].__set__


def _tuple(kv: KeyValue) -> Fields:
    return kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease


def _shown(kv: KeyValue) -> str:
    return (
        f"KeyValue(key={kv.key!r}, value={_short(kv.value)}, create_revision={kv.create_revision}, "
        f"mod_revision={kv.mod_revision}, version={kv.version}, lease={kv.lease})"
    )


def _short(value: bytes, length_max: int = 64) -> str:
    return repr(value) if len(value) <= length_max else f"{value[:length_max]!r}... ({len(value)} bytes)"


class KeyValues(Sequence[KeyValue]):
    """An immutable list of ``KeyValue`` over stored rows: each element is made when it is used."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[bytes]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> KeyValue: ...
    @overload
    def __getitem__(self, index: slice) -> KeyValues: ...
    def __getitem__(self, index: int | slice) -> KeyValue | KeyValues:
        if isinstance(index, slice):
            return KeyValues(self.rows[index])
        return KeyValue.from_row(self.rows[index])

    def __iter__(self) -> Iterator[KeyValue]:
        return KeyValue.from_rows(self.rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KeyValues) and self.rows == other.rows:
            return True
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self.rows))

    def __repr__(self) -> str:
        return f"KeyValues({list(self)!r})"
