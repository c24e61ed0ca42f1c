"""Read-only handles that move: what they show is what the writer acknowledged, whatever it does and however it ends."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Compacted, Corruption, DiskFailed, Store, StoreUnreachable, Unsupported, WrongStore
from kvstore.errors import KVStoreError
from kvstore.files import OSDisk
from kvstore.model import RangeResponse
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.wal.end import UNFINISHED_SECONDS, LogEnd
from tests.harness.watching import BACKENDS, TIMEOUT_SECONDS, take

PERSISTENT = ("lmdb", "sqlite")
SMALL = {"low_disk_bytes": 0, "wal_file_size": 20_000, "max_wals": 1, "max_snapshots": 1, "max_txn_ops": 1000}
BY_HAND = {**SMALL, "background": False}
STANDING: dict[str, Any] = {"refresh_interval_seconds": 1e6}
"""Moves by itself, in principle: in a test only when it is told to."""

WRITER = """
import sys, kvstore
from kvstore import *
store = None
for line in sys.stdin:
    try:
        print(repr(eval(line) if line[0] != "!" else exec(line[1:])), flush=True)
    except Exception as error:
        print("failed", repr(error), flush=True)
"""


class Writer:
    """Another process, with at most one store open for writing."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, text: str) -> Any:
        """Evaluate an expression there, or carry out a statement that begins with "!"; returns its plain value."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer and not answer.startswith("failed"), (text, answer)
        return eval(answer, vars(kvstore))

    def open(self, path: Path, backend: str, **options: Any) -> None:
        self.tell(f"!store = kvstore.open({str(path)!r}, {backend!r}, **{options or BY_HAND!r})")

    def close(self) -> None:
        self.tell("!store.close()")

    def kill(self) -> None:
        """Kill it, and start the next one."""
        self.end()
        self._begin()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def process() -> Iterator[Writer]:
    """One other process for all tests, which each open a store of their own in it."""
    writer = Writer()
    yield writer
    writer.end()


@pytest.fixture
def writer(process: Writer) -> Iterator[Writer]:
    """The other process, without an open store before and after."""
    yield process
    process.tell("!store and store.close()")
    process.tell("!store = None")


def content(store: Store) -> list[Any]:
    return list(store.scan(prefix=b""))


def in_transaction(store: Store, key: bytes, range_end: bytes | None = None) -> Sequence[Any]:
    """The keys of a range, read by a transaction."""
    (answer,) = store.txn(success=[kvstore.ops.get(key, range_end=range_end)]).responses
    assert isinstance(answer, RangeResponse)
    return answer.kvs


def same(reader: Store, writer: Writer) -> None:
    """The reader, once refreshed, answers as the writer does."""
    assert reader.refresh() == reader.revision == writer.tell("store.revision")
    assert [kv.row for kv in reader.scan(prefix=b"")] == writer.tell(
        "[kv.row for kv in store.scan(prefix=b'')]"
    )
    assert reader.hash_kv().hash == writer.tell("store.hash_kv().hash")
    assert sorted(reader.leases()) == writer.tell("sorted(store.leases())")
    assert reader.compact_revision == writer.tell("store.compact_revision")
    assert reader.engine.carried == writer.tell("dict(store.engine.carried)")


# --- refresh -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_stands_until_it_is_refreshed(tmp_path: Path, writer: Writer, backend: str) -> None:
    """It shows nothing of what comes later, and after a refresh all that was acknowledged, leases too."""
    writer.open(tmp_path / "data", backend)
    writer.tell("!store.put(b'a', b'1')")
    with kvstore.open(tmp_path / "data", backend, read_only=True) as reader:
        same(reader, writer)
        view = reader.at(reader.revision)
        writer.tell("!lease = store.grant_lease(100).id")
        writer.tell("!store.put(b'b', b'2', lease=lease); store.delete(b'a'); store.put(b'c')")
        assert reader.revision == 2 and [kv.key for kv in content(reader)] == [b"a"]
        same(reader, writer)
        assert [kv.key for kv in content(reader)] == [b"b", b"c"]
        assert in_transaction(reader, b"b")[0].value == b"2"
        assert reader.refresh() == reader.revision == 5
        assert [kv.key for kv in view.scan(prefix=b"")] == [b"a"]
        writer.tell("!store.revoke_lease(lease); store.compact(5)")
        same(reader, writer)
        with pytest.raises(Compacted):
            view.get(b"a")


OPERATIONS: dict[str, str] = {
    "puts": "[store.put(b'k%d' % (n % 7), b'v' * 300 + b'%d' % n) for n in range(40)]",
    "deletes": "store.delete(prefix=b'k1')",
    "transaction": "store.txn(success=[kvstore.ops.put(b't%d' % n, b'x') for n in range(20)])",
    "leases": "(store.grant_lease(1000), store.put(b'l', b'', ttl=1000))",
    "checkpoint": "store.checkpoint()",
    "compaction": "(store.compact(store.put(b'c').revision, physical=True), store.checkpoint())",
    "defragmentation": "(store.put(b'd'), store.defragment(), store.put(b'e'))",
    "snapshot": "(store.snapshot(), store.engine.snapshots.release())",
    "reopened": "",
    "killed": "",
}


def carry_out(name: str, path: Path, backend: str, writer: Writer) -> None:
    """One operation of the writer, which is another process afterwards if it was killed."""
    if name == "killed":
        writer.kill()
    elif name == "reopened":
        writer.close()
    else:
        writer.tell(f"!{OPERATIONS[name]}")
        return
    writer.open(path, backend)


@pytest.mark.parametrize("rounds", [2, pytest.param(60, marks=pytest.mark.soak)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refresh_follows_every_operation(tmp_path: Path, writer: Writer, backend: str, rounds: int) -> None:
    """Kills, compactions, defragmentations, snapshots and released segments, one at a time or several at once."""
    path, drawn = tmp_path / "data", random.Random(rounds)
    writer.open(path, backend)
    writer.tell(f"!{OPERATIONS['puts']}")
    with kvstore.open(path, backend, read_only=True) as reader:
        for _ in range(rounds):
            for name in drawn.sample(list(OPERATIONS), len(OPERATIONS)):
                carry_out(name, path, backend, writer)
                if drawn.random() < 0.7:
                    same(reader, writer)
            same(reader, writer)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_refresh_goes_on_where_the_log_was_released(tmp_path: Path, writer: Writer, backend: str) -> None:
    """A handle whose place in the log is gone takes what the backend has."""
    path = tmp_path / "data"
    writer.open(path, backend)
    writer.tell("!store.put(b'a')")
    with kvstore.open(path, backend, read_only=True) as reader:
        stood_in = reader.status().wal[0].name
        for _ in range(3):
            writer.tell(f"!{OPERATIONS['puts']}")
            writer.tell(f"!{OPERATIONS['snapshot']}")
        assert stood_in not in [file.name for file in (path / "wal").iterdir()]
        same(reader, writer)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_handle_left_standing_is_compacted_until_it_is_refreshed(
    tmp_path: Path, writer: Writer, backend: str
) -> None:
    """What it needs is gone, which reads say; a refresh mends that."""
    writer.open(tmp_path / "data", backend)
    writer.tell("!store.put(b'a', b'1')")
    with kvstore.open(tmp_path / "data", backend, read_only=True) as reader:
        writer.tell("![store.put(b'a', b'%d' % n) for n in range(20)]")
        writer.tell(f"!{OPERATIONS['compaction']}")
        with pytest.raises(Compacted):
            content(reader)
        same(reader, writer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_let_go_that_the_backend_has(
    tmp_path: Path, writer: Writer, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is written, the handle keeps only what the writer has not yet moved to its backend."""
    monkeypatch.setattr("kvstore.following.CHECKPOINT_BYTES", 100_000)
    writer.open(tmp_path / "data", backend)
    with kvstore.open(tmp_path / "data", backend, read_only=True) as reader:
        for _ in range(12):
            writer.tell("![store.put(b'%d' % n, b'v' * 3000) for n in range(20)]; store.checkpoint()")
            reader.refresh()
        assert reader.status().waiting_bytes < 500_000
        same(reader, writer)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_the_old_file_is_let_go_after_a_defragmentation(tmp_path: Path, writer: Writer, backend: str) -> None:
    """A refresh goes over to the new file, and holds neither a descriptor nor a map of the old one."""
    writer.open(tmp_path / "data", backend)
    with kvstore.open(tmp_path / "data", backend, read_only=True) as reader:
        for _ in range(5):
            writer.tell(f"!{OPERATIONS['defragmentation']}")
            same(reader, writer)
        links = [Path(entry.path) for entry in os.scandir("/proc/self/fd")]
        held = [os.readlink(link) for link in links if link.is_symlink()]
        gone = f"{tmp_path / 'data' / 'snap' / 'db'} (deleted)"
        assert gone not in held and gone not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("backend", PERSISTENT)
def test_readers_meet_whole_revisions_while_their_handle_moves(
    tmp_path: Path, writer: Writer, backend: str
) -> None:
    """Every key has the same value in each answer, and a scan ends at the revision at which it began."""
    writer.open(tmp_path / "data", backend)
    change = "store.txn(success=[kvstore.ops.put(b'%03d' % n, value) for n in range(300)])"
    writer.tell(f"!value = b'0'; {change}")
    ended, failures = threading.Event(), list[object]()
    with kvstore.open(tmp_path / "data", backend, read_only=True) as reader:

        def read() -> None:
            while not ended.is_set():
                try:
                    for kvs in (
                        reader.range(prefix=b"").kvs,
                        list(reader.scan(prefix=b"", page_rows=20)),
                        in_transaction(reader, b"\0", b"\0"),
                    ):
                        if len(kvs) != 300 or len({kv.value for kv in kvs}) != 1:
                            failures.append(kvs)
                except Compacted:
                    pass
                except BaseException as error:
                    failures.append(error)
                    raise

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(15):
            writer.tell(f"!value = b'%d' % {number} * 50; {change}; store.checkpoint()")
            if number % 5 == 4:
                writer.tell("!store.compact(store.revision, physical=True); store.defragment()")
            reader.refresh()
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_handle_that_is_written_is_at_its_newest_revision(tmp_path: Path) -> None:
    """There refreshing does nothing; nor in a snapshot."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        store.put(b"k")
        assert store.refresh() == 2
        info = store.snapshot()
    with kvstore.open_snapshot(info.path) as snapshot:
        assert snapshot.refresh() == 2
    with pytest.raises(kvstore.StoreClosed):
        snapshot.refresh()


def test_the_asynchronous_twin_moves_too(tmp_path: Path, writer: Writer) -> None:
    """``refresh`` and watches, awaited."""
    writer.open(tmp_path / "data", "lmdb")

    async def follow() -> None:
        async with kvstore.open_async(tmp_path / "data", read_only=True) as standing:
            writer.tell("!store.put(b'a')")
            assert standing.revision == 1 and await standing.refresh() == standing.revision == 2
            with pytest.raises(Unsupported):
                standing.watch(prefix=b"")
        async with (
            kvstore.open_async(tmp_path / "data", read_only=True, refresh_interval_seconds=0.01) as moving,
            moving.watch(prefix=b"") as events,
        ):
            writer.tell("!store.put(b'b')")
            assert (await anext(events)).kv.key == b"b"

    asyncio.run(asyncio.wait_for(follow(), TIMEOUT_SECONDS))


# --- watches -----------------------------------------------------------------------------


def test_a_watch_that_would_wait_for_ever_is_refused(tmp_path: Path) -> None:
    """In a handle that stands, and in a file; the message says what to do."""
    with kvstore.open(tmp_path / "data", background=False) as store:
        info = store.snapshot()
        store.put(b"k")
    with kvstore.open(tmp_path / "data", read_only=True) as reader:
        for first in (0, 3):
            with pytest.raises(Unsupported, match="refresh_interval_seconds"):
                reader.watch(prefix=b"", start_revision=first)
        with reader.watch_stream() as stream, pytest.raises(Unsupported):
            stream.next(0)
    with kvstore.open_snapshot(info.path) as snapshot, pytest.raises(Unsupported, match="history"):
        snapshot.watch(prefix=b"")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_watch_of_what_stands_still_ends_with_what_is_there(tmp_path: Path, backend: str) -> None:
    """It hands out the kept past, then says that nothing will come; moved by ``refresh``, it goes on."""
    with kvstore.open(tmp_path / "data", backend) as store:
        store.put(b"a")
        store.delete(b"a")
        info = store.snapshot()
        with kvstore.open_snapshot(info.path) as snapshot, snapshot.watch(b"a", start_revision=2) as past:
            assert [next(past).kv.mod_revision for _ in range(2)] == [2, 3]
            past.request_progress()
            assert past.get_response().revision == 3
            for _ in range(2):
                with pytest.raises(Unsupported, match="history"):
                    next(past)
    with (
        kvstore.open(tmp_path / "data", backend, read_only=True) as reader,
        reader.watch(b"a", start_revision=3) as seen,
    ):
        assert next(seen).kv.mod_revision == 3
        with pytest.raises(Unsupported, match="refresh_interval_seconds"):
            seen.get(30)
        if backend == "sqlite":  # LMDB has a file once in a process
            with kvstore.open(tmp_path / "data", backend) as store:
                store.put(b"a")
            reader.refresh()
            assert next(seen).kv.mod_revision == 4


def test_a_task_is_told_that_nothing_will_come(tmp_path: Path) -> None:
    """Instead of waiting on its loop."""
    with kvstore.open(tmp_path / "data") as store:
        store.put(b"a")

    async def read() -> None:
        async with (
            kvstore.open_async(tmp_path / "data", read_only=True) as reader,
            reader.watch(b"a", start_revision=2) as seen,
        ):
            assert (await anext(seen)).kv.mod_revision == 2
            with pytest.raises(Unsupported):
                await anext(seen)

    asyncio.run(asyncio.wait_for(read(), TIMEOUT_SECONDS))


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_watch_follows_every_operation(tmp_path: Path, writer: Writer, backend: str, rounds: int) -> None:
    """Every acknowledged change once, in order, through kills, defragmentations and released segments."""
    path, drawn = tmp_path / "data", random.Random(rounds)
    names = [name for name in OPERATIONS if name != "compaction"] * rounds
    writer.open(path, backend)
    with (
        kvstore.open(path, backend, read_only=True, refresh_interval_seconds=0.005) as reader,
        reader.watch(prefix=b"", prev_kv=True) as live,
        reader.watch(prefix=b"", start_revision=2) as late,
    ):
        writer.tell(f"!{OPERATIONS['puts']}")
        for name in drawn.sample(names, len(names)):
            carry_out(name, path, backend, writer)
        keys = "{change.key for change in store.diff(1)} | {b'k%d' % n for n in range(7)}"
        versions = f"(kv for key in {keys} for kv in store.history(key))"
        expected = writer.tell(f"sorted((kv.mod_revision, kv.key, kv.value) for kv in {versions})")
        for watch in (live, late):
            found = [
                (event.kv.mod_revision, event.kv.key, event.kv.value) for event in take(watch, len(expected))
            ]
            assert [each[0] for each in found] == [each[0] for each in expected]
            assert sorted(found) == expected


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_watch_that_the_writer_has_compacted_past_says_so(
    tmp_path: Path, writer: Writer, backend: str
) -> None:
    """The handle stood while the log was released and the changes were compacted: an end, and no gap."""
    writer.open(tmp_path / "data", backend)
    writer.tell("!store.put(b'a')")
    with (
        kvstore.open(tmp_path / "data", backend, read_only=True, **STANDING) as reader,
        reader.watch(prefix=b"") as events,
    ):
        with pytest.raises(TimeoutError):
            events.get(0)
        for name in ("puts", "snapshot", "puts", "compaction", "snapshot"):
            writer.tell(f"!{OPERATIONS[name]}")
        same(reader, writer)
        with pytest.raises(Compacted) as caught:
            for revision in itertools.count(3):  # what it may have seen on the way, without a gap
                assert events.get(TIMEOUT_SECONDS).kv.mod_revision == revision
        assert caught.value.compact_revision == reader.compact_revision
        with reader.watch(prefix=b"") as anew:
            writer.tell("!store.put(b'b')")
            reader.refresh()
            assert take(anew, 1)[0].kv.key == b"b"


def test_a_watch_ends_with_its_handle(tmp_path: Path, writer: Writer) -> None:
    """Closing a handle that follows ends its thread and its watches."""
    writer.open(tmp_path / "data", "lmdb")
    reader = kvstore.open(tmp_path / "data", read_only=True, refresh_interval_seconds=0.001)
    events, ended = reader.watch(prefix=b""), list[BaseException]()

    def wait() -> None:
        try:
            next(events)
        except KVStoreError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    reader.close()
    waiting.join(TIMEOUT_SECONDS)
    assert [type(error) for error in ended] == [kvstore.StoreClosed]
    assert "kvstore-follow" not in [thread.name for thread in threading.enumerate()]


# --- what goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_refresh_that_fails_leaves_the_handle_where_it_was(
    tmp_path: Path, writer: Writer, backend: str
) -> None:
    """The directory is gone, or another store is in its place, or an older copy of it: typed, and mended by putting
    it back."""
    path, away = tmp_path / "data", tmp_path / "away"
    writer.open(path, backend)
    writer.tell("!store.put(b'a', b'1')")
    writer.close()
    shutil.copytree(path, tmp_path / "older")
    writer.open(path, backend)
    writer.tell("!store.put(b'a', b'2')")
    with kvstore.open(tmp_path / "other", backend) as other:
        for _ in range(9):
            other.put(b"x")
    with kvstore.open(path, backend, read_only=True) as reader:
        before = content(reader)
        writer.close()
        os.rename(path, away)
        for place, failure in ((None, StoreUnreachable), ("other", WrongStore), ("older", WrongStore)):
            if place:
                os.rename(tmp_path / place, path)
            for _ in range(2):
                with pytest.raises(failure):
                    reader.refresh()
                assert reader.revision == 3
                if place is None or backend == "lmdb":  # SQLite's connections go by name
                    assert content(reader) == before
            if place:
                os.rename(path, tmp_path / place)
        os.rename(away, path)
        writer.open(path, backend)
        writer.tell("!store.put(b'a', b'3')")
        same(reader, writer)


def test_a_damaged_log_is_said_to_be_damaged(tmp_path: Path, writer: Writer) -> None:
    """Twice, because nothing has changed; the old answers stay."""
    writer.open(tmp_path / "data", "lmdb")
    writer.tell("!store.put(b'a', b'1')")
    with kvstore.open(tmp_path / "data", read_only=True) as reader:
        end = reader.engine.following._found.replay.end  # type: ignore[attr-defined]
        segment = next((tmp_path / "data" / "wal").glob("*.wal"))
        writer.tell("![store.put(b'a', b'%d' % n) for n in range(5)]")
        with open(segment, "r+b") as file:
            file.seek(end + 40)
            byte = file.read(1)
            file.seek(end + 40)
            file.write(bytes([byte[0] ^ 1]))
        for _ in range(2):
            with pytest.raises(Corruption):
                reader.refresh()
            assert reader.revision == 2 and reader.get(b"a").value == b"1"  # type: ignore[union-attr]
        with open(segment, "r+b") as file:
            file.seek(end + 40)
            file.write(byte)
        same(reader, writer)


class FailingDisk(OSDisk):
    """A disk whose syncs fail while it is told so."""

    failing = False
    syncs = 0

    def sync_file(self, path: Any) -> None:
        self.syncs += 1
        if self.failing:
            raise OSError(errno.EIO, "as told")
        super().sync_file(path)


def test_nothing_is_shown_before_it_is_synced(tmp_path: Path, writer: Writer) -> None:
    """The writer may not have synced its record yet, so the reader does; if it cannot, it stays where it is."""
    writer.open(tmp_path / "data", "lmdb", durability="off", **BY_HAND)
    writer.tell("!store.put(b'a')")
    disk = FailingDisk()
    with Store(open_engine(tmp_path / "data", Options(read_only=True), disk)) as reader:
        assert (reader.revision, disk.syncs) == (2, 1)
        assert (reader.refresh(), disk.syncs) == (2, 1)
        disk.failing = True
        writer.tell("!store.put(b'b')")
        for _ in range(2):
            with pytest.raises(DiskFailed):
                reader.refresh()
            assert reader.revision == 2 and reader.get(b"b") is None
        disk.failing = False
        same(reader, writer)
        assert disk.syncs == 4


def test_an_unfinished_write_is_looked_at_again(tmp_path: Path, writer: Writer) -> None:
    """By a writer that was killed in it, or is at it: at first at every look, later only when the file changes."""
    writer.open(tmp_path / "data", "lmdb")
    writer.tell("!store.put(b'a')")
    with kvstore.open(tmp_path / "data", read_only=True) as reader:
        end = reader.engine.following._found.replay.end  # type: ignore[attr-defined]
        segment = next((tmp_path / "data" / "wal").glob("*.wal"))
        writer.tell("!store.put(b'b', b'v' * 2000)")
        whole = segment.read_bytes()
        with open(segment, "r+b") as file:
            file.seek(end + 1000)
            file.write(bytes(len(whole) - end - 1000))
            file.flush()
            assert reader.refresh() == 2
            log_end: LogEnd = reader.engine.following._end  # type: ignore[attr-defined]
            assert log_end.has_moved()
            log_end._since -= 2 * UNFINISHED_SECONDS
            assert not log_end.has_moved()
            file.seek(0)
            file.write(whole)
        os.utime(segment, (1, 1))
        assert reader.refresh() == 3


def test_a_handle_that_cannot_move_says_so(tmp_path: Path, writer: Writer) -> None:
    """``status`` has the reason, and loses it when the handle moves again."""
    writer.open(tmp_path / "data", "lmdb")
    with kvstore.open(tmp_path / "data", read_only=True, refresh_interval_seconds=0.001) as reader:
        os.rename(tmp_path / "data", tmp_path / "away")
        until(lambda: any("cannot move" in error for error in reader.status().errors))
        assert not reader.health().healthy
        os.rename(tmp_path / "away", tmp_path / "data")
        writer.tell("!store.put(b'a')")
        until(lambda: reader.revision == 2 and not reader.status().errors)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a background thread does."""
    pause = threading.Event()
    for _ in range(int(TIMEOUT_SECONDS / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")
