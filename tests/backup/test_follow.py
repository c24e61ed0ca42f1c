"""Backups that go on: what is at the target is always an exact prefix of the store, up to the revision it reports."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import kvstore
from kvstore import Store, backup
from kvstore.backup.errors import NotCovered, TargetFailed
from kvstore.backup.follower import Follower
from kvstore.snapshot.reader import SnapshotInfo
from tests.backup.places import WAYS, Killed, Place, Time, expected, follower, restored, write

DAY_SECONDS = 86_400


def open_store(path: Path, backend: str = "lmdb") -> Store:
    """A store with segments of a few kilobytes, which are released soon."""
    return kvstore.open(path, backend=backend, wal_file_size=8192, max_wals=2, snapshot_count=0)


def live(store: Store, following: Follower, now_ms: Time) -> None:
    """Two generations of a follower's life, with a piece or more after each few writes."""
    for _ in range(2):
        for _ in range(2):
            write(store, 40)
            following.step()
        now_ms.ms += 2 * DAY_SECONDS * 1000


def again_and_again(following: Follower) -> None:
    """A step that is tried again after failures, as ``run`` does."""
    for _ in range(5):
        try:
            following.step()
        except TargetFailed:
            continue
        return
    pytest.fail("one planned failure makes five steps fail")


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "memory"])
def test_what_was_followed_is_restored_at_every_revision(scratch: Path, backend: str) -> None:
    """Every revision from the first snapshot on can be had, on every backend, across segments and generations."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data", backend) as store:
        write(store, 10)
        following = follower(store, place, scratch, now_ms)
        following.step()
        live(store, following, now_ms)
        newest = store.revision
        assert following.status().revision == newest
        following.close()
    assert len(backup.status(place).generations) == 2
    for revision in range(11, newest + 1, 7 if backend == "lmdb" else 23):
        assert restored(place, scratch, to_revision=revision) == (revision, expected(revision))
    assert restored(place, scratch) == (newest, expected(newest))


def calls_of_a_life(scratch: Path) -> int:
    """How many calls the target gets."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "counted") as store:
        following = follower(store, place, scratch, now_ms)
        live(store, following, now_ms)
        following.close()
    return place.calls


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_no_failing_call_of_the_target_loses_or_changes_anything(scratch: Path, stride: int) -> None:
    """Each call fails once, in each way: the next step makes it good, and what is restored is all of the store.

    The short form tries each way on every fourth call, beginning with another.
    """
    calls = calls_of_a_life(scratch)
    for offset, way in enumerate(WAYS):
        for number in range(1 + offset % stride, calls + 1, stride):
            place, now_ms = Place(number, way), Time()
            with open_store(scratch / f"{number}-{way}") as store:
                following = follower(store, place, scratch, now_ms)
                for _ in range(4):
                    write(store, 40)
                    again_and_again(following)
                    now_ms.ms += DAY_SECONDS * 600
                following.close()
                found = backup.status(place)
                assert found.revision == store.revision, (number, way)
                assert restored(place, scratch) == (store.revision, expected(store.revision)), (number, way)


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_a_follower_killed_at_any_call_leaves_a_prefix_that_the_next_goes_on_with(
    scratch: Path, stride: int
) -> None:
    """What the last step reported is there whenever the process dies, and its successor brings the rest."""
    calls = calls_of_a_life(scratch)
    for offset, way in enumerate(("refused", "answer lost")):
        for number in range(1 + offset % stride, calls + 1, stride):
            place, now_ms = Place(number, way, kill=True), Time()
            with open_store(scratch / f"{number}-{way}") as store:
                following = follower(store, place, scratch, now_ms)
                sure = 0
                with pytest.raises(Killed):
                    while True:
                        write(store, 40)
                        following.step()
                        sure = following.status().revision
                        now_ms.ms += DAY_SECONDS * 600
                said = backup.status(place)
                assert said.revision >= sure, (number, way)
                if said.generations:
                    assert restored(place, scratch) == (said.revision, expected(said.revision)), (number, way)
                successor = follower(store, place, scratch, now_ms)
                successor.step()
                assert successor.status().revision == store.revision
                successor.close()
                assert restored(place, scratch) == (store.revision, expected(store.revision)), (number, way)


def test_what_is_written_while_a_generation_begins_is_in_the_one_before(scratch: Path) -> None:
    """The next begins where the last ends: no revision, and no time, lies between them."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        following = follower(store, place, scratch, now_ms)
        following.step()
        take = following._source.snapshot

        def late(path: Path) -> SnapshotInfo:
            write(store, 5)
            now_ms.ms += 5
            return take(path)

        following._source.snapshot = late  # type: ignore[method-assign]
        for _ in range(2):
            write(store, 5)
            now_ms.ms += DAY_SECONDS * 1000
            following.step()
        following.close()
        last = store.revision
    generations = backup.status(place).generations
    assert len(generations) == 3
    for before, after in pairwise(generations):
        assert before.revision >= after.snapshot.revision and before.complete_at_ms >= after.snapshot.time_ms
    for revision in range(2, last + 1):
        assert restored(place, scratch, to_revision=revision) == (revision, expected(revision))


def test_a_place_without_a_backup_is_told_how_to_look(scratch: Path) -> None:
    """A wrong address looks like an empty place: what to check is said, and nothing is made."""
    with pytest.raises(NotCovered, match=r"address and folder right.*kvstore backup status"):
        backup.restore(Place(), scratch / "restored")
    assert not (scratch / "restored").exists()
