"""A page of a store whose keys and values try to be markup."""

from __future__ import annotations

from pathlib import Path

from kvstore.tools.inspection.page import render

import kvstore

HOSTILE = [
    b"</script><script>document.body.dataset.hacked='1'</script>",
    b"<img src=x onerror=\"document.body.dataset.hacked='1'\">",
    b"\"'><svg onload=alert(1)>",
    b"{{7*7}}${7*7}",
    b"\xff\xfe\x00\x01",
    "snow ☃ \u2028 line".encode(),
    b"__proto__",
    b"/" * 300,
]


def page_in(folder: Path) -> Path:
    with kvstore.open(folder / "store") as store:
        for number in range(40):
            store.put(b"/registry/pods/ns%d/pod-%02d" % (number % 4, number), b"x" * (number * 10))
        for key in HOSTILE:
            store.put(key, key)
        for _ in range(5):
            store.put(b"hot", b"</script><b>bold</b>")
        store.put(b"gone", b"1")
        store.delete(b"gone")
        target = folder / "page.html"
        target.write_text(render(store, "<title>&amp; a store"))
    return target
