"""Plain values as YAML: the subset that every reader takes, laid out as ``kubectl`` does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/.][\w./@+ -]*(:[\w./@+-]+)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", "nan", ".nan", ".inf"}
_NUMBER_LIKE = re.compile(r"[.\d][\d_.eExXa-fA-F+-]*")


def as_yaml(value: Any) -> str:
    """``value``: dicts, lists, strings, numbers, booleans, None."""
    return "\n".join(_lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, held in value.items():
            yield from _entry(f"{_scalar(name)}:", held, nested="  ")
    elif isinstance(value, list) and value:
        for held in value:
            if isinstance(held, dict | list) and held:
                first, *rest = _lines(held)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield from _entry("-", held, nested="  ")
    else:
        yield _scalar(value)


def _entry(head: str, held: Any, nested: str) -> Iterator[str]:
    if isinstance(held, dict) and held:
        yield head
        yield from (nested + line for line in _lines(held))
    elif isinstance(held, list) and held:
        yield head
        yield from _lines(held)
    elif isinstance(held, str) and _is_block(held):
        yield f"{head} |" + ("" if held.endswith("\n") else "-")
        yield from (nested + line if line else "" for line in held.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {_scalar(held)}"


def _is_block(text: str) -> bool:
    """Whether the text can stand as lines: nothing that a block would change."""
    body = text.removesuffix("\n")
    return (
        "\n" in body
        and not body.startswith((" ", "\n"))
        and not body.endswith("\n")
        and all(line.isprintable() and not line.endswith(" ") for line in body.split("\n"))
    )


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and not value.endswith(" ")
        if (
            plain
            and value.lower() not in _WORDS
            and not _NUMBER_LIKE.fullmatch(value)
            and value.isprintable()
        ):
            return value
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return json.dumps(value)
