"""Keys for people: text as text, the rest as ``\\x..``."""

from __future__ import annotations


def readable(data: bytes, length_max: int = 60) -> str:
    """Bytes for a human reader: text as text, the rest as ``\\x..``; long values are cut."""
    text = data[: length_max * 4].decode("utf-8", "surrogateescape")
    if not text.isprintable() or "\\" in text:
        text = "".join(map(_readable, text))
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"


def _readable(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
