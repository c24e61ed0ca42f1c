"""Every parser of bytes from outside, as a function that may only raise what it promises.

    TARGETS[name](data)      a typed error is fine; anything else is a bug

By default hypothesis feeds them (test_fuzz.py). With atheris (extra ``fuzz``), guided by coverage:

    python -m tests.fuzz_targets TARGET [options of libFuzzer, e.g. -max_total_time=60] [corpus folder]

What was found is kept in fuzz_corpus/TARGET/ and tried in every run.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import kvstore
from kvstore.errors import Corruption, KVStoreError, TooNew
from kvstore.keyvalue import KeyValue, decode_row, row_numbers
from kvstore.mvcc import effects
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.options import BadOption, Options
from kvstore.replay import load_leases
from kvstore.retention import policy
from kvstore.snapshot.manifest import BadTail, LaterFormat, decode_manifest, decode_tail
from kvstore.snapshot.reader import read_info
from kvstore.wal import format as wal_format
from kvstore.wal.inspect import scan_segment
from kvstore.wal.reader import SegmentReader
from kvstore.wire import WireError, fields

txn_text = importlib.import_module("kvstore.tools.txn_text")
usage = importlib.import_module("kvstore.tools.usage")
bbolt_read = importlib.import_module("kvstore.migrations.etcd.bbolt_read")
etcd_wal = importlib.import_module("kvstore.migrations.etcd.wal_frame")
memory = importlib.import_module("kvstore.backends.memory")

Target = Callable[[bytes], None]
SCRATCH = Path(tempfile.mkdtemp(prefix="kvstore-fuzz-"))


def as_file(data: bytes, name: str = "file") -> Path:
    path = SCRATCH / name
    path.write_bytes(data)
    return path


def wire(data: bytes) -> None:
    try:
        list(fields(data))
    except WireError:
        pass


def wal_frame(data: bytes) -> None:
    """A reader looks for a frame only where there is room for a length."""
    data = data.ljust(8, b"\0")
    try:
        frame = wal_format.decode_frame(data, 0, 0, len(data), 7)
        assert frame.end <= len(data)
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
        effects.apply(data, state, load_leases(state))
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
    from kvstore.files import FileLock
    from kvstore.layout import DataDir
    from kvstore.recovery import take_lock

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
        transaction,
        option,
        lock_file,
    )
}


def main() -> None:
    import atheris  # the extra "fuzz"

    target = TARGETS[sys.argv.pop(1)]
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
