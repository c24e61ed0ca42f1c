"""The survey as one HTML file: no other file, no network, only what is in it.

Keys and values are hostile: they come as JSON in a block that is not a script, with every ``<``, ``>`` and ``&``
escaped, and the script puts them into the page as text. A content security policy lets only this script and this style
run, named by their hashes, and lets nothing be loaded.

The page names every key. Of a large store it has the values of some: the largest, the most changed, and others at even
distances, up to ``keys_max``; of a key with many versions it has some from the whole time, the newest among them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from kvstore.backend import Progress
from kvstore.mvcc.kept import Kept
from kvstore.mvcc.schema import revision_key
from kvstore.row_sort import RowSorter
from kvstore.store import Store

from ..command import readable
from .by_key import Version
from .differences import Chosen, rows_of
from .page_script import SCRIPT
from .page_style import STYLE
from .sources import kind_of
from .survey import Survey, Top, survey
from .tree import KeyFacts, Prefix
from .values import describe

KEYS_MAX = 3000
VERSIONS_MAX = 40
CHILDREN_MAX = 500
TEXT_CHARS_MAX = 20_000
VALUE_BYTES_MAX = 1 << 16
KEY_CHARS_MAX = 200
TOP_COUNT = 15

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src '{style_hash}'; base-uri 'none'; form-action 'none'">
<title>kvstore</title>
<style>{style}</style>
</head>
<body>
<header><h1 id="title"></h1><div class="facts" id="facts"></div></header>
<main>
<div class="column"><section><h2>Keys</h2><input id="search" type="search" placeholder="Find a key" \
aria-label="Find a key"><div id="tree"></div></section></div>
<div class="column"><section id="key"></section><section id="map"></section><section id="growth"></section>
<section><div class="tabs" id="tabs"></div><div id="top"></div></section></div>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def render(
    store: Store,
    title: str,
    *,
    separator: bytes = b"/",
    keys_max: int = KEYS_MAX,
    progress: Progress | None = None,
) -> str:
    """The page of a store, which is walked twice: for its numbers, and for the values that the page shows."""
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
        "tree": _node(found.root, b"", pages.keys, index),
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
    return _PAGE.format(
        script_hash=_csp_hash(SCRIPT),
        style_hash=_csp_hash(STYLE),
        style=STYLE,
        script=SCRIPT,
        data=embed_json(data),
    )


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


def _values(store: Store, chosen: list[list[Version]]) -> dict[bytes, list[Kept]]:
    """The values of some versions, oldest first, by key."""
    found: dict[bytes, list[Kept]] = {}
    with RowSorter(Path(tempfile.gettempdir())) as sorter:
        sorter.add([(revision_key(v.main, v.sub), b"") for versions in chosen for v in versions])
        for row in rows_of(store, Chosen(sorter)):
            kept = found.setdefault(row.key, [])
            if (row.main, row.sub) not in ((other.main, other.sub) for other in kept[-2:]):
                kept.append(row._replace(value=row.value[:VALUE_BYTES_MAX]))
    for kept in found.values():
        kept.sort(key=lambda row: row[:2])
    return found


def embed_json(value: object) -> str:
    """JSON that is safe inside a script element, whatever it contains."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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


def _facts(store: Store, found: Survey, shown: int, keys: int) -> list[tuple[str, str]]:
    live = found.root.keys
    facts = [
        ("kind", kind_of(store)),
        ("revision", f"{found.revision:,}"),
        ("compacted at", f"{found.compact_revision:,}" if found.compact_revision >= 0 else "never"),
        ("keys", f"{live:,}"),
        ("deleted keys", f"{found.root.deleted_keys:,}"),
        ("kept versions", f"{found.root.versions:,}"),
        ("superseded", f"{found.garbage_share:.0%} of the bytes"),
        ("leases", f"{len(store.leases()):,}"),
        ("cluster", f"{store.engine.cluster_id:016x}"),
    ]
    if shown < keys:
        facts.append(("values in this page", f"of {shown:,} of {keys:,} keys"))
    return facts


def _key(key: bytes, facts: KeyFacts, shown: list[Kept] | None) -> dict[str, Any]:
    return {
        "name": readable(key, KEY_CHARS_MAX),
        "live": facts.live_bytes,
        "garbage": facts.garbage_bytes,
        "versions": [_version(row) for row in shown or ()],
        "more": facts.changes - len(shown or ()),
    }


def _version(row: Kept) -> dict[str, Any]:
    described = describe(row.value)
    text = described.text if len(described.text) <= TEXT_CHARS_MAX else described.text[:TEXT_CHARS_MAX] + "…"
    return {
        "revision": row.main,
        "version": row.version,
        "size": len(row.value),
        "title": described.title,
        "text": text,
    }


def _node(prefix: Prefix, own: bytes, keys: dict[bytes, KeyFacts], index: dict[bytes, int]) -> dict[str, Any]:
    """A prefix, or a key with nothing below it. A prefix that leads to only one other is merged with it."""
    while len(prefix.children) == 1 and prefix.name not in keys:
        ((name, prefix),) = prefix.children.items()
        own += name
    node: dict[str, Any] = {
        "name": readable(own, KEY_CHARS_MAX) or "(all)",
        "full": readable(prefix.name, KEY_CHARS_MAX),
        "keys": prefix.keys,
        "live": prefix.live_bytes,
        "garbage": prefix.garbage_bytes,
    }
    if not prefix.children and prefix.name in index:
        return node | {"key": index[prefix.name]}
    children = sorted(prefix.children.items(), key=lambda item: -item[1].total_bytes)
    shown = [
        _node(child, name, keys, index)
        for name, child in children[:CHILDREN_MAX]
        if child.children or child.name in index
    ]
    if prefix.name in index:  # a key that is also a prefix of others
        shown.insert(0, _own_key(prefix.name, own, keys, index))
    return node | {
        "children": shown,
        "more": len(prefix.children) + prefix.folded - len(shown) + (prefix.name in index),
    }


def _own_key(key: bytes, own: bytes, keys: dict[bytes, KeyFacts], index: dict[bytes, int]) -> dict[str, Any]:
    facts = keys[key]
    return {
        "name": readable(own, KEY_CHARS_MAX),
        "full": readable(key, KEY_CHARS_MAX),
        "keys": 1,
        "live": facts.live_bytes,
        "garbage": facts.garbage_bytes,
        "key": index[key],
    }


def _top(top: Top, index: dict[bytes, int], number: str) -> list[list[Any]]:
    rows = top.rows()[:TOP_COUNT]
    return [[index.get(key), readable(key, KEY_CHARS_MAX), getattr(facts, number)] for key, facts in rows]
