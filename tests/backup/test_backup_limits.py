"""Backups and the world: a target that is away, other stores, copies, damage, keys, retention, and the threads."""

from __future__ import annotations

import re
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from kvstore.tools.snapshot import seconds_of

import kvstore
from kvstore import Corruption, Store, StoreClosed, WrongStore, backup
from kvstore.backup.catalogue import Catalogue, Generation, Piece, SnapshotManifest
from kvstore.backup.errors import NotCovered, TargetFailed, WrongKey
from kvstore.backup.follower import Follower, Settings, prune
from kvstore.backup.keeping import DAY_MS, HOUR_MS, Keep
from kvstore.backup.restoring import Moment, choose
from kvstore.backup.sources import OpenStore
from kvstore.options import BadOption
from kvstore.snapshot.reader import SnapshotInfo
from tests.backup.places import Place, Time, expected, follower, held_back, restored, write
from tests.harness.command_line import run_apart

KEY = bytes(range(32))


def open_store(path: Path) -> Store:
    return kvstore.open(path, wal_file_size=8192, max_wals=1, snapshot_count=0)


# --- a target that is away ------------------------------------------------------------------


def test_a_segment_that_has_not_arrived_is_still_read_after_its_release(scratch: Path) -> None:
    """The store releases its log while the target is away, and all of it arrives when it is back."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 10)
        following = follower(store, place, scratch, now_ms)
        following.step()
        place.is_away = True
        for _ in range(6):
            write(store, 60)
            with pytest.raises(TargetFailed):
                following.step()
            store.engine.checkpoint()
            store.engine.snapshots.release()
        assert following.status().held_bytes > 0
        assert "away" in following.status().error
        place.is_away = False
        following.step()
        assert following.status().error == ""
        assert following.status().held_bytes == 0
        assert len(backup.status(place).generations) == 1
        for revision in range(11, store.revision, 37):
            assert restored(place, scratch, to_revision=revision) == (revision, expected(revision))
        following.close()


def test_a_target_that_is_away_for_too_long_gets_a_new_generation(scratch: Path) -> None:
    """Beyond ``hold_bytes`` the segments go; what is between the generations is refused, and nothing else is."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 10)
        following = follower(store, place, scratch, now_ms, hold_bytes=8192)
        following.step()
        before = store.revision
        place.is_away = True
        for _ in range(6):
            write(store, 60)
            with pytest.raises(TargetFailed):
                following.step()
            store.engine.checkpoint()
            store.engine.snapshots.release()
        with pytest.raises(TargetFailed):
            following.step()
        assert following.status().held_bytes <= 8192
        assert not store.health().healthy
        assert "away" in store.health().reasons[0]
        assert "kvstore_backup_failing 1" in store.metrics()
        place.is_away = False
        following.step()
        first, second = backup.status(place).generations
        assert first.revision == before
        assert second.revision == store.revision
        after, at_ms = second.snapshot.revision, (first.complete_at_ms + second.snapshot.time_ms) // 2
        with pytest.raises(NotCovered) as refused:
            restored(place, scratch, to_revision=before + 5)
        assert re.findall(r"--to-revision (\d+)", str(refused.value)) == [str(before), str(after)]
        assert restored(place, scratch, to_revision=after)[0] == after
        with pytest.raises(NotCovered) as refused:
            restored(place, scratch, to_time=at_ms / 1000)
        times = re.findall(r"--to-time (\S+)\)", str(refused.value))
        assert [restored(place, scratch, to_time=seconds_of(time))[0] for time in times] == [before, after]
        assert restored(place, scratch, to_revision=before) == (before, expected(before))
        assert restored(place, scratch) == (store.revision, expected(store.revision))
        assert store.health().healthy
        assert f"kvstore_backup_revision {store.revision}\n" in store.metrics()
        assert [each.revision for each in store.status().backups] == [store.revision]
        following.close()
        assert store.status().backups == ()


def test_what_happened_while_nobody_followed_is_in_no_generation(scratch: Path) -> None:
    """A follower that comes back after the log was released begins with a snapshot."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 10)
        following = follower(store, place, scratch, now_ms)
        following.step()
        following.close()
        write(store, 300)
        store.engine.checkpoint()
        store.engine.snapshots.release()
        successor = follower(store, place, scratch, now_ms)
        successor.step()
        assert [each.revision for each in backup.status(place).generations] == [11, 311]
        successor.close()


def test_a_follower_that_comes_back_in_time_goes_on(scratch: Path) -> None:
    """No second snapshot is needed where the log still goes on."""
    place, now_ms = Place(), Time()
    with kvstore.open(scratch / "data", wal_file_size=8192) as store:
        for _ in range(3):
            write(store, 50)
            following = follower(store, place, scratch, now_ms)
            following.step()
            following.close()
        (only,) = backup.status(place).generations
        assert only.revision == store.revision
        assert restored(place, scratch, to_revision=77) == (77, expected(77))


# --- several followers and stores -----------------------------------------------------------


def test_two_followers_of_one_store_do_each_other_no_harm(scratch: Path) -> None:
    """Their pieces overlap in every way, and the log is put together from both."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 20)
        one = follower(store, place, scratch, now_ms)
        one.step()
        two = follower(store, place, scratch, now_ms, piece_bytes=1000)
        for turn in range(8):
            write(store, 30)
            (one, two, one, one, two, two, one, two)[turn].step()
        assert restored(place, scratch) == (store.revision, expected(store.revision))
        assert restored(place, scratch, to_revision=100) == (100, expected(100))
        one.close()
        two.close()


def test_the_log_of_a_copy_that_went_its_own_way_is_never_mixed_in(scratch: Path) -> None:
    """Both have the same ids and entry numbers; each gets generations of its own."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 20)
        following = follower(store, place, scratch, now_ms)
        following.step()
    shutil.copytree(scratch / "data", scratch / "copy")
    with open_store(scratch / "data") as store:
        write(store, 20)
        following.step()
        following.close()
    with open_store(scratch / "copy") as copy:
        for number in range(30):
            copy.put(b"other", b"%d" % number)
        other = follower(copy, place, scratch, now_ms)
        other.step()
        other.close()
        mine, theirs = backup.status(place).generations
        assert restored(place, scratch, generation=mine.name) == (41, expected(41))
        assert restored(place, scratch, generation=theirs.name)[1][b"other"] == b"29"


def test_a_place_that_has_backups_of_another_store_is_refused(scratch: Path) -> None:
    """One place for each store."""
    place, now_ms = Place(), Time()
    for name in ("one", "two"):
        with open_store(scratch / name) as store:
            write(store, 3)
            following = follower(store, place, scratch, now_ms)
            if name == "one":
                following.step()
            else:
                with pytest.raises(WrongStore, match="another store"):
                    following.step()
            following.close()
    assert len(backup.status(place).generations) == 1


def test_a_directory_is_followed_beside_the_process_that_writes_it(scratch: Path) -> None:
    """Only reading: the writer notices nothing, and a folder as target holds what a restore needs."""
    with open_store(scratch / "data") as store:
        write(store, 30)
        command = ("backup", "follow", "--once", "--to", str(scratch / "to"), "--work-dir", str(scratch))
        assert run_apart(scratch / "data", *command).code == 0
        write(store, 30)
        beside = backup.new_follower(scratch / "data", scratch / "to", work_dir=str(scratch))
        beside.step()
        assert beside.status().revision == store.revision
        beside.close()
        assert len(backup.status(scratch / "to").generations) == 1
    assert restored(scratch / "to", scratch) == (61, expected(61))
    assert backup.verify(f"file://{scratch / 'to'}").ok
    assert sorted(path.name for path in scratch.iterdir() if path.name.startswith("kvstore-")) == []


# --- damage -----------------------------------------------------------------------------------


def test_no_damaged_or_missing_object_changes_what_is_restored(scratch: Path) -> None:
    """Whatever object is flipped or gone: an exact prefix, or an error that says so."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        write(store, 40)
        following = follower(store, place, scratch, now_ms)
        following.step()
        write(store, 40)
        following.step()
        following.close()
    refused = 0
    whole = dict(place.objects)
    for name, data in whole.items():
        for changed in (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], data[: len(data) // 2], None):
            place.objects = {**whole, name: changed} if changed is not None else {**whole}
            if changed is None:
                del place.objects[name]
            try:
                revision, found = restored(place, scratch)
            except (Corruption, NotCovered):
                refused += 1
                continue
            assert found == expected(revision), name
            assert name.endswith(".json"), "a piece that a manifest names was not missed"
    assert refused >= 3 * len([name for name in whole if not name.endswith(".json")])


def test_a_broken_newest_generation_is_not_passed_over(scratch: Path) -> None:
    """The newest state is not quietly an older one; by its name, or to a revision, the older can be had."""
    place, now_ms = Place(), Time()
    with open_store(scratch / "data") as store:
        following = follower(store, place, scratch, now_ms)
        for _ in range(2):
            write(store, 20)
            following.step()
            write(store, 20)
            following.step()
            now_ms.ms += 2 * DAY_MS
        following.close()
        older, newest = backup.status(place).generations
        del place.objects[f"{newest.name}/snapshot.json"]
        assert [each.name for each in backup.status(place).broken] == [newest.name]
        with pytest.raises(Corruption, match="newer generation"):
            restored(place, scratch)
        assert restored(place, scratch, generation=older.name) == (older.revision, expected(older.revision))
        assert restored(place, scratch, to_revision=30) == (30, expected(30))
        successor = follower(store, place, scratch, now_ms)
        successor.step()
        successor.close()
        assert restored(place, scratch) == (store.revision, expected(store.revision))


def test_a_manifest_of_a_later_format_is_refused() -> None:
    """It is said to be newer, not damaged."""
    place = Place()
    Catalogue(place).put_manifest("20270115T080000002Z-bbc96d29/snapshot.json", {"kvstore-backup": 2})
    with pytest.raises(kvstore.TooNew, match="format 2"):
        backup.status(place)


# --- keys -------------------------------------------------------------------------------------


def test_an_encrypted_backup_shows_nothing_and_needs_its_key(scratch: Path) -> None:
    """No key or value is in any object; without the key, or with another, nothing is restored."""
    place = Place()
    with open_store(scratch / "data") as store:
        store.put(b"user/secret", b"swordfish" * 50)
        following = backup.new_follower(store, place, key=KEY, work_dir=str(scratch))
        following.step()
        store.put(b"user/secret", b"swordfish" * 60)
        following.step()
        following.close()
    for data in place.objects.values():
        assert b"swordfish" not in data
        assert b"secret" not in data
        assert b"revision" not in data
    assert restored(place, scratch, key=KEY)[1] == {b"user/secret": b"swordfish" * 60}
    with pytest.raises(WrongKey, match="--key-file"):
        backup.status(place)
    assert "another key" in backup.status(place, key=KEY[::-1]).broken[0].reason
    with pytest.raises(Corruption, match="another key"):
        restored(place, scratch, key=KEY[::-1])
    with open_store(scratch / "data") as store:
        following = backup.new_follower(store, place, key=KEY[::-1], work_dir=str(scratch))
        with pytest.raises(WrongKey):
            following.step()
        following.close()


def test_an_object_in_the_place_of_another_is_noticed() -> None:
    """The name is part of what the key protects."""
    place = Place()
    shelf = Catalogue(place, KEY)
    sha256 = shelf.put("one", b"content")
    place.objects["two"] = place.objects["one"]
    assert shelf.get("one", sha256) == b"content"
    with pytest.raises(Corruption):
        shelf.get("two", sha256)


def test_a_key_for_a_backup_without_one_is_refused() -> None:
    """Whoever gives a key wants to know that what is read was written with it."""
    place = Place()
    Catalogue(place).put("one", b"content")
    with pytest.raises(WrongKey, match="not encrypted"):
        Catalogue(place, KEY).get("one", "")


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "00" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    """32 bytes in hexadecimal, and nothing else."""
    (tmp_path / "key").write_text(text)
    with pytest.raises(BadOption, match="openssl rand"):
        backup.read_key(tmp_path / "key")


# --- what is kept -----------------------------------------------------------------------------


def generations(*times_ms: int) -> list[Generation]:
    snapshot = SnapshotManifest(1, "lmdb", 1, 1, 0, 0, ())
    return [Generation(str(time_ms), replace(snapshot, time_ms=time_ms)) for time_ms in times_ms]


def test_hours_keep_every_moment_and_days_and_weeks_one_generation_each() -> None:
    """A generation reaches to the begin of the next, so the one before the window is kept too."""
    now = 20_000 * DAY_MS + 12 * HOUR_MS
    times = [now - hours * HOUR_MS for hours in range(24 * 40, -1, -6)]
    made = generations(*times)

    def kept(text: str) -> list[int]:
        gone = {each.name for each in Keep.parse(text).surplus(made, now)}
        return [(now - time_ms) // HOUR_MS for time_ms in times if str(time_ms) not in gone]

    assert kept("13h") == [18, 12, 6, 0]
    assert kept("3d") == [54, 30, 6, 0] or kept("3d") == [42, 18, 0]
    assert len(kept("4w")) == 4
    assert kept("1h,2d") == sorted({*kept("1h"), *kept("2d")}, reverse=True)


@pytest.mark.parametrize("text", ["", "48", "h", "48h,48h", "0h", "7x", "1h;2d"])
def test_what_does_not_say_what_to_keep_is_refused(text: str) -> None:
    """The message shows what would."""
    with pytest.raises(BadOption, match="48h,14d,8w"):
        Keep.parse(text)


def test_pruning_leaves_what_is_kept_whole(scratch: Path) -> None:
    """And removes the rest, with what a snapshot that never became complete has left long ago."""
    place, now_ms = Place(), Time()
    place.objects["20200101T000000000Z-00000000/snapshot/000000"] = b"left"
    with open_store(scratch / "data") as store:
        following = follower(store, place, scratch, now_ms, keep=Keep(hours=1))
        for _ in range(4):
            write(store, 10)
            following.step()
            now_ms.ms += 2 * DAY_MS
        following.close()
        assert not any(name.startswith("2020") for name in place.objects)
        gone = prune(Catalogue(place), Keep(hours=1), now_ms())
        (only,) = backup.status(place).generations
        assert only.name not in gone
        assert all(name.startswith(only.name) for name in place.objects)
        assert restored(place, scratch) == (store.revision, expected(store.revision))


# --- verification -----------------------------------------------------------------------------


def test_what_came_of_a_verification_is_known_to_all(scratch: Path) -> None:
    """To who asks for the status, and to who follows: damage makes the store unhealthy, and a new generation."""
    place, now_ms = Place(), Time()
    now_ms.ms = 0  # times are those of the snapshots
    with open_store(scratch / "data") as store, follower(store, place, scratch, now_ms) as following:
        write(store, 50)
        following.step()
        assert backup.status(place).verified is None
        report, found_there = backup.verify(place, work_dir=scratch), backup.status(place)
        assert (report.ok, report.path) == (True, found_there.generations[-1].name)
        good = found_there.verified
        assert good is not None and (good.revision, good.damage) == (store.revision, "")
        (piece,) = [name for name in place.objects if name.endswith("/snapshot/000000")]
        damaged = bytearray(place.objects[piece])
        damaged[len(damaged) // 2] ^= 1
        place.objects[piece] = bytes(damaged)
        with pytest.raises(Corruption):
            backup.verify(place, work_dir=scratch)
        found = backup.status(place).verified
        assert found is not None and "SHA-256" in found.damage

    with open_store(scratch / "data") as store, follower(store, place, scratch, now_ms) as following:
        following.step()
        assert (following.status().verified_at_ms, following.status().damage) == (found.at_ms, found.damage)
        assert any("is damaged" in reason for reason in store.health().reasons)
        following.step()
        assert len(backup.status(place).generations) == 2
        assert backup.verify(place, work_dir=scratch).ok


def test_who_verifies_needs_no_right_to_write(scratch: Path) -> None:
    """The answer is the same; it is only not left there."""

    class Shown(Place):
        def put(self, name: str, data: bytes) -> None:
            raise TargetFailed("write", name, PermissionError())

    place, shown = Place(), Shown()
    with open_store(scratch / "data") as store, follower(store, place, scratch, Time()) as following:
        write(store, 10)
        following.step()
    shown.objects = place.objects
    assert backup.verify(shown, work_dir=scratch).ok
    assert backup.status(shown).verified is None


# --- by itself --------------------------------------------------------------------------------


def test_a_follower_goes_on_by_itself_until_it_is_closed(scratch: Path) -> None:
    """What was durable when it is closed is at the target, and no thread or file is left."""
    place = Place()
    with open_store(scratch / "data") as store:
        with backup.follow(store, place, interval_seconds=0.01, work_dir=str(scratch)) as following:
            write(store, 50)
            while following.status().revision < store.revision:
                assert not following.status().error
            write(store, 1)
        assert following.status().revision == store.revision
    assert "kvstore-backup" not in [thread.name for thread in threading.enumerate()]
    assert restored(place, scratch) == (52, expected(52))


def test_a_follower_tries_again_by_itself(scratch: Path) -> None:
    """A target that comes back gets everything, and the error goes."""
    place = Place()
    place.is_away = True
    with open_store(scratch / "data") as store:
        write(store, 50)
        with backup.follow(store, place, interval_seconds=0.01, work_dir=str(scratch)) as following:
            while "away" not in following.status().error:
                assert following.status().revision == 0
            place.is_away = False
            while following.status().revision < store.revision:
                assert following.status().lag_seconds >= 0
        assert following.status().error == ""
    assert restored(place, scratch) == (51, expected(51))


def test_the_pages_example_runs(scratch: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves a backup that can be restored."""
    monkeypatch.chdir(scratch)
    page = (project / "docs" / "backup.md").read_text()
    (block,) = [
        each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "backup.follow" in each
    ]
    exec(compile(block, "backup.md", "exec"), {})
    assert backup.restore("backup", "made").revision == 2


def test_a_follower_is_closed_before_its_thread_has_begun(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself once it begins, unwaited for; what was written is at the target all the same."""
    place, let_go = Place(), held_back(monkeypatch, "kvstore-backup")
    with open_store(scratch / "data") as store:
        write(store, 3)
        following = backup.new_follower(store, place, work_dir=str(scratch))
        following.begin()
        following.close()
        with pytest.raises(StoreClosed):
            following.step()
        assert restored(place, scratch) == (store.revision, expected(store.revision))
        let_go()


def test_what_was_written_beside_a_snapshot_is_not_claimed_with_it(scratch: Path) -> None:
    """Whatever fails, and wherever: what the target is said to be complete up to is there."""

    class Busy(OpenStore):
        """A store that is written while its snapshot is taken."""

        def snapshot(self, path: Path) -> SnapshotInfo:
            info = super().snapshot(path)
            write(self._store, 1)
            wrote_at.append((now_ms(), self._store.revision))
            return info

    now_ms, wrote_at = Time(), list[tuple[int, int]]()
    with open_store(scratch / "data") as store:
        for fail_at in range(1, 12):
            place, left = Place(fail_at), Place()
            settings = Settings(work_dir=str(scratch))
            with Follower(Busy(store), Catalogue(place), settings, now_ms=now_ms) as following:
                with suppress(TargetFailed):
                    following.step()
                left.objects = dict(place.objects)
                was_done = place.calls < fail_at
            said = backup.status(left)
            assert all(said.revision >= at for ms, at in wrote_at if ms <= said.complete_at_ms), fail_at
        assert was_done


def test_a_store_without_a_directory_cannot_be_followed(scratch: Path) -> None:
    """Said at once, not in the background."""
    with pytest.raises(kvstore.NotAStore):
        backup.new_follower(scratch / "nothing", Place())
    with pytest.raises(BadOption, match="interval_seconds"), open_store(scratch / "data") as store:
        backup.new_follower(store, Place(), interval_seconds=0)


def test_a_backup_inside_the_store_is_refused(scratch: Path) -> None:
    """It would be lost with it."""
    with open_store(scratch / "data") as store, pytest.raises(WrongStore):
        backup.new_follower(store, scratch / "data")


def test_a_refusal_names_the_nearest_and_is_short(scratch: Path) -> None:
    """Generations that follow each other without a gap are one range, and of many ranges two are named."""
    generations = [
        Generation(
            f"2026{number:04d}",
            SnapshotManifest(1, "lmdb", 1, first, first, 1, ()),
            complete_at_ms=last,
            pieces=[Piece("p", 1, 0, 1, 0, 0, 0, 0, 1, 1, last, 0, "")],
        )
        for number, (first, last) in enumerate([(2, 10), (10, 20), (21, 30), (40, 50), (60, 70), (80, 90)])
    ]
    for moment, told in (
        (Moment(revision=35), "2 to 30 (--to-revision 30), and 40 to 50 (--to-revision 40)"),
        (Moment(revision=99), "80 to 90 (--to-revision 90)"),
        (Moment(revision=1), "2 to 30 (--to-revision 2)"),
    ):
        with pytest.raises(NotCovered, match=re.escape(f"can be had: {told}; `kvstore backup status`")):
            choose(generations, moment)
    with pytest.raises(
        NotCovered, match=r"to 1970-01-01T00:00:00.030.* \(--to-time 1970-01-01T00:00:00.030\+00:00\)"
    ):
        choose(generations, Moment(time_ms=35))
