"""The survey as one HTML file, with the page of ``kvstore.ui``: no other file, no network, only what is in it.

The page names every key. Of a large store it has the values of some: the largest, the most changed, and others at even
distances, up to ``keys_max``; of a key with many versions it has some from the whole time, the newest among them. What
is left out, of a long value too, the page says.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kvstore.backend import Progress
from kvstore.mvcc.kept import Kept
from kvstore.mvcc.schema import revision_key
from kvstore.row_sort import RowSorter
from kvstore.store import Store
from kvstore.ui.document import SAVED, document
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
) -> str:
    """The page of a store, which is walked twice: for its numbers, and for the values that the page shows.

    ``caution``: what stands above all of it.
    """
    pages = _Pages(store.compact_revision)
    found = survey(
        store, separator=separator, count=max(keys_max // 3, TOP_COUNT), visit=pages.add, progress=progress
    )
    chosen = set(_choose(found, sorted(pages.keys), keys_max))
    shown = _values(store, [pages.versions[key] for key in chosen])
    ordered = sorted(pages.keys)
    index = {key: number for number, key in enumerate(ordered)}
    data = {
        "title": title,
        "facts": _facts(store, found, len(chosen), len(ordered)),
        "keys": [_key(key, pages.keys[key], shown.get(key)) for key in ordered],
        "separator": readable(separator),
        "growth": [
            {"revision": point.revision, "live": point.live_bytes, "kept": point.kept_bytes}
            for point in found.growth
        ],
        "top": {
            "largest": _top(found.tops["largest"], index, "live_bytes"),
            "hottest": _top(found.tops["most changed"], index, "changes"),
            "wasteful": _top(found.tops["largest past"], index, "garbage_bytes"),
        },
    }
    return document(data, SAVED, caution=caution)


class _Pages:
    """What a survey comes by, for the page: each key's numbers, and some of its versions."""

    def __init__(self, compacted: int) -> None:
        self.keys: dict[bytes, KeyFacts] = {}
        self.versions: dict[bytes, list[Version]] = {}
        self._compacted = compacted
        self._step = 1

    def add(self, version: Version) -> None:
        key = version.key
        if key not in self.keys:
            self.keys[key], self.versions[key], self._step = KeyFacts(), [], 1
        facts, kept = self.keys[key], self.versions[key]
        if kept and (facts.changes - 1) % self._step:
            kept.pop()  # it was only there as the newest
        facts.add(version, self._compacted)
        kept.append(version)
        if len(kept) > 2 * VERSIONS_MAX:
            self._step *= 2
            del kept[1::2]


def _values(store: Store, chosen: list[list[Version]]) -> dict[bytes, Shown]:
    """Some versions with their values, by key."""
    found: dict[bytes, Shown] = {}
    chars = 0
    with RowSorter(Path(tempfile.gettempdir())) as sorter:
        sorter.add([(revision_key(v.main, v.sub), b"") for versions in chosen for v in versions])
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


def _choose(found: Survey, keys: list[bytes], keys_max: int) -> set[bytes]:
    """The keys whose values the page shows."""
    if len(keys) <= keys_max:
        return set(keys)
    share = max(keys_max // 3, 1)
    chosen = {key for name in ("largest", "most changed") for key, _ in found.tops[name].rows()[:share]}
    for key in keys[:: max(len(keys) // keys_max, 1)]:
        if len(chosen) >= keys_max:
            break
        chosen.add(key)
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


def _key(key: bytes, facts: KeyFacts, shown: Shown | None) -> dict[str, Any]:
    versions = [version for _, version in sorted((shown or {}).items())]
    return named(key) | {
        "live": facts.live_bytes,
        "garbage": facts.garbage_bytes,
        "versions": versions,
        "more": facts.changes - len(versions),
    }


def _top(top: Top, index: dict[bytes, int], number: str) -> list[list[int]]:
    return [[index[key], getattr(facts, number)] for key, facts in top.rows()[:TOP_COUNT]]
