"""The parsers of etcd's files as fuzz targets (see fuzz_targets).

Checksums would keep nearly everything out that a fuzzer makes. So what has one is tried as it is, and once more with
the checksum made right, as somebody hostile would; of a log also with the given bytes inside good frames.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from crc32c import crc32c
from google.protobuf.message import DecodeError

import kvstore
from kvstore.errors import KVStoreError
from kvstore.etcdpb.json import from_json, to_json
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.etcdpb.requests import from_message
from tests.etcd.etcd_log import LogWriter
from tests.proof.fuzz_files import SCRATCH, as_file

bbolt_check = importlib.import_module("kvstore.migrations.etcd.bbolt_check")
bbolt_page = importlib.import_module("kvstore.migrations.etcd.bbolt_page")
data_dir_store = importlib.import_module("kvstore.migrations.etcd.data_dir_store")
etcd_file = importlib.import_module("kvstore.migrations.etcd.etcd_file")
log_dump = importlib.import_module("kvstore.migrations.etcd.log_dump")
messages = importlib.import_module("kvstore.migrations.etcd.messages")
rows = importlib.import_module("kvstore.migrations.etcd.rows")
wal_frame = importlib.import_module("kvstore.migrations.etcd.wal_frame")
wal_read = importlib.import_module("kvstore.migrations.etcd.wal_read")

PAGE_BYTES = 512
META_BODY = slice(16, 72)
METADATA = messages.Metadata(NodeID=1, ClusterID=2).SerializeToString()


# --- the database ---------------------------------------------------------------------------------


def sealed_metas(data: bytes) -> bytes:
    """The file with the checksum of both meta pages made right."""
    made = bytearray(data.ljust(2 * PAGE_BYTES, b"\0"))
    for at in (0, PAGE_BYTES):
        body = bytes(made[at + META_BODY.start : at + META_BODY.stop])
        made[at + META_BODY.stop : at + META_BODY.stop + 8] = struct.pack("<Q", bbolt_page.fnv1a(body))
    return bytes(made)


def etcd_database(data: bytes) -> None:
    """A bbolt file: its pages, its buckets, and the rows in them, of keys, leases, alarms, members, users and roles."""
    for content in (data, sealed_metas(data)):
        path = as_file(content, "etcd.db")
        try:
            with etcd_file.EtcdFile(path) as file:
                _read_rows(file)
        except KVStoreError:
            pass
        try:
            with etcd_file.EtcdFile(path) as file:
                list(bbolt_check.check(file.file))
                file.file.verify_hash()
        except KVStoreError:
            pass


def _read_rows(file: Any) -> None:
    for read in (file.members, file.removed_members, file.alarms, file.users, file.roles, file.leases):
        _typed(read)
    for name in ("term", "conf_state", "storage_version", "cluster_version", "auth_enabled", "auth_revision"):
        _typed(partial(getattr, file, name))
    _typed(lambda: list(file.rows()))
    _typed(lambda: file.history(b"k"))
    _typed(file.hash_kv)
    file.status(count_live_keys=True)


def etcd_snapshot(data: bytes) -> None:
    """The same file opened as a snapshot, and read as a store."""
    path = as_file(sealed_metas(data), "etcd.snap")
    for verify in (False, True):
        try:
            with kvstore.open_snapshot(path, verify=verify) as snapshot:
                for read in (snapshot.hash_kv, snapshot.leases, lambda: list(snapshot.scan(prefix=b""))):
                    _typed(read)
                _typed(lambda: list(snapshot.history(b"k")))
        except KVStoreError:
            pass


def etcd_rows(data: bytes) -> None:
    """Keys and values of every bucket, alone."""
    key, value = data[:17], data[17:]
    decoders: list[tuple[Callable[..., Any], tuple[bytes, ...]]] = [
        (rows.decode_revision, (data,)),
        (rows.decode_u64, (data,)),
        (rows.decode_key_value, (key, value)),
        (rows.decode_key_value, (rows.encode_revision(5), data)),
        (rows.decode_lease, (data[:8], data[8:])),
        (rows.decode_member, (data,)),
        (rows.decode_json, (data,)),
        (rows.decode_alarm, (data,)),
        (rows.decode_user, (data,)),
        (rows.decode_role, (data,)),
    ]
    for decode, arguments in decoders:
        try:
            decode(*arguments)
        except rows.RowError:
            pass
    rows.user_key(data, 0, len(data))


# --- the log --------------------------------------------------------------------------------------


def etcd_frame(data: bytes) -> None:
    for is_last in (False, True):
        try:
            wal_frame.read_frame(data, 0, len(data), is_last)
        except (wal_frame.EndOfSegment, wal_frame.FrameError):
            pass


def etcd_segment(data: bytes) -> None:
    """A whole segment file."""
    wal_dir = as_file(data, "segment/0000000000000000-0000000000000000.wal").parent
    for as_etcd in (False, True):
        _typed(lambda: list(wal_read.WalReader(wal_read.list_segments(wal_dir), as_etcd)))  # noqa: B023  # called at once
    _typed(lambda: list(log_dump.dump_log(wal_dir)))


def etcd_records(data: bytes) -> None:
    """A data directory without a database, whose log has the given records, in good frames."""
    log = LogWriter(METADATA)
    log.snapshot(0, 0)
    for kind, payload in pieces(data):
        log.record(1 + kind % 5, payload)
    open_directory(bytes(log.out))


def etcd_requests(data: bytes) -> None:
    """The same, with the given requests as committed entries of a member that is alone: all of them are applied."""
    log = LogWriter(METADATA)
    log.snapshot(0, 0)
    change = messages.ConfChange(type=0, node_id=1, context=b'{"id":1,"name":"default"}')
    entry = messages.Entry(Type=1, Term=1, Index=1, Data=change.SerializeToString())
    log.record(wal_frame.ENTRY, entry.SerializeToString())
    index = 1
    for kind, payload in pieces(data):
        index += 1
        entry = messages.Entry(Type=max(kind - 253, 0), Term=1, Index=index, Data=payload)
        log.record(wal_frame.ENTRY, entry.SerializeToString())
    log.state(index)
    open_directory(bytes(log.out))


def etcd_raft_snapshot(data: bytes) -> None:
    """The file of a raft snapshot, as it is, and inside a good envelope."""
    log = LogWriter(METADATA)
    log.snapshot(0, 0)
    log.entry(1)
    log.snapshot(1, 1)
    log.state(1)
    envelope = messages.SnapFile(crc=crc32c(data), data=data).SerializeToString()
    for content in (data, envelope):
        as_file(content, f"directory/member/snap/{1:016x}-{1:016x}.snap")
        open_directory(bytes(log.out))
    (SCRATCH / f"directory/member/snap/{1:016x}-{1:016x}.snap").unlink()


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) after the other: a byte, a length of two, and so many bytes."""
    at = 0
    while at + 3 <= len(data):
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "little")
        yield data[at], data[at + 3 : end]
        at = end


def in_pieces(*payloads: bytes, kind: int = 1) -> bytes:
    """The reverse."""
    return b"".join(bytes([kind]) + len(each).to_bytes(2, "little") + each for each in payloads)


def open_directory(log: bytes) -> None:
    as_file(b"", "directory/member/snap/db")
    wal = as_file(log, "directory/member/wal/0000000000000000-0000000000000000.wal")
    folder = wal.parents[2]
    try:
        with data_dir_store.open_data_dir(folder) as store:
            _typed(lambda: list(store.scan(prefix=b"")))
            _typed(store.leases)
            _typed(store.hash_kv)
    except KVStoreError:
        pass
    _typed(lambda: list(log_dump.dump_log(wal.parent)))


def etcd_message(data: bytes) -> None:
    """Every message of raft and etcd."""
    for kind in MESSAGES:
        try:
            repr(kind.FromString(data))
        except DecodeError:
            pass
    try:
        messages.request_kind(messages.decode_request(data))
    except DecodeError:
        pass


def etcd_api(data: bytes) -> None:
    """What a client sends, as a request of ours and as JSON."""
    for kind in API:
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        _typed(partial(from_message, message))
        message.DiscardUnknownFields()
        assert from_json(kind, to_json(message)) == message


def etcd_json(data: bytes) -> None:
    """What a client of the gateway sends."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    for kind in API:
        _typed(partial(from_json, kind, value))


def _typed(read: Callable[[], object]) -> None:
    try:
        read()
    except KVStoreError:
        pass


MESSAGES = [
    messages.KeyValue,
    messages.Lease,
    messages.Entry,
    messages.HardState,
    messages.RaftSnapshot,
    messages.ConfChange,
    messages.ConfChangeV2,
    messages.WalSnapshot,
    messages.SnapFile,
    messages.User,
    messages.Role,
    messages.Metadata,
    messages.AlarmMember,
    messages.InternalRaftRequest,
]

API = [
    etcdserverpb.RangeRequest,
    etcdserverpb.PutRequest,
    etcdserverpb.TxnRequest,
    etcdserverpb.WatchCreateRequest,
    etcdserverpb.LeaseGrantRequest,
    etcdserverpb.AlarmRequest,
]

TARGETS: list[Callable[[bytes], None]] = [
    etcd_database,
    etcd_snapshot,
    etcd_rows,
    etcd_frame,
    etcd_segment,
    etcd_records,
    etcd_requests,
    etcd_raft_snapshot,
    etcd_message,
    etcd_api,
    etcd_json,
]
