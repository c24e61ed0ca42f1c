"""etcd's messages as JSON values, by the fields of their descriptors.

                      bytes      64-bit numbers    a member of a oneof
    gateway           base64     text              a field like any other
    etcdctl -w json   base64     numbers           {"Response": {"ResponsePut": {...}}}, as Go spells it

Field names are those of the messages (``prev_kv``, ``ID``); an enum's value is its name (or its number, if it has no
name). A field at its default is omitted; a message that is set is kept, even if empty.

The gateway accepts more than it returns: camel-case names, numbers as text or not, null for what is absent; and it
ignores fields that it does not know. Since etcd 3.6 it also takes base64 for URLs, and without padding, and numbers as
``"1e3"``; and a name that an enum does not have is ignored, as the field were absent. Other spellings are read exactly
as they are written.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kvstore.errors import BadArgument

Json = Any
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spelling:
    """What ``to_json`` writes and ``from_json`` reads."""

    text: Callable[[bytes], str]
    data: Callable[[str], bytes]
    """The way back; raises ``ValueError`` if there is none."""
    longs_as_text: bool = False
    wraps_oneofs: bool = False
    is_lax: bool = False
    """Read as leniently as the gateway."""
    is_since_3_6: bool = False
    """As leniently as etcd's gateway since then."""


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def base64_data(text: str) -> bytes:
    """Decode base64 as strictly as etcd before 3.6: of its one alphabet, padded, on one line or several.

    Whoever forgets to encode a key is told so, and does not write another key.
    """
    try:
        return base64.b64decode(text.translate(_ONE_LINE), validate=True)
    except ValueError as error:
        raise ValueError(f"{text!r:.80} is no base64: {error}") from None


def any_base64_data(text: str) -> bytes:
    """Decode base64 as etcd does since 3.6: of either alphabet, padded or not at all, on one line."""
    if len(text) % 4 and "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text.translate(_ONE_ALPHABET), validate=True)
    except ValueError as error:
        raise ValueError(f"{text!r:.80} is no base64: {error}") from None


_ONE_LINE = {ord("\r"): None, ord("\n"): None}
_ONE_ALPHABET = {ord("-"): "+", ord("_"): "/"}
_INTEGER = re.compile(r"\s*-?(0|[1-9][0-9]*)\s*", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)

GATEWAY = Spelling(base64_text, base64_data, longs_as_text=True, is_lax=True)
GATEWAY_SINCE_3_6 = replace(GATEWAY, data=any_base64_data, is_since_3_6=True)
ETCDCTL = Spelling(base64_text, base64_data, wraps_oneofs=True)


# --- out -----------------------------------------------------------------------------------------


def to_json(message: Any, spelling: Spelling = GATEWAY) -> Object:
    written: Object = {}
    for field, value in message.ListFields():
        if _is_list(value):
            written[field.name] = [_value_out(field, item, spelling) for item in value]
        elif spelling.wraps_oneofs and field.containing_oneof is not None:
            kind = {_go_name(field.name): _value_out(field, value, spelling)}
            written[_go_name(field.containing_oneof.name)] = kind
        else:
            written[field.name] = _value_out(field, value, spelling)
    return written


def _value_out(field: Any, value: Any, spelling: Spelling) -> Json:
    if field.message_type is not None:
        return to_json(value, spelling)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    if isinstance(value, bytes):
        return spelling.text(value)
    return str(value) if spelling.longs_as_text and field.cpp_type in _longs(field) else value


def _longs(field: Any) -> tuple[int, int]:
    return field.CPPTYPE_INT64, field.CPPTYPE_UINT64


def _is_list(value: object) -> bool:
    return hasattr(value, "extend")


def _go_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


# --- in ------------------------------------------------------------------------------------------


def from_json(message_class: Any, value: Json, spelling: Spelling = GATEWAY) -> Any:
    """The message; ``BadArgument`` names a field that does not belong, or has the wrong kind of value."""
    message = message_class()
    try:
        _fill(message, value, spelling, "")
    except RecursionError:
        raise BadArgument("too many messages inside of one another") from None
    return message


def _fill(message: Any, value: Json, spelling: Spelling, path: str) -> None:
    if not isinstance(value, dict):
        raise _refusal(path, f"{value!r:.80} where an object belongs")
    descriptor = message.DESCRIPTOR
    for name, given in value.items():
        field = _named(descriptor.fields_by_name, name)
        if field is None and spelling.is_lax:
            field = _named(descriptor.fields_by_camelcase_name, name)
        where = f"{path}.{name}" if path else str(name)
        if field is None and not spelling.is_lax:
            raise _refusal(where, f"{descriptor.name} has no such field")
        if field is None:
            continue
        skips_names = field.enum_type is not None and spelling.is_since_3_6
        item = _of_known_names(field.enum_type, given) if skips_names else given
        if item is None and spelling.is_lax:
            continue
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
            raise _refusal(
                where, f"and {message.WhichOneof(field.containing_oneof.name)}: only one may be set"
            )
        _set(message, field, item, spelling, where)


def _named(names: Any, name: object) -> Any:
    """What has that name; None if nothing has. (protobuf's own look-up breaks on text that is none, as "\\ud800".)"""
    return names.get(name) if isinstance(name, str) and name.isascii() else None


def _set(message: Any, field: Any, item: Json, spelling: Spelling, where: str) -> None:
    held = getattr(message, field.name)
    try:
        if _is_list(held):
            if not isinstance(item, list):
                raise _refusal(where, f"{item!r:.80} where a list belongs")
            for number, each in enumerate(item):
                if field.message_type is not None:
                    _fill(held.add(), each, spelling, f"{where}[{number}]")
                else:
                    held.append(_value_in(field, each, spelling))
        elif field.message_type is not None:
            held.SetInParent()
            _fill(held, item, spelling, where)
        else:
            setattr(message, field.name, _value_in(field, item, spelling))
    except BadArgument:
        raise
    except (TypeError, ValueError) as error:
        raise _refusal(where, str(error)) from None


def _value_in(field: Any, item: Json, spelling: Spelling) -> Any:
    """The value, for protobuf to accept or refuse. Where protobuf accepts too much, it is refused here."""
    if field.enum_type is not None:
        return _enum_in(field.enum_type, item, spelling)
    if field.cpp_type == field.CPPTYPE_STRING:
        if not isinstance(item, str):
            raise TypeError(f"{item!r:.80} where text belongs")
        return spelling.data(item) if field.type == field.TYPE_BYTES else item
    if field.cpp_type == field.CPPTYPE_BOOL:
        if not isinstance(item, bool):
            raise TypeError(f"{item!r:.80} where true or false belongs")
        return item
    if spelling.is_lax and isinstance(item, str):
        item = _number_in(item, spelling)
    if spelling.is_lax and isinstance(item, float) and item.is_integer():
        return int(item)
    if not isinstance(item, int) or isinstance(item, bool):
        raise TypeError(f"{item!r:.80} where a number belongs")
    return item


def _number_in(text: str, spelling: Spelling) -> Json:
    """The number that the text spells; the text, if it spells none."""
    if spelling.is_since_3_6:
        if not _NUMBER.fullmatch(text):
            return text
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return int(text) if _INTEGER.fullmatch(text) else text


def _of_known_names(enum: Any, item: Json) -> Json:
    """A value of that enum, or a list of them, without the names that it does not have; None: nothing is left."""
    if isinstance(item, list):
        return [each for each in item if _of_known_names(enum, each) is not None]
    return None if isinstance(item, str) and _named(enum.values_by_name, item) is None else item


def _enum_in(enum: Any, item: Json, spelling: Spelling) -> int:
    if spelling.is_since_3_6 and isinstance(item, float) and item.is_integer():
        item = int(item)
    named = _named(enum.values_by_name, item)
    if named is not None:
        return int(named.number)
    if type(item) is int and (spelling.is_lax or item in enum.values_by_number):
        return item
    raise ValueError(f"{item!r:.80} is no {enum.name}")


def _refusal(where: str, what: str) -> BadArgument:
    return BadArgument(f"{where}: {what}" if where else what)
