"""What a value is. Never fails: a value that is not recognized is text if it reads as text, else bytes.

Kubernetes objects are read as ``kubernetes`` describes, JSON as JSON; bytes that parse as a protobuf message are shown
as one, without names. With encryption at rest a value begins with "k8s:enc:" and says no more than that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kvstore.wire import WireError

from .generic_protobuf import as_hex, as_text, looks_like_protobuf
from .kubernetes import ENCRYPTED, MAGIC, decode_object
from .yaml_text import as_yaml

JSON_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Described:
    """``kind``: that of the object, or ``json``, ``text``, ``protobuf``, ``bytes``, ``empty``."""

    kind: str
    name: str
    text: str
    """A readable form: YAML, pretty JSON, text, or hex."""
    data: Any = None
    """The same as plain values, if it is an object, JSON or protobuf."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}".strip()


def describe(value: bytes) -> Described:
    if not value:
        return Described("empty", "", "")
    if value.startswith(MAGIC):
        return _kubernetes(value)
    if value.startswith(ENCRYPTED):
        provider = value[len(ENCRYPTED) : 80].split(b":")[0].decode("ascii", "replace")
        return Described("encrypted Kubernetes object", provider, as_hex(value))
    if value.lstrip()[:1] in (b"{", b"[") and len(value) <= JSON_BYTES_MAX:
        found = _json(value)
        if found is not None:
            return found
    text = as_text(value)
    if text is not None:
        return Described("text", "", text)
    message = looks_like_protobuf(value)
    if message is None:
        return Described("bytes", "", as_hex(value))
    return Described("protobuf", "", as_yaml(message), message)


def _json(value: bytes) -> Described | None:
    try:
        found = json.loads(value)
        pretty = json.dumps(found, indent=2, ensure_ascii=False)
        if as_text(pretty.encode("utf-8", "surrogatepass")) is None:  # it could move a terminal's cursor
            pretty = json.dumps(found, indent=2)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return Described("json", "", pretty, found)
    metadata = found.get("metadata")
    if not isinstance(found.get("kind"), str) or not isinstance(metadata, dict):
        return Described("json", "", pretty, found)
    kind = _kind(str(found.get("apiVersion", "")), found["kind"])
    return Described(kind, _name(metadata.get("namespace"), metadata.get("name")), pretty, found)


def _kubernetes(value: bytes) -> Described:
    try:
        found = decode_object(value)
    except WireError:
        return Described("Kubernetes object", "", as_hex(value))
    if not found.kind:
        return Described("Kubernetes object", "", as_hex(value))
    kind, name = _kind(found.api_version, found.kind), _name(found.namespace, found.name)
    return Described(kind, name, as_yaml(found.body), found.body)


def _kind(api_version: str, kind: str) -> str:
    return f"{api_version}/{kind}" if api_version else kind


def _name(namespace: object, name: object) -> str:
    return "/".join(str(part) for part in (namespace, name) if part)
