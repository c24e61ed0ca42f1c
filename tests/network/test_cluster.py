"""Cluster: members as a picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd.bbolt_write import write_bbolt

import kvstore
from kvstore.backend import Row
from kvstore.errors import Code, Corruption
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.foreign import ImportOptions, find_foreign
from kvstore.network.members import Member, Members, decode_member, encode_member
from kvstore.network.services import cluster
from tests.network.fake_call import Client, Refused

CLUSTER = "/etcdserverpb.Cluster/"
OWN = Member(7, ("http://localhost:2380",), "default", ("http://localhost:2379",))


def members(client: Client) -> Members:
    return cluster.members_of(client.endpoint, client.endpoint.engine.carried)


def refusal(client: Client, method: str, request: Any) -> tuple[Code, str]:
    with pytest.raises(Refused) as raised:
        client.ask(CLUSTER + method, request)
    return raised.value.code, raised.value.text.removeprefix("etcdserver: ")


def add(client: Client, *urls: str, is_learner: bool = True) -> Any:
    return client.ask(CLUSTER + "MemberAdd", pb.MemberAddRequest(peerURLs=urls, isLearner=is_learner))


def test_the_only_member_is_this_one(store: kvstore.Store, client: Client) -> None:
    """It is listed with its name and addresses, and the header has no revision."""
    answer = client.ask(CLUSTER + "MemberList", pb.MemberListRequest())
    (member,) = answer.members
    assert (member.ID, member.name) == (store.engine.member_id, "default")
    assert (list(member.peerURLs), list(member.clientURLs)) == (
        ["http://localhost:2380"],
        ["http://127.0.0.1:2379"],
    )
    assert (answer.header.cluster_id, answer.header.member_id) == (store.engine.cluster_id, member.ID)
    assert (answer.header.revision, answer.header.raft_term) == (0, 2)


def test_a_learner_is_added_moved_and_removed(client: Client) -> None:
    """Each answer lists everybody, by id; the one that adds says which is new."""
    added = add(client, "http://b:2", "http://a:1")
    learner = added.member
    assert (list(learner.peerURLs), learner.isLearner, learner.name) == (
        ["http://a:1", "http://b:2"],
        True,
        "",
    )
    assert [member.ID for member in added.members] == sorted([members(client).own.id, learner.ID])

    update = pb.MemberUpdateRequest(ID=learner.ID, peerURLs=["http://c:3"])
    moved = {member.ID: member for member in client.ask(CLUSTER + "MemberUpdate", update).members}
    assert (list(moved[learner.ID].peerURLs), moved[learner.ID].isLearner) == (["http://c:3"], True)

    left = client.ask(CLUSTER + "MemberRemove", pb.MemberRemoveRequest(ID=learner.ID))
    assert [member.ID for member in left.members] == [members(client).own.id]


def test_this_member_can_be_given_other_peer_urls(client: Client) -> None:
    """Its name and its clients' addresses stay."""
    own = members(client).own
    answer = client.ask(
        CLUSTER + "MemberUpdate", pb.MemberUpdateRequest(ID=own.id, peerURLs=["http://other:2380"])
    )
    (member,) = answer.members
    assert (member.name, list(member.peerURLs)) == (own.name, ["http://other:2380"])


def test_a_second_voter_is_refused(client: Client) -> None:
    """A real etcd takes it, and answers nobody from then on."""
    request = pb.MemberAddRequest(peerURLs=["http://a:1"])
    assert refusal(client, "MemberAdd", request) == (
        Code.UNKNOWN,
        "re-configuration failed due to not enough started members",
    )
    assert len(members(client).all()) == 1


def test_what_etcd_refuses_is_refused(client: Client) -> None:
    """With its codes and texts."""
    own, learner = members(client).own, add(client, "http://a:1").member
    unknown = (Code.NOT_FOUND, "member not found")
    taken = (Code.FAILED_PRECONDITION, "Peer URLs already exists")
    for request, expected in [
        (pb.MemberAddRequest(peerURLs=["http://a:1"], isLearner=True), taken),
        (pb.MemberAddRequest(peerURLs=own.peer_urls, isLearner=True), taken),
        (
            pb.MemberAddRequest(peerURLs=["http://b:1"], isLearner=True),
            (Code.FAILED_PRECONDITION, "too many learner members in cluster"),
        ),
        (
            pb.MemberRemoveRequest(ID=own.id),
            (Code.UNKNOWN, "re-configuration failed due to not enough started members"),
        ),
        (pb.MemberRemoveRequest(ID=99), unknown),
        (pb.MemberUpdateRequest(ID=99, peerURLs=["http://c:1"]), unknown),
        (pb.MemberUpdateRequest(ID=99), unknown),  # before its addresses are looked at
        (pb.MemberUpdateRequest(ID=learner.ID, peerURLs=own.peer_urls), taken),
        (pb.MemberPromoteRequest(ID=99), unknown),
        (
            pb.MemberPromoteRequest(ID=own.id),
            (Code.FAILED_PRECONDITION, "can only promote a learner member"),
        ),
        (
            pb.MemberPromoteRequest(ID=learner.ID),
            (
                Code.FAILED_PRECONDITION,
                "can only promote a learner member which is in sync with leader",
            ),
        ),
    ]:
        method = request.DESCRIPTOR.name.removesuffix("Request")
        assert refusal(client, method, request) == expected


@pytest.mark.parametrize(
    "urls", [[], ["garbage"], ["ftp://a:1"], ["http://a"], ["http://a:1/path"], ["http://a:1", ""]]
)
def test_addresses_that_are_none_are_refused(client: Client, urls: list[str]) -> None:
    """When a member is added, and when it moves."""
    own = members(client).own
    expected = (Code.INVALID_ARGUMENT, "given member URLs are invalid")
    assert refusal(client, "MemberAdd", pb.MemberAddRequest(peerURLs=urls, isLearner=True)) == expected
    assert refusal(client, "MemberUpdate", pb.MemberUpdateRequest(ID=own.id, peerURLs=urls)) == expected


@pytest.mark.parametrize("url", ["http://[::1]:2380", "unix://localhost:0", "https://a:", " http://a:1 "])
def test_addresses_of_every_kind_are_taken(client: Client, url: str) -> None:
    """With or without a port's number, as etcd reads them."""
    assert list(add(client, url).member.peerURLs) == [url.strip()]


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_members_outlive_the_server(store: kvstore.Store, tmp_path: Path, has_checkpoint: bool) -> None:
    """They are rows of the store: there after a crash, in the backend or still in the log alone."""
    with Client(store.engine) as client:
        learner = add(client, "http://a:1").member
        gone = client.ask(CLUSTER + "MemberRemove", pb.MemberRemoveRequest(ID=learner.ID))
        assert len(gone.members) == 1
        learner = add(client, "http://b:1").member
        own = members(client).own
        moved = pb.MemberUpdateRequest(ID=own.id, peerURLs=["http://moved:1"])
        client.ask(CLUSTER + "MemberUpdate", moved)
    if has_checkpoint:
        store.checkpoint()
    shutil.copytree(tmp_path / "store", tmp_path / "crashed")
    backend = store.engine.backend.name
    with kvstore.open(tmp_path / "crashed", backend=backend) as crashed, Client(crashed.engine) as client:
        expected = {own.id: ["http://moved:1"], learner.ID: ["http://b:1"]}
        listed = client.ask(CLUSTER + "MemberList", pb.MemberListRequest()).members
        assert {member.ID: list(member.peerURLs) for member in listed} == expected


def test_two_that_add_at_once_do_not_both_pass(client: Client) -> None:
    """Whoever comes second is judged by what the first has done."""
    calls = [
        client.begin(CLUSTER + "MemberAdd", pb.MemberAddRequest(peerURLs=[url], isLearner=True))
        for url in ("http://a:1", "http://b:1")
    ]
    client.until(lambda: not any(call.alive for call in calls))
    refused = [call for call in calls if call.error is not None]
    assert [str(call.error) for call in refused] == ["etcdserver: too many learner members in cluster"]


# --- rows ----------------------------------------------------------------------------------------


def row(**said: Any) -> Row:
    return b"etcd/members/%x" % said["id"], json.dumps(said).encode()


def test_a_picture_is_what_its_rows_say() -> None:
    """Written and read again it is the same."""
    members, _ = Members(OWN).added(["http://a:1"], is_learner=True, now_seconds=5)
    assert Members.loaded(OWN, members.rows().items()) == members
    assert [decode_member(*encode_member(member)) for member in members.all()] == members.all()


def test_members_of_the_former_cluster_are_not_listed() -> None:
    """Clients go where they are sent: to this member, not to those that the store was taken from."""
    rows = [
        row(id=7, name="other", peerURLs=["http://localhost:2390"], clientURLs=["http://old:1"]),
        row(id=8, name="two", peerURLs=["http://two:2380"], clientURLs=["http://two:2379"]),
        row(id=9, name="three", peerURLs=["http://three:2380"], isLearner=True),
        row(id=10, peerURLs=["http://four:2380"], isLearner=True),
    ]
    own, learner = Members.loaded(OWN, rows).all()
    assert own == Member(7, ("http://localhost:2390",), OWN.name, OWN.client_urls)
    assert learner == Member(10, ("http://four:2380",), is_learner=True)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"id":"x"}', b'{"id":1,"peerURLs":5}'])
def test_a_row_that_holds_no_member_is_damage(value: bytes) -> None:
    """It is named."""
    with pytest.raises(Corruption, match="etcd/members/1"):
        decode_member(b"etcd/members/1", value)


def test_the_rows_of_an_import_are_read(tmp_path: Path) -> None:
    """The file of an etcd with a learner: this member is its first, and the learner is listed."""
    members = [
        row(id=7, name="m", peerURLs=["http://m:2380"], clientURLs=["http://m:2379"]),
        row(id=9, peerURLs=["http://l:2380"], isLearner=True),
    ]
    rows = sorted((key.removeprefix(b"etcd/members/"), value) for key, value in members)
    buckets = [(b"key", []), (b"members", rows), (b"meta", [(b"consistent_index", (5).to_bytes(8, "big"))])]
    write_bbolt(tmp_path / "db", buckets)
    find_foreign("etcd").import_store(tmp_path / "db", tmp_path / "store", ImportOptions())
    with kvstore.open(tmp_path / "store") as store, Client(store.engine) as client:
        listed = client.ask(CLUSTER + "MemberList", pb.MemberListRequest()).members
        assert [(member.ID, list(member.peerURLs)) for member in listed] == [
            (7, ["http://m:2380"]),
            (9, ["http://l:2380"]),
        ]


def test_a_members_id_is_drawn_as_etcd_draws_it() -> None:
    """From its addresses and the second it joined in: what an etcd 3.4 answered then."""
    urls = ["http://127.0.0.1:9999", "http://127.0.0.1:9998"]
    _, member = Members(OWN).added(urls, is_learner=True, now_seconds=1_795_763_855)
    assert member.id == 6549032062856302949
