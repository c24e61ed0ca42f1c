"""What is found by name: what is installed is told, and what is missing, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from kvstore import plugins
from kvstore.backend import BackendDefaults, backend_names, find_backend
from kvstore.errors import MissingDependency, OpenError
from kvstore.foreign import find_foreign, foreign_names


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points that there are; what is built in is not there."""
    points: list[EntryPoint] = []
    caches = (plugins.find, plugins._installed)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(plugins, "_OURS", {})
    monkeypatch.setattr(metadata, "entry_points", lambda group: EntryPoints(points).select(group=group))
    yield points
    for cached in caches:
        cached.cache_clear()


def test_ours_are_installed() -> None:
    """Under the names that options and commands take."""
    assert {"lmdb", "sqlite", "memory"} <= set(backend_names())
    assert "etcd" in foreign_names()


def test_what_is_built_in_needs_no_look_at_other_packages(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor may one of them take its name."""
    monkeypatch.undo()
    monkeypatch.setattr(metadata, "entry_points", None)
    for group, ours in plugins._OURS.items():
        assert [plugins.find(group, name) for name in ours]
    assert next(plugins.each(plugins.BACKENDS)) is find_backend("lmdb")


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        (find_backend, r"no backend 'none'; installed are: .*lmdb.* the group 'kvstore.backends'"),
        (find_foreign, r"no other store 'none'; installed are: .*etcd.* the group 'kvstore.foreign'"),
    ],
    ids=["backend", "other store"],
)
def test_a_name_that_nobody_has_is_refused_with_those_there_are(find: object, reason: str) -> None:
    """And with what brings another one."""
    assert callable(find)
    with pytest.raises(OpenError, match=reason):
        find("none")


def test_a_package_joins_in_by_its_entry(installed: list[EntryPoint]) -> None:
    """Any package's class is found by its name, and only in its group."""
    installed.append(EntryPoint("third", "kvstore.backend:BackendDefaults", plugins.BACKENDS))
    assert backend_names() == ["third"] and foreign_names() == []
    assert find_backend("third") is BackendDefaults  # type: ignore[comparison-overlap]  # any class will do
    assert list(plugins.each(plugins.SNAPSHOTS)) == []
    with pytest.raises(OpenError, match="no other store 'third'; installed are: none"):
        find_foreign("third")


def test_a_package_that_is_missing_is_named(installed: list[EntryPoint]) -> None:
    """The entry is there, what it needs is not: told as such, and not as a wrong name."""
    installed.append(EntryPoint("third", "no_such_module:Backend", plugins.BACKENDS))
    with pytest.raises(MissingDependency, match=r"the backend 'third' needs a package: .*no_such_module"):
        find_backend("third")


def test_packages_are_looked_through_once(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their metadata takes longer to read than a store to open."""
    looks: list[str] = []

    def look(group: str) -> list[EntryPoint]:
        looks.append(group)
        return installed

    monkeypatch.setattr(metadata, "entry_points", look)
    for group in (plugins.BACKENDS, plugins.FOREIGN, plugins.BACKENDS, plugins.SNAPSHOTS):
        assert list(plugins.each(group)) == []
    assert looks == [plugins.BACKENDS, plugins.FOREIGN, plugins.SNAPSHOTS]
