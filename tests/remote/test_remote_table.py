"""The table of docs/remote.md, method by method: what it says of a local store, our endpoint and a cluster is so."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import Unsupported
from kvstore.model import Alarm, WatchRequest
from tests.harness.watching import take

COLUMNS = ("local", "endpoint", "cluster")
NOT_IN_IT = {"close"}
"""There is nothing to say of it."""


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def store(column: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[kvstore.Store]:
    """The store of a column."""
    if column == "cluster":
        with kvstore.connect(request.getfixturevalue("cluster_url")) as remote:
            yield remote
        return
    with kvstore.open(tmp_path / "store") as local:
        if column == "local":
            yield local
            return
        with (
            kvstore.serve(local, f"unix://{tmp_path}/kv.sock") as server,
            kvstore.connect(server.endpoints[0]) as remote,
        ):
            yield remote


# --- the table ------------------------------------------------------------------------------


def table(project: Path) -> dict[str, dict[str, str]]:
    """By method and column: what is written there, or to the left of "the same"."""
    page = (project / "docs" / "remote.md").read_text().partition("## What differs, method by method")[2]
    found = {}
    for line in re.findall(r"^\| (`.*) \|$", page.partition("\n## ")[0], re.MULTILINE):
        methods, *cells = line.split(" | ")
        assert len(cells) == len(COLUMNS), line
        for number in (1, 2):
            if cells[number].startswith("the same"):
                cells[number] = cells[number - 1] + cells[number].removeprefix("the same")
        for name in re.findall(r"`([a-z_]+)(?:\([^`]*\))?`", methods):
            found[name] = dict(zip(COLUMNS, cells, strict=True))
    return found


def watched_once(store: kvstore.Store) -> None:
    with store.watch(b"t") as watch:
        store.put(b"t", b"v")
        assert take(watch, 1)


def stream_opened(store: kvstore.Store) -> None:
    with store.watch_stream() as stream:
        stream.create(WatchRequest(b"t"))
        assert stream.next()


def lease_of(store: kvstore.Store) -> int:
    return store.grant_lease(60).id


PROBES: dict[str, Callable[[kvstore.Store, Path], Any]] = {
    "get": lambda store, _: store.get(b"t"),
    "range": lambda store, _: store.range(prefix=b"t"),
    "count": lambda store, _: store.count(prefix=b"t"),
    "in": lambda store, _: b"t" in store,
    "scan": lambda store, _: list(store.scan(prefix=b"t")),
    "at": lambda store, _: store.at(store.revision).get(b"t"),
    "history": lambda store, _: list(store.history(b"t")),
    "diff": lambda store, _: list(store.diff(store.revision)),
    "put": lambda store, _: (store.put(b"t", b"v"), store.put(b"t", b"v", ttl=60)),
    "put_many": lambda store, _: store.put_many({b"t": b"v", b"t2": b"v"}),
    "incr": lambda store, _: store.incr(b"t/number"),
    "time_of": lambda store, _: store.time_of(store.revision),
    "revision_at": lambda store, _: store.revision_at(time.time()),
    "times": lambda store, _: list(store.times()),
    "delete": lambda store, _: store.delete(b"t"),
    "txn": lambda store, _: store.txn(success=[kvstore.ops.put(b"t", b"v")]),
    "put_nowait": lambda store, _: store.wait(store.put_nowait(b"t", b"v")),
    "wait": lambda store, _: store.wait(store.put_nowait(b"t", b"v")),
    "watch": lambda store, _: watched_once(store),
    "watch_stream": lambda store, _: stream_opened(store),
    "grant_lease": lambda store, _: lease_of(store),
    "revoke_lease": lambda store, _: store.revoke_lease(lease_of(store)),
    "keep_alive": lambda store, _: store.keep_alive(lease_of(store)),
    "lease_time_to_live": lambda store, _: store.lease_time_to_live(lease_of(store)),
    "leases": lambda store, _: store.leases(),
    "compact": lambda store, _: store.compact(store.revision),
    "defragment": lambda store, _: store.defragment(),
    "snapshot": lambda store, folder: store.snapshot(folder / "snapshot"),
    "hash_kv": lambda store, _: store.hash_kv(),
    "alarms": lambda store, _: store.alarms(),
    "disarm": lambda store, _: store.disarm(Alarm(0, "NOSPACE")),
    "status": lambda store, _: store.status(),
    "health": lambda store, _: store.health(),
    "revision": lambda store, _: store.revision,
    "compact_revision": lambda store, _: store.compact_revision,
    "checkpoint": lambda store, _: store.checkpoint(),
    "compaction_estimate": lambda store, _: store.compaction_estimate(store.revision),
    "defragment_estimate": lambda store, _: store.defragment_estimate(),
    "engine": lambda store, _: store.engine,
    "metrics": lambda store, _: store.metrics(),
    "refresh": lambda store, _: store.refresh(),
}


def test_the_table_has_every_method_of_a_store(project: Path) -> None:
    """And no other; each is tried below."""
    methods = {name for name in dir(kvstore.Store) if not name.startswith("_")} - NOT_IN_IT
    assert set(table(project)) - {"in"} == methods
    assert set(PROBES) == set(table(project))


@pytest.mark.parametrize("method", PROBES)
def test_what_the_table_says_is_so(
    project: Path, tmp_path: Path, store: kvstore.Store, column: str, method: str
) -> None:
    """``Unsupported`` where that is written, an answer everywhere else."""
    store.put(b"t", b"v")
    cell = table(project)[method][column]
    if cell.startswith("`Unsupported`"):
        with pytest.raises(Unsupported):
            PROBES[method](store, tmp_path)
    else:
        PROBES[method](store, tmp_path)


def test_progress_of_a_compaction(project: Path, store: kvstore.Store, column: str) -> None:
    """Known only where the store is."""
    store.put(b"t", b"v")
    cell = table(project)["compact"][column]
    told: list[tuple[int, int]] = []
    if "`progress` is `Unsupported`" in cell:
        with pytest.raises(Unsupported):
            store.compact(store.revision, progress=lambda done, total: told.append((done, total)))
    else:
        store.compact(store.revision, physical=True, progress=lambda done, total: told.append((done, total)))


def test_a_snapshot_without_a_path(project: Path, store: kvstore.Store, column: str) -> None:
    """A place of its own for snapshots has only a store that is here."""
    store.put(b"t", b"v")
    if "a path is needed" in table(project)["snapshot"][column]:
        with pytest.raises(kvstore.BadArgument, match="path"):
            store.snapshot()
    else:
        assert store.snapshot().path.is_file()
