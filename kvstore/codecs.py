"""Codecs: how Python values become bytes, and come back. Never pickle: reading a store must not run what is in it.

    BYTES, TEXT      as they are; UTF-8
    JSON             what JSON has, in one spelling: no spaces, sorted names, UTF-8
    INTEGER          a decimal number, which ``incr`` counts
    struct(T)        a dataclass, a ``msgspec.Struct`` or whatever else msgspec knows, as JSON, checked when it is read
    Codec(a, b)      your own pair of functions

What a codec cannot read was damaged, or written by something else: ``UndecodableValue`` names the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from kvstore.errors import BadArgument, MissingDependency, UndecodableValue

T = TypeVar("T")

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True)
class Codec(Generic[T]):
    """``encode`` makes bytes of a value, ``decode`` the value of the bytes."""

    encode: Callable[[T], bytes]
    """From an object to bytes."""
    decode: Callable[[bytes], T]
    """From bytes to an object."""


def encoded(codec: Codec[T], given: T, name: str, of: str = "view", option: str = "") -> bytes:
    """``given``, an argument called ``name``, as bytes. ``of``, ``option``: whose codec that is, and what sets it.

    Raises ``TypeError``, or ``BadArgument`` for a value that is of the right type.
    """
    try:
        data: object = codec.encode(given)
    except (TypeError, AttributeError, ValueError) as error:
        kind = BadArgument if isinstance(error, ValueError) else TypeError
        remedy = f"give the {of} a codec that takes it ({option or f'{name}s'}=...)"
        raise kind(f"{name} {given!r:.80} does not fit this {of}: {error}; {remedy}") from error
    if type(data) is not bytes:
        raise TypeError(f"the codec of {name}s must encode to bytes, not {type(data).__name__}")
    return data


def decoded(codec: Codec[T], data: bytes, key: bytes, what: str) -> T:
    """The value of what is stored under ``key``, or of a part of it. Raises ``UndecodableValue``."""
    try:
        return codec.decode(data)
    except MemoryError:  # which says nothing of the value
        raise
    except Exception as error:
        raise UndecodableValue(key, f"its {what} {data!r:.80} cannot be decoded: {error}") from error


def _encode_text(text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a text codec takes str, not {type(text).__name__}")
    return text.encode()


def _encode_bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"a bytes codec takes bytes, not {type(value).__name__}")
    return bytes(value)


def _encode_json(value: Json) -> bytes:
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _decode_json(data: bytes) -> Json:
    found: Json = json.loads(data)
    return found


def _encode_integer(value: int) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"an integer codec takes int, not {type(value).__name__}")
    return b"%d" % value


BYTES: Codec[bytes] = Codec(_encode_bytes, bytes)
TEXT: Codec[str] = Codec(_encode_text, bytes.decode)
JSON: Codec[Json] = Codec(_encode_json, _decode_json)
INTEGER: Codec[int] = Codec(_encode_integer, int)


def struct(kind: type[T]) -> Codec[T]:
    """Values of one type as JSON, by msgspec. Raises ``MissingDependency`` where that is not installed."""
    try:
        import msgspec  # type: ignore[import-not-found]  # it need not be installed
    except ImportError:
        raise MissingDependency(
            "typed values need msgspec: pip install msgspec (or give your own pair of functions: kvstore.Codec)"
        ) from None
    decoder = msgspec.json.Decoder(kind)
    return Codec(msgspec.json.Encoder(order="deterministic").encode, decoder.decode)
