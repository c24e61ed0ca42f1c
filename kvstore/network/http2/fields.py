"""Header fields, judged once.

A field is (name, value, its kind as bits, its size). It is judged when it is made, that is when it enters a
table of HPACK or is sent literally; a header list is then judged by the bits that were seen in it, in no time. The
rules are RFC 9113, 8.2 and 8.3. The value of `:authority` is nobody's business: clients put anything there.
"""

from __future__ import annotations

import re

Field = tuple[bytes, bytes, int, int]
Headers = list[tuple[bytes, bytes]]

METHOD, SCHEME, PATH, AUTHORITY, STATUS = 1, 2, 4, 8, 16
PSEUDO = METHOD | SCHEME | PATH | AUTHORITY | STATUS
REGULAR = 32
LENGTH = 64
"""It is a content-length."""
CONNECT = 128
"""It is `:method CONNECT`, whose request has neither scheme nor path."""
MALFORMED = 256
ONCE = PSEUDO | LENGTH
"""What a list may have one of."""

FIELD_OVERHEAD_BYTES = 32
LENGTH_DIGITS_MAX = 18

_PSEUDO_KINDS = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":path": PATH,
    b":authority": AUTHORITY,
    b":status": STATUS,
}
_OF_HTTP_1 = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[\x21-\x39\x3b-\x40\x5b-\x7e]+").fullmatch
_NOT_IN_VALUES = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z").search
_STATUS = re.compile(rb"[1-9][0-9][0-9]").fullmatch


def judged(name: bytes, value: bytes) -> Field:
    return name, value, _kind(name, value), len(name) + len(value) + FIELD_OVERHEAD_BYTES


def _kind(name: bytes, value: bytes) -> int:
    if _NOT_IN_VALUES(value):
        return MALFORMED
    if pseudo := _PSEUDO_KINDS.get(name):
        return _pseudo_kind(pseudo, value)
    if name == b"content-length":
        is_number = value.isdigit() and len(value) <= LENGTH_DIGITS_MAX
        return REGULAR | LENGTH if is_number else MALFORMED
    if not _NAME(name) or name in _OF_HTTP_1 or (name == b"te" and value.lower() != b"trailers"):
        return MALFORMED
    return REGULAR


def _pseudo_kind(pseudo: int, value: bytes) -> int:
    if pseudo == METHOD and value == b"CONNECT":
        return METHOD | CONNECT
    if pseudo == STATUS and not _STATUS(value):
        return MALFORMED
    return pseudo if value or pseudo == AUTHORITY else MALFORMED


def is_request(seen: int) -> bool:
    """Whether a list in which these bits were seen is a whole request."""
    if seen & CONNECT:
        return seen & (MALFORMED | PSEUDO) == METHOD | AUTHORITY
    return seen & (MALFORMED | STATUS | METHOD | SCHEME | PATH) == METHOD | SCHEME | PATH


def is_response(seen: int) -> bool:
    return seen & (MALFORMED | PSEUDO) == STATUS


def are_trailers(seen: int) -> bool:
    return not seen & (MALFORMED | PSEUDO)


def content_length(headers: Headers) -> int:
    """The content-length of a list in which LENGTH was seen."""
    return int(next(value for name, value in headers if name == b"content-length"))
