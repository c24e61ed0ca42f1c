"""What changed between two values, as decoded: which parts in short, or line by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from kvstore.decoding.values import Described, describe

PATHS_MAX = 3
NOT_NEWS = ("metadata.managedFields", "metadata.resourceVersion", "metadata.generation")
"""Parts that every writer changes: named only if nothing else changed."""
CONTEXT_LINES = 2


def in_short(before: bytes, after: bytes) -> str:
    """The paths of what changed, the first few of them, or how many lines of a text did."""
    one, other = describe(before), describe(after)
    if before == after:
        return "(same value)"
    if not (isinstance(one.data, dict) and isinstance(other.data, dict)):
        return _lines_in_short(one, other)
    paths = list(dict.fromkeys(_paths(one.data, other.data, "")))
    news = [path for path in paths if not path.startswith(NOT_NEWS)] or paths
    more = f", … ({len(news)} in all)" if len(news) > PATHS_MAX else ""
    return ", ".join(news[:PATHS_MAX]) + more or "(same content in other bytes)"


def line_by_line(before: bytes | None, after: bytes | None) -> Iterator[str]:
    """A unified diff of the decoded forms, without its header. None: there is no value."""
    one, other = ("" if value is None else describe(value).text for value in (before, after))
    diff = difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=CONTEXT_LINES)
    return (line for number, line in enumerate(diff) if number >= 2)


def _lines_in_short(one: Described, other: Described) -> str:
    if "bytes" in (one.kind, other.kind):
        return "(other bytes)"
    lines = [line[:1] for line in difflib.ndiff(one.text.splitlines()[:500], other.text.splitlines()[:500])]
    return f"+{lines.count('+')} -{lines.count('-')} lines"


def _paths(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            inner = f"{path}.{name}" if path else str(name)
            if name not in one or name not in other:
                yield inner
            else:
                yield from _paths(one[name], other[name], inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _paths(left, right, f"{path}[{number}]")
    elif one != other:
        yield path
