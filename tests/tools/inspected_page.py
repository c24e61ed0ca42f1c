"""The page of a hostile store."""

from __future__ import annotations

from pathlib import Path

from kvstore.tools.inspection.page import render

import kvstore
from tests.harness.hostile_store import fill


def page_in(folder: Path) -> Path:
    with kvstore.open(folder / "store") as store:
        fill(store)
        target = folder / "page.html"
        target.write_text("".join(render(store, "<title>&amp; a store")))
    return target
