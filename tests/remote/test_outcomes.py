"""What a client makes of calls that are not answered with OK: what is repeated, and what is said."""

import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.http2.frames import CANCEL, INTERNAL_ERROR, REFUSED_STREAM
from kvstore.network.remote.engine import RemoteEngine
from tests.remote.scripted import (
    Action,
    ScriptedServer,
    cut,
    gone,
    header,
    ok,
    raw,
    reset,
    silent,
    status,
)

UNAVAILABLE, INTERNAL, INVALID, EXHAUSTED = 14, 13, 3, 8
PUT = pb.PutResponse(header=header(11))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that does what a test says."""
    with ScriptedServer() as opened:
        yield opened


def connect(*servers: ScriptedServer, **options: Any) -> kvstore.Store:
    return kvstore.connect("etcd://" + ",".join(each.address for each in servers), **options)


def left(store: kvstore.Store) -> kvstore.Store:
    """The store, once its client has noticed that the server is gone: until then a write may have reached it."""
    engine = store._engine
    assert isinstance(engine, RemoteEngine)
    deadline = time.monotonic() + 20
    while engine._client.connection is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    return store


NOT_DONE = {
    "a stream that the server refused": reset(REFUSED_STREAM),
    "a GOAWAY that says it was not looked at": gone,
    "no leader": status(UNAVAILABLE, "etcdserver: no leader"),
    "not capable": status(UNAVAILABLE, "etcdserver: not capable"),
    "too many requests": status(EXHAUSTED, "etcdserver: too many requests"),
}
UNKNOWN = {
    "a connection lost after sending": cut,
    "a reset": reset(INTERNAL_ERROR),
    "leader changed": status(UNAVAILABLE, "etcdserver: leader changed"),
    "request timed out": status(UNAVAILABLE, "etcdserver: request timed out"),
    "a timeout for a leader's failure": status(
        UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"
    ),
    "server stopped": status(UNAVAILABLE, "etcdserver: server stopped"),
    "an internal error": status(INTERNAL, "transport: broken"),
    "a text that nobody knows": status(UNAVAILABLE, "something else"),
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_write_to_a_server_that_was_gone_already_is_repeated(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """Nothing of it went out, and so it was not made; whichever loop the client has."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    else:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    with connect(server) as store:
        assert isinstance(store._engine, RemoteEngine)
        thread = store._engine._client._thread
        take = thread._take

        def take_late(put_down: deque[Any]) -> None:
            thread._take = take
            server.reset_connections()  # in the same turn, so that the loop cannot have seen it
            take(put_down)

        thread._take = take_late
        assert store.put(b"k", b"v")
    assert server.count("Put") == 1


@pytest.mark.parametrize("refusal", NOT_DONE.values(), ids=list(NOT_DONE))
def test_a_write_that_was_certainly_not_made_is_repeated(server: ScriptedServer, refusal: Action) -> None:
    """The server has not begun it: it goes out again, and once more if need be."""
    server.script("Put", refusal, refusal, ok(PUT))
    with connect(server) as store:
        assert store.put(b"k", b"v").revision == 11
    assert server.count("Put") == 3


@pytest.mark.parametrize("end", UNKNOWN.values(), ids=list(UNKNOWN))
def test_a_write_that_may_have_been_made_is_not_repeated(server: ScriptedServer, end: Action) -> None:
    """Its caller is told that nobody knows, and what it was; the server has seen it once."""
    server.script("Put", end)
    with connect(server) as store:
        with pytest.raises(kvstore.OutcomeUnknown, match=r"Put of b'k' may have been made or not") as caught:
            store.put(b"k", b"secret")
        assert server.count("Put") == 1
        assert "secret" not in str(caught.value)
        assert not caught.value.retryable
        assert store.put(b"k", b"v")  # the store goes on


@pytest.mark.parametrize("end", [*UNKNOWN.values(), *NOT_DONE.values()], ids=[*UNKNOWN, *NOT_DONE])
def test_a_read_is_repeated_until_it_is_answered(server: ScriptedServer, end: Action) -> None:
    """A read does no harm, whatever became of the first attempt."""
    server.script("Range", ok(pb.RangeResponse(header=header())), end, end)
    with connect(server) as store:
        assert store.get(b"k") is None
    assert server.count("Range") == 4


def test_a_transaction_that_only_reads_is_repeated(server: ScriptedServer) -> None:
    """Whether a transaction may be repeated is told by its operations."""
    server.script("Txn", cut, ok(pb.TxnResponse(header=header(), succeeded=True)), cut)
    with connect(server) as store:
        assert store.txn(success=[kvstore.ops.get(b"k")]).succeeded
        with pytest.raises(kvstore.OutcomeUnknown, match="Txn"):
            store.txn(success=[kvstore.ops.put(b"k")])
        with pytest.raises(kvstore.OutcomeUnknown, match="DeleteRange of b'k'"):
            server.script("DeleteRange", cut)
            store.delete(b"k")
    assert server.count("Txn") == 3


def test_a_refusal_is_its_own_error(server: ScriptedServer) -> None:
    """etcd's texts are our classes; others keep code and text."""
    with connect(server) as store:
        for code, text, kind in (
            (INVALID, "etcdserver: duplicate key given in txn request", kvstore.DuplicateKey),
            (5, "etcdserver: requested lease not found", kvstore.LeaseNotFound),
            (EXHAUSTED, "etcdserver: mvcc: database space exceeded", kvstore.QuotaExceeded),
            (11, "etcdserver: mvcc: required revision has been compacted", kvstore.Compacted),
            (7, "etcdserver: permission denied", kvstore.PermissionDenied),
            (15, "etcdserver: corrupt cluster", kvstore.CorruptCluster),
            (16, "etcdserver: invalid auth token", kvstore.Unauthenticated),
            (EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", kvstore.RequestTooLarge),
            (12, "unknown method", kvstore.Unsupported),
            (9, "etcdserver: something new", kvstore.RequestError),
        ):
            server.script("Put", status(code, text))
            with pytest.raises(kind) as caught:
                store.put(b"k", b"v")
            assert caught.value.code == (INVALID if kind is kvstore.RequestTooLarge else code)
    assert server.count("Put") == 10


def test_a_text_in_utf8_arrives(server: ScriptedServer) -> None:
    """grpc-message is percent-encoded."""
    server.script("Put", status(9, "zu spät: 100 %"))
    with connect(server) as store, pytest.raises(kvstore.RequestError, match="zu spät: 100 %"):
        store.put(b"k", b"v")


# --- time ---------------------------------------------------------------------------------------


def test_a_deadline_ends_a_call_and_tells_the_server(server: ScriptedServer) -> None:
    """A write: nobody knows; a read: no answer in time. Either is reset, so the server need not go on."""
    with connect(server, timeout_seconds=1) as store:  # the second call has to connect anew in it
        server.script("Put", silent)
        with pytest.raises(kvstore.OutcomeUnknown, match=r"no answer in 1 seconds"):
            store.put(b"k", b"v")
        server.script("Range", silent)
        with pytest.raises(kvstore.DeadlineExceeded, match="Range of b'k'") as caught:
            store.range(b"k")
        assert caught.value.retryable
        assert store.get(b"k") is None
    assert server.resets[:2] == [CANCEL, CANCEL] or len(server.peers) == 3


def test_a_server_that_never_has_a_leader_is_unavailable(server: ScriptedServer) -> None:
    """Repeated until the time is up; then the last reason is the error, and the write was not made."""
    server.always("Put", status(UNAVAILABLE, "etcdserver: no leader"))
    with connect(server, timeout_seconds=0.4) as store:
        for _ in range(10):
            before = server.count("Put")
            try:
                store.put(b"k", b"v")
            except kvstore.OutcomeUnknown:
                continue  # the last attempt was under way when the time was up: try again
            except kvstore.Unavailable as error:
                assert "no leader" in str(error)
                assert 3 < server.count("Put") - before < 20
                return
        pytest.fail("never refused")


def test_nobody_there() -> None:
    """Connecting says where, and why not."""
    with ScriptedServer() as server:
        url = server.url
    with pytest.raises(kvstore.Unavailable, match=rf"{url}: .*refused") as caught:
        kvstore.connect(url, timeout_seconds=0.2)
    assert caught.value.retryable


def test_a_write_while_nobody_is_there_was_not_made() -> None:
    """No connection, no write: it may be repeated."""
    with ScriptedServer() as server:
        store = connect(server, timeout_seconds=0.3)
    with left(store), pytest.raises(kvstore.Unavailable):
        store.put(b"k", b"v")


# --- servers ------------------------------------------------------------------------------------


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are tried in the order of the URL."""
    monkeypatch.setattr(random, "shuffle", lambda _: None)


@pytest.mark.usefixtures("in_order")
def test_the_next_server_is_asked_if_one_is_gone(server: ScriptedServer) -> None:
    """A refused connection costs a moment."""
    with ScriptedServer() as other:
        store = connect(other, server)
        assert server.count("Range") == 0
    with left(store):
        assert store.put(b"k", b"v")
        assert server.count("Put") == 1


@pytest.mark.usefixtures("in_order")
def test_a_stopped_process_is_passed_over(server: ScriptedServer) -> None:
    """Its connections are accepted for it, but it does not speak."""
    with ScriptedServer() as other:
        other.is_mute = True
        with connect(other, server, dial_timeout_seconds=0.1) as store:
            assert store.put(b"k", b"v")
        assert len(other.peers) == 1
        assert server.count("Put") == 1


@pytest.mark.usefixtures("in_order")
def test_a_member_in_trouble_is_left_for_another(server: ScriptedServer) -> None:
    """One that says it has no leader is not asked again while there are others."""
    with ScriptedServer() as other:
        other.always("Put", status(UNAVAILABLE, "etcdserver: no leader"))
        with connect(other, server) as store:
            assert store.put(b"k", b"v")
            assert store.put(b"k", b"v")
        assert (other.count("Put"), server.count("Put")) == (1, 2)


@pytest.mark.usefixtures("in_order")
def test_a_silent_member_is_left_after_a_deadline(server: ScriptedServer) -> None:
    """Nothing was heard for as long as a call may take: the next call goes elsewhere."""
    with ScriptedServer() as other:
        with connect(other, server, timeout_seconds=0.2) as store:
            other.script("Put", silent)
            with pytest.raises(kvstore.OutcomeUnknown):
                store.put(b"k", b"v")
            assert store.put(b"k", b"v")
        assert (other.count("Put"), server.count("Put")) == (1, 1)


@pytest.mark.usefixtures("in_order")
def test_another_cluster_is_noticed_before_anything_is_written_to_it(server: ScriptedServer) -> None:
    """A server says whose it is before it is used."""
    server.always("Status", ok(pb.StatusResponse(header=header(cluster_id=78))))
    with ScriptedServer() as other:
        store = connect(other, server, timeout_seconds=0.5)
    with left(store), pytest.raises(kvstore.WrongStore, match="cluster 000000000000004e"):
        store.put(b"k", b"v")
    assert server.count("Put") == 0


def test_an_answer_of_another_cluster_is_none(server: ScriptedServer) -> None:
    """Each answer says whose it is."""
    with connect(server, timeout_seconds=0.3) as store:
        server.script("Range", ok(pb.RangeResponse(header=header(cluster_id=78))))
        with pytest.raises(kvstore.WrongStore):
            store.get(b"k")


def test_a_revision_that_goes_back_is_asked_for_again_and_then_an_error(server: ScriptedServer) -> None:
    """A member that was left behind may be followed by a better one; a store that was put back has no better one."""
    old, new = (ok(pb.RangeResponse(header=header(revision))) for revision in (9, 20))
    with connect(server, timeout_seconds=1.0) as store:
        server.script("Range", new, old, new)
        assert store.get(b"k") is None
        assert store.get(b"k") is None
        server.script("Range", old, old)
        with pytest.raises(kvstore.Corruption, match="revision 9 after one had answered at 20"):
            store.get(b"k")


# --- leases, compactions ------------------------------------------------------------------------


def test_a_grant_is_repeated_with_its_id(server: ScriptedServer) -> None:
    """If the lease exists by then, the first attempt has granted it."""
    server.script("LeaseGrant", cut, status(9, "etcdserver: lease already exists"))
    server.always("LeaseTimeToLive", ok(pb.LeaseTimeToLiveResponse(header=header(), TTL=9, grantedTTL=10)))
    with connect(server) as store:
        granted = store.grant_lease(10)
    first, second = (
        pb.LeaseGrantRequest.FromString(data) for name, data in server.asked if name == "LeaseGrant"
    )
    assert first == second
    assert (granted.id, granted.ttl) == (first.ID, 10)


def test_a_lease_of_the_callers_id_may_be_there_already(server: ScriptedServer) -> None:
    """Without an attempt that nobody knows of, it is somebody else's."""
    server.script("LeaseGrant", status(9, "etcdserver: lease already exists"))
    with connect(server) as store, pytest.raises(kvstore.LeaseExists):
        store.grant_lease(10, 5)


def test_a_revocation_is_repeated(server: ScriptedServer) -> None:
    """A lease that is gone by then was revoked by the first attempt; otherwise there was none."""
    not_found = status(5, "etcdserver: requested lease not found")
    with connect(server) as store:
        server.script("LeaseRevoke", cut, not_found)
        assert store.revoke_lease(5).revision == 10
        server.script("LeaseRevoke", not_found)
        with pytest.raises(kvstore.LeaseNotFound):
            store.revoke_lease(5)


def test_a_compaction_is_repeated(server: ScriptedServer) -> None:
    """If it is made by then, that is as well."""
    compacted = status(11, "etcdserver: mvcc: required revision has been compacted")
    with connect(server) as store:
        server.script("Compact", cut, compacted)
        assert store.compact(5).revision == 10
        server.script("Compact", compacted)
        with pytest.raises(kvstore.Compacted):
            store.compact(5)


def test_a_put_with_a_ttl_that_is_refused_leaves_no_lease(server: ScriptedServer) -> None:
    """The lease was granted for it alone. If nobody knows about the put, the lease stays with the key."""
    server.always("LeaseGrant", ok(pb.LeaseGrantResponse(header=header(), ID=6, TTL=9)))
    with connect(server) as store:
        server.script("Put", status(EXHAUSTED, "etcdserver: mvcc: database space exceeded"), cut)
        with pytest.raises(kvstore.QuotaExceeded):
            store.put(b"k", b"v", ttl=9)
        assert [
            pb.LeaseRevokeRequest.FromString(data).ID for name, data in server.asked if "Revoke" in name
        ] == [6]
        with pytest.raises(kvstore.OutcomeUnknown):
            store.put(b"k", b"v", ttl=9)
        assert server.count("LeaseRevoke") == 1


# --- answers that are none ------------------------------------------------------------------------


def test_answers_that_are_no_messages(server: ScriptedServer) -> None:
    """Damage, compression that nobody asked for, no message at all, a page of some proxy: each is said."""
    with connect(server, timeout_seconds=0.2, max_message_bytes=1000) as store:
        server.script("Put", raw(b"\0\0\0\0\1\xff"))
        with pytest.raises(kvstore.Corruption, match="the answer to Put of b'k' is no message"):
            store.put(b"k", b"v")
        server.script("Put", raw(b"\1\0\0\0\1\xff"))
        with pytest.raises(kvstore.OutcomeUnknown, match="compressed"):
            store.put(b"k", b"v")
        server.script("Put", raw(b""))
        with pytest.raises(kvstore.OutcomeUnknown, match="no message in the answer"):
            store.put(b"k", b"v")
        server.script("Put", raw(b"\0\0\0\0\5a"))
        with pytest.raises(kvstore.OutcomeUnknown, match="ends within a message"):
            store.put(b"k", b"v")
        server.script("Range", raw(b"\0\0\0\x20\0" + b"a" * 100))
        with pytest.raises(
            kvstore.RequestError, match="the answer has 8192 bytes; max_message_bytes allows 1000"
        ):
            store.get(b"k")
        assert store.get(b"k") is None


# --- users ----------------------------------------------------------------------------------------


def test_a_token_is_got_anew_once(server: ScriptedServer) -> None:
    """A token may be forgotten by the server at any time. A second refusal in a row is an error."""
    forgotten = status(16, "etcdserver: invalid auth token")
    tokens = [ok(pb.AuthenticateResponse(header=header(), token=f"t{number}")) for number in range(3)]
    server.script("Authenticate", *tokens)
    with connect(server, user="u", password="p") as store:
        server.script("Put", forgotten, ok(PUT))
        assert store.put(b"k", b"v").revision == 11
        server.script("Put", status(INVALID, "etcdserver: revision of auth store is old"), forgotten)
        with pytest.raises(kvstore.Unauthenticated):
            store.put(b"k", b"v")
    puts = [token for (name, _), token in zip(server.asked, server.tokens, strict=True) if name == "Put"]
    assert puts == [b"t0", b"t1", b"t1", b"t2"]
    first = next(data for name, data in server.asked if name == "Authenticate")
    assert pb.AuthenticateRequest.FromString(first) == pb.AuthenticateRequest(name="u", password="p")


def test_a_token_is_not_new_before_it_is_there(server: ScriptedServer) -> None:
    """The connection is lost while another token is asked for: the call that wanted it may ask again."""
    forgotten = status(16, "etcdserver: invalid auth token")
    with connect(server, user="u", password="p") as store:
        server.script("Authenticate", cut, ok(pb.AuthenticateResponse(header=header(), token="t1")))
        server.script("Put", forgotten, forgotten, ok(PUT))
        assert store.put(b"k", b"v").revision == 11
    puts = [token for (name, _), token in zip(server.asked, server.tokens, strict=True) if name == "Put"]
    assert puts == [b"t0", b"t0", b"t1"]


def test_a_wrong_password_is_said_at_once(server: ScriptedServer) -> None:
    """There is no point in trying again."""
    text = "etcdserver: authentication failed, invalid user ID or password"
    server.always("Authenticate", status(INVALID, text))
    with pytest.raises(kvstore.Unauthenticated, match="invalid user ID or password"):
        connect(server, user="u", password="wrong")
    assert server.count("Authenticate") == 1


def test_a_server_without_users_needs_no_token(server: ScriptedServer) -> None:
    """A user in the options is no obstacle where there are none."""
    server.always("Authenticate", status(9, "etcdserver: authentication is not enabled"))
    with connect(server, user="u", password="p") as store:
        assert store.put(b"k", b"v")


def test_a_server_with_users_says_that_it_wants_one(server: ScriptedServer) -> None:
    """Users may have been enabled while the client runs."""
    with connect(server) as store:
        server.script("Put", status(INVALID, "etcdserver: user name is empty"))
        with pytest.raises(kvstore.Unauthenticated, match="connect with the options user and password"):
            store.put(b"k", b"v")
