"""A replica of a backup: what was brought to the target is here, entry by entry, and what is there is all it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvstore.tools.replica import run

import kvstore
from kvstore import backup, replica
from kvstore.backup import Follower
from kvstore.backup.errors import NotCovered, TargetFailed
from kvstore.errors import Corruption, WrongStore
from kvstore.replica.replica import LAG_SECONDS_MAX, Replica
from tests.backup.places import Place, Time, follower
from tests.harness.mirrored import rows, write
from tests.network.served_store import until

DAY_MS = 86_400_000


class Pair:
    """A store with segments of a few kilobytes, the place it is backed up to, and a replica's directory."""

    def __init__(self, scratch: Path, backend: str = "lmdb") -> None:
        self.place, self.path, self.now_ms, self._scratch = Place(), scratch / "replica", Time(), scratch
        self.store = kvstore.open(
            scratch / "data", backend=backend, wal_file_size=8192, max_wals=2, snapshot_count=0
        )
        self.following = self.follower()

    def follower(self) -> Follower:
        return follower(self.store, self.place, self._scratch, self.now_ms)

    def write(self) -> None:
        write(self.store)
        self.following.step()

    def begin_generation(self) -> None:
        self.now_ms.ms += 2 * DAY_MS
        self.write()

    def replica(self, **options: object) -> Replica:
        return replica.new_replica(self.place, self.path, options=options)

    def is_same(self, made: Replica, *, looks: bool = True) -> None:
        """After some time without news, in which all of the target is looked at."""
        made.catch_up()
        if looks:
            made._upstream._news_at = float("-inf")  # type: ignore[union-attr]
            made.catch_up()
        assert made.store is not None
        assert made.store.revision == self.store.revision
        assert rows(made.store) == rows(self.store)
        assert sorted(made.store.leases()) == sorted(self.store.leases())
        assert made.store.hash_kv().hash == self.store.hash_kv().hash

    def close(self) -> None:
        self.following.close()
        self.store.close()


@pytest.fixture
def pair(scratch: Path) -> Iterator[Pair]:
    made = Pair(scratch)
    yield made
    made.close()


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_what_is_brought_to_the_target_comes_from_there(scratch: Path, backend: str) -> None:
    """Across pieces, segments, generations and restarts; leases, users' rows and compaction come with it."""
    pair = Pair(scratch, backend)
    pair.write()
    for seeds in (1, 0):
        with pair.replica(backend=backend) as made:
            pair.is_same(made)
            for _ in range(3):
                pair.write()
                pair.is_same(made)
            pair.store.compact(pair.store.revision - 5)
            pair.begin_generation()
            pair.is_same(made)
            pair.write()
            pair.is_same(made)
            assert made.store is not None
            assert made.store.compact_revision == pair.store.compact_revision
            assert made.seeds == seeds
        pair.write()
    pair.close()


def test_a_manifest_that_is_full_is_followed_by_the_next(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at all of the target."""
    monkeypatch.setattr("kvstore.backup.follower.PIECES_MOST", 2)
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
        monkeypatch.setattr(Place, "list", pytest.fail)
        for _ in range(4):
            pair.write()
            pair.is_same(made, looks=False)


def test_the_lag_is_what_the_backup_has_claimed(pair: Pair) -> None:
    """Nothing is claimed that the target does not have."""
    pair.write()
    with pair.replica() as made:
        made.catch_up()
        assert made.status().complete_at_ms == backup.status(pair.place).complete_at_ms
        write(pair.store)
        made.catch_up()
        assert made.status().revision < pair.store.revision
        assert made.status().complete_at_ms == backup.status(pair.place).complete_at_ms


def test_a_backup_that_nobody_goes_on_with_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target answers as ever, and has nothing new: after a while health says so, until something comes."""
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
        assert made.store is not None
        ago_ms = made.status().complete_at_ms
        for late_ms, is_late in ((LAG_SECONDS_MAX * 1000, False), (LAG_SECONDS_MAX * 1000 + 1, True)):
            monkeypatch.setattr(kvstore.replica.replica, "_now_ms", lambda now_ms=ago_ms + late_ms: now_ms)
            made.catch_up()
            assert made.store.health().healthy is not is_late
            assert ("nothing new of Place for 300 s" in made.status().error) is is_late
        pair.now_ms.ms += 3000
        pair.write()
        pair.is_same(made)
        assert made.store.health().healthy


def test_a_target_that_is_away_is_asked_again(pair: Pair) -> None:
    """The replica answers as it is meanwhile."""
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
        pair.place.is_away = True
        with pytest.raises(TargetFailed):
            made.catch_up()
        assert made.status().error
        pair.place.is_away = False
        pair.write()
        pair.is_same(made)


def test_a_gap_in_the_backup_makes_the_replica_anew(pair: Pair) -> None:
    """A generation that does not go on after what is here: its snapshot is taken, and what is missing is said."""
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
        last = pair.store.revision
        pair.following.close()
        for _ in range(30):
            write(pair.store)  # and its segments are released
        pair.store.snapshot()
        until(lambda: min(file.index for file in pair.store.status().wal) > 100)
        snapshot = pair.store.revision
        pair.following = pair.follower()
        pair.write()
        pair.is_same(made)
        assert made.seeds == 2
        ((first_missing, last_missing),) = made.status().missing
        assert first_missing == last + 1
        assert snapshot <= last_missing + 1 <= pair.store.revision


def test_another_history_at_the_target_is_refused(pair: Pair, scratch: Path) -> None:
    """A backup of another store, or one that ends before what is here."""
    pair.write()
    older = dict(pair.place.objects)
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
    objects, pair.place.objects = pair.place.objects, older
    with pair.replica() as made, pytest.raises(WrongStore, match="older copy"):
        made.catch_up()
    with kvstore.open(scratch / "other") as other:
        place = Place()
        following = follower(other, place, scratch, pair.now_ms)
        write(other)
        following.step()
        following.close()
    with (
        replica.new_replica(place, pair.path) as made,
        pytest.raises(WrongStore, match="a directory of its own"),
    ):
        made.catch_up()
    pair.place.objects = objects
    with pair.replica() as made:
        pair.is_same(made)


def test_a_damaged_piece_is_not_taken(pair: Pair) -> None:
    """It is named, and what is here stays as it is."""
    pair.write()
    with pair.replica() as made:
        pair.is_same(made)
        revision, before = pair.store.revision, set(pair.place.objects)
        pair.write()
        name = next(each for each in sorted(set(pair.place.objects) - before) if "/log/" in each)
        true = pair.place.objects[name]
        pair.place.objects[name] = true[:-1] + bytes([true[-1] ^ 1])
        with pytest.raises(Corruption, match=name):
            made.catch_up()
        assert made.status().revision == revision
        pair.place.objects[name] = true
        pair.is_same(made)


def test_an_empty_place_is_waited_for(pair: Pair) -> None:
    """Until there is a backup there is nothing to follow."""
    with pair.replica() as made:
        with pytest.raises(NotCovered):
            made.step()
        pair.write()
        pair.is_same(made)


def test_an_encrypted_backup_in_a_folder_is_followed(tmp_path: Path) -> None:
    """Both by themselves, with the key."""
    key = bytes(range(32))
    with (
        kvstore.open(tmp_path / "data") as store,
        backup.follow(store, tmp_path / "backup", key=key, interval_seconds=0.05),
        replica.follow(tmp_path / "backup", tmp_path / "replica", key=key, interval_seconds=0.05) as made,
    ):
        last = write(store)
        until(lambda: made.status().revision == last)
        assert made.store is not None
        assert rows(made.store) == rows(store)
    promoted = replica.promote(tmp_path / "replica")
    with kvstore.open(tmp_path / "replica") as store:
        assert store.put(b"k", b"v").revision == promoted + 1


def test_a_source_that_is_followed_in_another_way_begins_anew(pair: Pair, scratch: Path) -> None:
    """Entries of a log and revisions of a watch have numbers of their own."""
    url = f"unix://{scratch}/s"
    pair.write()
    with kvstore.serve(pair.store, url):
        for number in range(2):
            with pair.replica() as made:
                pair.is_same(made)
                assert made.seeds == 1
            with replica.new_replica(url, pair.path) as made:
                pair.is_same(made)
                assert made.seeds == 1, number


def test_a_backup_of_a_copy_that_was_made_anew_is_followed(scratch: Path) -> None:
    """Its entries have other numbers then, which may be those of other entries before: the replica begins anew."""
    place, url = Place(), f"unix://{scratch}/s"
    with kvstore.open(scratch / "data") as store, kvstore.serve(store, url):
        with replica.new_replica(place, scratch / "replica") as made:
            for copy in range(3):
                for _ in range(20 * (3 - copy)):
                    lease = store.grant_lease(600).id  # entries without a revision, of which a copy has fewer
                    store.revoke_lease(lease)
                with backup.new_follower(url, place, data_dir=scratch / f"copy-{copy}") as following:
                    following.step()
                    write(store)
                    following.step()
                made.catch_up()
                made._upstream._news_at = float("-inf")  # type: ignore[union-attr]
                made.catch_up()
                assert made.store is not None
                assert rows(made.store) == rows(store)
        made_again = backup.restore(place, scratch / "restored")
        assert made_again.revision == store.revision


def test_a_promotion_is_told_of_a_directory_of_any_name(
    scratch: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What the command line says has the bytes of the name, which need not be UTF-8."""
    (scratch / os.fsdecode(b"caf\xe9")).mkdir()
    pair = Pair(scratch / os.fsdecode(b"caf\xe9"))
    pair.write()
    with pair.replica() as made:
        made.catch_up()
    pair.close()
    assert run(["promote", str(pair.path)]) == 0
    assert capsysbinary.readouterr().out.startswith(os.fsencode(pair.path))
