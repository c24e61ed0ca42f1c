"""Header blocks (RFC 7541). We decode everything, and encode without a table.

A block is a run of fields:

    1xxxxxxx  a field of the tables, by its index
    01xxxxxx  a new one, which enters the dynamic table;  x = index of its name, 0 = the name follows
    0000xxxx  a new one, which does not;  0001xxxx  the same, and nobody on the way may put it into a table
    001xxxxx  the dynamic table's new size, at the beginning of a block only

Indices 1 to 61 are the static table, the rest is the dynamic table, newest first. The bits x start a number that goes
on, 7 bits a byte, where they are all ones. A string is its length, a number under a bit that says whether Huffman's
code is used, and so many bytes.

A block that changes no table is remembered by its bytes until something else does, and is then not read again. An error
anywhere is the end of the connection, since the tables of the two ends can no longer be the same; so is a list that
is too long: decoding the rest of it to keep the table right would cost just what its sender wants it to cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from . import huffman
from .fields import MALFORMED, ONCE, PSEUDO, REGULAR, Field, Headers, judged
from .frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from .limits import LIMITS, Limits

_STATIC_TEXT = """
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""

_STATIC_PAIRS = [
    (name, value)
    for name, _, value in (line.partition(b" ") for line in _STATIC_TEXT.strip().encode().splitlines())
]
_STATIC = (judged(b"", b""), *(judged(name, value) for name, value in _STATIC_PAIRS))
_FIRST_DYNAMIC = len(_STATIC)
_INDEX = {pair: index for index, pair in reversed(list(enumerate(_STATIC_PAIRS, 1)))}
_NAME_INDEX = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC_PAIRS, 1)))}

_NUMBER_BYTES_MAX = 4
"""Bytes that a number may go on for: 28 bits, far more than any index or length that can be good."""
_INDEXED, _ENTERS, _NEW_SIZE = 0x80, 0x40, 0x20
_HUFFMAN = 0x80
_NEVER_INDEXED = 0x10


# --- out -------------------------------------------------------------------------------------------------


def encode(headers: Iterable[tuple[bytes, bytes]], secret: frozenset[bytes] = frozenset()) -> bytes:
    """A header block that means the same on any connection at any time. Names are in lower case.

    Fields whose name is in `secret` are marked so that no proxy puts them into a table.
    """
    block = []
    for name, value in headers:
        if index := _INDEX.get((name, value)):
            block.append(_number(index, 7, _INDEXED))
            continue
        index = _NAME_INDEX.get(name, 0)
        block.append(_number(index, 4, _NEVER_INDEXED if name in secret else 0))
        if not index:
            block += (_number(len(name), 7, 0), name)
        block += (_number(len(value), 7, 0), value)
    return b"".join(block)


def _number(number: int, bits: int, pattern: int) -> bytes:
    full = (1 << bits) - 1
    if number < full:
        return bytes((pattern | number,))
    out = bytearray((pattern | full,))
    number -= full
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# --- in --------------------------------------------------------------------------------------------------


class Block:
    """What a header block said. It may be the answer for many streams: nobody changes its `headers`."""

    __slots__ = ("headers", "request", "seen")

    def __init__(self, headers: Headers, seen: int) -> None:
        self.headers = headers
        self.seen = seen
        """The kinds of its fields, or'ed (see `fields`)."""
        self.request: Any = None
        """Room for what the connection made of it."""


class Decoder:
    """The decoder of one connection, with its dynamic table."""

    __slots__ = ("_known", "_limits", "_size", "_size_max", "_table", "known")

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._table: deque[Field] = deque()
        self._size = 0
        self._size_max = limits.header_table_bytes
        self._known: dict[bytes, Block] = {}
        self.known: Callable[[bytes], Block | None] = self._known.get
        """The same as `decode`, if that needs no more than a look."""

    def decode(self, block: bytes) -> Block:
        """Raises ConnectionFault, after which the decoder is of no use."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            return self._decode(block)
        except IndexError:
            raise _bad("a header block ends inside a field, or names an index that is in no table") from None
        except huffman.HuffmanError:
            raise _bad("a string of a header block is no Huffman string") from None

    def _decode(self, block: bytes) -> Block:
        table = self._table
        headers: Headers = []
        list_bytes_max, fields_max = self._limits.header_list_bytes, self._limits.header_list_fields
        at, end, size, seen, changed = 0, len(block), 0, 0, False
        while at < end:
            first = block[at]
            if first & _INDEXED:
                index, at = (first & 0x7F, at + 1) if first != 0xFF else _read_number(block, at, 0x7F)
                if not index:
                    raise IndexError
                field = _STATIC[index] if index < _FIRST_DYNAMIC else table[index - _FIRST_DYNAMIC]
            elif first & (_ENTERS | _NEW_SIZE) == _NEW_SIZE:
                if headers:
                    raise _bad("a new size of the dynamic table comes after a field")
                at = self._resize(block, at)
                changed = True
                continue
            else:
                field, at = self._read_field(block, at, first)
                if first & _ENTERS:
                    self._enter(field)
                    changed = True
            name, value, kind, field_size = field
            size += field_size
            if size > list_bytes_max:
                raise ConnectionFault(
                    ENHANCE_YOUR_CALM, f"a header list has more than {list_bytes_max} bytes"
                )
            if kind != REGULAR and (seen & kind & ONCE or (kind & PSEUDO and seen & REGULAR)):
                seen |= MALFORMED
            seen |= kind
            headers.append((name, value))
            if len(headers) > fields_max:
                raise ConnectionFault(ENHANCE_YOUR_CALM, f"a header list has more than {fields_max} fields")
        made = Block(headers, seen)
        if changed:
            self._known.clear()
        elif len(block) <= self._limits.known_block_bytes:
            self._remember(block, made)
        return made

    def _remember(self, block: bytes, made: Block) -> None:
        if len(self._known) >= self._limits.known_blocks:
            self._known.clear()
        self._known[block] = made

    def _read_field(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        full = 0x3F if first & _ENTERS else 0x0F
        index = first & full
        at += 1
        if index == full:
            index, at = _read_number(block, at - 1, full)
        if index:
            name = (_STATIC[index] if index < _FIRST_DYNAMIC else self._table[index - _FIRST_DYNAMIC])[0]
        else:
            name, at = _read_string(block, at)
        value, at = _read_string(block, at)
        return judged(name, value), at

    def _enter(self, field: Field) -> None:
        self._table.appendleft(field)
        self._size += field[3]
        if self._size > self._size_max:
            self._evict()

    def _evict(self) -> None:
        while self._size > self._size_max:
            self._size -= self._table.pop()[3]

    def _resize(self, block: bytes, at: int) -> int:
        size, at = _read_number(block, at, 0x1F)
        if size > self._limits.header_table_bytes:
            raise _bad(
                f"the dynamic table may not become larger than {self._limits.header_table_bytes} bytes"
            )
        self._size_max = size
        self._evict()
        return at


def _bad(reason: str) -> ConnectionFault:
    return ConnectionFault(COMPRESSION_ERROR, reason)


def _read_number(block: bytes, at: int, full: int) -> tuple[int, int]:
    number = block[at] & full
    at += 1
    if number < full:
        return number, at
    for shift in range(0, 7 * _NUMBER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _bad("a number of a header block is too large")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    length, at = (first & 0x7F, at + 1) if first & 0x7F != 0x7F else _read_number(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise IndexError
    text = block[at:end]
    return (huffman.decode(text) if first & _HUFFMAN else text), end
