"""Who is a member, by the configuration changes of etcd's log: those that its server carried out."""

import json
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import messages, rows
from kvstore.migrations.etcd.data_dir import EtcdDataDir
from kvstore.migrations.etcd.membership import Membership, MemberTable, v2_members
from kvstore.migrations.etcd.wal_frame import ENTRY
from kvstore.migrations.etcd.wal_read import segment_name

from tests.etcd.etcd_log import LogWriter

ADD, REMOVE, UPDATE, LEARN = range(4)


def change(kind: int, node_id: int, *urls: str, **said: Any) -> Any:
    if kind == REMOVE:
        return messages.ConfChange(type=kind, node_id=node_id)
    context = {"id": node_id, "peerURLs": list(urls), **said}
    return messages.ConfChange(type=kind, node_id=node_id, context=json.dumps(context).encode())


@pytest.fixture
def table() -> MemberTable:
    return MemberTable()


@pytest.fixture
def members(table: MemberTable) -> Membership:
    """1 alone, at the address ``a``."""
    found = Membership(table)
    assert found.change(change(ADD, 1, "a", name="one"))
    return found


def ids(table: MemberTable) -> dict[int, tuple[str, ...]]:
    found = map(rows.decode_member, table.all(rows.MEMBERS).values())
    return {member.id: member.peer_urls for member in found}


REFUSED = {
    "an address that is taken": change(ADD, 2, "b", "a"),
    "an id that is taken": change(ADD, 1, "b"),
    "an update of nobody": change(UPDATE, 2, "b"),
    "a removal of nobody": change(REMOVE, 2),
    "a promotion of nobody": change(ADD, 2, isPromote=True),
    "a promotion of a voter": change(ADD, 1, isPromote=True),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_server_refuses_changes_nothing(members: Membership, table: MemberTable, what: str) -> None:
    """Such a change is in the log all the same: it is refused only when it is applied."""
    assert not members.change(REFUSED[what])
    assert ids(table) == {1: ("a",)}


def test_a_removed_member_never_comes_back(members: Membership, table: MemberTable) -> None:
    """Its id is remembered; its address is free again."""
    assert members.change(change(ADD, 2, "b"))
    assert members.change(change(REMOVE, 2))
    assert not members.change(change(ADD, 2, "c"))
    assert members.change(change(ADD, 3, "b"))
    assert ids(table) == {1: ("a",), 3: ("b",)}
    assert table.all(rows.MEMBERS_REMOVED) == {b"2": b"removed"}


def test_one_member_learns_at_a_time_and_is_promoted(members: Membership, table: MemberTable) -> None:
    """A second learner is refused, unless the database has it: that server was allowed more."""
    assert members.change(change(LEARN, 2, "b", isLearner=True))
    assert not members.change(change(LEARN, 3, "c", isLearner=True))
    assert Membership(table, {b"4"}).change(change(LEARN, 4, "d", isLearner=True))
    assert members.change(change(ADD, 2, isPromote=True))
    assert rows.decode_member(table.all(rows.MEMBERS)[b"2"]) == rows.Member(2, peer_urls=("b",))
    assert rows.decode_member(table.all(rows.MEMBERS)[b"4"]).is_learner


def test_attributes_are_those_of_a_member(members: Membership, table: MemberTable) -> None:
    """They replace the old ones whole; of somebody who is no member they are passed over. An update keeps them."""
    members.set_attributes(b"1", "new name", ["http://c"])
    members.set_attributes(b"2", "nobody", [])
    assert members.change(change(UPDATE, 1, "moved"))
    assert table.all(rows.MEMBERS) == {
        b"1": b'{"id":1,"peerURLs":["moved"],"name":"new name","clientURLs":["http://c"]}'
    }


@pytest.mark.parametrize(
    "context", [b"{}x", b"[]", b'{"id":1e999,"peerURLs":5}', b"\xff", b'{"peerURLs":[1],"clientURLs":3}']
)
def test_a_context_that_is_no_member_is_told(members: Membership, table: MemberTable, context: bytes) -> None:
    """A server stops at it; here it is a typed error, and nothing is changed."""
    with pytest.raises((rows.RowError, TypeError)):
        members.change(messages.ConfChange(type=ADD, node_id=9, context=context))
    assert ids(table) == {1: ("a",)}


def test_the_v2_store_of_a_raft_snapshot_has_members_and_removed_ones() -> None:
    """Removed ones are remembered there too; what is no v2 store says nothing of anybody."""
    one = {"raftAttributes": {"Value": '{"peerURLs":["a"]}'}, "attributes": {"Value": '{"name":"one"}'}}
    children = {
        "members": {"Children": {"1f": {"Children": one}}},
        "removed_members": {"Children": {"2": {}}},
    }
    store = {"Root": {"Children": {"0": {"Children": children}}}}
    assert v2_members(json.dumps(store).encode()) == {
        rows.MEMBERS: {b"1f": b'{"id":31,"peerURLs":["a"],"name":"one"}'},
        rows.MEMBERS_REMOVED: {b"2": b"removed"},
    }
    assert v2_members(b"{}") is None
    assert v2_members(b"\xff") is None


def test_a_refused_voter_has_no_vote(tmp_path: Path) -> None:
    """A member that was never accepted does not make a cluster of two: what the log ends with is committed."""
    log = LogWriter(messages.Metadata(NodeID=1, ClusterID=9).SerializeToString())
    log.snapshot(0, 0)
    for index, each in enumerate((change(ADD, 1, "a"), change(ADD, 2, "a")), 1):
        entry = messages.Entry(Type=1, Term=1, Index=index, Data=each.SerializeToString())
        log.record(ENTRY, entry.SerializeToString())
    log.state(1)
    log.entry(3)
    wal = tmp_path / "member" / "wal"
    wal.mkdir(parents=True)
    (wal / segment_name(0, 0)).write_bytes(log.out)
    with EtcdDataDir(tmp_path) as found:
        assert (found.is_alone, found.commit_index) == (True, 3)
