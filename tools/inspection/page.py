"""The survey as one HTML file: no other file, no network, only what is in it.

Keys and values are hostile: they come as JSON in a block that is not a script, with every ``<``, ``>`` and ``&``
escaped, and the script puts them into the page as text. A content security policy lets only this script and this style
run, named by their hashes, and lets nothing be loaded.

The page of a large store has its tree of prefixes, and the details of some keys: the largest, the most changed and
the first of each prefix, up to ``keys_max``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from kvstore.store import Store

from ..command import readable
from .page_script import SCRIPT
from .page_style import STYLE
from .sources import kind_of
from .survey import KeyFacts, Prefix, Survey
from .values import describe

KEYS_MAX = 3000
VERSIONS_MAX = 40
CHILDREN_MAX = 500
TEXT_CHARS_MAX = 2000
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


def render(store: Store, found: Survey, title: str, *, keys_max: int = KEYS_MAX) -> str:
    """The page of a survey of ``store``."""
    chosen = _choose(found, keys_max)
    index = {key: number for number, key in enumerate(chosen)}
    data = {
        "title": title,
        "facts": _facts(store, found, len(chosen)),
        "keys": [_key(store, key, found.keys[key]) for key in chosen],
        "tree": _node(found.root, b"", found, index),
        "growth": [
            {"revision": point.revision, "live": point.live_bytes, "kept": point.kept_bytes}
            for point in found.growth
        ],
        "top": {
            "largest": _top(found.largest(TOP_COUNT), index, "live_bytes"),
            "hottest": _top(found.hottest(TOP_COUNT), index, "changes"),
            "wasteful": _top(found.wasteful(TOP_COUNT), index, "garbage_bytes"),
        },
    }
    return _PAGE.format(
        script_hash=_csp_hash(SCRIPT),
        style_hash=_csp_hash(STYLE),
        style=STYLE,
        script=SCRIPT,
        data=embed_json(data),
    )


def embed_json(value: object) -> str:
    """JSON that is safe inside a script element, whatever it contains."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _choose(found: Survey, keys_max: int) -> list[bytes]:
    """The keys that the page shows in detail, ascending."""
    if len(found.keys) <= keys_max:
        return sorted(found.keys)
    share = max(keys_max // 3, 1)
    chosen = {key for key, _ in (*found.largest(share), *found.hottest(share))}
    for key in _spread(found, keys_max):
        if len(chosen) >= keys_max:
            break
        chosen.add(key)
    return sorted(chosen)


def _spread(found: Survey, count: int) -> Iterator[bytes]:
    """Keys at even distances."""
    keys = sorted(found.keys)
    step = max(len(keys) // count, 1)
    yield from keys[::step]


def _facts(store: Store, found: Survey, shown: int) -> list[tuple[str, str]]:
    live = found.root.keys
    facts = [
        ("kind", kind_of(store)),
        ("revision", f"{found.revision:,}"),
        ("compacted at", f"{found.compact_revision:,}" if found.compact_revision >= 0 else "never"),
        ("keys", f"{live:,}"),
        ("kept versions", f"{found.root.versions:,}"),
        ("superseded", f"{found.garbage_share:.0%} of the bytes"),
        ("leases", f"{len(store.leases()):,}"),
        ("cluster", f"{store.engine.cluster_id:016x}"),
    ]
    if shown < len(found.keys):
        facts.append(("in this page", f"{shown:,} of {len(found.keys):,} keys"))
    return facts


def _key(store: Store, key: bytes, facts: KeyFacts) -> dict[str, Any]:
    versions: deque[dict[str, Any]] = deque(maxlen=VERSIONS_MAX)
    total = 0
    for kv in store.history(key):
        total += 1
        described = describe(kv.value)
        text = (
            described.text if len(described.text) <= TEXT_CHARS_MAX else described.text[:TEXT_CHARS_MAX] + "…"
        )
        versions.append(
            {
                "revision": kv.mod_revision,
                "version": kv.version,
                "size": len(kv.value),
                "title": described.title,
                "text": text,
            }
        )
    return {
        "name": readable(key, KEY_CHARS_MAX),
        "live": facts.live_bytes,
        "garbage": facts.garbage_bytes,
        "versions": list(versions),
        "more": total - len(versions),
    }


def _node(prefix: Prefix, own: bytes, found: Survey, index: dict[bytes, int]) -> dict[str, Any]:
    """A prefix, or a key with nothing below it. A prefix that leads to only one other is merged with it."""
    while len(prefix.children) == 1 and prefix.name not in found.keys:
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
        _node(child, name, found, index)
        for name, child in children[:CHILDREN_MAX]
        if child.children or child.name in index
    ]
    if prefix.name in index:  # a key that is also a prefix of others
        shown.insert(0, _own_key(prefix.name, own, found, index))
    return node | {"children": shown, "more": len(prefix.children) - len(shown) + (prefix.name in index)}


def _own_key(key: bytes, own: bytes, found: Survey, index: dict[bytes, int]) -> dict[str, Any]:
    facts = found.keys[key]
    return {
        "name": readable(own, KEY_CHARS_MAX),
        "full": readable(key, KEY_CHARS_MAX),
        "keys": 1,
        "live": facts.live_bytes,
        "garbage": facts.garbage_bytes,
        "key": index[key],
    }


def _top(rows: list[tuple[bytes, KeyFacts]], index: dict[bytes, int], number: str) -> list[list[Any]]:
    return [[index.get(key), readable(key, KEY_CHARS_MAX), getattr(facts, number)] for key, facts in rows]
