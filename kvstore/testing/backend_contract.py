"""The contract of ``kvstore.backend.Backend``, as tests to inherit. A third-party backend only has to pass them:

from kvstore.testing.backend_contract import BackendContract

class TestMine(BackendContract):
    backend = MyBackend
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from kvstore.backend import Backend, Row
from kvstore.errors import (
    Corruption,
    EmptyKey,
    KVStoreError,
    NotAStore,
    OpenError,
    ReadOnly,
)

from .keys import HUGE, NASTY

TABLES = ["latest", "history", "meta"]

PREAMBLE = """
import importlib, os, sys
from pathlib import Path
from kvstore.errors import KVStoreError
module, name, path = sys.argv[1:4]
kind = getattr(importlib.import_module(module), name)
path = Path(path)
TABLES = ["latest", "history", "meta"]
"""


def environment() -> dict[str, str]:
    """The environment for another process that finds the same modules as this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def between(rows: dict[bytes, bytes], start: bytes, end: bytes | None) -> list[Row]:
    return [(k, rows[k]) for k in sorted(rows) if k >= start and (end is None or k < end)]


class BackendContract:
    """Inherit, and set ``backend``."""

    backend: ClassVar[type[Backend]]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "db"

    @pytest.fixture
    def db(self, path: Path) -> Iterator[Backend]:
        db = self.backend.open(path, TABLES)
        yield db
        db.close()

    def put(self, db: Backend, rows: list[Row], table: str = "latest") -> None:
        with db.write() as tx:
            tx.put_many(table, rows)

    def rows(self, db: Backend, table: str = "latest") -> list[Row]:
        with db.read() as view:
            return view.scan(table)

    def python(self, path: Path, code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run code in another process, with ``kind``, ``path`` and ``TABLES`` at hand."""
        kind = self.backend
        return subprocess.run(
            [sys.executable, "-c", PREAMBLE + code, kind.__module__, kind.__name__, str(path)],
            env=environment(),
            check=check,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
        )

    # --- rows -----------------------------------------------------------------------

    def test_what_is_put_is_there_and_what_is_deleted_is_not(self, db: Backend) -> None:
        """A put replaces the value; deleting takes it away, and deleting an absent key is no error."""
        self.put(db, [(b"a", b"1"), (b"b", b""), (b"a", b"2")])
        assert [db.get("latest", key) for key in (b"a", b"b", b"c", b"")] == [b"2", b"", None, None]
        with db.write() as tx:
            tx.delete_many("latest", [b"a", b"c"])
        assert self.rows(db) == [(b"b", b"")]

    @pytest.mark.parametrize("in_one_batch", [False, True])
    def test_ranges_are_deleted_and_counted(self, db: Backend, in_one_batch: bool) -> None:
        """Deleting ranges, overlapping ones too, leaves the rows outside, and says how many rows were deleted."""
        rows = dict.fromkeys(NASTY, b"v")
        bounds = sorted(random.Random(7).sample(NASTY, 12))
        ranges = [(bounds[0], bounds[2]), (bounds[1], bounds[4]), (bounds[6], bounds[6] + b"\0"), (b"", b"")]
        ranges += [(bounds[11], bounds[8]), (bounds[9] + b"\0", bounds[10]), (NASTY[-1], NASTY[-1] + b"\0")]
        if not in_one_batch:
            self.put(db, list(rows.items()))
        with db.write() as tx:
            if in_one_batch:
                tx.put_many("latest", list(rows.items()))
            tx.delete_many("latest", [bounds[0]])
            deleted = tx.delete_ranges("latest", ranges)
        left = [key for key in NASTY if not any(start <= key < end for start, end in ranges)]
        assert [key for key, _ in self.rows(db)] == left
        assert deleted == len(rows) - len(left) - 1

    @pytest.mark.parametrize("keys", [NASTY, [key for key in NASTY if len(key) < 500], []])
    def test_a_table_is_emptied_and_counted(self, db: Backend, keys: list[bytes]) -> None:
        """Deleting all rows, those of the same batch too, leaves other tables alone; new rows can follow."""
        self.put(db, [(key, b"v") for key in keys])
        self.put(db, [(b"k", b"v")], "history")
        with db.read() as view:
            with db.write() as tx:
                tx.put_many("latest", [(b"new", b"v")])
                tx.delete_many("latest", keys[:1])
                assert tx.delete_all("latest") == len({*keys[1:], b"new"})
                assert tx.scan("latest") == []
                tx.put_many("latest", [(b"a", b"1"), (b"b" * 900, b"2")])
            assert view.count("latest") == len(keys)
        assert self.rows(db) == [(b"a", b"1"), (b"b" * 900, b"2")]
        assert self.rows(db, "history") == [(b"k", b"v")]

    def test_tables_are_apart(self, db: Backend) -> None:
        """The same key in two tables is two rows."""
        self.put(db, [(b"k", b"1")])
        self.put(db, [(b"k", b"2")], "history")
        assert [db.get(table, b"k") for table in TABLES] == [b"1", b"2", None]

    def test_the_empty_key_is_refused(self, db: Backend) -> None:
        """Putting an empty key raises, and nothing of the batch is kept."""
        with pytest.raises(EmptyKey), db.write() as tx:
            tx.put_many("latest", [(b"a", b"1"), (b"", b"2")])
        assert self.rows(db) == []

    def test_keys_of_all_shapes_are_in_byte_order(self, db: Backend) -> None:
        """Zero bytes, prefixes of each other, and lengths around any limit: the order is that of the bytes."""
        shuffled = random.Random(1).sample(NASTY, len(NASTY))
        self.put(db, [(key, b"%d" % len(key)) for key in shuffled])
        assert self.rows(db) == [(key, b"%d" % len(key)) for key in NASTY]
        with db.read() as view:
            assert view.get_many("latest", NASTY) == [b"%d" % len(key) for key in NASTY]
            assert [view.get("latest", key + b"\0") for key in NASTY] == [
                b"%d" % (len(key) + 1) if key + b"\0" in NASTY else None for key in NASTY
            ]

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("limit", [0, 1, 3, 1000])
    def test_a_scan_gives_what_lies_between(self, db: Backend, limit: int, reverse: bool) -> None:
        """Every pair of bounds, present as keys or not, gives the model's rows."""
        rows = {key: b"v%d" % len(key) for key in NASTY}
        self.put(db, list(rows.items()))
        bounds = [b"", *NASTY[::4], *(key + b"\0" for key in NASTY[::9]), *(key[:-1] for key in NASTY[::7])]
        with db.read() as view:
            for start in bounds:
                for end in (None, *bounds[::5]):
                    wanted = between(rows, start, end)
                    assert view.count("latest", start, end) == len(wanted)
                    if reverse:
                        wanted.reverse()
                    found = view.scan("latest", start, end, limit=limit, reverse=reverse)
                    assert found == (wanted[:limit] if limit else wanted)

    def test_a_long_scan_stops_at_its_bound(self, db: Backend) -> None:
        """Bounds hold where they fall between thousands of rows."""
        rows = {b"%06d" % i: b"%d" % i for i in range(5000)}
        self.put(db, list(rows.items()))
        with db.read() as view:
            for start, end in ((0, 63), (10, 74), (1, 4321), (4999, 5000), (3000, 3000), (4000, 9999)):
                low, high = b"%06d" % start, b"%06d" % end
                wanted = between(rows, low, high)
                assert view.scan("latest", low, high) == wanted
                assert view.scan("latest", low, high, reverse=True) == wanted[::-1]
                assert view.scan("latest", low, high, limit=2000) == wanted[:2000]
                assert view.count("latest", low, high) == len(wanted)

    def test_the_first_values_at_or_after_many_keys(self, db: Backend) -> None:
        """Asking for the first value at or after each key gives the same as a scan for each."""
        starts = [b"", *NASTY[::3], b"\xff" * 700]
        for keys in ([key for key in NASTY if len(key) < 500], NASTY):  # without long keys, then with
            self.put(db, [(key, key[:9]) for key in keys])
            with db.read() as view:
                scans = [view.scan("latest", start, limit=1) for start in starts]
                first = [rows[0][1] if rows else None for rows in scans]
                assert view.first_values("latest", starts) == first
                assert [db.first_value("latest", start) for start in starts] == first
            self.put(db, [(b"\0", b"smaller than any")])
            assert db.first_value("latest", b"") == b"smaller than any", "not that of the newest commit"

    def test_keys_and_values_may_be_huge(self, db: Backend) -> None:
        """Keys of 1.5 MiB that differ in the last byte, and a value of 4 MiB, come back as they went in."""
        rows = {key: b"%d" % n for n, key in enumerate(HUGE)} | {b"big": b"\xaa" * (4 << 20)}
        self.put(db, list(rows.items()))
        assert self.rows(db) == between(rows, b"", None)
        with db.read() as view:
            assert view.scan("latest", HUGE[0], HUGE[0] + b"\0") == [(HUGE[0], b"0")]
        with db.write() as tx:
            tx.delete_many("latest", HUGE[:2])
        assert [key for key, _ in self.rows(db)] == sorted([b"big", *HUGE[2:]])

    def test_many_versions_of_a_long_key(self, db: Backend) -> None:
        """Thousands of keys that share a long prefix are found from either end, and can all be deleted."""
        stem = b"user-key/" * 100
        rows = [(stem + b"\0%016d" % n, b"%d" % n) for n in range(3000)]
        self.put(db, rows)
        with db.read() as view:
            newest = view.scan("latest", stem, stem + b"\0%016d" % 1234, limit=1, reverse=True)
            assert newest == [rows[1233]]
        with db.write() as tx:
            tx.delete_many("latest", [key for key, _ in rows])
        assert self.rows(db) == []

    # --- batches --------------------------------------------------------------------

    def test_an_exception_drops_the_batch(self, db: Backend) -> None:
        """Nothing of a batch that ended badly is there, in any table, for short keys or long."""
        self.put(db, [(b"a", b"1")])
        with pytest.raises(RuntimeError), db.write() as tx:
            tx.put_many("latest", [(b"a", b"2"), (b"b", b"2"), (b"l" * 2000, b"2")])
            tx.put_many("meta", [(b"m", b"2")])
            tx.delete_many("latest", [b"a"])
            raise RuntimeError
        assert self.rows(db) == [(b"a", b"1")]
        assert self.rows(db, "meta") == []

    def test_a_batch_sees_itself_and_nobody_else_does(self, db: Backend) -> None:
        """Reads inside a batch see its writes; reads beside it do not, until it is committed."""
        self.put(db, [(b"a", b"1"), (b"b", b"1"), (b"l" * 2000, b"1")])
        with db.write() as tx:
            tx.put_many("latest", [(b"a", b"2"), (b"c", b"2")])
            tx.delete_many("latest", [b"b", b"l" * 2000])
            assert tx.scan("latest") == [(b"a", b"2"), (b"c", b"2")]
            assert tx.scan("latest", reverse=True, limit=1) == [(b"c", b"2")]
            assert (tx.get("latest", b"b"), tx.count("latest")) == (None, 2)
            assert tx.get_many("latest", [b"a", b"b"]) == [b"2", None]
            assert db.get("latest", b"a") == b"1"
            assert len(self.rows(db)) == 3
        assert self.rows(db) == [(b"a", b"2"), (b"c", b"2")]

    def test_the_last_of_several_writes_wins(self, db: Backend) -> None:
        """Within a batch, operations take effect in the order they were made."""
        with db.write() as tx:
            tx.put_many("latest", [(b"a", b"1"), (b"a", b"2")])
            tx.delete_many("latest", [b"a", b"b"])
            tx.put_many("latest", [(b"b", b"3")])
        assert self.rows(db) == [(b"b", b"3")]

    def test_rows_may_come_from_a_generator(self, db: Backend) -> None:
        """Iterables are read once."""
        with db.write() as tx:
            tx.put_many("latest", ((b"%d" % n, b"v") for n in range(5)))
            tx.delete_many("latest", (b"%d" % n for n in range(3)))
        assert [key for key, _ in self.rows(db)] == [b"3", b"4"]

    def test_append_is_a_hint(self, db: Backend) -> None:
        """Appended rows are all there, even if the promise of ascending order was broken."""
        with db.write() as tx:
            tx.put_many("latest", [(b"%04d" % n, b"1") for n in range(100, 200)], append=True)
        with db.write() as tx:
            tx.put_many("latest", [(b"%04d" % n, b"2") for n in (300, 250, 150, 50)], append=True)
        with db.read() as view:
            assert view.count("latest") == 103
            assert view.get_many("latest", [b"0050", b"0150", b"0300"]) == [b"2"] * 3

    # --- views ----------------------------------------------------------------------

    def test_a_view_stays_as_it_was(self, db: Backend) -> None:
        """Commits made while a view is open do not show in it, but do in the next one."""
        before = {b"a": b"1", b"b": b"1", b"d" * 700: b"1"}
        self.put(db, list(before.items()))
        with db.read() as view:
            for n in range(3):
                with db.write() as tx:
                    tx.put_many("latest", [(b"a", b"%d" % n), (b"c%d" % n, b"new"), (b"e" * 800, b"new")])
                    tx.delete_many("latest", [b"b", b"d" * 700])
                assert view.scan("latest") == between(before, b"", None)
                assert view.scan("latest", reverse=True, limit=2) == between(before, b"", None)[:-3:-1]
                assert (view.count("latest"), view.get("latest", b"b")) == (3, b"1")
                assert db.get("latest", b"b") is None
        with db.read() as view:
            assert view.count("latest") == 5

    def test_views_of_one_thread_may_overlap(self, db: Backend) -> None:
        """Each view keeps its own commit, closed in any order."""
        views = []
        for n in range(5):
            self.put(db, [(b"n", b"%d" % n)])
            views.append(db.read())
        for n in (3, 0, 4, 1, 2):
            assert views[n].get("latest", b"n") == b"%d" % n
            views[n].close()
            views[n].close()

    def test_a_view_left_open_does_no_harm(self, db: Backend, path: Path) -> None:
        """A view that outlives the backend, or is never closed, is cleaned up quietly."""
        self.put(db, [(b"a", b"1")])
        forgotten = db.read()
        del forgotten
        late = db.read()
        db.close()
        late.close()

    def test_readers_see_whole_batches_while_a_writer_writes(self, db: Backend) -> None:
        """Each view holds all of a batch or none of it, in many threads at once."""
        self.put(db, [(b"%d" % n, b"0") for n in range(50)])
        stop, torn = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                with db.read() as view:
                    values = {value for _, value in view.scan("latest")}
                    if len(values) != 1 or {view.get("latest", b"7")} != values:
                        torn.append(values)

        self.in_threads(4, read, lambda: self.write_batches(db, 60), stop)
        assert torn == []
        assert db.get("latest", b"7") == b"60"

    def test_a_batch_is_dropped_while_others_read(self, db: Backend) -> None:
        """Giving up a batch does not wait for a moment without readers."""
        self.put(db, [(b"a", b"1")])
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                db.get("latest", b"a")

        def fail() -> None:
            for _ in range(20):
                with pytest.raises(RuntimeError), db.write() as tx:
                    tx.put_many("latest", [(b"a", b"2")])
                    raise RuntimeError

        self.in_threads(4, read, fail, stop)
        assert self.rows(db) == [(b"a", b"1")]

    def write_batches(self, db: Backend, batches: int) -> None:
        for batch in range(1, batches + 1):
            self.put(db, [(b"%d" % n, b"%d" % batch) for n in range(50)])

    def in_threads(
        self, count: int, work: Callable[[], None], meanwhile: Callable[[], None], stop: threading.Event
    ) -> None:
        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    # --- the file -------------------------------------------------------------------

    def test_what_was_committed_is_there_after_reopening(self, path: Path) -> None:
        """A persistent backend keeps its rows across close; another one starts empty."""
        for n in range(3):
            db = self.backend.open(path, TABLES)
            expected = [(b"%d" % i, b"v") for i in range(n)] if self.backend.persistent else []
            assert self.rows(db) == expected
            self.put(db, [(b"%d" % n, b"v"), (b"l" * 3000, b"v")])
            with db.write() as tx:
                tx.delete_many("latest", [b"l" * 3000])
            db.close()
            db.close()

    def test_a_process_that_dies_loses_no_commit(self, path: Path) -> None:
        """What was committed before the process was killed is there; the open batch is not."""
        if not self.backend.persistent:
            pytest.skip("keeps nothing")
        self.python(
            path,
            "db = kind.open(path, TABLES)\n"
            "for n in range(20):\n"
            "    with db.write() as tx: tx.put_many('latest', [(b'%d' % n, b'v'), (b'l' * 900, b'%d' % n)])\n"
            "tx = db.write(); tx.put_many('latest', [(b'open', b'v')])\n"
            "os._exit(0)\n",
        )
        db = self.backend.open(path, TABLES)
        assert len(self.rows(db)) == 21
        assert db.get("latest", b"l" * 900) == b"19"
        assert db.get("latest", b"open") is None
        db.check()
        db.close()

    def test_a_file_is_for_its_owner_only(self, db: Backend, path: Path, tmp_path: Path) -> None:
        """Files and copies are made with mode 0600."""
        self.put(db, [(b"a", b"1")])
        db.copy_to(tmp_path / "copy")
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    def test_another_process_reads_while_one_writes(self, db: Backend, path: Path) -> None:
        """A second, read-only opening sees each new commit, and cannot write."""
        if not self.backend.persistent:
            pytest.skip("lives in one process")
        self.put(db, [(b"a", b"1")])
        code = (
            "db = kind.open(path, TABLES, read_only=True)\n"
            "print(db.get('latest', b'a'), flush=True)\n"
            "input()\n"
            "with db.read() as view: print(view.scan('latest')[-1][1], view.count('latest'))\n"
            "try: db.write()\n"
            "except KVStoreError as error: print(type(error).__name__)\n"
        )
        kind = self.backend
        with subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, kind.__module__, kind.__name__, str(path)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == "b'1'\n"
            self.put(db, [(b"l" * 600, b"2"), (b"b", b"3")])
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.read() == "b'2' 3\nReadOnly\n"
        self.put(db, [(b"c", b"4")])
        assert db.get("latest", b"c") == b"4"

    def test_a_child_process_does_no_harm(self, path: Path) -> None:
        """After a fork, the child's garbage collection leaves the parent's view and file intact."""
        run = self.python(
            path,
            "import gc\n"
            "db = kind.open(path, TABLES)\n"
            "with db.write() as tx: tx.put_many('latest', [(b'%d' % n, b'old' * 50) for n in range(2000)])\n"
            "view = db.read(); before = view.scan('latest')\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    del view, db; gc.collect(); sys.exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
            "for n in range(20):\n"
            "    with db.write() as tx: tx.put_many('latest', [(b'%d' % i, b'new' * 50) for i in range(2000)])\n"
            "assert view.scan('latest') == before\n"
            "view.close(); db.check(); db.close(); print('whole')\n",
        )
        assert run.stdout == "whole\n"

    def test_sizes(self, db: Backend) -> None:
        """Usage grows with rows and falls when they are deleted; the file is at least as large as what is in use."""
        empty = db.in_use_bytes()
        self.put(db, [(b"%d" % n, b"x" * 1000) for n in range(1000)])
        full = db.in_use_bytes()
        assert full > empty + 1_000_000
        assert db.size_bytes() >= full
        with db.write() as tx:
            tx.delete_many("latest", [b"%d" % n for n in range(1000)])
        assert db.in_use_bytes() < full // 2

    def test_a_whole_file_passes_its_check(self, db: Backend) -> None:
        """Check finds nothing wrong while rows come and go, and reports its progress."""
        self.put(db, [(key, b"v" * 300) for key in NASTY])
        with db.write() as tx:
            tx.delete_many("latest", NASTY[::3])
        db.sync()
        progress: list[tuple[int, int]] = []
        db.check(lambda done, total: progress.append((done, total)))
        assert progress[-1][0] == progress[-1][1] > 0

    def test_a_whole_file_that_nobody_has_open_passes_a_look(self, db: Backend, path: Path) -> None:
        """The check of a closed file before it is mapped finds nothing wrong, and leaves it as it is."""
        self.put(db, [(key, b"v" * 300) for key in NASTY])
        db.sync()
        db.close()
        before = path.read_bytes() if path.exists() else b""
        self.backend.check_closed(path)
        assert (path.read_bytes() if path.exists() else b"") == before

    def test_it_names_its_libraries_and_its_readers(self, db: Backend) -> None:
        """The versions of its libraries are text; no other process reads a file that was just made."""
        assert all(name and version for name, version in self.backend.versions().items())
        assert db.foreign_readers() == []

    # --- copies ---------------------------------------------------------------------

    def test_a_copy_is_the_same_rows(self, db: Backend, tmp_path: Path) -> None:
        """A copy opens for reading, holds every row, and opening leaves nothing beside it."""
        rows = [(key, b"%d" % len(key)) for key in NASTY]
        self.put(db, rows)
        self.put(db, [(b"m", b"1")], "meta")
        folder = tmp_path / "snapshots"
        folder.mkdir()
        db.copy_to(folder / "copy")
        self.put(db, [(b"later", b"1")])
        assert self.backend.recognizes(folder / "copy")
        copy = self.backend.open(folder / "copy", TABLES, immutable=True)
        assert self.rows(copy) == rows
        assert self.rows(copy, "meta") == [(b"m", b"1")]
        assert copy.get("latest", NASTY[-1]) == rows[-1][1]
        with pytest.raises(ReadOnly):
            copy.write()
        copy.check()
        copy.close()
        assert [file.name for file in folder.iterdir()] == ["copy"]

    def test_bytes_after_a_copy_are_ignored(self, db: Backend, path: Path, tmp_path: Path) -> None:
        """A snapshot has a manifest after the copy; the backend reads up to its own end."""
        self.put(db, [(b"%d" % n, b"v") for n in range(1000)])
        db.copy_to(tmp_path / "copy")
        with open(tmp_path / "copy", "ab") as file:
            file.write(b"manifest" * 1001)
        copy = self.backend.open(tmp_path / "copy", TABLES, immutable=True)
        assert len(self.rows(copy)) == 1000
        copy.close()

    def test_a_copy_through_a_pipe_is_the_same_rows(self, db: Backend, tmp_path: Path) -> None:
        """The copy is written front to back, so that it can be hashed on the way; if that fails, nothing is written."""
        rows = [(key, b"%d" % len(key)) for key in NASTY]
        self.put(db, rows)
        with (
            open(tmp_path / "copy", "xb") as file,
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as pipe,
        ):
            assert pipe.stdin is not None
            done = db.copy_into(pipe.stdin.fileno())
            pipe.stdin.close()
        assert done <= self.backend.streams
        if not done:
            assert (tmp_path / "copy").stat().st_size == 0
            return
        copy = self.backend.open(tmp_path / "copy", TABLES, immutable=True)
        assert self.rows(copy) == rows
        copy.close()

    def test_a_value_can_be_viewed(self, db: Backend, tmp_path: Path) -> None:
        """In a live file and in one that nothing writes; a view stays as it is after the file is closed."""
        self.put(db, [(b"k", b"v" * 10_000)])
        db.copy_to(tmp_path / "copy")
        copy = self.backend.open(tmp_path / "copy", TABLES, immutable=True)
        views = [backend.view("latest", b"k") for backend in (db, copy)]
        assert copy.view("latest", b"none") is db.view("latest", b"none") is None
        copy.close()
        self.put(db, [(b"k", b"w" * 10_000)])
        assert [bytes(view) for view in views if view is not None] == [b"v" * 10_000] * 2

    def test_a_copy_can_be_written_to(self, db: Backend, tmp_path: Path) -> None:
        """A copy that has replaced a live file can be written."""
        self.put(db, [(b"a", b"1")])
        db.copy_to(tmp_path / "copy")
        copy = self.backend.open(tmp_path / "copy", TABLES)
        self.put(copy, [(b"b", b"2")])
        assert self.rows(copy) == [(b"a", b"1"), (b"b", b"2")]
        copy.sync()
        copy.close()
        assert self.rows(db) == [(b"a", b"1")]

    def test_a_copy_is_one_commit_while_a_writer_writes(self, db: Backend, tmp_path: Path) -> None:
        """Copies made while batches are committed hold whole batches."""
        self.put(db, [(b"%d" % n, b"0") for n in range(50)])
        stop, copies = threading.Event(), list[Path]()

        def copy() -> None:
            while not stop.is_set() or not copies:
                copies.append(tmp_path / f"copy{len(copies)}")
                db.copy_to(copies[-1])

        self.in_threads(1, copy, lambda: self.write_batches(db, 40), stop)
        for path in copies:
            opened = self.backend.open(path, TABLES, immutable=True)
            assert len({value for _, value in self.rows(opened)}) == 1
            opened.close()

    def test_a_copy_overwrites_nothing(self, db: Backend, tmp_path: Path) -> None:
        """Copying onto a file that exists raises and leaves it alone."""
        (tmp_path / "other").write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            db.copy_to(tmp_path / "other")
        assert (tmp_path / "other").read_bytes() == b"precious"

    # --- files that are not what they should be --------------------------------------

    def test_an_absent_file_is_not_made_for_reading(self, path: Path) -> None:
        """Opening an absent file for reading raises ``FileNotFoundError`` and creates nothing."""
        for how in ({"read_only": True}, {"immutable": True}):
            with pytest.raises(FileNotFoundError):
                self.backend.open(path, TABLES, **how)
        assert not path.exists()

    @pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\0" * 20_000, b"\xff" * 8192, b"x"])
    def test_a_foreign_file_is_refused(self, path: Path, content: bytes) -> None:
        """A file that is not ours is reported as such, and left as it was."""
        path.write_bytes(content)
        for how in ({}, {"immutable": True}) if content else ({"immutable": True},):
            with pytest.raises(NotAStore):
                self.backend.open(path, TABLES, **how)
        assert path.read_bytes() == content
        assert not self.backend.recognizes(path)

    def test_a_directory_is_refused(self, path: Path) -> None:
        """A directory is not a file of ours."""
        path.mkdir()
        with pytest.raises(NotAStore):
            self.backend.open(path, TABLES)
        assert not self.backend.recognizes(path)

    def copy_of(self, path: Path, rows: int) -> bytes:
        """The bytes of a copy with ``rows`` rows."""
        db = self.backend.open(path, TABLES)
        self.put(db, [(b"%05d" % n, b"value" * (1 + n % 20)) for n in range(rows)])
        self.put(db, [(b"l" * 600 + b"%d" % n, b"v") for n in range(5)])
        copy = path.with_name("copy")
        db.copy_to(copy)
        db.close()
        return copy.read_bytes()

    def test_a_file_cut_short_is_damaged(self, path: Path) -> None:
        """A copy that lost its end, by a byte or by nearly everything, raises a typed error, not a crash."""
        whole = self.copy_of(path, 500)
        sizes = sorted({len(whole) - 1, len(whole) // 2, 4096, 8192, 5000, 512, 100, 30, 10})
        for size in sizes:
            path.with_name(f"cut{size}").write_bytes(whole[:size])
        run = self.python(
            path.parent,
            f"for size in {sizes}:\n"
            "    try:\n"
            "        db = kind.open(path / f'cut{size}', TABLES, immutable=True)\n"
            "        with db.read() as view: print(size, 'opened', view.count('latest'), len(view.scan('latest')))\n"
            "    except KVStoreError as error: print(size, type(error).__name__)\n",
        )
        answers = dict(line.split(" ", 1) for line in run.stdout.splitlines())
        assert answers.keys() == {str(size) for size in sizes}
        assert set(answers.values()) <= {"Corruption", "NotAStore"}
        assert answers[str(len(whole) - 1)] == answers[str(len(whole) // 2)] == "Corruption"

    def test_flipped_bits_never_crash(self, path: Path) -> None:
        """Damage anywhere in a copy is a typed error or goes unnoticed; the process lives on."""
        whole = self.copy_of(path, 300)
        path.with_name("copy").write_bytes(whole)
        run = self.python(
            path.parent,
            "import random\n"
            "whole = (path / 'copy').read_bytes(); rng = random.Random(5)\n"
            "for trial in range(120):\n"
            "    damaged = bytearray(whole)\n"
            "    for _ in range(rng.choice([1, 1, 8])):\n"
            "        at = rng.randrange(min(len(whole), rng.choice([200, 9000, len(whole)])))\n"
            "        damaged[at] ^= 1 << rng.randrange(8)\n"
            "    file = path / f'flip{trial}'\n"
            "    file.write_bytes(damaged)\n"
            "    try:\n"
            "        db = kind.open(file, TABLES, immutable=True)\n"
            "        try:\n"
            "            db.check()\n"
            "            with db.read() as view: view.scan('latest'); view.count('latest', b'1')\n"
            "        finally: db.close()\n"
            "    except KVStoreError as error: print(type(error).__name__)\n"
            "    file.unlink()\n"
            "print('alive')\n",
            check=False,
        )
        assert run.returncode == 0
        lines = run.stdout.split()
        assert lines[-1] == "alive"
        assert set(lines[:-1]) <= {"Corruption", "NotAStore", "TooNew", "WrongStore"}
        assert "Corruption" in lines

    def test_a_missing_table_is_damage(self, db: Backend, tmp_path: Path) -> None:
        """A copy that lacks one of the requested tables is not read as if that table were empty."""
        self.put(db, [(b"a", b"1")])
        db.copy_to(tmp_path / "copy")
        with pytest.raises((Corruption, OpenError)):
            self.backend.open(tmp_path / "copy", [*TABLES, "unheard of"], immutable=True)

    def test_opening_again_after_a_refusal(self, path: Path) -> None:
        """A refused opening leaves nothing behind that would hinder the next one."""
        path.write_bytes(b"not a store" * 1000)
        for _ in range(3):
            with pytest.raises(KVStoreError):
                self.backend.open(path, TABLES)
        path.unlink()
        db = self.backend.open(path, TABLES)
        self.put(db, [(b"a", b"1")])
        assert db.get("latest", b"a") == b"1"
        db.close()
