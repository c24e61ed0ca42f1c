"""etcd's messages as JSON: protobuf's own JSON, what a real gateway and a real etcdctl say, and recordings."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kvstore.tools.answers import etcdctl_style
from kvstore.tools.lab.conversation import SPELLING as RECORDED

import kvstore
from kvstore.errors import BadArgument
from kvstore.etcdpb.json import ETCDCTL, GATEWAY, GATEWAY_SINCE_3_6, from_json, to_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import mvccpb, v3electionpb
from kvstore.etcdpb.requests import to_message
from kvstore.model import Compare, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from tests.etcd.etcd_recorder import ETCD, HAS_ETCD, fresh_etcd
from tests.etcd.protobuf_messages import messages
from tests.harness.drawn_requests import SLOW

CLASSES = [
    pb.TxnRequest,
    pb.TxnResponse,
    pb.RangeRequest,
    pb.WatchRequest,
    pb.WatchResponse,
    pb.StatusResponse,
    pb.HashKVResponse,
    pb.AlarmResponse,
    pb.MemberAddResponse,
    pb.LeaseTimeToLiveResponse,
    pb.AuthRoleGetResponse,
    pb.AuthUserAddRequest,
    pb.InternalRaftRequest,
    v3electionpb.CampaignResponse,
    mvccpb.Event,
]
"""Every kind of field is in one of them."""

any_message = st.sampled_from(CLASSES).flatmap(messages)


@settings(suppress_health_check=SLOW)
@given(message=any_message)
def test_the_gateways_json_is_protobufs(message: Any) -> None:
    """As protobuf's own converter writes it with the names of the .proto files, and as it reads it."""
    written = to_json(message, GATEWAY)
    assert written == MessageToDict(message, preserving_proto_field_name=True)
    assert ParseDict(written, type(message)()) == message


@settings(suppress_health_check=SLOW)
@given(message=any_message)
def test_what_is_written_is_read_back(message: Any) -> None:
    """By the gateway, in either spelling of the names."""
    for written in (to_json(message, GATEWAY), MessageToDict(message)):
        assert from_json(type(message), json.loads(json.dumps(written)), GATEWAY) == message


@settings(suppress_health_check=SLOW)
@given(message=any_message)
def test_recordings_are_read_back(message: Any) -> None:
    """Bytes as latin-1, numbers as numbers."""
    written = json.dumps(to_json(message, RECORDED))
    assume("99" not in written)  # no enum has it, and a recording's are known
    assert from_json(type(message), json.loads(written), RECORDED) == message


@pytest.mark.parametrize(
    ("spelt", "message"),
    [
        ({"key": "YQ==", "limit": 5}, pb.RangeRequest(key=b"a", limit=5)),
        ({"key": "+/8=", "limit": " 5"}, pb.RangeRequest(key=b"\xfb\xff", limit=5)),
        ({"key": "YW\r\nJj\n"}, pb.RangeRequest(key=b"abc")),
        ({"rangeEnd": "YQ==", "limit": 5.0}, pb.RangeRequest(range_end=b"a", limit=5)),
        ({"sort_order": "DESCEND", "sortTarget": 3}, pb.RangeRequest(sort_order=2, sort_target=3)),
        ({"sort_target": 9, "limit": "-9223372036854775808"}, pb.RangeRequest(sort_target=9, limit=-(2**63))),
        ({"key": None, "nobody": {"knows": "this"}, "\ud800": 1, "\xfc": 1}, pb.RangeRequest()),
        ({}, pb.RangeRequest()),
    ],
)
def test_the_gateway_takes_more_than_it_gives(spelt: dict[str, Any], message: Any) -> None:
    """Broken lines of base64, numbers in any form, null, and fields that it does not know."""
    assert from_json(pb.RangeRequest, spelt, GATEWAY) == message


@pytest.mark.parametrize(
    ("spelt", "message"),
    [
        ({"key": "YQ", "range_end": "-_8="}, pb.RangeRequest(key=b"a", range_end=b"\xfb\xff")),
        ({"limit": "1.0", "revision": "-2e1"}, pb.RangeRequest(limit=1, revision=-20)),
        ({"sort_order": "UP", "sort_target": "\ud800", "limit": 1}, pb.RangeRequest(limit=1)),
        ({"sort_order": "1", "sort_target": 3.0}, pb.RangeRequest(sort_target=3)),
    ],
)
def test_since_3_6_the_gateway_takes_more(spelt: dict[str, Any], message: Any) -> None:
    """Either alphabet of base64, any form of a whole number; a name that an enum does not have is as absent."""
    assert from_json(pb.RangeRequest, spelt, GATEWAY_SINCE_3_6) == message


def test_since_3_6_unknown_names_are_left_out_of_lists() -> None:
    """Of the filters of a watch."""
    spelt = {"filters": ["NODELETE", "NOTHING"]}
    expected = pb.WatchCreateRequest(filters=[1])
    assert from_json(pb.WatchCreateRequest, spelt, GATEWAY_SINCE_3_6) == expected


@pytest.mark.parametrize("limit", [" 1", "1.5", "1e400", "", "0x1", "NaN", "01", "9" * 30])
def test_since_3_6_text_that_is_no_number_is_refused(limit: str) -> None:
    """Blanks around it, too."""
    with pytest.raises(BadArgument, match=r"^limit: "):
        from_json(pb.RangeRequest, {"limit": limit}, GATEWAY_SINCE_3_6)


@pytest.mark.parametrize(
    ("spelt", "reason"),
    [
        ([], r"^\[\] where an object belongs"),
        ({"key": 5}, "^key: 5 where text belongs"),
        ({"key": "?"}, "^key: '\\?' is no base64"),
        ({"key": "ü"}, "^key: 'ü' is no base64"),
        ({"key": "foo"}, "^key: 'foo' is no base64"),
        ({"key": "YQ"}, "^key: 'YQ' is no base64"),
        ({"key": "-_8="}, "^key: '-_8=' is no base64"),
        ({"limit": "five"}, "^limit: 'five' where a number belongs"),
        ({"limit": "1_0"}, "^limit: '1_0' where a number belongs"),
        ({"limit": "+1"}, "^limit: '.1' where a number belongs"),
        ({"limit": "\uff11"}, "^limit: '\uff11' where a number belongs"),
        ({"limit": 2**63}, "^limit: "),
        ({"limit": True}, "^limit: True where a number belongs"),
        ({"limit": 1.5}, "^limit: 1.5 where a number belongs"),
        ({"keys_only": 1}, "^keys_only: 1 where true or false belongs"),
        ({"sort_order": "UP"}, "^sort_order: 'UP' is no SortOrder"),
        ({"sort_order": "\ud800"}, r"^sort_order: '\\ud800' is no SortOrder"),
        ({"sort_order": 2**31}, "^sort_order: "),
        ({"sort_order": []}, r"^sort_order: \[\] is no SortOrder"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_named(spelt: Any, reason: str) -> None:
    """A typed error, with the field and what is wrong with it."""
    with pytest.raises(BadArgument, match=reason):
        from_json(pb.RangeRequest, spelt, GATEWAY)


@pytest.mark.parametrize(
    ("spelt", "reason"),
    [
        ({"success": {}}, r"^success: \{\} where a list belongs"),
        ({"success": [{}, 5]}, r"^success\[1\]: 5 where an object belongs"),
        ({"success": [{"request_put": {"lease": "x"}}]}, r"^success\[0\].request_put.lease: "),
        ({"compare": [{"version": "1", "lease": "2"}]}, r"^compare\[0\].lease: and version: only one"),
    ],
)
def test_the_field_is_named_with_the_way_to_it(spelt: Any, reason: str) -> None:
    """Also inside of lists and of other messages."""
    with pytest.raises(BadArgument, match=reason):
        from_json(pb.TxnRequest, spelt, GATEWAY)


def test_what_is_nested_too_deep_is_refused() -> None:
    """A typed error, not a full stack."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"success": [{"request_txn": deep}]}
    try:
        with pytest.raises(BadArgument, match="too many messages"):
            from_json(pb.TxnRequest, deep, GATEWAY)
    finally:
        while deep:  # what is so deep is not freed in one go
            deep = deep["success"][0].pop("request_txn")


# --- against a real etcd -------------------------------------------------------------------------

KEY = b"\xff\0k"
REQUESTS: list[tuple[str, Any, str]] = [
    ("kv/put", PutRequest(KEY, b"\xfe1", prev_kv=True), "PutResponse"),
    ("kv/put", PutRequest(KEY, b"\xfe2", prev_kv=True), "PutResponse"),
    ("kv/range", RangeRequest(b"\0", b"\0", sort_order=2, sort_target=3, limit=-(2**63)), "RangeResponse"),
    ("kv/range", RangeRequest(b"none"), "RangeResponse"),
    (
        "kv/txn",
        TxnRequest(
            (Compare(KEY, CompareTarget.VALUE, 1, b"\xfe1"), Compare(KEY, CompareTarget.LEASE, 0, 0)),
            (RangeRequest(KEY), TxnRequest((), (PutRequest(b"t"), DeleteRangeRequest(b"u", prev_kv=True)))),
        ),
        "TxnResponse",
    ),
    ("kv/deleterange", DeleteRangeRequest(KEY, prev_kv=True), "DeleteRangeResponse"),
    ("lease/leases", pb.LeaseLeasesRequest(), "LeaseLeasesResponse"),
    ("cluster/member/list", pb.MemberListRequest(), "MemberListResponse"),
    ("maintenance/status", pb.StatusRequest(), "StatusResponse"),
    ("maintenance/alarm", pb.AlarmRequest(action="ACTIVATE", alarm="NOSPACE"), "AlarmResponse"),
    ("maintenance/alarm", pb.AlarmRequest(action="DEACTIVATE", alarm="NOSPACE"), "AlarmResponse"),
    ("auth/role/add", pb.AuthRoleAddRequest(name="r"), "AuthRoleAddResponse"),
    (
        "auth/role/grant",
        pb.AuthRoleGrantPermissionRequest(name="r", perm={"permType": "READWRITE", "key": KEY}),
        "AuthRoleGrantPermissionResponse",
    ),
    ("auth/role/get", pb.AuthRoleGetRequest(role="r"), "AuthRoleGetResponse"),
]


@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
def test_a_gateway_understands_and_is_understood(scratch: Path) -> None:
    """What we write a real gateway reads, and what it answers we would write."""
    with fresh_etcd(scratch) as address:
        for path, request, answer in REQUESTS:
            message = request if hasattr(request, "DESCRIPTOR") else to_message(request)
            body = json.dumps(to_json(message, GATEWAY)).encode()
            with urllib.request.urlopen(f"{address}/v3/{path}", body) as got:
                said = json.load(got)
            read = from_json(getattr(pb, answer), said, GATEWAY)
            assert read.ListFields()
            assert to_json(read, GATEWAY) == said


COMMANDS = [
    ("put", "k", "1"),
    ("put", "k", "2", "--prev-kv"),
    ("put", "other", ""),
    ("get", "k"),
    ("get", "", "--prefix", "--limit=1"),
    ("get", "none"),
    ("txn",),
    ("del", "k", "--prev-kv"),
]
CONDITION = 'mod("k") > "0"\n\nput k 3\nget other\n\n\n\n'


@pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")
def test_etcdctl_spells_the_same(scratch: Path) -> None:
    """``etcdctl -w json`` and our commands' style, answer by answer; ids and term are each server's own."""
    etcdctl = Path(shutil.which(ETCD) or "").with_name("etcdctl")
    put = PutRequest(b"k", b"3")
    with fresh_etcd(scratch) as address, kvstore.open(scratch / "store", "memory") as store:
        style = etcdctl_style(store.engine.cluster_id, store.engine.member_id)
        engine = store.engine
        ours = [
            engine.put(PutRequest(b"k", b"1")),
            engine.put(PutRequest(b"k", b"2", prev_kv=True)),
            engine.put(PutRequest(b"other")),
            engine.range(RangeRequest(b"k")),
            engine.range(RangeRequest(b"\0", b"\0", limit=1)),
            engine.range(RangeRequest(b"none")),
            engine.txn(TxnRequest((Compare(b"k", CompareTarget.MOD, 1, 0),), (put, RangeRequest(b"other")))),
            engine.delete_range(DeleteRangeRequest(b"k", prev_kv=True)),
        ]
        for command, answer in zip(COMMANDS, ours, strict=True):
            done = subprocess.run(
                [etcdctl, "--endpoints", address, *command, "-w", "json"],
                input=CONDITION if command == ("txn",) else "",
                capture_output=True,
                check=True,
                text=True,
                env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            )
            theirs = json.loads(done.stdout.splitlines()[-1])
            spelt = style.answer(answer)
            for said in (theirs, spelt):
                assert said["header"].pop("cluster_id")
                assert said["header"].pop("member_id")
            theirs["header"].pop("raft_term")
            assert spelt == theirs


def test_an_answer_inside_of_a_transaction_is_wrapped_for_go() -> None:
    """Go spells a oneof with the names of its types."""
    answer = pb.TxnResponse(succeeded=True, responses=[{"response_put": {"header": {"revision": 5}}}])
    assert to_json(answer, ETCDCTL) == {
        "succeeded": True,
        "responses": [{"Response": {"ResponsePut": {"header": {"revision": 5}}}}],
    }
