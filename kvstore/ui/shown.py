"""Keys and values as the page gets them.

A key has a name, for people, and an id, which stands in addresses: its bytes, percent-encoded. A saved page makes it
of the name instead.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from kvstore.decoding.kubernetes import last_writer
from kvstore.decoding.readable import readable
from kvstore.decoding.values import Described, describe

NAME_CHARS = 1000
HEX_BYTES = 4096
HEX_LINE_BYTES = 16
_UNQUOTED = "/!'()*"
"""What ``encodeURIComponent`` leaves as it is too, and the slash."""


def key_id(key: bytes) -> str:
    return quote(key, safe=_UNQUOTED)


def key_of(identity: str) -> bytes:
    return unquote_to_bytes(identity)


def name_of(key: bytes) -> str:
    return readable(key, NAME_CHARS)


def named(key: bytes) -> dict[str, str]:
    """The name, and an id if the name is cut: others may have the same one then."""
    name = name_of(key)
    if not name.endswith("…") or name == readable(key, NAME_CHARS + 1):
        return {"name": name}
    return {"name": name, "id": f"{key_id(name.encode())}~{_digest(key)}"}


def lease_name(lease: int) -> str:
    """In hexadecimal, as ``etcdctl`` shows it."""
    return f"{lease & (1 << 64) - 1:x}"


def shown_value(value: bytes, chars_max: int) -> dict[str, Any]:
    """A value as text, as far as ``chars_max``. ``form`` says how it is laid out: json, yaml, text or bytes.

    A Kubernetes object also says who wrote it, and when.
    """
    described = describe(value)
    text, form = described.text, _form(described)
    if form == "bytes":
        text = _dump(value)
    shown: dict[str, Any] = {
        "title": described.title[:NAME_CHARS],
        "form": form,
        "text": text[:chars_max],
        "digest": _digest(value),
    }
    writer, seconds = last_writer(value)
    if writer:
        shown["writer"] = readable(writer)
    if seconds:
        shown["seconds"] = seconds
    if form == "bytes" and len(value) > HEX_BYTES:
        shown["cut"] = f"the first {HEX_BYTES:,} of {len(value):,} bytes"
    if len(text) > chars_max:
        shown["cut"] = f"the first {chars_max:,} of {len(text):,} characters"
    return shown


def unread_value(value: bytes) -> dict[str, Any]:
    """The same of a value that is not looked at, because it and others would take too long."""
    return {"title": "large", "form": "text", "text": "", "digest": _digest(value), "cut": "nothing"}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _form(described: Described) -> str:
    if described.data is not None:
        return "json" if described.text[:1] in "{[" else "yaml"
    return "text" if described.kind in ("text", "empty") else "bytes"


def _dump(value: bytes) -> str:
    """Bytes in hex, a few to a line, and what of them is ASCII."""
    lines = []
    for at in range(0, min(len(value), HEX_BYTES), HEX_LINE_BYTES):
        line = value[at : at + HEX_LINE_BYTES]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        lines.append(f"{at:06x}  {line.hex(' '):<{3 * HEX_LINE_BYTES}} {characters}")
    return "\n".join(lines)
