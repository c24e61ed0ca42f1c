"""Power cuts at every call while a replica is seeded, follows, and is seeded again, and while it is promoted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kvstore
from kvstore import replica
from kvstore.backup.catalogue import Catalogue
from kvstore.backup.followed import Shelf
from kvstore.files import Disk, OSDisk
from kvstore.options import Options
from kvstore.replica.replica import Replica
from kvstore.testing.recording_disk import RecordingDisk
from tests.backup.places import Place, Time, follower
from tests.harness.mirrored import Rows, rows, write
from tests.network.served_store import until

Shown = list[tuple[dict[str, bytes], int, Rows]]
strides = pytest.mark.parametrize("stride", [41, pytest.param(1, marks=pytest.mark.soak)])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What is at a target at four times, with the store's revision and rows: at the last it has had a gap."""
    scratch, place, now_ms, found = tmp_path_factory.mktemp("source"), Place(), Time(), []
    with kvstore.open(scratch / "data", wal_file_size=8192, max_wals=1, snapshot_count=0) as store:
        for time in range(4):
            if time == 3:  # nobody follows until the log that was to come has been released
                last_index = store.engine.state.index
                for _ in range(30):
                    write(store)
                store.snapshot()
                until(lambda: min(file.index for file in store.status().wal) > last_index + 1)  # noqa: B023
            following = follower(store, place, scratch, now_ms)
            write(store)
            following.step()
            following.close()
            found.append((dict(place.objects), store.revision, rows(store)))
    return found


def replica_of(place: Place, path: Path, disk: Disk) -> Replica:
    options = Options(background=False, wal_file_size=8192, max_wals=1, snapshot_count=0)
    return Replica(lambda: Shelf(Catalogue(place), "place", disk), "place", path, options=options, disk=disk)


def follow(place: Place, path: Path, disk: Disk, shown: Shown) -> int:
    """See one after the other, with a process that ends between; how often the store was made from scratch."""
    seeds = 0
    for objects, revision, _ in shown:
        place.objects = dict(objects)
        with replica_of(place, path, disk) as made:
            assert made.catch_up() == revision
            seeds += made.seeds
    return seeds


@strides
def test_a_power_cut_while_a_replica_follows_costs_nothing_but_lag(
    scratch: Path, shown: Shown, stride: int
) -> None:
    """What is left opens, with the rows of one of the times, or none yet; and goes on to the newest."""
    counted = RecordingDisk(scratch / "counted")
    assert follow(Place(), scratch / "counted", counted, shown) == 2
    states = {revision: there for _, revision, there in shown}
    for call in range(1 + stride // 2, len(counted.calls), stride):
        root, place = scratch / f"run-{call}", Place()
        disk = RecordingDisk(root, cut_at=call)
        with pytest.raises(Exception):  # noqa: B017  # the cut, or what follows from it
            follow(place, root, disk, shown)
        disk.cut_power()
        for number, loss in enumerate(disk.losses(chances=1, most_sectors=4)):
            left = disk.materialise(scratch / f"left-{call}-{number}", loss)
            what = f"call {call} ({disk.calls[call - 1]}), {loss}"
            with replica_of(place, left, OSDisk()) as made:
                had_revision = made.status().revision
                if made.store is not None:
                    assert rows(made.store) == states[made.store.revision], what
                place.objects = dict(shown[-1][0])
                assert made.catch_up() == shown[-1][1], what
                assert made.store is not None
                assert rows(made.store) == shown[-1][2], what
                if 0 < had_revision < shown[-1][1]:
                    assert made.status().missing[0][0] > had_revision, what
            shutil.rmtree(left)
        shutil.rmtree(root)


@strides
def test_a_power_cut_while_a_replica_is_promoted_leaves_a_replica_or_a_store(
    scratch: Path, shown: Shown, stride: int
) -> None:
    """One that was begun can be repeated, and ends as if nothing had happened."""
    place = Place()
    follow(place, scratch / "start", OSDisk(), shown[:1])
    shutil.copytree(scratch / "start", scratch / "counted")
    counted = RecordingDisk(scratch / "counted")
    replica.promotion.promote(scratch / "counted", counted)
    for call in range(1 + min(stride, 3) // 2, len(counted.calls), min(stride, 3)):
        root = scratch / f"run-{call}"
        shutil.copytree(scratch / "start", root)
        disk = RecordingDisk(root, cut_at=call)
        with pytest.raises(Exception):  # noqa: B017
            replica.promotion.promote(root, disk)
        disk.cut_power()
        for number, loss in enumerate(disk.losses(chances=1, most_sectors=4)):
            left = disk.materialise(scratch / f"left-{call}-{number}", loss)
            if (left / "replica" / "source").exists():
                assert replica.promote(left) == shown[0][1]
            with kvstore.open(left) as store:
                assert rows(store) == shown[0][2]
                assert store.put(b"k", b"v").revision == shown[0][1] + 1
            shutil.rmtree(left)
        shutil.rmtree(root)
