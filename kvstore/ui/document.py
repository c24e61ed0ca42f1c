"""One HTML document that needs no other: style, scripts and data are in it.

Its policy lets only these run, named by their hashes, and nothing be loaded; a live page may also ask its own server.
Where the browser can, it also keeps the scripts from making markup of a text.
Data is JSON in a block that is no script, with every ``<``, ``>`` and ``&`` escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from importlib.resources import files

COMMON = ("diff.js", "parts.js", "key.js")
SAVED = (*COMMON, "saved.js")
LIVE = (*COMMON, "live.js")

_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>kvstore</title>
<style>{style}</style>
</head>
<body>
<header><h1 id="title"></h1>{caution}<div class="facts" id="facts"></div></header>
<main>
<nav class="column" aria-label="Keys"><section><h2 id="keys-title">Keys</h2>
<input id="search" type="search" placeholder="Find keys: words, in any order  ( / )" aria-label="Find keys" \
aria-describedby="found" autocomplete="off" spellcheck="false">
<p class="soft" id="found" role="status"></p>
<ul id="tree" role="tree" aria-labelledby="keys-title"></ul></section></nav>
<div class="column" id="panels"><section id="key" aria-label="Key" tabindex="-1"></section></div>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


@cache
def part(name: str) -> str:
    """One of the page's files."""
    return files(__package__).joinpath(name).read_text("utf-8")


@cache
def script(names: tuple[str, ...]) -> str:
    return '"use strict";\n' + "\n".join(part(name) for name in names)


def policy(names: tuple[str, ...], *, is_live: bool = False) -> str:
    """The content security policy of a document with these scripts."""
    connects = "; connect-src 'self'" if is_live else ""
    return (
        f"default-src 'none'; script-src '{_hash(script(names))}'; style-src '{_hash(part('page.css'))}'{connects}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def document(data: object, names: tuple[str, ...], *, is_live: bool = False, caution: str = "") -> str:
    """The document of these scripts, and of the data that they find in it. ``caution``: what stands above all of it."""
    before, after = around_data(names, is_live=is_live, caution=caution)
    return before + embed_json(data) + after


def around_data(names: tuple[str, ...], *, is_live: bool = False, caution: str = "") -> tuple[str, str]:
    """A document without its data: what stands before it, and after."""
    before, _, after = _DOCUMENT.partition("{data}")
    told = f'<p class="caution" role="alert">{escape(caution)}</p>' if caution else ""
    allowed = policy(names, is_live=is_live)
    return before.format(policy=allowed, style=part("page.css"), caution=told), after.format(
        script=script(names)
    )


def embed_json(value: object) -> str:
    """JSON that is safe inside a script element, whatever it contains."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
