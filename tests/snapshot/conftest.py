"""Stores that snapshots are taken of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.store import Store
from tests.snapshot.stores import open_store


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Any]:
    """Opens stores below ``tmp_path`` and closes them at the end."""
    opened: list[Store] = []

    def open_one(backend: str, folder: str = "s", **options: Any) -> Store:
        opened.append(open_store(tmp_path / folder, backend, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
