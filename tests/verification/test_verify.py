"""Verification: a sound store has no findings, and whatever is done to its backend, log or snapshots is found."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kvstore
from kvstore import KVStoreError, NotAStore, Options, Store, StoreLocked, ops
from kvstore.keyvalue import decode_row, encode_key_value
from kvstore.mvcc.lessor import Lease
from kvstore.mvcc.schema import (
    ALARM,
    ATTACHMENT,
    CHANGES,
    HISTORY,
    LATEST,
    LEASE,
    META,
    META_APPLIED_INDEX,
    META_COMPACT_FINISHED,
    META_COMPACT_SCHEDULED,
    META_REVISION,
    TABLES,
    history_key,
    lease_key,
    pack_u64,
    parse_revision,
    revision_key,
    split_history_key,
)
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.verification import Report, verify
from kvstore.wal import reader
from kvstore.wal.inspect import repair
from tests.verification.stores import (
    COMPACTED,
    alter,
    both,
    change_rows,
    contents,
    first_row,
    open_backend,
    open_store,
)

pytestmark = pytest.mark.usefixtures("no_litter")


def problems(report: Report, table: str) -> list[str]:
    return [finding.problem for finding in report.findings if finding.table == table]


# --- nothing is wrong --------------------------------------------------------------------------


@both
def test_a_sound_store_has_no_findings(directory: Path, backend: str) -> None:
    """Every row, entry and snapshot is looked at, and nothing is wrong with any."""
    report = verify(directory, deep=True)
    assert report.findings == () and report.ok and report.first_divergent_revision == 0
    report.raise_if_damaged()
    with open_store(directory, backend, read_only=True) as store:
        assert report.counts["latest"] >= store.count(prefix=b"")
    assert report.counts["snapshots"] == 1 and report.counts["attachment"] == 2 and report.counts["history"]
    assert any("compared with" in note for note in report.notes)


@both
def test_the_library_calls(directory: Path, backend: str) -> None:
    """``kvstore.verify`` and ``kvstore.doctor`` take a directory, and the options by name."""
    assert kvstore.verify(directory, deep=True, backend=backend).ok
    assert any(fact.name == "sync" for fact in kvstore.doctor(directory, low_disk_bytes=0))


@both
def test_verifying_changes_nothing(directory: Path, backend: str) -> None:
    """The files of log, snapshots and backend are the same before and after, and no other is left behind."""
    before = contents(directory)
    verify(directory, deep=True)
    assert contents(directory) == before


@both
def test_any_run_of_requests_leaves_a_sound_store(scratch: Path, backend: str) -> None:
    """Random writes, checkpoints, compactions, snapshots and crashes: no finding, deep or not."""
    chance = random.Random(backend)
    for run in range(4):
        path = scratch / str(run)
        store = open_store(path, backend, wal_file_size=1500, max_wals=2, max_snapshots=2, overlay_limit=4000)
        for _ in range(150):
            _do_anything(store, chance)
        assert in_another_process(path)["findings"] == []
        with pytest.raises(StoreLocked):
            verify(path)
        store.close()
        report = verify(path, deep=True)
        assert report.findings == ()


def in_another_process(path: Path, *arguments: str) -> Any:
    """What ``kvstore verify --json`` says while this process has the store open."""
    command = [
        sys.executable,
        "-m",
        "kvstore.tools.main",
        "verify",
        "--json",
        "--deep",
        "--data-dir",
        str(path),
    ]
    ended = subprocess.run([*command, *arguments], capture_output=True, check=False)
    assert ended.returncode in (0, 4), ended.stderr.decode()
    return json.loads(ended.stdout)


def _do_anything(store: Store, chance: random.Random) -> None:
    key = b"%d" % chance.randrange(8) * chance.choice((1, 1, 300))
    action = chance.randrange(20)
    if action < 9:
        leases = store.leases()
        store.put(key, b"v" * chance.choice((0, 9, 3000)), lease=chance.choice((0, *leases)))
    elif action < 12:
        store.delete(key) if chance.random() < 0.7 else store.delete(prefix=key[:1])
    elif action == 12:
        store.grant_lease(1000)
    elif action == 13 and store.leases():
        store.revoke_lease(store.leases()[0])
    elif action == 14 and store.revision > max(store.compact_revision, 1):
        store.compact(
            chance.randint(store.compact_revision + 1, store.revision), physical=chance.random() < 0.5
        )
    elif action == 15:
        store.snapshot()
        store.engine.snapshots.release()
    elif action < 18:
        store.txn(success=[ops.put(b"a", b"1"), ops.delete(prefix=b"1"), ops.put(b"b", b"2")])
    else:
        store.checkpoint()


@both
def test_a_snapshot_file_is_verified_with_its_tables(directory: Path, backend: str) -> None:
    """A snapshot by itself: hash, manifest, tables; a flipped bit anywhere is a finding."""
    path = next((directory / "snap").glob("*.snap"))
    report = verify(path)
    assert report.findings == () and report.counts == {"snapshots": 1}
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert [finding.area for finding in verify(path).findings] == ["snapshot"]
    damaged = verify(directory)
    assert [finding.path for finding in damaged.findings] == [str(path)]


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    """What is no store is not ours to judge."""
    (tmp_path / "file").write_text("hello")
    with pytest.raises(NotAStore):
        verify(tmp_path)
    assert "not a snapshot" in verify(tmp_path / "file").findings[0].problem


@pytest.mark.parametrize("backend", ("lmdb", "sqlite", "memory"))
def test_a_store_that_was_never_closed(tmp_path: Path, backend: str) -> None:
    """Without a snapshot, with a log that goes far beyond the backend, or without a backend: nothing is wrong."""
    store = open_store(tmp_path / "s", backend)
    store.put(b"a", b"1")
    store.checkpoint()
    store.put(b"a", b"2")
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    store.close()
    assert verify(tmp_path / "copy", deep=True, options=Options(backend=backend)).findings == ()


def test_steps_are_reported(directory_of_lmdb: Path) -> None:
    """Progress names what is looked at, and never goes beyond its total."""
    seen: list[tuple[str, int, int]] = []
    verify(directory_of_lmdb, deep=True, progress=lambda *step: seen.append(step))
    assert {"log", "tables", "backend", "comparing", "replaying the log"} <= {what for what, _, _ in seen}
    assert all(done <= total or not total for _, done, total in seen)


@pytest.fixture
def directory_of_lmdb(templates: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(templates["lmdb"], tmp_path / "store"))


# --- rows that contradict each other -------------------------------------------------------------


def _lose(table: str, start: bytes = b"") -> Callable[[Any], None]:
    return lambda tx: tx.delete_many(table, [first_row(tx, table, start)[0]])


def _put(table: str, key: bytes, value: bytes) -> Callable[[Any], None]:
    return lambda tx: tx.put_many(table, [(key, value)])


KEY = b"key-1"
PAST = history_key(KEY, COMPACTED + 1, 0)
RECENT = revision_key(COMPACTED + 5, 0)
CONTRADICTIONS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "a version is lost": (_lose(HISTORY, PAST), HISTORY, "is missing"),
    "the newest version is lost": (_lose(LATEST, KEY), HISTORY, "is missing"),
    "a change is lost": (_lose(CHANGES, RECENT), CHANGES, "no row for"),
    "an attachment is lost": (_lose(ATTACHMENT), ATTACHMENT, "does not have it"),
    "a lease is lost": (_lose(LEASE, lease_key(177)), ATTACHMENT, "does not exist"),
    "a version was never written": (
        _put(HISTORY, history_key(KEY, 60, 3), b"\x0a\x05key-1"),
        HISTORY,
        "numbers",
    ),
    "a live key was never written": (
        _put(LATEST, b"nobody", encode_key_value(b"nobody", 50, 50, 1, b"", 0)),
        CHANGES,
        "says",
    ),
    "a change was never made": (_put(CHANGES, revision_key(90, 1), b"cnobody"), HISTORY, "wrote is missing"),
    "a change is of another kind": (_put(CHANGES, RECENT, b"dkey-1"), CHANGES, "but it"),
    "a change is of no kind": (_put(CHANGES, RECENT, b"?key-1"), CHANGES, "malformed"),
    "an attachment was never made": (
        _put(ATTACHMENT, lease_key(77) + KEY, b""),
        ATTACHMENT,
        "does not say so",
    ),
    "an alarm is malformed": (_put(ALARM, b"\0" * 9, b""), ALARM, "malformed"),
    "a lease is another's": (_put(LEASE, lease_key(77), b"\x08\x01\x10\x01"), LEASE, "another lease"),
    "a version number is wrong": (alter(LATEST, KEY, version=50), LATEST, "follows version"),
    "a creation is wrong": (alter(LATEST, KEY, create_revision=4), LATEST, "follows version"),
    "a modification is wrong": (alter(LATEST, KEY, mod_revision=9), HISTORY, ""),
    "a row is under another key": (alter(LATEST, KEY, key=b"key-0"), LATEST, "that of key"),
    "a row names a lease": (alter(LATEST, KEY, lease=77), ATTACHMENT, "does not have it"),
    "a row is no row": (_put(LATEST, KEY, b"\xff\xff"), LATEST, "cannot be read"),
    "a row has a field of its own": (
        _put(LATEST, b"z", b"\x0a\x01z\x10\x02\x18\x02\x20\x01\x48\x07"),
        LATEST,
        "encoded",
    ),
    "the revision is too low": (_put(META, META_REVISION, pack_u64(100)), CHANGES, "beyond"),
    "the revision is too high": (_put(META, META_REVISION, pack_u64(1000)), CHANGES, "the last row is"),
    "more is finished than was scheduled": (
        _put(META, META_COMPACT_FINISHED, pack_u64(99)),
        META,
        "scheduled",
    ),
    "more is compacted than there is": (_put(META, META_COMPACT_SCHEDULED, pack_u64(999)), META, "beyond"),
    "a mark is cut short": (_put(META, META_REVISION, b"\x84"), META, "not 8"),
    "the identity is lost": (lambda tx: tx.delete_many(META, [b"cluster_id"]), META, "identity"),
}


@both
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_rows_that_contradict_each_other_are_found(directory: Path, backend: str, case: str) -> None:
    """Without looking at snapshot or log: the finding names the table, and says what is wrong."""
    change, table, words = CONTRADICTIONS[case]
    change_rows(directory, backend, change)
    report = verify(directory)
    assert not report.ok
    assert any(words in problem for problem in problems(report, table)), report.findings
    with pytest.raises(KVStoreError):
        report.raise_if_damaged()


@both
def test_the_applied_index_is_held_against_the_log(directory: Path, backend: str) -> None:
    """An index that the log does not reach is a finding, and so is a log that is gone."""
    change_rows(directory, backend, _put(META, META_APPLIED_INDEX, pack_u64(10_000)))
    assert "entries up to 10000" in verify(directory).findings[0].problem
    shutil.rmtree(directory / "wal")
    assert "the log is gone" in verify(directory).findings[0].problem


# --- any difference at all -----------------------------------------------------------------------

VERSIONED = (LATEST, HISTORY, CHANGES)
MARKS = (b"applied_index", b"revision", b"compact_scheduled", b"format", b"cluster_id", b"member_id")


@both
@pytest.mark.parametrize(
    ("table", "how"),
    [(table, how) for table in TABLES for how in ("change", "lose", "add") if (table, how) != (META, "add")],
)
def test_deep_finds_any_divergence_and_names_its_first_revision(
    directory: Path, backend: str, table: str, how: str
) -> None:
    """A bit of a row, a row too few, a row too many, in whatever table: found, with the revision of the row."""
    chance = random.Random(f"{backend} {table} {how}")
    for _ in range(8):
        undo, revision = _diverge(directory, backend, table, how, chance)
        report = verify(directory, deep=True)
        assert not report.ok
        if revision:
            assert report.first_divergent_revision == revision
        change_rows(directory, backend, undo)
    assert verify(directory, deep=True).ok


def _diverge(
    directory: Path, backend: str, table: str, how: str, chance: random.Random
) -> tuple[Callable[[Any], None], int]:
    """Change one row; how to undo it, and the revision it belongs to."""
    opened = open_backend(directory, backend)
    with opened.read() as tx:
        rows = [row for row in tx.scan(table) if not _is_compacted(table, row[0])]
    opened.close()
    if table == META:
        rows = [row for row in rows if row[0] in MARKS]
    if how == "add":
        key, value, revision = _row_of_nobody(table, chance)
        change_rows(directory, backend, _put(table, key, value))
        return lambda tx: tx.delete_many(table, [key]), revision
    key, value = chance.choice(rows)
    if how == "lose" or not value:
        change_rows(directory, backend, lambda tx: tx.delete_many(table, [key]))
    else:
        changed = bytearray(value)
        changed[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        change_rows(directory, backend, _put(table, key, bytes(changed)))
    revision = 0
    if table in VERSIONED:
        revision = parse_revision(key)[0] if table == CHANGES else decode_row(value)[2]
    return _put(table, key, value), revision


def _row_of_nobody(table: str, chance: random.Random) -> tuple[bytes, bytes, int]:
    """(key, value, revision) of a row that could be there, and is not."""
    revision = chance.randrange(COMPACTED + 1, 120)
    row = encode_key_value(b"nobody", revision, revision, 1, b"", 0)
    return {
        LATEST: (b"nobody", row, revision),
        HISTORY: (history_key(b"nobody", revision + 1, 0), row, revision),
        CHANGES: (revision_key(revision, 99), b"cnobody", revision),
        LEASE: (lease_key(9999), Lease(9999, 60, 1 << 41).encode(), 0),
        ATTACHMENT: (lease_key(77) + b"nobody", b"", 0),
        ALARM: (pack_u64(revision) + b"NOSPACE", b"", 0),
    }[table]


def _is_compacted(table: str, key: bytes) -> bool:
    if table == HISTORY:
        return split_history_key(key)[1] <= COMPACTED
    return table == CHANGES and parse_revision(key)[0] <= COMPACTED


@both
def test_a_changed_value_is_found_only_by_comparing(directory: Path, backend: str) -> None:
    """What contradicts nothing is not seen by the tables alone; deep names table, key and revision."""
    opened = open_backend(directory, backend)
    row = opened.get(LATEST, KEY)
    opened.close()
    assert row is not None
    revision = decode_row(row)[2]
    change_rows(directory, backend, alter(LATEST, KEY, value=b"VALUE %d" % 999))
    assert verify(directory).ok
    finding = verify(directory, deep=True).findings[0]
    assert (finding.table, finding.key, finding.revision) == (LATEST, KEY, revision)


@both
def test_deep_compares_from_the_oldest_snapshot(tmp_path: Path, backend: str) -> None:
    """Damage that a newer snapshot has copied still shows against an older one; where there is none it is said."""
    path = tmp_path / "s"
    with open_store(path, backend, wal_file_size=600, max_wals=1) as store:
        for number in range(30):
            store.put(b"k%d" % (number % 5), b"value %d" % number)
        store.snapshot()
        store.engine.snapshots.release()
        store.put(b"k1", b"value x")
    assert not list((path / "wal").glob("*0000000000000001.wal"))
    change_rows(path, backend, alter(LATEST, b"k3", value=b"other"))
    with open_store(path, backend) as store:
        store.put(b"k4", b"value y")
        store.snapshot()
    report = verify(path, deep=True)
    assert [finding.key for finding in report.findings] == [b"k3"]
    for snapshot in (path / "snap").glob("*.snap"):
        snapshot.unlink()
    assert any("nothing to compare" in note for note in verify(path, deep=True).notes)


# --- the log ----------------------------------------------------------------------------------------


@both
def test_damage_of_the_log_is_found_with_its_place(directory: Path, backend: str) -> None:
    """File and offset, also where the backend has all entries already and opening would not look."""
    path = next((directory / "wal").glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[300] ^= 16
    path.write_bytes(data)
    finding = verify(directory).findings[0]
    assert (finding.area, finding.path) == ("log", str(path)) and 0 < finding.offset <= 300
    assert "last good entry" in finding.problem


@both
def test_a_disk_that_does_not_read_the_log_is_no_damage(
    directory: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening, verifying and repairing say that the disk has failed; repairing cuts nothing off."""
    held = contents(directory)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(reader, "os", SimpleNamespace(**{**vars(os), "pread": fail}))
        for look in (
            lambda: verify(directory),
            lambda: open_store(directory, backend),
            lambda: repair(UnsyncedDisk(), directory / "wal"),
        ):
            with pytest.raises(kvstore.DiskFailed, match=r"\.wal at byte"):
                look()
        assert any("the disk has failed" in fact.advice for fact in kvstore.doctor(directory))
    assert contents(directory) == held
    assert verify(directory).ok


@both
def test_a_torn_tail_is_no_damage(directory: Path, backend: str) -> None:
    """A write that nobody was told of is mentioned."""
    path = next((directory / "wal").glob("*.wal"))
    end = len(path.read_bytes().rstrip(b"\0"))
    with path.open("r+b") as file:
        file.seek((end + 7) // 8 * 8)
        file.write(b"\x40\0\0\0\0\0\0\0\x08\x02\x10")
    report = verify(directory)
    assert report.ok and any("not finished" in note for note in report.notes)
