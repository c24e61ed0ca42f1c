"""Good inputs for the fuzz targets, to be changed: from them a fuzzer comes further than from nothing."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hpack

import kvstore
from kvstore import ops
from kvstore.backend import find_backend
from kvstore.mvcc import effects
from kvstore.mvcc.schema import LATEST, TABLES
from kvstore.network.http2.frames import PREFACE, settings
from kvstore.network.http2.hpack import encode
from kvstore.wal import format as wal_format
from kvstore.wal.inspect import scan_segment
from tests.etcd.etcd_log import LogWriter
from tests.network.http2 import peers
from tests.network.http2.peers import REQUEST, RESPONSE, TRAILERS
from tests.proof import fuzz_etcd, fuzz_network

bbolt_write = importlib.import_module("kvstore.migrations.etcd.bbolt_write")
messages = importlib.import_module("kvstore.migrations.etcd.messages")
rows = importlib.import_module("kvstore.migrations.etcd.rows")

SMALL_STORE_BYTES = 2000
"""So much of a segment is full; the rest is zeros."""


def a_store(folder: Path, backend: str = "memory") -> Path:
    """A closed store with rows of every kind, and a snapshot of it in ``copy.snap``."""
    with kvstore.open(folder / "store", backend, background=False, cluster_id=1, member_id=1) as store:
        lease = store.grant_lease(60, 7).id
        for number in range(8):
            store.put(b"k%d" % (number % 3), b"v" * number, lease=lease if number % 2 else 0)
        store.txn(success=[ops.put(b"t", b"1"), ops.delete(b"k0")])
        store.compact(4)
        store.snapshot(folder / "copy.snap")
        store.snapshot()
    return folder / "store"


@cache
def files(backend: str = "memory") -> tuple[bytes, bytes, bytes]:
    """(segment, snapshot, backend file) of such a store."""
    with tempfile.TemporaryDirectory() as folder:
        store = a_store(Path(folder), backend)
        segment = next((store / "wal").iterdir()).read_bytes()[:SMALL_STORE_BYTES]
        db = store / "snap" / "db"
        snapshot = (Path(folder) / "copy.snap").read_bytes()
        return segment, snapshot, db.read_bytes() if db.exists() else snapshot


@cache
def entries() -> list[bytes]:
    """The log entries of such a store."""
    with tempfile.TemporaryDirectory() as folder:
        segment = next((a_store(Path(folder)) / "wal").iterdir())
        found = [frame.batch.entries for frame in scan_segment(segment) if frame.batch]
    return [entry for batch in found for entry in batch]


@cache
def latest_rows() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        a_store(Path(folder), "sqlite")
        backend = find_backend("sqlite").open(Path(folder) / "store" / "snap" / "db", TABLES, read_only=True)
        with backend.read() as tx:
            found = [row for _, row in tx.scan(LATEST)]
        backend.close()
    return found


def seeds(name: str) -> list[bytes]:
    """Some for the target of that name; none where bytes of any kind will do."""
    make = SEEDS.get(name)
    return make() if make else []


def frames() -> list[bytes]:
    batch = wal_format.encode_batch(1, 5, [b"entry", b""])
    return [
        wal_format.encode_frame(7, 0, kind, 9, 0, data)
        for kind, data in ((2, batch), (4, None), (1, b"metadata"))
    ]


# --- etcd -------------------------------------------------------------------------------------------


def bbolt_buckets() -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """A little of everything that etcd keeps."""
    keys = [
        rows.encode_key_value(rows.KeyValueRow(main, 0, is_gone, b"k", b"v" * main, 2, main, main - 1, 7))
        for main, is_gone in ((2, False), (3, False), (4, True), (5, False))
    ]
    lease = rows.encode_lease(rows.Lease(7, 60, 30))
    member = rows.encode_member(rows.Member(1, "default", ("http://a:1",), ("http://a:2",)))
    user = messages.User(name=b"root", password=b"$2a$", roles=[b"root"]).SerializeToString()
    role = messages.Role(name=b"r", keyPermission=[{"permType": 2, "key": b"a", "range_end": b"b"}])
    return [
        (rows.ALARM, [(messages.AlarmMember(memberID=1, alarm=1).SerializeToString(), b"")]),
        (rows.AUTH, [(rows.AUTH_ENABLED, b"\x01"), (rows.AUTH_REVISION, rows.encode_u64(4))]),
        (rows.AUTH_ROLES, [(b"r", role.SerializeToString())]),
        (rows.AUTH_USERS, [(b"root", user)]),
        (rows.CLUSTER, [(rows.CLUSTER_VERSION, b"3.5.0")]),
        (rows.KEY, keys),
        (rows.LEASE, [lease]),
        (rows.MEMBERS, [member]),
        (rows.MEMBERS_REMOVED, [(b"2", rows.REMOVED)]),
        (
            rows.META,
            [
                (rows.CONF_STATE, b'{"voters":[1]}'),
                (rows.CONSISTENT_INDEX, rows.encode_u64(9)),
                (rows.FINISHED_COMPACT, rows.encode_revision(2)),
                (rows.SCHEDULED_COMPACT, rows.encode_revision(2)),
                (rows.TERM, rows.encode_u64(2)),
            ],
        ),
    ]


@cache
def bbolt_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db"
        bbolt_write.write_bbolt(path, bbolt_buckets(), page_size=fuzz_etcd.PAGE_BYTES)
        return path.read_bytes()


def requests() -> list[Any]:
    """One of every kind that changes something."""
    compare = {"result": 0, "target": 2, "key": b"k", "mod_revision": 2}
    put = {"key": b"k", "value": b"v", "lease": 7}
    delete = {"key": b"a", "range_end": b"z"}
    txn = {
        "compare": [compare],
        "success": [{"request_put": put}, {"request_delete_range": delete}],
        "failure": [{"request_range": {"key": b"k"}}, {"request_txn": {"success": [{"request_put": put}]}}],
    }
    permission = {"permType": 2, "key": b"a", "range_end": b"z"}
    made: list[dict[str, Any]] = [
        {"lease_grant": {"TTL": 60, "ID": 7}},
        {"put": put},
        {"txn": txn},
        {"delete_range": delete},
        {"compaction": {"revision": 2}},
        {"lease_checkpoint": {"checkpoints": [{"ID": 7, "remaining_TTL": 5}]}},
        {"lease_revoke": {"ID": 7}},
        {"alarm": {"action": 1, "memberID": 1, "alarm": 1}},
        {"auth_role_add": {"name": b"r"}},
        {"auth_role_grant_permission": {"name": b"r", "perm": permission}},
        {"auth_user_add": {"name": b"root", "hashedPassword": b"JDJh"}},
        {"auth_user_grant_role": {"user": b"root", "role": b"root"}},
        {"auth_user_change_password": {"name": b"root", "password": b"x"}},
        {"auth_enable": {}},
        {"put": put, "header": {"ID": 1, "username": b"root", "auth_revision": 9}},
        {"auth_role_revoke_permission": {"role": b"r", "key": b"a", "range_end": b"z"}},
        {"auth_user_revoke_role": {"name": b"root", "role": b"r"}},
        {"auth_role_delete": {"role": b"r"}},
        {"auth_user_delete": {"name": b"u"}},
        {"auth_disable": {}},
        {"cluster_version_set": {"ver": b"3.5.0"}},
        {
            "cluster_member_attr_set": {
                "member_ID": 1,
                "member_attributes": {"name": b"n", "client_urls": [b"u"]},
            }
        },
        {"downgrade_info_set": {"enabled": True, "ver": b"3.4.0"}},
        {"v2": {"Method": b"PUT", "Path": b"/0/members/1/attributes", "Val": b'{"name":"n"}'}},
        {"v2": {"Method": b"PUT", "Path": b"/0/version", "Val": b"3.4.0"}},
    ]
    return [messages.InternalRaftRequest(**each) for each in made]


def encoded_requests() -> list[bytes]:
    return [each.SerializeToString() for each in requests()]


def log_records() -> bytes:
    entry = messages.Entry(Term=1, Index=1, Data=encoded_requests()[1]).SerializeToString()
    state = messages.HardState(term=1, vote=1, commit=1).SerializeToString()
    mark = messages.WalSnapshot(index=1, term=1).SerializeToString()
    kinds = ((1, entry), (2, state), (4, mark))
    return b"".join(fuzz_etcd.in_pieces(payload, kind=kind) for kind, payload in kinds)


def segment() -> bytes:
    log = LogWriter(fuzz_etcd.METADATA)
    log.snapshot(0, 0)
    for index, request in enumerate(encoded_requests()[:4], 1):
        log.entry(index, data=request)
    log.state(4)
    return bytes(log.out) + bytes(64)


def raft_snapshot() -> bytes:
    metadata = {"conf_state": {"voters": [1], "learners": [2]}, "index": 1, "term": 1}
    data: bytes = messages.RaftSnapshot(data=b"{}", metadata=metadata).SerializeToString()
    return data


def row_seeds() -> list[bytes]:
    found = [key.ljust(17, b"\0")[:17] + value for _, bucket in bbolt_buckets() for key, value in bucket]
    return found + [key + value for _, bucket in bbolt_buckets() for key, value in bucket]


# --- HTTP/2 -----------------------------------------------------------------------------------------


def http2_frames() -> list[bytes]:
    """Two requests and what belongs to them, as a client sends it; an answer, as a server does."""
    asked = b"".join(
        (
            settings((4, 100)),
            peers.headers(1, hpack.Encoder().encode(REQUEST)),
            peers.data(1, b"\x02hello\0\0", flags=8),
            peers.data(1, b"more", end=True),
            peers.headers(3, encode(REQUEST)[:2], flags=0) + peers.continuation(3, encode(REQUEST)[2:]),
            peers.window(1, 10) + peers.priority(5) + peers.ping() + peers.rst(3),
        )
    )
    answered = peers.headers(1, encode(RESPONSE)) + peers.data(1, b"x") + peers.headers(1, TRAILERS, end=True)
    return [asked, PREFACE + asked, answered]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "wal_frame": frames,
    "wal_batch": lambda: [wal_format.encode_batch(1, 5, [b"entry", b""])],
    "wal_metadata": lambda: [wal_format.encode_metadata(wal_format.Metadata(1, 2, 3, 4, b"name"))],
    "segment": lambda: [files()[0]],
    "effect": lambda: [*entries(), effects.revision(2) + effects.delete(b"k"), effects.row(b"etcd/a", b"v")],
    "row": latest_rows,
    "manifest": lambda: [files()[1][-400:], files()[1][-400:-24]],
    "snapshot": lambda: [files()[1], files("sqlite")[1]],
    "memory_file": lambda: [files()[1]],
    "lmdb_pages": lambda: [files("lmdb")[2]],
    "transaction": lambda: [
        b'mod("k") > "0"\n\nput k v\n\nget k\n',
        b'value("a") = "1"\n\ndel a\nput b "\\x00"\n\n',
    ],
    "option": lambda: [b"quota_backend_bytes=10m", b"auto_compaction_retention=1h30m", b"durability=always"],
    "gateway": fuzz_network.gateway_seeds,
    "lock_file": lambda: [b'{"pid": 7, "host": "here"}'],
    "etcd_database": lambda: [bbolt_file()],
    "etcd_snapshot": lambda: [bbolt_file()],
    "etcd_rows": row_seeds,
    "etcd_frame": lambda: [segment()[24:], segment()],
    "etcd_segment": lambda: [segment()],
    "etcd_records": lambda: [log_records()],
    "etcd_requests": lambda: [
        fuzz_etcd.in_pieces(*encoded_requests()),
        *map(fuzz_etcd.in_pieces, encoded_requests()),
    ],
    "etcd_raft_snapshot": lambda: [raft_snapshot()],
    "etcd_message": lambda: [*encoded_requests(), raft_snapshot()],
    "etcd_api": lambda: [
        request.txn.SerializeToString() for request in requests() if request.HasField("txn")
    ],
    "http2": http2_frames,
    "hpack": lambda: [
        hpack.Encoder().encode(REQUEST),
        encode(RESPONSE + TRAILERS),
        b"\x40\x01x\x01y\xbe\xbe",
    ],
    "etcd_json": lambda: [
        b'{"compare":[{"target":"MOD","key":"YQ==","mod_revision":"5"}],"success":[{"request_put":{"key":"YQ=="}}]}',
        b'{"key":"YQ==","rangeEnd":null,"limit":"5","sort_order":"DESCEND","filters":["NOPUT",1],"keysOnly":true}',
    ],
}
