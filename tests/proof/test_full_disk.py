"""Real full disks, real failing system calls, real power cuts; as far as this machine permits them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.errors import DiskFull, KVStoreError
from tests.proof.failing_writer import BACKENDS, KILLED_IN_EACH, WRITER, check_acknowledged

LIMITS: dict[str, Any] = {
    "wal_file_size": 100_000,
    "max_wals": 1,
    "backend_batch_interval_seconds": 0.01,
    "max_snapshots": 1,
}


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """A mount for as long as this lasts; the test is skipped where mounting is not permitted."""
    target = str(arguments[-1])
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if request.param == "tmpfs":
        with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", place):
            yield place
        return
    with loop_ext4(tmp_path / "image", place, 8):
        yield place


@contextmanager
def loop_ext4(image: Path, place: Path, megabytes: int) -> Iterator[None]:
    make_ext4(image, megabytes)
    with mounted("-o", "loop", image, place):
        yield


def make_ext4(image: Path, megabytes: int) -> None:
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    except FileNotFoundError:
        pytest.skip("mkfs.ext4 is not installed")


# --- full disks -------------------------------------------------------------------------------------


def fill(ballast: Path, size_bytes: int) -> None:
    """Take so many bytes, or all there are: a file system needs some for itself."""
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        for _ in range(max(0, size_bytes) // 4096):
            file.write(b"\1" * 4096)


def refuses(call: object) -> bool:
    """Whether a call meets the full disk, as the typed error."""
    try:
        call()  # type: ignore[operator]
    except DiskFull:
        return True
    return False


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_loses_nothing_and_is_left_behind(small: Path, backend: str) -> None:
    """Filled from outside at many levels, each write is there or was refused; with room again all goes on."""
    written: dict[bytes, bytes] = {}
    refused = {"put": 0, "checkpoint": 0, "snapshot": 0, "defragment": 0}
    ballast = small / "ballast"
    with kvstore.open(small / "store", backend, low_disk_bytes=0, background=False, **LIMITS) as store:
        for step in range(12):
            fill(ballast, shutil.disk_usage(small).free - step * 50_000)  # leaves from nothing up to 550 KB
            for number in range(60):
                key, value = b"%d/%d" % (step, number), os.urandom(3000)
                if refuses(lambda key=key, value=value: store.put(key, value)):
                    refused["put"] += 1
                    break
                written[key] = value
            for name in ("checkpoint", "snapshot", "defragment"):
                refused[name] += refuses(getattr(store, name))
            ballast.unlink()
            store.put(b"room again", b"%d" % step)
            store.delete(prefix=b"%d/" % (step - 1)) if step else None
            written = {
                key: value for key, value in written.items() if not key.startswith(b"%d/" % (step - 1))
            }
            store.checkpoint()
            store.compact(store.revision, physical=True)
            store.engine.snapshots.release()
            assert {kv.key: kv.value for kv in store.scan(prefix=b"%d/" % step)} == {
                key: value for key, value in written.items() if key.startswith(b"%d/" % step)
            }
    assert refused["put"] and refused["snapshot"] and refused["defragment"], refused
    with kvstore.open(small / "store", backend, low_disk_bytes=0) as store:
        found = {kv.key: kv.value for kv in store.scan(prefix=b"")}
    assert {**written, b"room again": b"11"} == found


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_deletes_go_on_while_the_disk_is_full(small: Path, backend: str, background: bool) -> None:
    """Not one block is free: puts are refused; deletes, revocations and compaction go on, and all of them are there."""
    options: dict[str, Any] = {
        "low_disk_bytes": 0,
        "background": background,
        "snapshot_count": 0,
        "auto_defragment_ratio": 0,
    }
    (small / "room").write_bytes(os.urandom(2_500_000))
    with kvstore.open(small / "store", backend, **options) as store:
        leases = [store.grant_lease(1000).id for _ in range(5)]
        for number in range(300):
            store.put(b"k%04d" % number, b"v" * 300, lease=leases[number % 5] if number < 50 else 0)
        store.checkpoint()
        fill(small / "ballast", 1 << 30)
        with pytest.raises(DiskFull):
            for number in range(10_000):
                store.put(b"more%d" % number, b"v" * 300)
        kept = {kv.key for kv in store.scan(prefix=b"")}
        for number in range(50, 150):
            assert store.delete(b"k%04d" % number).deleted == 1
            kept.discard(b"k%04d" % number)
        for lease in leases:
            store.revoke_lease(lease)
        kept -= {b"k%04d" % number for number in range(50)}
        assert store.delete(b"k02", b"k03").deleted == 100
        kept -= {b"k%04d" % number for number in range(200, 300)}
        store.compact(store.revision)
        with pytest.raises(DiskFull):
            store.put(b"refused", b"v" * 300)
        assert not store.engine.life.is_stalled
        assert {kv.key for kv in store.scan(prefix=b"")} == kept
        for ballast in ("ballast", "room"):
            (small / ballast).unlink()
        os.sync()  # ext4 gives the blocks back with its next commit
        store.put(b"room", b"again")
        kept.add(b"room")
    with kvstore.open(small / "store", backend, **options) as store:
        assert {kv.key for kv in store.scan(prefix=b"")} == kept


def opened_with_room(path: Path, backend: str, ballast: list[Path]) -> kvstore.Store:
    """SQLite maps a file of its own at opening: without room it is a typed error (regression: it was a SIGBUS)."""
    while True:
        try:
            return kvstore.open(path, backend, low_disk_bytes=0, background=False)
        except DiskFull:
            ballast.pop().unlink()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_filled_by_itself_stays_readable_and_opens(small: Path, backend: str) -> None:
    """Written until the disk is full with everything in the background: what was acknowledged is there, twice."""
    written = {}
    ballast = [small / f"ballast-{number}" for number in range(4)]
    for file in ballast:
        file.write_bytes(os.urandom(300_000))
    with kvstore.open(small / "store", backend, low_disk_bytes=0, **LIMITS) as store:
        with pytest.raises(KVStoreError) as full:
            for number in range(5000):
                value = os.urandom(5000)
                store.put(b"%06d" % number, value)
                written[b"%06d" % number] = value
        assert isinstance(full.value, DiskFull), full.value
        assert {kv.key: kv.value for kv in store.scan(prefix=b"")}.items() >= written.items()
    for _ in range(2):
        with opened_with_room(small / "store", backend, ballast) as store:
            assert {kv.key: kv.value for kv in store.scan(prefix=b"")}.items() >= written.items()


# --- failing system calls ---------------------------------------------------------------------------


def under_strace(project: Path, options: list[str], *program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program, and whatever it forks, with these options of strace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-qq", *options, sys.executable, "-c", *program]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=100)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("tracing is not permitted here")
    return done


def traced(project: Path, data: Path, backend: str, *options: str) -> list[str]:
    """What the writer acknowledged under strace."""
    done = under_strace(project, list(options), WRITER, str(data), backend)
    assert "opening" in done.stdout, f"the writer did not come so far as to open the store: {done.stderr}"
    return [word for word in done.stdout.split() if word.isdigit()]


def injecting(calls: str, inject: str) -> list[str]:
    """The options of strace for a fault in these calls."""
    return ["-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{inject}"]


def calls_of_opening(project: Path, scratch: Path, backend: str, calls: str) -> int:
    """How many of these calls there are before the store is open, and the writer acknowledges all."""
    log = scratch / "calls"
    said = traced(project, scratch / "untouched", backend, "-o", str(log), "-e", f"trace={calls},write")
    assert len(said) == 40
    before, _, _ = log.read_text().partition('write(1, "open\\n"')
    return sum("write(" not in line for line in before.splitlines())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("calls", "inject", "later"),
    [
        ("fsync,fdatasync", "error=EIO:when={}+", 9),
        ("fdatasync", "error=EIO:when={}", 12),
        ("fsync", "error=EIO:when={}", 2),
        ("pwrite64", "error=EIO:when={}", 25),
        ("pwrite64", "error=ENOSPC:when={}..1000", 20),
        ("ftruncate", "error=EIO:when={}+", 1),
        ("rename", "error=EIO:when={}+", 2),
    ],
)
def test_a_failing_system_call_loses_nothing_acknowledged(
    project: Path, tmp_path: Path, backend: str, calls: str, inject: str, later: int
) -> None:
    """The kernel answers a call of the store, or of its backend, with an error: nothing acknowledged is lost."""
    number = calls_of_opening(project, tmp_path, backend, calls) + later
    said = traced(project, tmp_path / "store", backend, *injecting(calls, inject.format(number)))
    assert said
    check_acknowledged(tmp_path / "store", backend, said)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kill_in_any_write_while_a_store_is_made_leaves_one_that_opens(
    project: Path, tmp_path: Path, backend: str
) -> None:
    """SIGKILL in the Nth write, from the first of a new store on: it opens, with all that was acknowledged."""
    calls = "pwrite64,pwritev,ftruncate,rename"
    opening = calls_of_opening(project, tmp_path, backend, calls)
    numbers = [*range(1, opening + 1), opening + 8, opening + 21, opening + 35]
    options = injecting(calls, f"signal=SIGKILL:when={numbers[-1]}")
    under_strace(project, options, KILLED_IN_EACH, WRITER, str(tmp_path), backend, *map(str, numbers))
    acknowledged = []
    for number in numbers:
        first, *said = (tmp_path / f"store-{number}.said").read_text().split()
        assert first == "opening" and "ended" not in said, f"it was not killed in write {number}: {said}"
        written = [word for word in said if word.isdigit()]
        check_acknowledged(tmp_path / f"store-{number}", backend, written)
        acknowledged.append(len(written))
    assert acknowledged[0] == 0 < acknowledged[-1] < 40


# --- power cuts -------------------------------------------------------------------------------------

ENDLESS = """
import os, sys
import kvstore
data, backend = sys.argv[1:]
limits = {"wal_file_size": 50_000, "max_wals": 1, "backend_batch_interval_seconds": 0.02, "low_disk_bytes": 0}
store = kvstore.open(data, backend, **limits)
for number in range(1_000_000):
    store.put(b"%d" % (number % 500), b"%d" % number)
    os.write(1, b"%d\\n" % number)
    if number % 400 == 399:
        store.compact(store.revision - 10)
        store.defragment()
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_power_cut_of_a_real_file_system_loses_nothing_acknowledged(tmp_path: Path, backend: str) -> None:
    """The image of an ext4, copied while its writer stands still, is what a power cut leaves: all is there."""
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    with loop_ext4(image, place, 48):
        command = [sys.executable, "-c", ENDLESS, str(place / "store"), backend]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            said = b""
            os.set_blocking(writer.stdout.fileno(), False)
            for cut in range(3):
                deadline = time.monotonic() + 0.7
                while time.monotonic() < deadline or not said:
                    said += writer.stdout.read() or b""
                    assert writer.poll() is None, "the writer failed"
                    time.sleep(0.01)
                writer.send_signal(signal.SIGSTOP)
                said += writer.stdout.read() or b""
                shutil.copyfile(image, tmp_path / f"cut-{cut}")
                check_cut(tmp_path / f"cut-{cut}", tmp_path / f"after-{cut}", backend, int(said.split()[-1]))
                writer.send_signal(signal.SIGCONT)
            writer.kill()


def check_cut(image: Path, place: Path, backend: str, last: int) -> None:
    """Whether the store on the copied image holds everything up to the write number ``last``."""
    place.mkdir()
    with (
        mounted("-o", "loop", image, place),
        kvstore.open(place / "store", backend, background=False, low_disk_bytes=0) as store,
    ):
        assert store.revision >= last + 2
        for number in range(max(0, last - 499), last + 1):
            kv = store.get(b"%d" % (number % 500))
            assert kv is not None and int(kv.value) >= number, f"write {number} is lost"
