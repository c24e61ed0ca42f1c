"""Stores to be verified, healed, or damaged first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verification.stores import COMPACTED, fill, open_store, raise_an_alarm


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A closed store on each backend: 132 revisions, compacted, with a snapshot in the middle."""
    made = {}
    for backend in ("lmdb", "sqlite"):
        path = tmp_path_factory.mktemp(backend) / "store"
        with open_store(path, backend) as store:
            fill(store)
            store.compact(COMPACTED, physical=True)
            store.snapshot()
            fill(store, 100)
            raise_an_alarm(store)
        made[backend] = path
    return made


@pytest.fixture
def directory(templates: dict[str, Path], backend: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(templates[backend], tmp_path / "store"))


@pytest.fixture
def no_litter(tmp_path: Path) -> Iterator[None]:
    """No test leaves a scratch file in a store."""
    yield
    assert not list(tmp_path.rglob("verify.tmp*"))
