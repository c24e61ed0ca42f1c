"""Backups that go on: what is at the target is always an exact prefix of the store, up to the revision it reports."""

from __future__ import annotations

import itertools
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

import kvstore
from kvstore import Store, backup
from kvstore.backup.errors import NotCovered, TargetFailed
from kvstore.backup.follower import Follower
from kvstore.backup.pieces import Gap, HeldLog, joint, read_pieces
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


@pytest.mark.parametrize("way", ["refused", "answer lost"])
def test_a_follower_killed_as_a_generation_begins_leaves_no_gap(scratch: Path, way: str) -> None:
    """At whichever call: what was written while nobody followed is in a generation, if the log still has it."""
    calls = 0
    for number in itertools.count(1):
        place, now_ms = Place(kill=True, way=way), Time()
        with kvstore.open(scratch / f"{number}-{way}", snapshot_count=0) as store:
            write(store, 5)
            following = follower(store, place, scratch, now_ms, chunk_bytes=1 << 20)
            following.step()
            write(store, 5)
            now_ms.ms += DAY_SECONDS * 2000
            place.kill_at(number)
            try:
                following.step()
                following.close()
                break  # all calls have been tried
            except Killed:
                calls += 1
            write(store, 5)
            successor = follower(store, place, scratch, now_ms)
            successor.step()
            write(store, 5)
            successor.step()
            successor.close()
            found, last = backup.status(place).generations, store.revision
        for before, after in pairwise(found):
            assert before.revision >= after.snapshot.revision, (number, way)
        assert (found[0].snapshot.revision, found[-1].revision) == (6, last), (number, way)
        for revision in range(6, last + 1, 3):
            assert restored(place, scratch, to_revision=revision) == (revision, expected(revision))
    assert calls >= 5, "of a generation: its chunk, its manifest, a piece, and the manifests of pieces"


def test_a_snapshot_is_not_continued_by_a_log_that_is_another(scratch: Path) -> None:
    """A copy of the store that went its own way begins a generation of its own, also where no piece says so."""
    place, now_ms = Place(), Time()
    with kvstore.open(scratch / "data", snapshot_count=0) as store:
        write(store, 5)
    shutil.copytree(scratch / "data", scratch / "copy")
    with kvstore.open(scratch / "data", snapshot_count=0) as store:
        write(store, 5)
        follower(store, place, scratch, now_ms).step()
        for name in [name for name in place.objects if "/log" in name]:
            del place.objects[name]  # as if it had been killed after its snapshot
    with kvstore.open(scratch / "copy", snapshot_count=0) as store:
        for number in range(12):
            store.put(b"other", b"%d" % number)
        with follower(store, place, scratch, now_ms) as following:
            following.step()
        first, second = backup.status(place).generations
        assert (first.revision, second.revision) == (11, store.revision)
        assert restored(place, scratch)[1][b"other"] == b"11"


def test_a_log_that_was_made_anew_beside_a_snapshot_is_not_taken_for_its_own(scratch: Path) -> None:
    """As of a copy of a cluster that begins again meanwhile: the same cluster, other numbers, another member."""
    with kvstore.open(scratch / "data") as store:
        write(store, 5)
        log, member_id = HeldLog(scratch / "data" / "wal", store.engine.cluster_id), store.engine.member_id
        files = log.look()
        assert [piece.place.last_index for piece in read_pieces(files, 0, 1, None, 1 << 20, member_id)] == [5]
        with pytest.raises(Gap, match="made anew"):
            list(read_pieces(files, 0, 1, None, 1 << 20, member_id + 1))
        assert joint(files, 5, member_id) and joint(files, 5, member_id + 1) is None
        log.close()
