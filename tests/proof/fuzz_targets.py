"""Every parser of bytes from outside, as a function that may only raise what it promises.

    TARGETS[name](data)      a typed error is fine; anything else is a bug

By default hypothesis feeds them, and good files that were changed (test_fuzz.py). With atheris (extra ``fuzz``), guided
by coverage, each for so many seconds, one after the other, and one line for each when it is done:

    python -m tests.proof.fuzz_targets SECONDS [TARGET ...]            all of them, if none is named
    python -m tests.proof.fuzz_targets --alone TARGET [options of libFuzzer] [corpus folders]

What was found is kept in fuzz_corpus/TARGET/ and tried in every run.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kvstore
from kvstore.errors import Corruption, KVStoreError, TooNew
from kvstore.keyvalue import KeyValue, decode_row, row_numbers
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options
from kvstore.snapshot.manifest import BadTail, LaterFormat, decode_manifest, decode_tail
from kvstore.snapshot.reader import read_info
from kvstore.upkeep.retention import policy
from kvstore.wal import format as wal_format
from kvstore.wal.inspect import scan_segment
from kvstore.wal.reader import SegmentReader
from kvstore.wire import WireError, fields
from tests.proof import fuzz_etcd, fuzz_http2, fuzz_network, fuzz_seeds
from tests.proof.fuzz_files import SCRATCH, as_file

txn_text = importlib.import_module("kvstore.tools.txn_text")
usage = importlib.import_module("kvstore.tools.usage")
lmdb_file = importlib.import_module("kvstore.backends.lmdb_file")
memory = importlib.import_module("kvstore.backends.memory")

Target = Callable[[bytes], None]
CORPUS = Path(__file__).parent / "fuzz_corpus"
MEMORY_MAX_MB = 1024
INPUT_SECONDS_MAX = 900  # also where the machine stands still for a while


def wire(data: bytes) -> None:
    try:
        list(fields(data))
    except WireError:
        pass


def wal_frame(data: bytes) -> None:
    """A reader looks for a frame only where there is room for as much as its length says."""
    try:
        size = wal_format.frame_size(int.from_bytes(data[:8], "little"), 0)
        if size <= len(data):
            assert wal_format.decode_frame(data, 0, 0, size, 7).end == size
    except wal_format.BadFrame:
        pass


def wal_batch(data: bytes) -> None:
    try:
        wal_format.decode_batch(data)
    except WireError:
        pass


def wal_metadata(data: bytes) -> None:
    try:
        wal_format.decode_metadata(data)
    except (WireError, KVStoreError):
        pass
    wal_format.Mark.decode(data)


def segment(data: bytes) -> None:
    """A whole segment file: whatever it is, it ends, or says where it is bad."""
    path = as_file(data, f"{1:016x}-{1:016x}.wal")
    try:
        with SegmentReader(path) as reader:
            reader.head(1, 1)
            list(reader.frames())
    except (KVStoreError, wal_format.BadFrame):
        pass
    try:
        list(scan_segment(path))
    except KVStoreError:
        pass


def effect(data: bytes) -> None:
    """A log entry whose frame was good: applied to an empty state."""
    state = State(memory.MemoryBackend.open(SCRATCH / "none", TABLES))
    try:
        effects.apply(data, state, Lessor.loaded(state.backend))
    except (Corruption, TooNew):
        pass


def row(data: bytes) -> None:
    for parse in (decode_row, row_numbers):
        try:
            parse(data)
        except Corruption:
            pass
    try:
        kv = KeyValue.from_row(data)
        repr((kv.key, kv.mod_revision, kv.value))
    except Corruption:
        pass


def manifest(data: bytes) -> None:
    for parse in (decode_manifest, lambda body: decode_tail(body, 1 << 20)):
        try:
            parse(data)
        except (BadTail, LaterFormat, WireError):
            pass


def snapshot(data: bytes) -> None:
    try:
        read_info(as_file(data))
    except KVStoreError:
        pass


def memory_file(data: bytes) -> None:
    try:
        memory.MemoryBackend.open(as_file(data), TABLES, read_only=True, immutable=True).close()
    except KVStoreError:
        pass


def backend_file(data: bytes) -> None:
    """Files that are no backend at all; damaged ones need a process of their own."""
    try:
        kvstore.open_snapshot(as_file(data))
    except KVStoreError:
        pass


def lmdb_pages(data: bytes) -> None:
    """The walk through a file of LMDB that nobody has mapped yet."""
    path = as_file(data)
    try:
        lmdb_file.read_meta(path)
        lmdb_file.verify_pages(path)
    except KVStoreError:
        pass


def transaction(data: bytes) -> None:
    try:
        txn_text.parse_txn(data)
    except usage.UsageError:
        pass


def option(data: bytes) -> None:
    name, _, text = data.decode("latin-1").partition("=")
    try:
        options = Options.load({}, {f"KVSTORE_{name.upper()}": text})
        policy(options.auto_compaction_mode, options.auto_compaction_retention, 0.0, 1)
    except BadOption:
        pass


def lock_file(data: bytes) -> None:
    """The text of the holder, as whoever is refused reads it."""
    from kvstore.directory import take_lock
    from kvstore.files import FileLock
    from kvstore.layout import DataDir

    directory = DataDir.at(SCRATCH)
    lock = FileLock(directory.lock)
    assert lock.acquire(data) is None
    try:
        take_lock(directory)
    except kvstore.StoreLocked:
        pass
    finally:
        lock.release()


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        wire,
        wal_frame,
        wal_batch,
        wal_metadata,
        segment,
        effect,
        row,
        manifest,
        snapshot,
        memory_file,
        backend_file,
        lmdb_pages,
        transaction,
        option,
        lock_file,
        *fuzz_etcd.TARGETS,
        *fuzz_http2.TARGETS,
        *fuzz_network.TARGETS,
    )
}


def alone(name: str, *arguments: str) -> None:
    """Hand this process to atheris. Ends it."""
    import atheris  # the extra "fuzz"

    seeds = SCRATCH / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(fuzz_seeds.seeds(name)):
        (seeds / str(number)).write_bytes(seed)
    new = SCRATCH / "new"
    new.mkdir()
    folders = [str(folder) for folder in (new, seeds, CORPUS / name) if folder.is_dir()]
    limits = [
        f"-rss_limit_mb={MEMORY_MAX_MB}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-artifact_prefix={SCRATCH}/found-",
    ]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *limits, *arguments, *folders], TARGETS[name])
    atheris.Fuzz()


def main(seconds: str, *names: str) -> int:
    """Each target in a process of its own; 1 if one of them found something."""
    worst = 0
    for name in names or TARGETS:
        command = [sys.executable, "-m", "tests.proof.fuzz_targets", "--alone", name]
        command += [f"-max_total_time={seconds}", "-print_final_stats=1"]
        # It ends without running what is registered for that: its files are in ours.
        environment = os.environ | {"TMPDIR": str(SCRATCH)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        runs = re.findall(r"number_of_executed_units: *(\d+)", done.stderr)
        memory_mb = re.findall(r"peak_rss_mb: *(\d+)", done.stderr)
        if done.returncode or not runs:
            print(
                f"{name}: FOUND SOMETHING (exit {done.returncode})",
                done.stdout,
                done.stderr[-4000:],
                sep="\n",
            )
            worst = 1
        else:
            print(f"{name}: {int(runs[-1]):,} executions, at most {memory_mb[-1]} MB", flush=True)
    return worst


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(*sys.argv[2:])
    sys.exit(main(*sys.argv[1:]))
