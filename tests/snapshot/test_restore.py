"""Restore: a new store out of a snapshot, to any revision or time that the log covers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import layout, plugins
from kvstore.backend import find_backend
from kvstore.mvcc.schema import ALARM, pack_u64
from kvstore.options import BadOption, Options
from kvstore.recovery import open_engine
from kvstore.snapshot import restore as restoring
from kvstore.snapshot.reader import open_backend, read_info
from kvstore.snapshot.restore import NewStore, restore
from kvstore.store import Store, View
from tests.harness.plain import value_of

BACKENDS = ("lmdb", "sqlite", "memory")
every = pytest.mark.parametrize("backend", BACKENDS)


def open_store(path: Path, backend: str, **options: Any) -> Store:
    return Store(open_engine(path, Options(backend=backend, **{"background": False, **options})))


def content(store: Store | View) -> dict[bytes, kvstore.KeyValue]:
    return {kv.key: kv for kv in store.scan(prefix=b"")}


def small_store(path: Path, backend: str, **options: Any) -> Store:
    """A store with a past, a compaction, deletes and a lease."""
    store = open_store(path, backend, **options)
    lease = store.grant_lease(1000, 5).id
    for number in range(60):
        store.put(b"key-%d" % (number % 7), b"value %d" % number)
    store.put(b"leased", b"", lease=lease)
    store.put(b"long" * 400, bytes(9000))
    store.delete(b"key-3")
    store.compact(30)
    return store


@pytest.fixture(params=BACKENDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Path]]:
    """A store (of each backend) and a snapshot of it."""
    with small_store(tmp_path / "source", request.param) as store:
        yield store, store.snapshot(tmp_path / "backup").path


# --- the new store ------------------------------------------------------------------------


@every
def test_a_restored_store_is_the_old_one_under_a_new_name(
    saved: tuple[Store, Path], tmp_path: Path, backend: str
) -> None:
    """Content, past, leases and revision are the same on whatever backend; identity and log are new."""
    old, path = saved
    new = NewStore(backend=backend, cluster_id=0xC, member_id=0xD, name="again")
    made = restore(path, tmp_path / "new", new)
    assert (made.revision, made.compact_revision, made.index) == (old.revision, 30, old.engine.state.index)
    with open_store(tmp_path / "new", backend) as store:
        assert content(store) == content(old)
        assert store.hash_kv() == old.hash_kv()
        assert list(store.history(b"key-3")) == list(old.history(b"key-3"))
        assert content(store.at(40)) == content(old.at(40))
        assert store.lease_time_to_live(5, keys=True).keys == (b"leased",)
        assert (store.engine.cluster_id, store.engine.member_id) == (0xC, 0xD)
        assert [file.index for file in layout.segments(tmp_path / "new" / "wal")] == [made.index + 1]
        assert store.put(b"next", b"1").revision == old.revision + 1
    with open_store(tmp_path / "new", backend) as store:
        assert value_of(store, b"next") == b"1"
        assert store.snapshot(tmp_path / "backup-2").members[0].name == "again"


def test_ids_are_drawn_anew(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """Two stores restored from one snapshot are neither the old one nor each other."""
    old, path = saved
    made = [restore(path, tmp_path / name) for name in ("one", "two")]
    assert len({old.engine.cluster_id, made[0].cluster_id, made[1].cluster_id}) == 3
    assert len({old.engine.member_id, made[0].member_id, made[1].member_id}) == 3


def test_16028_a_bumped_revision_leaves_no_past(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """With bump_revision and mark_compacted revisions go on far above, and older ones are compacted."""
    old, path = saved
    made = restore(path, tmp_path / "new", NewStore(bump_revision=1000, mark_compacted=True))
    bumped = old.revision + 1000
    assert (made.revision, made.compact_revision) == (bumped, bumped)
    with open_store(tmp_path / "new", made.backend) as store:
        assert content(store) == content(old)
        assert (store.revision, store.compact_revision) == (bumped, bumped)
        with pytest.raises(kvstore.Compacted):
            store.get(b"key-1", revision=old.revision)
        assert store.put(b"next", b"1").revision == bumped + 1
        assert store.get(b"next", revision=bumped) is None
        store.engine.run_compaction()
        assert content(store.at(bumped)) == content(old)


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("bump", [0, 1000])
def test_an_empty_store_is_restored(tmp_path: Path, backend: str, bump: int) -> None:
    """A deep verification finds the new store as it should be, and a bump is not forgotten with the backend."""
    with open_store(tmp_path / "source", backend) as store:
        store.snapshot(tmp_path / "backup")
    new = NewStore(backend=backend, bump_revision=bump, mark_compacted=bool(bump))
    restore(tmp_path / "backup", tmp_path / "new", new)
    with open_store(tmp_path / "new", backend) as store:
        assert store.put(b"first", b"").revision == bump + 2
    assert kvstore.verify(tmp_path / "new", deep=True, backend=backend).findings == ()
    (tmp_path / "new" / "snap" / "db").unlink()
    if not bump:
        with open_store(tmp_path / "new", backend) as store:
            assert store.revision == 2
        return
    with pytest.raises(kvstore.Corruption):  # the log alone would make revisions that were given before
        open_store(tmp_path / "new", backend)


@pytest.mark.parametrize("new", [{"bump_revision": 5}, {"mark_compacted": True}, {"bump_revision": -1}])
def test_half_a_bump_is_refused(saved: tuple[Store, Path], tmp_path: Path, new: dict[str, Any]) -> None:
    """Revisions that jump without a mark, or a mark without a jump, would hide a gap."""
    with pytest.raises(BadOption):
        restore(saved[1], tmp_path / "new", NewStore(**new))
    assert not (tmp_path / "new").exists()


def test_alarms_stay_behind(tmp_path: Path) -> None:
    """An alarm is about the old member's disk, so the new store has none."""
    with small_store(tmp_path / "source", "lmdb") as store:
        with store.engine.backend.write() as tx:
            tx.put_many(ALARM, [(pack_u64(9) + b"NOSPACE", b"")])
        path = store.snapshot(tmp_path / "backup").path
    restore(path, tmp_path / "new")
    with open_store(tmp_path / "new", "lmdb") as store:
        assert store.alarms() == ()


def test_progress_covers_the_bytes(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """The callback sees the snapshot's bytes go by, to the last."""
    seen: list[tuple[int, int]] = []
    restore(saved[1], tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == read_info(saved[1]).backend_bytes


# --- refusals and failures ----------------------------------------------------------------


def test_nothing_is_overwritten(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """A directory with anything in it, a file or a link is refused and left alone; an empty directory is fine."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    before = sorted(os.listdir(tmp_path))
    for name in ("full", "file", "link"):
        with pytest.raises(kvstore.WrongStore, match="nothing is restored over it"):
            restore(saved[1], tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before
    (tmp_path / "empty").mkdir()
    assert restore(saved[1], tmp_path / "empty").revision == saved[0].revision


def test_a_damaged_snapshot_is_not_restored(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """One changed byte is found on the way, whatever the new backend, and nothing is left behind."""
    whole = saved[1].read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:20_000] + b"\xde\xad" + whole[20_002:])
    before = sorted(os.listdir(tmp_path))
    for backend in BACKENDS:
        with pytest.raises(kvstore.Corruption):
            restore(damaged, tmp_path / "new", NewStore(backend=backend))
        assert sorted(os.listdir(tmp_path)) == before


def test_a_missing_source_or_parent_is_named(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """What is not there raises FileNotFoundError, what is not ours NotAStore, and nothing is left behind."""
    (tmp_path / "other").write_text("not a snapshot")
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileNotFoundError):
        restore(tmp_path / "absent", tmp_path / "new")
    with pytest.raises(FileNotFoundError):
        restore(saved[1], tmp_path / "absent" / "new")
    for name in ("other", "folder"):
        with pytest.raises(kvstore.NotAStore):
            restore(tmp_path / name, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == before


def test_no_room_is_noticed_first(
    saved: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that does not fit raises DiskFull and leaves nothing behind."""
    monkeypatch.setattr(restoring, "free_bytes", lambda path: 5)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(kvstore.DiskFull):
        restore(saved[1], tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == before


def test_an_interrupted_attempt_is_cleared_away(saved: tuple[Store, Path], tmp_path: Path) -> None:
    """What a killed restore left beside the target does not disturb the next one."""
    left = layout.building(tmp_path / "new")
    for folder in ("snap", "wal"):
        (left / folder).mkdir(parents=True)
        (left / folder / "db").write_text("half")
    restore(saved[1], tmp_path / "new")
    assert not left.exists()
    with open_store(tmp_path / "new", read_info(saved[1]).backend) as store:
        assert content(store) == content(saved[0])


def test_two_restores_to_one_place_do_not_mix(
    saved: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is under way another to the same directory is refused."""
    refused = []

    def again(*arguments: Any) -> Any:
        with pytest.raises(kvstore.StoreLocked):
            restore(saved[1], tmp_path / "new")
        refused.append(True)
        return load(*arguments)

    load = restoring._load
    monkeypatch.setattr(restoring, "_load", again)
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(restoring, "_load", again)
        restore(saved[1], tmp_path / "new")
    assert refused == [True]


# --- any point of the past ----------------------------------------------------------------


class History:
    """A random life of a store, with what it held at each revision."""

    def __init__(self, path: Path, backend: str, seed: int, **options: Any) -> None:
        self.now = 1000.0
        self.at: dict[int, dict[bytes, kvstore.KeyValue]] = {}
        self.times: list[tuple[float, int]] = []
        self.random = random.Random(seed)
        self.store = open_store(path, backend, clock=lambda: self.now, **options)

    def step(self) -> None:
        chance, store = self.random, self.store
        self.now += chance.randrange(1, 9)
        key = b"k%d" % chance.randrange(8)
        kind = chance.random()
        if kind < 0.5:
            store.put(key, bytes(chance.randrange(300)))
        elif kind < 0.7:
            store.delete(key, b"k%d" % chance.randrange(8))
        elif kind < 0.85:
            store.txn(success=[kvstore.ops.put(b"a" + key, b"1"), kvstore.ops.put(b"b" + key, b"2")])
        else:
            lease = store.grant_lease(10_000).id
            store.put(key, b"leased", lease=lease)
            store.revoke_lease(lease)
        self.at[store.revision] = content(store)
        self.times.append((self.now, store.revision))


@every
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 20))])
def test_every_revision_of_a_random_history_can_be_restored(tmp_path: Path, backend: str, seed: int) -> None:
    """From a data directory and its archive, each revision comes back as it was read at the time."""
    archive = tmp_path / "archive"
    history = History(
        tmp_path / "s",
        backend,
        seed,
        wal_file_size=1500,
        max_wals=1,
        max_snapshots=2,
        archive_dir=str(archive),
    )
    for number in range(60):
        history.step()
        if number % 20 == 15:
            history.store.compact(history.store.revision - 3)
            history.store.snapshot()
            history.store.engine.snapshots.release()
    history.store.close()
    assert len(layout.segments(archive)) >= 3
    for revision, expected in history.at.items():
        restore(tmp_path / "s", tmp_path / "new", archives=[archive], to_revision=revision)
        with open_store(tmp_path / "new", backend, clock=lambda: history.now) as store:
            assert (store.revision, content(store)) == (revision, expected)
        (tmp_path / "new").rename(tmp_path / f"r{revision}")


def test_every_moment_of_a_random_history_can_be_restored(tmp_path: Path) -> None:
    """A time brings back what was written up to it, and nothing written after."""
    history = History(tmp_path / "s", "lmdb", 3)
    for number in range(30):
        history.step()
        if number in (10, 20):
            history.store.snapshot()
    history.store.close()
    for number, (moment, revision) in enumerate(history.times):
        made = restore(tmp_path / "s", tmp_path / f"t{number}", to_time=moment + 0.5)
        assert made.revision == revision
        with open_store(tmp_path / f"t{number}", "lmdb", clock=lambda: history.now) as store:
            assert content(store) == history.at[revision]
    assert restore(tmp_path / "s", tmp_path / "before", to_time=999.0).revision == 1


@every
def test_a_directory_is_restored_to_the_end_of_its_log(tmp_path: Path, backend: str) -> None:
    """Without a point, everything that the log holds is there, although the backend is lost."""
    with small_store(tmp_path / "s", backend) as store:
        store.snapshot()
        store.put(b"after", b"1")
        expected = content(store)
    if backend != "memory":
        (tmp_path / "s" / "snap" / "db").unlink()
    restore(tmp_path / "s", tmp_path / "new", NewStore(backend=backend))
    with open_store(tmp_path / "new", backend) as store:
        assert content(store) == expected


def test_a_restored_store_can_be_restored_again(tmp_path: Path) -> None:
    """Its own snapshots and log serve as those of any store."""
    with small_store(tmp_path / "s", "lmdb") as store:
        path = store.snapshot(tmp_path / "backup").path
    restore(path, tmp_path / "one")
    with open_store(tmp_path / "one", "lmdb") as store:
        store.snapshot()
        store.put(b"more", b"1")
        revision, expected = store.revision, content(store)
        store.put(b"more", b"2")
    restore(tmp_path / "one", tmp_path / "two", to_revision=revision)
    with open_store(tmp_path / "two", "lmdb") as store:
        assert content(store) == expected


def test_a_damaged_snapshot_is_passed_over_for_an_older_one(tmp_path: Path) -> None:
    """With a log that reaches back, the next older good snapshot serves."""
    with small_store(tmp_path / "s", "lmdb") as store:
        first = store.snapshot()
        store.put(b"more", b"1")
        second = store.snapshot()
        expected = content(store)
    whole = bytearray(second.path.read_bytes())
    whole[9000] ^= 1
    second.path.write_bytes(whole)
    assert restore(tmp_path / "s", tmp_path / "new").base == first.path
    with open_store(tmp_path / "new", "lmdb") as store:
        assert content(store) == expected


def test_a_point_that_is_not_covered_is_refused(tmp_path: Path) -> None:
    """Before the first snapshot without its log, or after the end of the log: an error, and nothing made."""
    with small_store(tmp_path / "s", "lmdb", wal_file_size=1000, max_wals=1) as store:
        path = store.snapshot(tmp_path / "backup").path
        store.snapshot()
        store.put(b"k", bytes(2000))
        store.put(b"k", bytes(2000))
        store.engine.snapshots.release()
        revision = store.revision
    with pytest.raises(kvstore.OpenError, match="no good snapshot before that point"):
        restore(tmp_path / "s", tmp_path / "new", to_revision=20)
    with pytest.raises(kvstore.OpenError, match=f"ends at revision {revision}"):
        restore(tmp_path / "s", tmp_path / "new", to_revision=revision + 1)
    with pytest.raises(kvstore.OpenError, match=r"revision \d+ and is newer than the requested point"):
        restore(path, tmp_path / "new", to_revision=20)
    with pytest.raises(kvstore.OpenError, match=r"the log after it is missing: .*archives="):
        restore(path, tmp_path / "new", to_revision=revision)
    assert not (tmp_path / "new").exists()
    made = restore(path, tmp_path / "new", archives=[tmp_path / "s" / "wal"], to_revision=revision)
    assert made.revision == revision


def test_a_hole_in_the_archive_is_damage(tmp_path: Path) -> None:
    """A missing segment between the snapshot and the point is never skipped."""
    with small_store(tmp_path / "s", "lmdb", wal_file_size=500) as store:
        revision = store.revision
    segments = layout.segments(tmp_path / "s" / "wal")
    segments[len(segments) // 2].path.unlink()
    with pytest.raises(kvstore.Corruption, match="are missing"):
        restore(tmp_path / "s", tmp_path / "new", to_revision=revision)
    assert sorted(os.listdir(tmp_path)) == ["s"]


def test_the_archive_of_several_stores_is_sorted_out(tmp_path: Path) -> None:
    """Segments of other stores in the same folder are left alone."""
    archive = tmp_path / "archive"
    paths = []
    for name in ("one", "two"):
        options = {"wal_file_size": 700, "max_wals": 1, "archive_dir": str(archive)}
        with small_store(tmp_path / name, "lmdb", **options) as store:
            paths.append(store.snapshot(tmp_path / f"{name}.backup").path)
            for number in range(5):
                store.put(b"more", b"%d" % number * 300)
            store.snapshot()
            store.engine.snapshots.release()
            revision = store.revision - 2
            expected = content(store.at(revision))
    restore(paths[1], tmp_path / "new", archives=[archive, tmp_path / "two" / "wal"], to_revision=revision)
    with open_store(tmp_path / "new", "lmdb") as store:
        assert content(store) == expected


# --- snapshots of other kinds -------------------------------------------------------------


class Foreign:
    """Reads files that begin with OTHER and the path of one of our snapshots."""

    @staticmethod
    def recognizes(path: Path) -> bool:
        return path.read_bytes().startswith(b"OTHER")

    @staticmethod
    def inside(path: Path) -> Any:
        return read_info(path.read_bytes()[5:].decode())

    @classmethod
    def inspect(cls, path: Path, progress: Any = None, *, verify: bool = False) -> Any:
        return cls.inside(path)

    @classmethod
    def open(cls, path: Path) -> Any:
        info = cls.inside(path)
        return open_backend(info)


def test_a_package_can_open_files_of_another_kind(
    saved: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is registered under kvstore.snapshots is asked for files that are none of ours."""
    other = tmp_path / "other"
    other.write_bytes(b"OTHER" + os.fsencode(saved[1]))
    monkeypatch.setattr(plugins, "each", lambda group: [Foreign] if group == plugins.SNAPSHOTS else [])
    with kvstore.open_snapshot(other) as snapshot:
        assert content(snapshot) == content(saved[0])
    with kvstore.open_snapshot(saved[1]) as snapshot:
        assert content(snapshot) == content(saved[0])
    assert find_backend("lmdb").name == "lmdb"


@every
def test_an_etcd_snapshot_becomes_a_store(samples: Path, tmp_path: Path, backend: str) -> None:
    """What etcd saved is restored like a snapshot of ours, with the hash that etcd would give."""
    source = samples / "tiny" / "snapshot.db"
    made = restore(source, tmp_path / "new", NewStore(backend=backend))
    with kvstore.open_snapshot(source) as snapshot, open_store(tmp_path / "new", backend) as store:
        assert made.revision == store.revision == snapshot.revision
        assert content(store) == content(snapshot)
        assert store.hash_kv() == snapshot.hash_kv()
        assert store.put(b"next", b"1").revision == snapshot.revision + 1
