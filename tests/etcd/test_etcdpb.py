"""etcd's messages: the table against etcd's own, requests both ways, answers against protobuf's own encoding."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from kvstore.migrations.etcd import messages as logged

from kvstore import model
from kvstore.errors import BadArgument
from kvstore.etcdpb.messages import MESSAGES, etcdserverpb, mvccpb
from kvstore.etcdpb.requests import NESTING_MAX, from_message, nested_txn, to_message
from kvstore.etcdpb.responses import Header, SharedEvents, encode, encode_events, encode_watch
from kvstore.etcdpb.table import TABLE
from kvstore.keyvalue import KeyValue, KeyValues, encode_key_value, make_row
from kvstore.model import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    EventType,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
)
from kvstore.mvcc.overlay import ChangedRow
from kvstore.protobuf import Messages
from kvstore.watch.events import Events
from tests.etcd.etcd_recorder import ETCD, HAS_ETCD
from tests.etcd.protobuf_messages import embedded_descriptors, is_repeated, messages
from tests.harness.drawn_requests import SLOW, deletes, puts, txns

INT64 = st.integers(-(2**63), 2**63 - 1)
HEADER = Header(cluster_id=2**64 - 1, member_id=7, raft_term=3)


# --- the table -----------------------------------------------------------------------------------


LEFT_OUT = {
    "etcdserverpb.EmptyResponse",  # never sent
    "leasepb.LeaseInternalRequest",  # between members, as are these
    "leasepb.LeaseInternalResponse",
    "raftpb.Message",
    "raftpb.MessageType",
    "snappb.snapshot",  # read under a name with a capital
    "walpb.Record",  # read by wal_frame
}


@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
def test_the_table_is_etcds_own() -> None:
    """The descriptors that the installed etcd carries: each of its fields and enums is in the table, and the same."""
    program = Path(shutil.which(ETCD) or "").resolve()
    packages = set(re.findall(r"^package (\w+)", TABLE, re.MULTILINE))
    files = [file for file in embedded_descriptors(program) if file.package in packages]
    if not files:
        pytest.skip(f"{program} carries no descriptors that can be found")
    assert {name for file in files for name in unlike(file)} - LEFT_OUT == set()


def unlike(file: Any) -> Iterator[str]:
    """What of a .proto file is absent from the table, or different there."""
    for message in file.message_type:
        name = f"{file.package}.{message.name}"
        found = getattr(MESSAGES.package(file.package), message.name, None)
        if found is None:
            yield name
            continue
        ours = found.DESCRIPTOR.fields_by_name
        yield from (f"{name}.{field.name}" for field in message.field if not same(message, field, ours))
        yield from unlike_enums(name, message.enum_type)
    yield from unlike_enums(file.package, file.enum_type)


def unlike_enums(place: str, enums: Any) -> Iterator[str]:
    for enum in enums:
        name = f"{place}.{enum.name}"
        numbered = {value.number: value.name for value in enum.value}
        if name not in LEFT_OUT and dict(enumerate(MESSAGES.enum(name))) != numbered:
            yield name


def same(message: Any, field: Any, ours: Any) -> bool:
    found = ours.get(field.name)
    if found is None:
        return False
    kind, within = found.message_type or found.enum_type, found.containing_oneof
    mine = (found.number, found.type, kind.full_name if kind else "", within.name if within else "")
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    theirs = (field.number, field.type, field.type_name.removeprefix("."), oneof)
    return mine == theirs and is_repeated(found) == (field.label == field.LABEL_REPEATED)


def test_text_is_checked_for_the_api_and_not_in_files() -> None:
    """Go did not check strings when it wrote the log; a client that sends such a string is refused."""
    name = logged.InternalRaftRequest(auth_user_add={"name": b"\xff"}).auth_user_add.SerializeToString()
    assert logged.InternalRaftRequest().auth_user_add.FromString(name).name == b"\xff"
    with pytest.raises(DecodeError):
        etcdserverpb.AuthUserAddRequest.FromString(name)


def test_a_table_says_what_it_has_not() -> None:
    """An unknown message is an AttributeError with the package's name, so that a misspelt one is found at once."""
    with pytest.raises(AttributeError, match="etcdserverpb has no message PutRequset"):
        _ = etcdserverpb.PutRequset


def test_another_programs_messages_are_not_met() -> None:
    """Two tables with the same names live beside each other, as a client library's modules would."""
    other = Messages("package etcdserverpb\nPutRequest: kex=1 int64").package("etcdserverpb")
    assert other.PutRequest(kex=5).SerializeToString() == b"\x08\x05"
    assert etcdserverpb.PutRequest(key=b"k").SerializeToString() == b"\n\x01k"


# --- requests ------------------------------------------------------------------------------------

compactions = st.builds(CompactionRequest, INT64, st.booleans())
ranges = st.builds(
    RangeRequest,
    st.binary(max_size=3),
    st.binary(max_size=3),
    *[INT64] * 2,
    st.sampled_from(model.SortOrder),
    st.sampled_from(model.SortTarget),
    *[st.booleans()] * 2,
    *[INT64] * 4,
)
watches = st.builds(
    WatchRequest,
    st.binary(max_size=3),
    st.binary(max_size=3),
    INT64,
    *[st.booleans()] * 4,
    start_sub=st.just(0),
)
KINDS: dict[type, st.SearchStrategy[Any]] = {
    RangeRequest: ranges,
    PutRequest: puts,
    DeleteRangeRequest: deletes,
    TxnRequest: txns,
    CompactionRequest: compactions,
    HashKVRequest: st.builds(HashKVRequest, INT64),
    LeaseGrantRequest: st.builds(LeaseGrantRequest, INT64, INT64),
    LeaseRevokeRequest: st.builds(LeaseRevokeRequest, INT64),
    LeaseKeepAliveRequest: st.builds(LeaseKeepAliveRequest, INT64),
    LeaseTimeToLiveRequest: st.builds(LeaseTimeToLiveRequest, INT64, st.booleans()),
    LeaseLeasesRequest: st.builds(LeaseLeasesRequest),
    AlarmRequest: st.builds(
        AlarmRequest, st.integers(0, 2**64 - 1), st.sampled_from(["NOSPACE", "CORRUPT"]), st.booleans()
    ),
    WatchRequest: watches,
}
OURS_ALONE = {
    "PutWithTTLRequest",
    "ExpireRequest",
    "ShiftRequest",
    "ClampRequest",
    "RenewAllRequest",
    "RowsRequest",
    "GuardedRequest",
    "BarrierRequest",
    "RevisionRequest",
    "LeasesCopyRequest",
    "EntryRequest",
}


def test_every_request_of_the_model_is_here() -> None:
    """A new kind of request is mapped, or named as none of etcd's."""
    kinds = {name for name in vars(model) if name.endswith("Request") and name != "Request"}
    assert kinds == {kind.__name__ for kind in KINDS} | OURS_ALONE


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(suppress_health_check=SLOW, max_examples=50)
@given(data=st.data())
def test_a_request_comes_back_from_its_message(kind: type, data: st.DataObject) -> None:
    """Over the wire and back it is the same request."""
    request = data.draw(KINDS[kind])
    message = to_message(request)
    assert from_message(type(message).FromString(message.SerializeToString())) == request


@pytest.mark.parametrize(
    "name", [kind.__name__ for kind in KINDS if kind is not WatchRequest] + ["WatchCreateRequest"]
)
@settings(suppress_health_check=SLOW, max_examples=50)
@given(data=st.data())
def test_whatever_a_message_says_it_is_read(name: str, data: st.DataObject) -> None:
    """Any numbers, oneofs that are not set: a request that comes back from its message, or none."""
    request = from_message(data.draw(messages(getattr(etcdserverpb, name))))
    assert request is None or from_message(to_message(request)) == request


@pytest.mark.parametrize("name", sorted(OURS_ALONE))
def test_what_etcd_has_no_word_for_is_refused(name: str) -> None:
    """A request of the store's own never goes out as something else."""
    kind = getattr(model, name)
    with pytest.raises(BadArgument, match=f"no {name}"):
        to_message(kind._make([None] * len(kind._fields)))


def test_a_watch_from_within_a_revision_is_refused() -> None:
    """etcd would send the whole revision."""
    with pytest.raises(BadArgument, match="start_sub"):
        to_message(WatchRequest(b"k", start_revision=3, start_sub=1))


def test_a_message_that_asks_the_store_nothing_is_refused() -> None:
    """Such as one about members: whoever serves it has to know it by itself."""
    with pytest.raises(BadArgument, match="MemberListRequest is no request"):
        from_message(etcdserverpb.MemberListRequest())


def test_an_alarm_that_is_only_asked_for_changes_nothing() -> None:
    """GET, and alarms without a name."""
    assert from_message(etcdserverpb.AlarmRequest(alarm="NOSPACE")) is None
    assert from_message(etcdserverpb.AlarmRequest(action="ACTIVATE")) is None
    assert from_message(etcdserverpb.AlarmRequest(action="ACTIVATE", alarm=3)) is None


def test_an_op_that_is_not_set_stays_one() -> None:
    """The planner refuses it; it is not taken for another op."""
    txn = etcdserverpb.TxnRequest(success=[{}, {"request_put": {"key": b"k"}}])
    assert from_message(txn) == TxnRequest(success=(None, PutRequest(b"k")))


@pytest.mark.parametrize(
    ("message", "compare"),
    [
        ({"target": "MOD", "version": 5}, Compare(b"k", 2, 0, 0)),
        ({"target": "VALUE", "result": "LESS"}, Compare(b"k", 3, 2, b"")),
        ({"target": 9, "result": "EQUAL"}, Compare(b"k", 0, 3, -1)),
        ({"target": 9, "result": "LESS"}, Compare(b"k", 0, 0, -1)),
        ({"target": "LEASE", "result": 9}, Compare(b"k", 0, 3, -1)),
        ({"target": "VALUE", "result": 9, "range_end": b"l"}, Compare(b"k", 0, 1, 0, b"l")),
    ],
)
def test_a_compare_is_judged_as_etcd_judges_it(message: dict[str, Any], compare: Compare) -> None:
    """An operand of another target is none; what has no name holds always, never, or of whatever exists."""
    assert from_message(etcdserverpb.TxnRequest(compare=[{"key": b"k", **message}])).compare == (compare,)


def test_transactions_too_deep_are_refused() -> None:
    """A typed error, however deep: the stack stays out of it."""
    ours = MESSAGES.package("shallow").TxnRequest
    deep = ours()
    for _ in range(NESTING_MAX + 1):
        deep = ours(success=[{"request_txn": deep.SerializeToString()}])
    with pytest.raises(BadArgument, match=f"more than {NESTING_MAX}"):
        from_message(deep)
    assert from_message(nested_txn(deep.success[0])).success  # one less is not


# --- answers -------------------------------------------------------------------------------------

revisions = st.integers(0, 2**63 - 1)
key_values = st.builds(
    KeyValue, st.binary(min_size=1, max_size=3), st.binary(max_size=3), revisions, revisions, revisions, INT64
)
rows = st.builds(lambda kv, sub: make_row(kv.row, sub), key_values, st.sampled_from((0, 1, 300)))
stored = st.lists(rows, max_size=3).map(KeyValues)
range_answers = st.builds(RangeResponse, revisions, stored, st.booleans(), revisions)
put_answers = st.builds(PutResponse, revisions, st.none() | rows.map(KeyValue.from_row))
delete_answers = st.builds(DeleteRangeResponse, revisions, revisions, stored)
txn_answers = st.recursive(
    range_answers | put_answers | delete_answers,
    lambda inner: st.builds(TxnResponse, revisions, st.booleans(), st.lists(inner, max_size=3).map(tuple)),
)
lease_answers = (
    st.builds(model.LeaseGrantResponse, revisions, INT64, INT64)
    | st.builds(model.LeaseKeepAliveResponse, revisions, INT64, INT64)
    | st.builds(model.LeaseRevokeResponse, revisions)
    | st.builds(model.LeaseLeasesResponse, revisions, st.lists(INT64, max_size=3).map(tuple))
    | st.builds(
        model.LeaseTimeToLiveResponse,
        revisions,
        INT64,
        INT64,
        INT64,
        st.lists(st.binary(max_size=3), max_size=2).map(tuple),
    )
)
alarms = st.builds(model.Alarm, st.integers(0, 2**64 - 1), st.sampled_from(model.ALARMS))
other_answers = (
    st.builds(model.CompactionResponse, revisions)
    | st.builds(model.HashKVResponse, revisions, st.integers(0, 2**32 - 1), INT64, revisions)
    | st.builds(model.AlarmResponse, revisions, st.lists(alarms, max_size=3).map(tuple))
)
OPS = {RangeResponse: "range", PutResponse: "put", DeleteRangeResponse: "delete_range", TxnResponse: "txn"}
SPELT = {"id": "ID", "ttl": "TTL", "granted_ttl": "grantedTTL"}


def as_message(answer: Any, header: dict[str, int]) -> Any:
    """The answer's message, put together by protobuf."""
    fields: dict[str, Any] = {SPELT.get(name, name): value for name, value in answer._asdict().items()}
    revision = fields.pop("revision")
    for name in ("kvs", "prev_kvs", "prev_kv"):
        if isinstance(fields.get(name), KeyValue):
            fields[name] = kv_message(fields[name])
        elif name in fields and fields[name] is not None:
            fields[name] = list(map(kv_message, fields[name]))
    if "responses" in fields:
        fields["responses"] = [
            {f"response_{OPS[type(inner)]}": as_message(inner, {})} for inner in fields["responses"]
        ]
    if "alarms" in fields:
        fields["alarms"] = [{"memberID": member_id, "alarm": name} for member_id, name in fields["alarms"]]
    if "leases" in fields:
        fields["leases"] = [{"ID": lease} for lease in fields["leases"]]
    message = getattr(etcdserverpb, type(answer).__name__)
    return message(header={"revision": revision, **header}, **fields)


def kv_message(kv: KeyValue) -> Any:
    return mvccpb.KeyValue(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )


IDENTITY = {"cluster_id": 2**64 - 1, "member_id": 7, "raft_term": 3}


@settings(suppress_health_check=SLOW)
@given(answer=txn_answers | lease_answers | other_answers)
def test_answers_are_encoded_as_protobuf_encodes_them(answer: Any) -> None:
    """Byte for byte, prefixes of rows left out; inside of a transaction the header has the revision alone."""
    message = as_message(answer, IDENTITY)
    assert encode(answer, HEADER) == message.SerializeToString(deterministic=True)


events = st.builds(Event, st.sampled_from(EventType), rows.map(KeyValue.from_row), st.none() | key_values)


@settings(suppress_health_check=SLOW)
@given(
    said=st.builds(
        WatchResponse,
        revisions,
        st.lists(events, max_size=3),
        st.booleans(),
        revisions,
        st.text(max_size=3),
        st.booleans(),
    ),
    watch_id=INT64,
    is_fragment=st.booleans(),
)
def test_what_a_watch_says_is_encoded_as_protobuf_encodes_it(
    said: WatchResponse, watch_id: int, is_fragment: bool
) -> None:
    """All of its fields; watch 0 and the lack of an earlier version are left out."""
    message = etcdserverpb.WatchResponse(
        header={"revision": said.revision, **IDENTITY},
        watch_id=watch_id,
        created=said.created,
        canceled=said.canceled,
        compact_revision=said.compact_revision,
        cancel_reason=said.cancel_reason,
        fragment=is_fragment,
        events=[
            mvccpb.Event(
                type=event.type,
                kv=kv_message(event.kv),
                prev_kv=None if event.prev_kv is None else kv_message(event.prev_kv),
            )
            for event in said.events
        ],
    )
    assert encode_watch(said, watch_id, HEADER, is_fragment=is_fragment) == message.SerializeToString()


changes: st.SearchStrategy[ChangedRow] = st.builds(
    lambda key, main, sub, is_put: (
        (main, sub, key, make_row(encode_key_value(key, 2, main, 1, b"v", 0), sub))
        if is_put
        else (main, sub, key, None)
    ),
    st.binary(max_size=3),
    st.integers(1, 1 << 62),
    st.integers(0, 300),
    st.booleans(),
)


@settings(suppress_health_check=SLOW)
@given(found=st.lists(changes, max_size=4), has_before=st.booleans(), data=st.data())
def test_lazy_events_are_encoded_as_those_made_of_them(
    found: list[ChangedRow], has_before: bool, data: st.DataObject
) -> None:
    """Puts with and without a prefix, deletes, with the versions before them and without: no event is made."""
    size = len(found)
    before = data.draw(st.lists(st.none() | key_values, min_size=size, max_size=size)) if has_before else None
    lazy, made = Events(found, before), list(Events(found, before))
    assert encode_events(lazy) == encode_events(made) == SharedEvents().encode(lazy)
    said = WatchResponse(7, lazy)
    assert encode_watch(said, 3, HEADER) == encode_watch(said._replace(events=made), 3, HEADER)
    assert encode_watch(said, 3, HEADER, SharedEvents().encode(lazy)) == encode_watch(said, 3, HEADER)


def test_an_event_that_is_shared_is_encoded_once() -> None:
    """Whoever is told of the same change gets the same bytes; another that is equal is another. Room is bounded."""
    shared = SharedEvents()
    change = (2, 0, b"k", encode_key_value(b"k", 2, 2, 1, b"v" * 1000, 0))
    first, second = (shared.encode(Events([change]))[0] for _ in range(2))
    assert first is second
    (other,) = shared.encode(Events([(2, 0, b"k", encode_key_value(b"k", 2, 2, 1, b"v" * 1000, 0))]))
    assert other == first and other is not first
    for number in range(2000):
        shared.encode(Events([(number, 0, b"k", b"v" * 1000)]))
        assert len(shared._fields) <= SharedEvents.ROOM_BYTES // 1000
    (again,) = shared.encode(Events([change]))
    assert again == first and again is not first


def test_what_is_no_answer_is_refused() -> None:
    """A request, say: a mistake of the caller's, not a message that nobody can read."""
    with pytest.raises(TypeError, match="not an answer"):
        encode(PutRequest(b"k"), HEADER)
