"""What a value is. Never fails: a value that is not recognized is text if it reads as text, else bytes.

A Kubernetes object in protobuf, as its API server stores it:

    "k8s\\0" | Unknown {1 TypeMeta {1 apiVersion, 2 kind}, 2 raw, 3 contentEncoding, 4 contentType}
                                                           raw = the object; its field 1 is
                                                           ObjectMeta {1 name, 3 namespace, 5 uid}

With encryption at rest the value begins with "k8s:enc:" and says no more than that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kvstore.wire import WireError, fields

K8S_MAGIC = b"k8s\0"
K8S_ENCRYPTED = b"k8s:enc:"
JSON_BYTES_MAX = 4 << 20
HEX_BYTES = 64


@dataclass(frozen=True, slots=True)
class Described:
    """``kind``: that of the object, or ``json``, ``text``, ``bytes``, ``empty``; ``name``: the object's own name."""

    kind: str
    name: str
    text: str
    """A readable form: pretty JSON, text, or hex."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}".strip()


def describe(value: bytes) -> Described:
    if not value:
        return Described("empty", "", "")
    if value.startswith(K8S_MAGIC):
        return _kubernetes(value)
    if value.startswith(K8S_ENCRYPTED):
        provider = value[len(K8S_ENCRYPTED) : 80].split(b":")[0].decode("ascii", "replace")
        return Described("encrypted Kubernetes object", provider, as_hex(value))
    if value.lstrip()[:1] in (b"{", b"[") and len(value) <= JSON_BYTES_MAX:
        found = _json(value)
        if found is not None:
            return found
    text = as_text(value)
    return Described("bytes", "", as_hex(value)) if text is None else Described("text", "", text)


def as_text(value: bytes) -> str | None:
    """The value as text; None if it is not text."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\n\r\t" for char in text) else None


def as_hex(value: bytes) -> str:
    """The first bytes in hex, and how many there are in all."""
    shown = value[:HEX_BYTES].hex(" ")
    return shown if len(value) <= HEX_BYTES else f"{shown} … ({len(value)} bytes)"


def _json(value: bytes) -> Described | None:
    try:
        found = json.loads(value)
        pretty = json.dumps(found, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return Described("json", "", pretty)
    metadata = found.get("metadata")
    if not isinstance(found.get("kind"), str) or not isinstance(metadata, dict):
        return Described("json", "", pretty)
    kind = _kind(str(found.get("apiVersion", "")), found["kind"])
    return Described(kind, _name(metadata.get("namespace"), metadata.get("name")), pretty)


def _kubernetes(value: bytes) -> Described:
    try:
        unknown = _fields(value[len(K8S_MAGIC) :])
        type_meta = _fields(_bytes(unknown, 1))
        object_meta = _fields(_bytes(_fields(_bytes(unknown, 2)), 1))
        kind = _kind(_str(type_meta, 1), _str(type_meta, 2))
        name = _name(_str(object_meta, 3), _str(object_meta, 1))
        return Described(kind or "Kubernetes object", name, as_hex(value))
    except WireError:
        return Described("Kubernetes object", "", as_hex(value))


def _fields(message: bytes) -> dict[int, Any]:
    return dict(fields(message))


def _bytes(message: dict[int, Any], number: int) -> bytes:
    value = message.get(number, b"")
    if not isinstance(value, bytes):
        raise WireError(f"field {number} is a number")
    return value


def _str(message: dict[int, Any], number: int) -> str:
    return _bytes(message, number).decode("utf-8", "replace")


def _kind(api_version: str, kind: str) -> str:
    return f"{api_version}/{kind}" if api_version else kind


def _name(namespace: object, name: object) -> str:
    return "/".join(str(part) for part in (namespace, name) if part)
