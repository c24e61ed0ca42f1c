"""The survey as one HTML file, with the page of ``kvstore.ui``: no other file, no network, only what is in it.

The page names every key. Of a large store it has the values of some: the largest, the most changed, and others at even
distances, up to ``keys_max``; of a key with many versions it has some from the whole time, the newest among them. What
is left out, of a long value too, the page says.

It is made in pieces: in memory are the keys with their numbers, packed, and the values that are shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from kvstore.backend import Progress
from kvstore.mvcc.kept import Kept
from kvstore.mvcc.schema import REVISION_BYTES, revision_key
from kvstore.row_sort import RowSorter
from kvstore.store import Store
from kvstore.ui.document import SAVED, around_data, embed_json
from kvstore.ui.facts import Fact, fact, revision_facts
from kvstore.ui.shown import lease_name, named, shown_value

from ..command import readable
from .by_key import Version
from .differences import Chosen, rows_of
from .sources import kind_of
from .survey import Survey, Top, survey
from .tree import KeyFacts

KEYS_MAX = 3000
VERSIONS_MAX = 40
TEXT_CHARS_MAX = 20_000
"""Of one value."""
TEXTS_CHARS_MAX = 100_000_000
"""Of all values; those that are read after that come without their text."""
TOP_COUNT = 15

Shown = dict[tuple[int, int], dict[str, Any]]
"""The versions of a key, by revision."""


def render(
    store: Store,
    title: str,
    *,
    separator: bytes = b"/",
    keys_max: int = KEYS_MAX,
    caution: str = "",
    progress: Progress | None = None,
) -> Iterator[str]:
    """The pieces of a store's page. It is walked twice: for its numbers, and for the values that the page shows.

    ``caution``: what stands above all of it.
    """
    pages = _Pages(store.compact_revision)
    found = survey(
        store, separator=separator, count=max(keys_max // 3, TOP_COUNT), visit=pages.add, progress=progress
    )
    keys = pages.all_keys()
    chosen = _choose(found, keys, keys_max)
    shown = _values(store, (key for key in keys if key.key in chosen))
    data = {
        "title": title,
        "facts": _facts(store, found, len(chosen), len(keys)),
        "separator": readable(separator),
        "growth": [
            {"revision": point.revision, "live": point.live_bytes, "kept": point.kept_bytes}
            for point in found.growth
        ],
        "top": {
            "largest": _top(found.tops["largest"], keys, "live_bytes"),
            "hottest": _top(found.tops["most changed"], keys, "changes"),
            "wasteful": _top(found.tops["largest past"], keys, "garbage_bytes"),
        },
    }
    before, after = around_data(SAVED, caution=caution)
    yield before + embed_json(data).removesuffix("}") + ',"keys":['
    for number, key in enumerate(keys):
        yield ("," if number else "") + embed_json(_shown_key(key, shown.get(key.key, {})))
    yield "]}" + after


class _Key(NamedTuple):
    """There may be millions."""

    key: bytes
    live_bytes: int
    garbage_bytes: int
    changes: int
    revisions: bytes
    """Of the versions that the page may show, one after the other."""

    def split_revisions(self) -> list[bytes]:
        return [self.revisions[at:][:REVISION_BYTES] for at in range(0, len(self.revisions), REVISION_BYTES)]


class _Pages:
    """What a survey comes by, for the page: each key's numbers, and some of its versions."""

    def __init__(self, compacted: int) -> None:
        self._keys: list[_Key] = []
        self._compacted = compacted
        self._begin(b"")

    def _begin(self, key: bytes) -> None:
        self._key, self._facts, self._step = key, KeyFacts(), 1
        self._revisions: list[bytes] = []

    def add(self, version: Version) -> None:
        if version.key != self._key:
            self._end()
            self._begin(version.key)
        facts, kept = self._facts, self._revisions
        if kept and (facts.changes - 1) % self._step:
            kept.pop()  # it was only there as the newest
        facts.add(version, self._compacted)
        kept.append(revision_key(version.main, version.sub))
        if len(kept) > 2 * VERSIONS_MAX:
            self._step *= 2
            del kept[1::2]

    def _end(self) -> None:
        facts = self._facts
        if facts.changes:
            numbers = facts.live_bytes, facts.garbage_bytes, facts.changes
            self._keys.append(_Key(self._key, *numbers, b"".join(self._revisions)))

    def all_keys(self) -> list[_Key]:
        """Ascending, once all versions are there."""
        self._end()
        return self._keys


def _values(store: Store, chosen: Iterable[_Key]) -> dict[bytes, Shown]:
    """Some versions with their values, by key."""
    found: dict[bytes, Shown] = {}
    chars = 0
    with RowSorter() as sorter:
        for key in chosen:
            sorter.add([(revision, b"") for revision in key.split_revisions()])
        for row in rows_of(store, Chosen(sorter)):
            version = _version(row, min(TEXT_CHARS_MAX, TEXTS_CHARS_MAX - chars))
            chars += len(version["text"])
            found.setdefault(row.key, {})[row.main, row.sub] = version
    return found


def _version(row: Kept, chars_max: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {"revision": row.main, "version": row.version, "size": len(row.value)}
    if row.lease:
        numbers["lease"] = lease_name(row.lease)
    return numbers | shown_value(row.value, chars_max)


def _choose(found: Survey, keys: list[_Key], keys_max: int) -> set[bytes]:
    """The keys whose values the page shows."""
    if len(keys) <= keys_max:
        return {key.key for key in keys}
    share = max(keys_max // 3, 1)
    chosen = {key for name in ("largest", "most changed") for key, _ in found.tops[name].rows()[:share]}
    for key in keys[:: max(len(keys) // keys_max, 1)]:
        if len(chosen) >= keys_max:
            break
        chosen.add(key.key)
    return chosen


def _facts(store: Store, found: Survey, shown: int, keys: int) -> list[Fact]:
    facts = [
        fact("kind", kind_of(store)),
        *revision_facts(found.revision, found.compact_revision),
        fact("keys", f"{found.root.keys:,}"),
        fact("deleted keys", f"{found.root.deleted_keys:,}"),
        fact("kept versions", f"{found.root.versions:,}"),
        fact("superseded", f"{found.garbage_share:.0%} of the bytes"),
        fact("leases", f"{len(store.leases()):,}"),
        fact("cluster", f"{store.engine.cluster_id:016x}"),
    ]
    if shown < keys:
        facts.append(fact("values in this page", f"of {shown:,} of {keys:,} keys"))
    return facts


def _shown_key(key: _Key, shown: Shown) -> dict[str, Any]:
    versions = [version for _, version in sorted(shown.items())]
    return named(key.key) | {
        "live": key.live_bytes,
        "garbage": key.garbage_bytes,
        "versions": versions,
        "more": key.changes - len(versions),
    }


def _top(top: Top, keys: list[_Key], number: str) -> list[list[int]]:
    """(place of the key, number) of the first."""
    rows = top.rows()[:TOP_COUNT]
    return [[bisect_left(keys, key, key=attrgetter("key")), getattr(facts, number)] for key, facts in rows]
