"""Doctor: examines a store and what it stands on without changing it, and gives advice in plain words.

    diagnose          a directory, whether nobody has it open, or another process has
    diagnose_served   a store elsewhere: what its server says of itself

What is wrong with a number, and what to do about it, is in ``complaints``; here is where the numbers come from.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Protocol

from kvstore import layout
from kvstore.backend import Backend, check_closed, recognize_backend
from kvstore.directory import check_format, hold_still
from kvstore.errors import Corruption, DiskFailed, KVStoreError, NotAStore, RequestError, StoreLocked, TooNew
from kvstore.files import Disk, OSDisk, disk_full_is_typed
from kvstore.layout import DataDir
from kvstore.model import Alarm, LeaseTimeToLiveResponse
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import ALARM, TABLES
from kvstore.observe import complaints, processes
from kvstore.observe.facts import Fact, Level
from kvstore.observe.scrape import Scrape
from kvstore.observe.status import Status
from kvstore.observe.surroundings import surroundings
from kvstore.options import Options
from kvstore.snapshot.reader import read_info
from kvstore.wal.format import BATCH, BadFrame, Mark, decode_batch
from kvstore.wal.reader import SegmentReader
from kvstore.wire import WireError

LONG_REPLAY_BYTES = 256 << 20
TIMES_BYTES = 4 << 20
"""The end of the log in which the times are compared."""
LEASES_ASKED = 1000
"""How many of a server's leases are asked for their keys."""
LOOKS = 20
LOOK_SECONDS = 0.05


@disk_full_is_typed()
def diagnose(
    data_dir: str | os.PathLike[str], *, options: Options | None = None, disk: Disk | None = None
) -> list[Fact]:
    """Examine the store in ``data_dir``, or the place where one will be. Raises ``NotAStore``.

    Writes one small file beside the log, to measure how long a sync takes, and removes it.
    """
    options = options or Options()
    directory = DataDir.at(data_dir, options.wal_dir or None)
    if not directory.root.is_dir():
        raise NotAStore(
            f"{directory.root} is not a directory: give that of a store, or an existing one where a store will be",
            directory.root,
        )
    facts = list(surroundings(directory, options, disk or OSDisk()))
    if directory.snap.is_dir():
        facts += _store(directory, options)
    return facts


# --- a directory --------------------------------------------------------------------------


def _store(directory: DataDir, options: Options) -> Iterator[Fact]:
    holder = _holder(directory)
    yield _held_by(holder)
    yield _log(directory)
    yield _snapshots(directory)
    yield from _backend(directory, options, holder)
    yield from _left_behind(directory)


def _holder(directory: DataDir) -> StoreLocked | None:
    """The process that has the store open."""
    try:
        hold_still(directory)()
    except StoreLocked as held:
        return held
    except PermissionError:
        pass
    return None


def _pid_here(holder: StoreLocked | None) -> int:
    """The holder's number, if it is a process of this machine; else 0."""
    return holder.pid if holder is not None and holder.host == socket.gethostname() else 0


def _held_by(holder: StoreLocked | None) -> Fact:
    if holder is None:
        return complaints.held_by("", is_stopped=False)
    pid = _pid_here(holder)
    who = processes.described(pid) if pid else f"process {holder.pid}" if holder.pid else "another process"
    return complaints.held_by(f"{who} on {holder.host}" if holder.host else who, processes.is_stopped(pid))


def _log(directory: DataDir) -> Fact:
    segments = layout.segments(directory.wal)
    size_bytes = sum(file.path.stat().st_size for file in segments)
    value = f"{len(segments)} segments, {size_bytes:,} bytes"
    if not segments:
        return Fact(
            "log", value, Level.WARNING, "there is no log; kvstore verify tells whether anything is missing"
        )
    if size_bytes > LONG_REPLAY_BYTES and len(segments) > 2:
        advice = "segments are kept for the oldest snapshot or by max_wals; `kvstore snapshot save` shortens the log"
        return Fact("log", value, Level.ADVICE, advice)
    return Fact("log", value)


def _snapshots(directory: DataDir) -> Fact:
    found = directory.snapshots()
    if not found:
        advice = "a damaged backend can be rebuilt only while the log reaches back to the first entry: take a snapshot"
        return Fact("snapshots", "none", Level.ADVICE, advice)
    try:
        newest = read_info(found[-1].path)
    except (KVStoreError, OSError) as error:
        return Fact("snapshots", f"{len(found)}", Level.WARNING, f"the newest cannot be used: {error}")
    return Fact("snapshots", f"{len(found)}, the newest of revision {newest.revision:,}")


def _backend(directory: DataDir, options: Options, holder: StoreLocked | None) -> Iterator[Fact]:
    if (
        holder is not None and holder.pid == os.getpid()
    ):  # opening and closing its files again could drop the first one's locks
        yield Fact("backend", "open in this process: see Store.status")
        return
    kind = recognize_backend(directory.db) if directory.db.is_file() else None
    if kind is None:
        yield Fact("backend", "none yet")
        return
    try:
        if holder is None:
            check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except TooNew as error:
        yield complaints.version(str(error))
        return
    except (KVStoreError, OSError) as error:
        yield Fact("backend", kind.name, Level.WARNING, f"it cannot be opened: {error}; see kvstore verify")
        return
    yield Fact("backend", kind.name)
    try:
        yield from _content(directory, backend, options, holder)
    except TooNew as error:
        yield complaints.version(str(error))
    except (Corruption, WireError) as error:
        yield Fact("content", "damaged", Level.WARNING, f"{error}; see kvstore verify")
    except DiskFailed as error:
        yield Fact("content", "out of reach", Level.WARNING, str(error))
    finally:
        backend.close()


def _content(
    directory: DataDir, backend: Backend, options: Options, holder: StoreLocked | None
) -> Iterator[Fact]:
    marks = check_format(backend, directory.db)
    size_bytes, in_use_bytes = backend.size_bytes(), backend.in_use_bytes()
    with backend.read() as tx:
        alarms = [key[8:].decode("ascii", "replace") for key, _ in tx.scan(ALARM)]
    yield complaints.quota(in_use_bytes, options.quota_bytes, alarms)
    yield complaints.space(size_bytes, in_use_bytes, options.auto_defragment_min)
    pid = _pid_here(holder)
    if pid or holder is None:
        yield complaints.map_(size_bytes, processes.mapped_bytes(pid or os.getpid(), directory.db))
    found = Lessor.loaded(backend).leases.values()
    yield complaints.leases(len(found), sum(not lease.keys for lease in found))
    yield _readers(backend)
    yield _behind(directory, marks)
    now_ms = int((options.clock or time.time)() * 1000)
    yield complaints.clock(marks.closed_ms - now_ms, _largest_step_back_ms(directory))


def _readers(backend: Backend) -> Fact:
    """A process that has a view open whenever one looks has left it open: reads of ours take a page at a time."""
    found = backend.foreign_readers()
    open_ = len(found)
    for _ in range(LOOKS):
        found = [reader for reader in found if reader.commits_behind >= 0]
        if not found:
            break
        time.sleep(LOOK_SECONDS)
        before = {reader.pid for reader in found}
        found = [reader for reader in backend.foreign_readers() if reader.pid in before]
    behind = [(processes.described(reader.pid), max(reader.commits_behind, 0)) for reader in found]
    return complaints.readers(behind, open_, any(processes.is_stopped(reader.pid) for reader in found))


def _behind(directory: DataDir, marks: Marks) -> Fact:
    """How much log the next opening replays."""
    mark = Mark.decode(marks.log_mark)
    newer = 0
    segments = layout.segments(directory.wal)
    for file, following in zip(segments, [*segments[1:], None], strict=True):
        if following is None or following.index > marks.applied_index + 1:
            with SegmentReader(file.path) as reader:
                begin = mark.offset if mark is not None and mark.segment_index == file.index else 0
                newer += max(reader.content_end(0) - begin, 0)
    value = (
        f"revision {marks.revision:,}, log entry {marks.applied_index:,}; "
        f"the next opening reads {newer:,} bytes of log"
    )
    if newer > LONG_REPLAY_BYTES:
        return Fact("checkpoint", value, Level.ADVICE, "checkpoints are lagging: opening will take a while")
    return Fact("checkpoint", value)


def _largest_step_back_ms(directory: DataDir) -> int:
    """Between two batches at the end of the log, by the times that they carry."""
    segments = layout.segments(directory.wal)
    if not segments:
        return 0
    file, times = segments[-1], []
    with SegmentReader(file.path) as reader, suppress(BadFrame, WireError):
        reader.expect(file.cluster_id, file.index)
        first = max(reader.content_end(0) - TIMES_BYTES, 0)
        offset = next(reader.later_frames(first), (0, 0))[0] if first else 0
        while (frame := reader.frame_anew(offset)) is not None:
            if frame.kind == BATCH:
                times.append(decode_batch(frame.data).time_ms)
            offset = frame.end
    return max((before - after for before, after in pairwise(times)), default=0)


def _left_behind(directory: DataDir) -> Iterator[Fact]:
    """Files that were set aside and are the user's to delete."""
    broken = directory.set_aside()
    if broken:
        advice = (
            "damaged files that were set aside; delete them once they are no longer needed: "
            + ", ".join(map(str, broken))
        )
        yield Fact("set aside", f"{len(broken)} files", Level.ADVICE, advice)


# --- a store elsewhere --------------------------------------------------------------------


class Served(Protocol):
    """A store that is connected to, as far as it is examined."""

    def status(self) -> Status: ...

    def alarms(self) -> tuple[Alarm, ...]: ...

    def leases(self) -> tuple[int, ...]: ...

    def lease_time_to_live(self, lease: int, *, keys: bool = False) -> LeaseTimeToLiveResponse: ...


def diagnose_served(store: Served, metrics: str = "", date: str = "") -> list[Fact]:
    """Examine a store by what its server says: its status, its leases and, if given, its page of metrics.

    ``date``: the server's clock, as its answer over HTTP had it just now.
    """
    status, alarms = store.status(), [alarm.alarm for alarm in store.alarms()]
    scrape = Scrape(metrics)
    facts = [Fact("server", f"{status.version} at {status.data_dir}, revision {status.revision:,}")]
    told_bytes = scrape.sum("etcd_server_quota_backend_bytes") or 0
    quota_bytes = status.quota_bytes or (int(told_bytes) if 0 < told_bytes < math.inf else 0)
    is_ours = scrape.sum("kvstore_info") is not None
    counted_bytes = status.in_use_bytes if is_ours else status.size_bytes
    facts.append(complaints.quota(counted_bytes, quota_bytes, alarms, counts_file=not is_ours))
    facts.append(complaints.space(status.size_bytes, status.in_use_bytes, Options().auto_defragment_min))
    facts.append(_served_leases(store))
    facts += _served_health(status, scrape)
    if (slow_seconds := scrape.quantile(0.99, "etcd_disk_wal_fsync_duration_seconds")) is not None:
        facts.append(complaints.sync(float("nan"), slow_seconds))
    if (count := scrape.sum("etcd_debugging_mvcc_watcher_total")) is not None:
        slow = scrape.sum("etcd_debugging_mvcc_slow_watcher_total") or 0
        facts.append(complaints.watchers(int(count), int(slow)))
    if (commits := scrape.sum("kvstore_reader_commits_behind")) is not None:
        far = [("a process beside the server", int(commits))] * (commits >= complaints.FAR_BEHIND_COMMITS)
        facts.append(complaints.readers(far, int(scrape.sum("kvstore_readers") or 0), is_stopped=False))
    if date:
        facts.append(complaints.clocks(parsedate_to_datetime(date).timestamp() - time.time()))
    if not metrics:
        advice = "watchers, readers and syncs are not known without the page /metrics of the server"
        facts.append(Fact("metrics", "not to be had", Level.ADVICE, advice))
    return facts


def _served_health(status: Status, scrape: Scrape) -> Iterator[Fact]:
    """What the server complains of itself; how far a replica is."""
    if (lag_seconds := scrape.sum("kvstore_replica_lag_seconds")) is not None:
        yield Fact("replica", f"what its source had {lag_seconds:.0f} s ago is here")
    if status.errors:
        yield Fact("background", f"{len(status.errors)} wrong", Level.WARNING, "; ".join(status.errors))


def _served_leases(store: Served) -> Fact:
    """Of many leases a part is asked for their keys, and taken for the whole."""
    found = store.leases()
    asked = found[:: len(found) // LEASES_ASKED + 1]
    idle = 0
    for lease in asked:
        with suppress(RequestError):  # it has ended meanwhile
            idle += not store.lease_time_to_live(lease, keys=True).keys
    return complaints.leases(len(found), idle * len(found) // max(len(asked), 1))
