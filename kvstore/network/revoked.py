"""Which certificates are revoked, out of a list of them (RFC 5280, section 5): their serial numbers.

OpenSSL would look at such a list within the handshake, and let nobody in once the list is overdue, nor where one of the
authorities has none. etcd goes on with what it has, and whoever made it: it is its operator's file. So we read it.

    CertificateList ::= SEQUENCE { TBSCertList, ... }
    TBSCertList     ::= SEQUENCE { INTEGER?, SEQUENCE, SEQUENCE, Time, Time?, (SEQUENCE OF Revoked)?, ... }
    Revoked         ::= SEQUENCE { INTEGER (the serial number), Time, ... }
"""

from __future__ import annotations

import re
from base64 import b64decode

_INTEGER, _SEQUENCE = 0x02, 0x30
_TIMES = (0x17, 0x18)
_PEM = re.compile(rb"-----BEGIN X509 CRL-----(.*?)-----END X509 CRL-----", re.DOTALL)


def revoked_serials(content: bytes) -> frozenset[int]:
    """Those of a file, which is a list in DER, or one or several in PEM. Raises ``ValueError``: it is none."""
    lists = [b64decode(each) for each in _PEM.findall(content)] if b"-----BEGIN" in content else [content]
    if not lists:
        raise ValueError("it has no X509 CRL")
    return frozenset(serial for each in lists for serial in _serials_of(each))


def _serials_of(der: bytes) -> list[int]:
    signed = _elements(_element(_element(der, _SEQUENCE), _SEQUENCE))
    kinds = [kind for kind, _content in signed]
    if kinds[:1] == [_INTEGER]:
        del signed[0], kinds[0]
    if kinds[:2] != [_SEQUENCE, _SEQUENCE] or not set(kinds[2:3]) & set(_TIMES):
        raise ValueError("it is not a list of revoked certificates")
    rest = [(kind, content) for kind, content in signed[3:] if kind not in _TIMES]
    if not rest or rest[0][0] != _SEQUENCE:
        return []
    return [
        int.from_bytes(_element(content, _INTEGER), "big", signed=True)
        for _kind, content in _elements(rest[0][1])
    ]


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """(kind, content) of each, as they follow each other."""
    found, at = [], 0
    while at < len(der):
        size, start = _size(der, at + 1)
        if start + size > len(der):
            raise ValueError("the list of revoked certificates is cut off")
        found.append((der[at], der[start : start + size]))
        at = start + size
    return found


def _element(der: bytes, kind: int) -> bytes:
    """The content of the first one, which must be of that kind."""
    found = _elements(der)
    if not found or found[0][0] != kind:
        raise ValueError("it is not a list of revoked certificates")
    return found[0][1]


def _size(der: bytes, at: int) -> tuple[int, int]:
    """(size of the content, where it starts). Short, or the number of the bytes that say it."""
    head = der[at : at + 1]
    if not head or head[0] == 0x80:
        raise ValueError("the list of revoked certificates is cut off")
    if head[0] < 0x80:
        return head[0], at + 1
    end = at + 1 + (head[0] & 0x7F)
    return int.from_bytes(der[at + 1 : end], "big"), end
