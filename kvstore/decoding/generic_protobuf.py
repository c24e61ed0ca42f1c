"""Protobuf without its definition: field numbers, and what their bytes look like.

    {"1": "text", "2": 17, "3": {"1": [1, 2]}, "4": "<3 bytes: 00 ff 10>"}

The wire format does not tell text, bytes and messages apart. Bytes are text if they read as text, else a message if
they parse as one, else bytes. A guess: ``looks_like_protobuf`` is strict where nothing else says that it is protobuf.
"""

from __future__ import annotations

from typing import Any

from kvstore.wire import WireError, fields, signed

MESSAGE_DEPTH_MAX = 64
FIELD_NUMBER_MAX = 2000
"""A greater number is hardly one that someone gave to a field."""
HEX_BYTES = 64


def as_text(value: bytes) -> str | None:
    """The value as text; None if it is not text."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return (
        text if text.isprintable() or all(char.isprintable() or char in "\n\r\t" for char in text) else None
    )


def as_hex(value: bytes) -> str:
    """The first bytes in hex, and how many there are in all."""
    shown = value[:HEX_BYTES].hex(" ")
    return shown if len(value) <= HEX_BYTES else f"{shown} … ({len(value)} bytes)"


def looks_like_protobuf(value: bytes) -> dict[str, Any] | None:
    """The message, if the value parses as one and some of it is text or a message."""
    found = _guessed(value, 0)
    if found is None or len(value) < 4 or all(isinstance(part, int) for part in found.values()):
        return None
    return found


def named_by_number(parts: list[tuple[int, int | bytes]], depth: int = 0) -> dict[str, Any]:
    """The fields of a message; a number that comes more than once has a list."""
    found: dict[str, Any] = {}
    repeated: set[str] = set()
    for number, value in parts:
        name, held = str(number), _held(value, depth)
        if name not in found:
            found[name] = held
        elif name in repeated:
            found[name].append(held)
        else:
            found[name] = [found[name], held]
            repeated.add(name)
    return found


def _held(value: int | bytes, depth: int) -> Any:
    if isinstance(value, int):
        return signed(value)
    text = as_text(value)
    if text is not None:
        return text
    message = _guessed(value, depth + 1)
    return message if message is not None else f"<{len(value)} bytes: {as_hex(value)}>"


def _guessed(value: bytes, depth: int) -> dict[str, Any] | None:
    if depth > MESSAGE_DEPTH_MAX or not value:
        return None
    try:
        parts = list(fields(value))
    except WireError:
        return None
    if any(number > FIELD_NUMBER_MAX for number, _ in parts):
        return None
    return named_by_number(parts, depth)
