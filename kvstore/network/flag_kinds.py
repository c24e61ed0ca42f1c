"""What the values of flags look like: Go's, as etcd reads them.

Each kind is read from text, wherever it stood: on the command line, in the environment, or in a file, whose own types
become text first (``as_text``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvstore.network.addresses import parse_urls
from kvstore.options import BadOption, parse_duration


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value."""

    name: str
    parse: Callable[[str], Any]
    """Raises ``ValueError`` (``BadOption`` is one)."""
    show: Callable[[Any], str] = str
    """As ``--help`` writes it."""
    number_unit: str = ""
    """What a bare number means in a file, where the flag wants a unit."""

    def as_text(self, value: object) -> str:
        """A value of a YAML or JSON file as it would stand on the command line."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return f"{value}{self.number_unit}"
        if isinstance(value, list):
            return ",".join(self.as_text(each) for each in value)
        if value is None:
            return ""
        if isinstance(value, str | float):
            return str(value)
        raise BadOption(f"a {self.name} was expected, not {value!r:.80}")


_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def _bool(text: str) -> bool:
    if text not in _TRUE and text not in _FALSE:
        raise BadOption("a boolean is true or false")
    return text in _TRUE


def _integer(text: str) -> int:
    """A number as Go writes it: decimal, 0x1f, 0o17, 017 or 0b1."""
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
        return int(text, 8)
    return int(text, 0)


def _count(text: str) -> int:
    number = _integer(text)
    if number < 0 or text[0] in "+-":
        raise BadOption("it must not be negative")
    return number


def _seconds(text: str) -> float:
    text = text.removeprefix("+").replace("µs", "us").replace("μs", "us")
    return 0.0 if text == "0" else round(parse_duration(text), 9)


def _show_seconds(value: float) -> str:
    for unit, seconds in (("h", 3600), ("m", 60), ("s", 1)):
        if value >= seconds and value % seconds == 0:
            return f"{value / seconds:g}{unit}"
    return f"{value * 1000:g}ms" if value else "0"


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def one_of(*words: str) -> Kind:
    """A word out of some."""

    def parse(text: str) -> str:
        if text not in words:
            raise BadOption(f"it must be {', '.join(words[:-1])} or {words[-1]}")
        return text

    return Kind("word", parse)


TEXT = Kind("text", str)
BOOL = Kind("boolean", _bool, lambda value: str(value).lower())
INTEGER = Kind("number", _integer)
COUNT = Kind("number", _count)
DURATION = Kind("duration", _seconds, _show_seconds, number_unit="ns")
"""In seconds. (etcd's own files give nanoseconds, as bare numbers.)"""
WORDS = Kind("list", _words, ",".join)
URLS = Kind("list of URLs", parse_urls, ",".join)
