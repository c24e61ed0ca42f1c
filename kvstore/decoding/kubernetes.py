"""Kubernetes objects as an API server stores them in protobuf, as plain values.

    "k8s\\0" | Unknown {1 TypeMeta {1 apiVersion, 2 kind}, 2 raw, 3 contentEncoding, 4 contentType}
                                                           raw = the object; its field 1 is ObjectMeta

Objects of known types (``kubernetes_types``) get the names that JSON has; of others, and of fields that a later version
added, the shape shows without names (``generic_protobuf``). Nothing is left out but empty strings and times. What has
a form of its own in JSON has it here: quantities, times, numbers or strings, embedded JSON.

ObjectMeta's managed fields say who wrote an object last, and when: the entry with the latest time.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from kvstore.wire import WireError, fields, read_varint, signed

from .generic_protobuf import MESSAGE_DEPTH_MAX, named_by_number
from .kubernetes_types import TABLE

MAGIC = b"k8s\0"
ENCRYPTED = b"k8s:enc:"
_MANAGED_FIELDS = 17
_OBJECT_META = "meta.v1.ObjectMeta"


class KubernetesObject(NamedTuple):
    api_version: str
    kind: str
    namespace: str
    name: str
    body: dict[str, Any]


def decode_object(value: bytes) -> KubernetesObject:
    """An object in its envelope. Raises ``WireError``."""
    envelope = dict(fields(value[len(MAGIC) :]))
    type_meta = dict(fields(_bytes(envelope, 1)))
    api_version, kind = _text(_bytes(type_meta, 1)), _text(_bytes(type_meta, 2))
    raw = _bytes(envelope, 2)
    body = _known_or_not(raw, _type_name(api_version, kind))
    meta = body.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    whole = {"apiVersion": api_version, "kind": kind, **body}
    return KubernetesObject(
        api_version, kind, str(meta.get("namespace", "")), str(meta.get("name", "")), whole
    )


def _known_or_not(raw: bytes, type_name: str) -> dict[str, Any]:
    if raw[:1] == b"{":  # the envelope of an object that has no protobuf form
        found = _json(raw)
        if isinstance(found, dict):
            return found
    if type_name not in _types():
        type_name = ""
    return _message(raw, type_name, 0)


def last_writer(value: bytes) -> tuple[bytes, int]:
    """The field manager that wrote the object last, and when, in seconds since 1970. Empty and 0: not known."""
    try:
        if value.startswith(MAGIC):
            return _last_entry(_managed_fields(value))
        if value[:1] == b"{" and b'"managedFields"' in value:
            return _last_entry_of_json(value)
    except (WireError, ValueError, RecursionError, OverflowError):
        pass
    return b"", 0


def _managed_fields(value: bytes) -> list[bytes]:
    raw = next((part for number, part in fields(value[len(MAGIC) :]) if number == 2), b"")
    meta = next((part for number, part in fields(raw) if number == 1), b"") if isinstance(raw, bytes) else b""
    if not isinstance(meta, bytes):
        return []
    return [part for number, part in fields(meta) if number == _MANAGED_FIELDS and isinstance(part, bytes)]


def _last_entry(entries: list[bytes]) -> tuple[bytes, int]:
    found = b"", 0
    for entry in entries:
        parts = dict(fields(entry))
        time = dict(fields(_bytes(parts, 4)))
        seconds = time.get(1, 0)
        if isinstance(seconds, int) and found[1] <= seconds < 1 << 40:
            found = _bytes(parts, 1)[:200], seconds
    return found


def _last_entry_of_json(value: bytes) -> tuple[bytes, int]:
    found = b"", 0
    whole = json.loads(value)
    meta = whole.get("metadata") if isinstance(whole, dict) else None
    entries = meta.get("managedFields") if isinstance(meta, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            when = datetime.fromisoformat(str(entry.get("time", "1970-01-01T00:00:00Z")))
            seconds = int(when.timestamp())
            if seconds >= found[1]:
                found = str(entry.get("manager", "")).encode()[:200], seconds
    return found


# --- messages of known types -----------------------------------------------------------------


class _Field(NamedTuple):
    name: str
    kind: str
    is_repeated: bool
    is_map: bool
    is_inline: bool


@cache
def _types() -> dict[str, dict[int, _Field]]:
    """Message -> number -> field."""
    found: dict[str, dict[int, _Field]] = {}
    package = ""
    for line in TABLE.replace("\n    ", " ").splitlines():
        if line.startswith("package "):
            package = line.split()[1]
        elif line:
            name, _, entries = line.partition(":")
            found[f"{package}.{name}"] = dict(_field(entry, package) for entry in entries.split(",") if entry)
    return found


def _field(entry: str, package: str) -> tuple[int, _Field]:
    name, _, rest = entry.strip().partition("=")
    number, kind = rest.split()
    plain = kind.rstrip("*<{}")
    if plain not in _SCALARS and "." not in plain:
        plain = f"{package}.{plain}"
    return int(number), _Field(name, plain, "*" in kind, "{}" in kind, "<" in kind)


def _type_name(api_version: str, kind: str) -> str:
    """``apps/v1`` and ``Deployment`` as ``apps.v1.Deployment``."""
    group, _, version = api_version.rpartition("/")
    return f"{group.partition('.')[0] or 'core'}.{version}.{kind}"


def _message(data: bytes, type_name: str, depth: int) -> dict[str, Any]:
    if depth > MESSAGE_DEPTH_MAX:
        raise WireError("messages are nested too deeply")
    known = _types().get(type_name) or ({1: _METADATA} if not type_name and not depth else {})
    found: dict[str, Any] = {}
    unknown: list[tuple[int, int | bytes]] = []
    for number, value in fields(data):
        field = known.get(number)
        if field is None:
            unknown.append((number, value))
        elif field.is_map:
            key, held = _map_entry(value, field.kind, depth)
            found.setdefault(field.name, {})[key] = held
        elif field.is_repeated:
            packed = isinstance(value, bytes) and field.kind == "int"
            held = (
                _packed(value) if packed and isinstance(value, bytes) else [_value(value, field.kind, depth)]
            )
            found.setdefault(field.name, []).extend(held)
        else:
            held = _value(value, field.kind, depth)
            if field.is_inline and isinstance(held, dict):
                found.update(held)
            elif held not in ("", None):
                found[field.name] = held
    return found | named_by_number(unknown)


_METADATA = _Field("metadata", _OBJECT_META, False, False, False)


def _value(value: int | bytes, kind: str, depth: int) -> Any:
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar(value)
    if not isinstance(value, bytes):
        raise WireError(f"a number where a {kind} belongs")
    own_form = _OWN_FORMS.get(kind)
    return _message(value, kind, depth + 1) if own_form is None else own_form(value)


def _map_entry(value: int | bytes, kind: str, depth: int) -> tuple[str, Any]:
    if not isinstance(value, bytes):
        raise WireError("a number where an entry of a map belongs")
    entry = dict(fields(value))
    default: int | bytes = b"" if kind not in ("int", "bool") else 0
    return _text(entry.get(1, b"")), _value(entry.get(2, default), kind, depth)


def _packed(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        number, at = read_varint(data, at)
        found.append(signed(number))
    return found


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise WireError("a number where text belongs")
    return value.decode("utf-8", "replace")


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise WireError("bytes where a number belongs")
    return signed(value)


def _double(value: int | bytes) -> float:
    (number,) = struct.unpack("<d", struct.pack("<Q", value))
    return float(number)


def _base64(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise WireError("a number where bytes belong")
    return base64.b64encode(value).decode()


_SCALARS: dict[str, Callable[[int | bytes], Any]] = {
    "string": _text,
    "bytes": _base64,
    "bool": lambda value: bool(_int(value)),
    "int": _int,
    "double": _double,
}


def _time(data: bytes) -> str | None:
    parts = dict(fields(data))
    seconds, nanoseconds = _int(parts.get(1, 0)), _int(parts.get(2, 0))
    if not seconds:
        return None
    try:
        when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds"
    return f"{when}.{nanoseconds // 1000:06}Z" if nanoseconds else f"{when}Z"


def _int_or_string(data: bytes) -> int | str:
    parts = dict(fields(data))
    return _text(parts.get(3, b"")) if parts.get(1) else _int(parts.get(2, 0))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")


def _embedded_json(data: bytes) -> Any:
    raw = dict(fields(data)).get(1, b"")
    return _json(raw) if isinstance(raw, bytes) and raw else None


_OWN_FORMS: dict[str, Callable[[bytes], Any]] = {
    "resource.Quantity": lambda data: _text(dict(fields(data)).get(1, b"")),
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _time,
    "intstr.IntOrString": _int_or_string,
    "meta.v1.FieldsV1": _embedded_json,
    "runtime.RawExtension": _embedded_json,
    "apiextensions.v1.JSON": _embedded_json,
    "apiextensions.v1beta1.JSON": _embedded_json,
}


def _bytes(message: dict[int, int | bytes], number: int) -> bytes:
    value = message.get(number, b"")
    if not isinstance(value, bytes):
        raise WireError(f"field {number} is a number")
    return value
