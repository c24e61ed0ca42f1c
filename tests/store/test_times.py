"""When a revision was written: from the log, as far back as it is kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore import BadArgument, FutureRevision, Store, TimeUnknown
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import BACKENDS, open_store


def fill(store: Store, clock: FakeClock, count: int = 30, value_bytes: int = 100) -> dict[int, float]:
    """A revision every ten seconds: when each was written."""
    written = {}
    for number in range(count):
        clock.advance(10)
        written[store.put(b"k%d" % (number % 3), b"v" * value_bytes).revision] = clock()
    return written


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_log_says_when_each_revision_was_written(tmp_path: Path, backend: str) -> None:
    """Over several segments, before and after a restart, and beside a writer; between two writes it was the earlier."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock, wal_file_size=1000, max_wals=0) as store:
        written = fill(store, clock)
        assert dict(store.times()) == pytest.approx(written, abs=0.001)
        assert [revision for revision, _ in store.times(since=5, until=9)] == [5, 6, 7, 8, 9]
        for revision, seconds in written.items():
            assert store.time_of(revision) == pytest.approx(seconds, abs=0.001)
            assert store.revision_at(seconds + 5) == revision
        with pytest.raises(FutureRevision):
            store.time_of(store.revision + 1)
        middle = datetime.fromtimestamp(written[12] + 1, UTC)
        assert store.at(store.revision_at(middle)).revision == 12
        if backend == "sqlite":  # LMDB opens a file once in a process
            with kvstore.open(tmp_path / "data", backend, read_only=True) as beside:
                assert beside.time_of(20) == store.time_of(20)
    with open_store(tmp_path, backend, clock=clock) as store:
        assert store.time_of(15) == pytest.approx(written[15], abs=0.001)

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", backend) as store:
            assert await store.revision_at(await store.time_of(15)) == 15
            assert len([pair async for pair in store.times()]) == 30

    asyncio.run(main())


def test_what_the_log_does_not_have_any_more_is_not_known(tmp_path: Path) -> None:
    """Released segments take their times with them; an archive keeps them; a snapshot file has none."""
    for archive, known in (("", False), (str(tmp_path / "archive"), True)):
        clock = FakeClock()
        folder = tmp_path / f"at{known}"
        options = {"clock": clock, "wal_file_size": 1000, "max_wals": 1, "archive_dir": archive}
        with open_store(folder, "lmdb", **options) as store:
            written = fill(store, clock)
            store.checkpoint()
            store.engine.snapshots.prune(0)
            info = store.snapshot()
            store.engine.snapshots.release()
            assert store.time_of(store.revision) == pytest.approx(written[store.revision], abs=0.001)
            if known:
                assert store.time_of(3) == pytest.approx(written[3], abs=0.001)
                assert len(list(store.times())) == 30
            else:
                with pytest.raises(TimeUnknown, match="max_wals"):
                    store.time_of(3)
                with pytest.raises(TimeUnknown):
                    store.revision_at(written[3])
        with kvstore.open_snapshot(info.path) as snapshot, pytest.raises(TimeUnknown, match="without a log"):
            snapshot.time_of(3)


def test_times_that_are_none(tmp_path: Path) -> None:
    """Named and refused; before the first write there was nothing."""
    with kvstore.open(tmp_path / "data", "memory") as store:
        store.put(b"k")
        with pytest.raises(TimeUnknown):
            store.revision_at(1.0)
        with pytest.raises(BadArgument, match="time must be"):
            store.revision_at(-1.0)
        with pytest.raises(TypeError, match="time must be"):
            store.revision_at(cast(Any, "noon"))
