"""Requests that stand in etcd's log and that few clients ever send, applied as a server applies them."""

from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import messages
from kvstore.migrations.etcd.data_dir_store import open_data_dir
from kvstore.migrations.etcd.log_replay import LogReplay
from kvstore.migrations.etcd.wal_content import LogEntry
from kvstore.migrations.etcd.wal_frame import ENTRY
from kvstore.migrations.etcd.wal_read import segment_name

from kvstore.backend import find_backend
from kvstore.errors import Corruption
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.schema import TABLES
from kvstore.mvcc.state import State
from kvstore.store import Store
from tests.etcd.etcd_log import LogWriter

Request = messages.InternalRaftRequest


def opened(tmp_path: Path, *requests: Any) -> Store:
    """A directory without a database, whose log has these requests."""
    log = LogWriter(messages.Metadata(NodeID=1, ClusterID=9).SerializeToString())
    log.snapshot(0, 0)
    context = b'{"id":1,"peerURLs":["a"]}'
    founded = messages.ConfChange(node_id=1, context=context).SerializeToString()
    log.record(ENTRY, messages.Entry(Type=1, Term=1, Index=1, Data=founded).SerializeToString())
    for index, request in enumerate(requests, 2):
        data = request if isinstance(request, bytes) else request.SerializeToString()
        log.entry(index, 1, data)
    log.state(1 + len(requests))
    wal = tmp_path / "member" / "wal"
    wal.mkdir(parents=True)
    (wal / segment_name(0, 0)).write_bytes(log.out)
    return open_data_dir(tmp_path)


def put(key: bytes, value: bytes = b"") -> Any:
    return messages.InternalRaftRequest(put={"key": key, "value": value})


def txn(*compares: dict[str, Any]) -> Any:
    ops = [{"request_put": {"key": key}} for key in (b"yes", b"no")]
    return Request(txn={"compare": compares, "success": ops[:1], "failure": ops[1:]})


def nested(depth: int) -> bytes:
    """Transactions inside of one another, of which the innermost puts. Encoded by hand: so deep goes no message."""
    inner = messages.InternalRaftRequest(txn={"success": [{"request_put": {"key": b"deep"}}]}).txn
    encoded: bytes = inner.SerializeToString()
    for _ in range(depth):
        encoded = field(2, field(4, encoded))
    return field(6, encoded)


def field(number: int, data: bytes) -> bytes:
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


@pytest.mark.parametrize("depth", [1, 48, 49, 127])
def test_transactions_may_be_nested_as_deep_as_a_server_allows(tmp_path: Path, depth: int) -> None:
    """A server lets 128 ops in along the way; protobuf alone stops at a depth of 49, which etcd's own does not."""
    with opened(tmp_path, nested(depth), put(b"after")) as store:
        assert [(kv.key, kv.mod_revision) for kv in store.scan(prefix=b"")] == [(b"after", 3), (b"deep", 2)]


def test_deeper_ones_are_told(tmp_path: Path) -> None:
    """No server lets them in: a typed error with the place, not a full stack."""
    with pytest.raises(Corruption, match="entry 2: transactions are nested more than 150 deep"):
        opened(tmp_path, nested(5000))


def test_an_op_of_no_kind_is_passed_over(tmp_path: Path) -> None:
    """At the top and nested; what stands around it is carried out."""
    ops = [{"request_put": {"key": b"a"}}, {}, {"request_txn": {"success": [{}], "failure": [{}]}}]
    with opened(tmp_path, Request(txn={"success": ops}), Request(txn={"success": [{}]}), put(b"b")) as store:
        assert [(kv.key, kv.mod_revision) for kv in store.scan(prefix=b"")] == [(b"a", 2), (b"b", 3)]


VERSION, CREATE, MOD, VALUE, LEASE = range(5)
EQUAL, GREATER, LESS, NOT_EQUAL = range(4)


@pytest.mark.parametrize(
    ("compare", "holds", "holds_of_none"),
    [
        ({"target": VERSION, "mod_revision": 3}, False, True),  # of a version, which is not given: 0
        ({"target": VERSION, "result": GREATER, "create_revision": 9}, True, False),
        ({"target": VALUE, "version": 2}, False, False),
        ({"target": VALUE, "value": b"2"}, True, False),
        ({"target": LEASE, "value": b"x"}, True, True),
        ({"target": MOD, "result": LESS, "lease": 99}, False, False),
        ({"target": 9, "version": 2}, True, True),  # no such target: 0 beside 0
        ({"target": 9, "result": GREATER}, False, False),
        ({"target": -1, "result": NOT_EQUAL}, False, False),
        ({"target": VERSION, "result": 7, "version": 9}, True, True),  # no such result: true
        ({"target": VALUE, "result": 7, "value": b"q"}, True, False),
        ({"target": 9, "result": 9}, True, True),
    ],
)
@pytest.mark.parametrize("range_end", [b"", b"z"])
def test_compares_of_no_sense_are_judged_as_etcd_judges_them(
    tmp_path: Path, compare: dict[str, Any], holds: bool, holds_of_none: bool, range_end: bytes
) -> None:
    """What a target is not compared with counts as absent. The answers are a real server's."""
    for name, key, expected in (("some", b"a", holds), ("none", b"m", holds_of_none)):
        asked = txn({"key": key, "range_end": range_end, **compare})
        with opened(tmp_path / name, put(b"a", b"1"), put(b"a", b"2"), asked) as store:
            assert (store.get(b"yes") is not None, store.get(b"no") is not None) == (expected, not expected)


@pytest.mark.parametrize("left", [-5, 2**63 - 1])
def test_a_checkpoint_of_no_sense_leaves_a_lease_that_can_be_read(tmp_path: Path, left: int) -> None:
    """Below zero it counts as none, as in etcd; beyond the largest TTL as the largest."""
    grant = Request(lease_grant={"ID": 7, "TTL": 100})
    checkpoint = Request(lease_checkpoint={"checkpoints": [{"ID": 7, "remaining_TTL": left}]})
    with opened(tmp_path, grant, checkpoint) as store:
        assert store.lease_time_to_live(7).ttl in ((99, 100) if left < 0 else (8_999_999_999, 9_000_000_000))


def test_a_lease_of_id_0_is_refused(tmp_path: Path) -> None:
    """A server finds none."""
    with opened(tmp_path, Request(lease_grant={"ID": 0, "TTL": 100})) as store:
        assert list(store.leases()) == []


def test_an_alarm_of_an_unknown_kind_does_not_come_along(tmp_path: Path) -> None:
    """There is nothing that it would stop."""
    with opened(tmp_path, Request(alarm={"action": 1, "memberID": 1, "alarm": 77}), put(b"k")) as store:
        assert (list(store.alarms()), store.revision) == ([], 2)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (put(b""), "entry 2: a put of the empty key"),
        (Request(ID=5), "entry 2 holds no request that is known here"),
        (field(15, b"later"), "entry 2 holds no request that is known here"),
        (b"\xff\xff", "entry 2 holds no request"),
        (messages.V2Request(Path=b"/1/a").SerializeToString(), "entry 2 holds no request"),
    ],
    ids=["empty key", "nothing", "of a later etcd", "no message", "v2 without a method"],
)
def test_what_no_server_writes_is_told_with_its_place(tmp_path: Path, request_: Any, reason: str) -> None:
    """Passing it over would leave the revisions behind it wrong."""
    with pytest.raises(Corruption, match=reason):
        opened(tmp_path, request_)


def test_a_bare_request_of_v2_is_none_of_v3(tmp_path: Path) -> None:
    """How 3.4 publishes a member's name and address: no field of it may pass for a transaction."""
    attributes = b'{"name":"one","clientURLs":["http://c"]}'
    path = b"/0/members/1/attributes"
    published = messages.V2Request(ID=7, Method=b"PUT", Path=path, Val=attributes)
    previous_value = b"\x32\x00"  # the number of a transaction, and empty; a server writes every field
    with opened(tmp_path, published.SerializeToString() + previous_value, put(b"k")) as store:
        assert [(member.id, member.name) for member in store.members] == [(1, "one")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("index", [2, 0])
def test_an_entry_that_does_not_follow_the_state_is_not_applied(tmp_path: Path, index: int) -> None:
    """Whatever the reader of the log made of it: neither skipped over nor applied twice."""
    state = State(find_backend("memory").open(tmp_path / "none", TABLES))
    entry = LogEntry(index, 1, "EntryNormal", put(b"k").SerializeToString(), tmp_path / "log", 88)
    with pytest.raises(Corruption, match=f"byte 88: entry {index} follows entry 0"):
        LogReplay(state, Lessor(), 0).apply(entry)
    assert (state.index, state.head) == (0, 1)
