"""What the page shows of a served store: a table of questions by name, and the two things that it may write.

    about          numbers above all; which spans of keys may be read
    children       the next level of the tree below a prefix: two seeks for each branch, however much is in it
    find           keys whose names have all of some words: a stretch of the store at a time
    versions       those of a key, the newest first asked for, with their values as far as they are short
    value          more of one of them
    when           the time of day at which a revision was written, as far as the log has it
    differences    keys that differ between two revisions

Tree and search have deleted keys, too, as long as a version of them is kept: keys that have a past, and are not there.

Whatever reads spans of keys reads those that the caller may read, and shows nothing of the others. Values are decoded
as ``kvstore inspect`` does.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple

from kvstore.auth.permissions import Span
from kvstore.errors import BadArgument, Code, TimeUnknown, Unsupported
from kvstore.keyvalue import KeyValue
from kvstore.model import (
    FROM_KEY,
    Change,
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    prefix_end,
)
from kvstore.network.call import Asking, Failed
from kvstore.network.endpoint import Endpoint
from kvstore.protocol import EmbeddedEngine
from kvstore.ui.facts import fact, revision_facts
from kvstore.ui.shown import key_id, key_of, lease_name, name_of, shown_value, unread_value

SEPARATOR = b"/"
GONE = "deleted; a version of it is kept"
ALL_GONE = "all keys are deleted; a version of each is kept"
CHILDREN_MAX = 200
FOUND_MAX = 200
DIFFERENCES_MAX = 500
VERSIONS_MAX = 40
TEXT_CHARS = 20_000
"""Of a value in the list of versions."""
LIST_BYTES = 2 << 20
"""Of all values in that list; it has nothing of the others until they are looked at."""
VALUE_CHARS = 200_000
"""Of one that is looked at: browsers take long to lay out more."""
BATCH_KEYS = 32
SCAN_KEYS = 500
SCAN_BYTES = 1 << 20
"""A search reads so many keys at a time, or fewer where values are large: they are read along."""
BUDGET_SECONDS = 0.3
"""For what may be left out, or gone on with: counts in the tree, a search."""

Query = dict[str, str]
Read = Callable[[Endpoint, Asking, Query], Callable[[], Any]]
"""Checks whose question it is, and gives what answers it, in a thread."""
Write = Callable[[dict[str, Any]], TxnRequest]


def _key(query: Query, name: str = "key") -> bytes:
    key = key_of(query.get(name, ""))
    if not key:
        raise BadArgument(f"{name} is missing")
    return key


def _number(query: Query, name: str) -> int:
    text = query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadArgument(f"{name} is no number: {text:.100}")
    return int(text)


# --- spans -----------------------------------------------------------------------------------------


def _end_of(prefix: bytes) -> bytes | None:
    """Where the keys with this prefix end; None: with the last key."""
    end = prefix_end(prefix)
    return None if end == FROM_KEY else end


def within(spans: list[Span], start: bytes, end: bytes | None) -> Iterator[Span]:
    """What the spans have of [start, end)."""
    for low, high in spans:
        first = max(low, start)
        last = high if end is None else end if high is None else min(high, end)
        if last is None or first < last:
            yield first, last


def _range(span: Span, **more: Any) -> RangeRequest:
    start, end = span
    return RangeRequest(start or FROM_KEY, FROM_KEY if end is None else end, **more)


# --- above all -------------------------------------------------------------------------------------


def _about(endpoint: Endpoint, call: Asking, _query: Query) -> Callable[[], Any]:
    return endpoint.users.reading_allowed(call, partial(_numbers, endpoint))


def _numbers(endpoint: Endpoint, spans: list[Span]) -> Any:
    status = endpoint.engine.status()
    replica = status.replica
    facts = [
        *revision_facts(status.revision, status.compact_revision),
        fact("size", f"{status.size_bytes:,} bytes"),
        fact("in use", f"{status.in_use_bytes:,} bytes"),
        fact("leases", f"{status.leases:,}"),
        fact("cluster", f"{endpoint.engine.cluster_id:016x}"),
        fact("version", endpoint.dialect.version),
        *([fact("behind its source", f"{replica.lag_seconds:,.0f} s")] if replica is not None else []),
    ]
    return {
        "title": f"kvstore: {endpoint.settings.name}",
        "facts": facts,
        "revision": status.revision,
        "first": max(status.compact_revision, 1),
        "spans": [[list(start), None if end is None else list(end)] for start, end in spans],
        "users": endpoint.users_are_on,
    }


# --- the tree --------------------------------------------------------------------------------------


def _children(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    prefix, after = key_of(query.get("prefix", "")), key_of(query.get("after", ""))
    is_counted = query.get("counts") != "no"
    read = partial(_level, endpoint.engine, prefix, after, is_counted)
    return endpoint.users.reading_allowed(call, read)


def _level(
    engine: EmbeddedEngine, prefix: bytes, after: bytes, is_counted: bool, spans: list[Span]
) -> dict[str, Any]:
    """``is_counted``: with how many keys each branch has, as far as the budget lasts."""
    children = _children_below(engine, prefix, after or prefix, spans)
    found = list(islice(children, CHILDREN_MAX + 1))
    end = time.monotonic() + (BUDGET_SECONDS if is_counted else 0)
    nodes = [_node(engine, child, prefix, spans, end) for child in found[:CHILDREN_MAX]]
    for node in nodes:  # when all have been counted that are there: those that are not take longer
        if node.get("branch") and "gone" not in node and "numbers" in node:
            node["numbers"] += _deleted_below(engine, key_of(node["prefix"]), spans, end)
    if len(found) <= CHILDREN_MAX:
        return {"nodes": nodes}
    return {"nodes": nodes, "after": key_id(found[CHILDREN_MAX].name)}


class _Child(NamedTuple):
    """A key right below a prefix, or a branch, which is named by its own prefix."""

    name: bytes
    is_branch: bool
    is_gone: bool
    """The key is deleted; or all keys of the branch are."""


def _children_below(
    engine: EmbeddedEngine, prefix: bytes, start: bytes, spans: list[Span]
) -> Iterator[_Child]:
    """In order."""
    live = _below(partial(_live_keys, engine), prefix, start, spans)
    past = _below(partial(_past_keys, engine), prefix, start, spans)
    both = heapq.merge(
        (_Child(*child, False) for child in live), (_Child(*child, True) for child in past), key=_name_of
    )
    for _, same in groupby(both, key=_name_of):
        yield next(same)  # the live one, where there is one


_name_of = attrgetter("name")
Keys = Callable[[Span, int], tuple[list[bytes], bool]]
"""The first keys of a span, not more than some, and whether there are more."""


def _live_keys(engine: EmbeddedEngine, span: Span, limit: int) -> tuple[list[bytes], bool]:
    answer = engine.page(_range(span, limit=limit, keys_only=True))
    return [kv.key for kv in answer.kvs], answer.more


def _past_keys(engine: EmbeddedEngine, span: Span, limit: int) -> tuple[list[bytes], bool]:
    request = _range(span)
    keys = engine.past_keys(request.key, request.range_end, limit)
    return keys, len(keys) == limit


def _below(keys: Keys, prefix: bytes, start: bytes, spans: list[Span]) -> Iterator[tuple[bytes, bool]]:
    """The branches and keys right below a prefix, in order, and whether it is a branch."""
    last: bytes = b""
    for span in within(spans, start, _end_of(prefix)):
        at: bytes | None = span[0]
        while at is not None:
            page, has_more = keys((at, span[1]), BATCH_KEYS)
            at = None
            for key in page:
                if last and key.startswith(last):
                    continue
                cut = key.find(SEPARATOR, len(prefix))
                last = b"" if cut < 0 else key[: cut + len(SEPARATOR)]
                yield last or key, bool(last)
            if has_more:
                at = _end_of(last) if last else page[-1] + b"\0"
                if at is not None and span[1] is not None and at >= span[1]:
                    at = None


def _node(
    engine: EmbeddedEngine, child: _Child, prefix: bytes, spans: list[Span], end: float
) -> dict[str, Any]:
    if not child.is_branch:
        return _key_node(child.name, child.name[len(prefix) :], child.is_gone)
    branch = child.name
    node: dict[str, Any] = {
        "name": name_of(branch[len(prefix) :]),
        "title": name_of(branch),
        "prefix": key_id(branch),
    }
    if child.is_gone:
        node |= {"title": f"{name_of(branch)} ({ALL_GONE})", "numbers": "deleted", "gone": True}
    elif time.monotonic() < end:
        count = sum(
            engine.range(_range(span, count_only=True)).count
            for span in within(spans, branch, _end_of(branch))
        )
        node["numbers"] = f"{count:,} key" + ("" if count == 1 else "s")
    return node | {"branch": True}


def _deleted_below(engine: EmbeddedEngine, branch: bytes, spans: list[Span], end: float) -> str:
    """How many keys of a branch are deleted and have a version that is kept; as far as the budget lasts."""
    deleted = 0
    for start, stop in within(spans, branch, _end_of(branch)):
        at: bytes | None = start
        while at is not None:
            if time.monotonic() >= end:
                return f" · at least {deleted:,} deleted" if deleted else ""
            past, has_more = _past_keys(engine, (at, stop), SCAN_KEYS)
            deleted += sum(not engine.range(RangeRequest(key, count_only=True)).count for key in past)
            at = past[-1] + b"\0" if has_more else None
    return f" · {deleted:,} deleted" if deleted else ""


def _key_node(key: bytes, shown: bytes, is_gone: bool) -> dict[str, Any]:
    node: dict[str, Any] = {"name": name_of(shown or key), "title": name_of(key), "key": key_id(key)}
    if is_gone:
        node |= {"title": f"{name_of(key)} ({GONE})", "numbers": "deleted", "gone": True}
    return node


# --- search ----------------------------------------------------------------------------------------


def _find(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    words, after = query.get("words", "").lower().split(), key_of(query.get("after", ""))
    return endpoint.users.reading_allowed(call, partial(_found, endpoint.engine, words, after))


def _found(engine: EmbeddedEngine, words: list[str], after: bytes, spans: list[Span]) -> dict[str, Any]:
    """A stretch of the keys from ``after`` on, as long as the budget lasts, and where to go on."""
    nodes: list[dict[str, Any]] = []
    looked, limit, end = 0, BATCH_KEYS, time.monotonic() + BUDGET_SECONDS
    for span in within(spans, after, None):
        at: bytes | None = span[0]
        while at is not None:
            answer = engine.page(_range((at, span[1]), limit=limit))
            live = [kv.key for kv in answer.kvs]
            past, has_more = _past_keys(engine, (at, span[1]), limit)
            ends = [keys[-1] + b"\0" for keys, more in ((live, answer.more), (past, has_more)) if more]
            at = min(ends, default=None)
            gone = set(past).difference(live)
            keys = [key for key in sorted(gone.union(live)) if at is None or key < at]
            looked += len(keys)
            is_light = sum(len(kv.value) for kv in answer.kvs) < SCAN_BYTES
            limit = min(2 * limit, SCAN_KEYS) if is_light else max(limit // 2, 1)
            for key in keys:
                if all(word in name_of(key).lower() for word in words):
                    nodes.append(_key_node(key, key, key in gone))
            if at is not None and (len(nodes) >= FOUND_MAX or time.monotonic() >= end):
                return {"nodes": nodes, "looked": looked, "after": key_id(at)}
    return {"nodes": nodes, "looked": looked}


# --- a key -----------------------------------------------------------------------------------------


def _versions(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    key, before = _key(query), _number(query, "before")
    read = partial(_history, endpoint.engine, key, before)
    return endpoint.reading(call, RangeRequest(key), read)


def _history(engine: EmbeddedEngine, key: bytes, before: int) -> dict[str, Any] | None:
    """The last versions before a revision (0: of all), oldest first. None: nothing of the key is kept."""
    newest: deque[KeyValue] = deque(maxlen=VERSIONS_MAX)
    count = 0
    for version in engine.history(key, 0, max(before - 1, 0)):
        newest.append(version)
        count += 1
    if not count:
        return None
    return {
        "name": name_of(key),
        "versions": _listed(newest),
        "more": count - len(newest),
    }


def _listed(versions: Iterable[KeyValue]) -> list[dict[str, Any]]:
    """The versions with the beginnings of their values: as far as they are not large, the newest first."""
    left_bytes, rows = LIST_BYTES, list[dict[str, Any]]()
    for version in reversed(list(versions)):
        left_bytes -= len(version.value)
        is_read = left_bytes >= 0 or not rows
        shown = shown_value(version.value, TEXT_CHARS) if is_read else unread_value(version.value)
        rows.append(_numbers_of(version) | shown)
    return rows[::-1]


def _numbers_of(version: KeyValue) -> dict[str, Any]:
    return {
        "revision": version.mod_revision,
        "version": version.version,
        "size": len(version.value),
        "lease": lease_name(version.lease) if version.lease else "",
    }


def _value(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    key, revision = _key(query), _number(query, "revision")
    return endpoint.reading(call, RangeRequest(key), partial(_whole, endpoint.engine, key, revision))


def _whole(engine: EmbeddedEngine, key: bytes, revision: int) -> dict[str, Any]:
    found = engine.get_at(key, revision)
    if found is None:
        raise Failed(Code.NOT_FOUND, f"the key did not exist at revision {revision}")
    return _numbers_of(found) | shown_value(found.value, VALUE_CHARS)


def _when(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    revision = _number(query, "revision")
    return endpoint.users.reading_allowed(call, lambda _spans: _time_of(endpoint.engine, revision))


def _time_of(engine: EmbeddedEngine, revision: int) -> dict[str, Any]:
    try:
        return {"ms": engine.time_of(revision)}
    except (TimeUnknown, Unsupported) as error:
        return {"why": str(error)}


# --- two revisions ---------------------------------------------------------------------------------


def _differences(endpoint: Endpoint, call: Asking, query: Query) -> Callable[[], Any]:
    older, newer = _number(query, "older"), _number(query, "newer")
    prefix, after = key_of(query.get("prefix", "")), key_of(query.get("after", ""))
    read = partial(_differing, endpoint.engine, older, newer, prefix, after)
    return endpoint.users.reading_allowed(call, read)


def _differing(
    engine: EmbeddedEngine, older: int, newer: int, prefix: bytes, after: bytes, spans: list[Span]
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for span in within(spans, max(after, prefix), _end_of(prefix)):
        request = _range(span)
        for change in engine.diff(older, newer, request.key, request.range_end):
            if len(rows) == DIFFERENCES_MAX:
                return {"rows": rows, "after": key_id(change.key)}
            rows.append(_row(change))
    return {"rows": rows}


def _row(change: Change) -> dict[str, Any]:
    before, after = change.before, change.after
    kind = "added" if before is None else "deleted" if after is None else "changed"
    sizes = [None if side is None else len(side.value) for side in (before, after)]
    return {"name": name_of(change.key), "key": key_id(change.key), "kind": kind, "sizes": sizes}


READS: dict[str, Read] = {
    "about": _about,
    "children": _children,
    "find": _find,
    "versions": _versions,
    "value": _value,
    "when": _when,
    "differences": _differences,
}


# --- writes ----------------------------------------------------------------------------------------


def _put(asked: dict[str, Any]) -> TxnRequest:
    """Put a text, if the key is still the version that the page has shown (0: there is none)."""
    value = asked.get("value")
    if not isinstance(value, str):
        raise BadArgument("value must be a text")
    key = _asked_key(asked)
    return TxnRequest(
        (_unchanged(asked, key),), (PutRequest(key, value.encode("utf-8", "surrogatepass")),), ()
    )


def _delete(asked: dict[str, Any]) -> TxnRequest:
    key = _asked_key(asked)
    return TxnRequest((_unchanged(asked, key),), (DeleteRangeRequest(key),), ())


def _asked_key(asked: dict[str, Any]) -> bytes:
    key = asked.get("key")
    if not isinstance(key, str):
        raise BadArgument("key must be a text")
    return _key({"key": key})


def _unchanged(asked: dict[str, Any], key: bytes) -> Compare:
    revision = asked.get("revision")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision < 1 << 63:
        raise BadArgument("revision must be that of the version that was seen, or 0")
    return Compare(key, CompareTarget.MOD, operand=revision)


WRITES: dict[str, Write] = {"put": _put, "delete": _delete}
