"""Who asks a real etcd: users and passwords, certificates of clients, and who is turned away."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest

import kvstore
from kvstore.errors import PermissionDenied, Unauthenticated, Unavailable
from tests.etcd.etcd_cluster import HAS_ETCD, ROOT, Cluster, add_users, running_cluster, users
from tests.harness.watching import take
from tests.network.certificates import Authority, Pair

pytestmark = pytest.mark.skipif(not HAS_ETCD, reason="no etcd on PATH")

BOB: dict[str, Any] = {**ROOT, "user": "bob"}


# --- passwords ----------------------------------------------------------------------------


@pytest.fixture
def guarded(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with users: root, and bob who may use the keys from a to c."""
    with users(cluster):
        yield cluster


def test_a_user_may_do_what_its_roles_allow(guarded: Cluster) -> None:
    """Everything else is refused, in every kind of call, and the client goes on."""
    with kvstore.connect(guarded.url, **BOB) as store:
        store.delete(b"a", b"c")
        revision = store.put(b"a", b"v").revision
        assert store.get(b"a") is not None
        with store.watch(b"a", start_revision=revision) as watch:
            assert take(watch, 1)[0].kv.value == b"v"
        refused: list[Any] = [
            lambda: store.put(b"x"),
            lambda: store.get(b"x"),
            lambda: store.range(prefix=b""),
            lambda: store.delete(b"x"),
            lambda: store.txn(success=[kvstore.ops.put(b"a"), kvstore.ops.put(b"x")]),
            lambda: store.watch(b"x"),
        ]
        for call in refused:
            with pytest.raises(PermissionDenied):
                call()
        assert store.count(b"a", b"c") == 1


def test_who_is_not_known_is_turned_away(guarded: Cluster) -> None:
    """Nobody, another password, a user that is none; an error at once, and no way around it at the next member."""
    who: list[dict[str, Any]] = [{}, {**BOB, "password": "wrong"}, {**BOB, "user": "eve"}]
    for login in who:
        with pytest.raises(Unauthenticated):
            kvstore.connect(guarded.url, **login)


def test_a_token_that_a_member_has_forgotten_is_renewed(guarded: Cluster) -> None:
    """A member that was started anew knows no token; writes are repeated with another one, watches go on."""
    member = guarded.follower()
    host, port = member.address
    with kvstore.connect(f"etcd://{host}:{port}", timeout_seconds=30, **BOB) as store:
        with store.watch(b"a", b"c") as watch:
            for number in range(2):
                member.kill()
                guarded.restore()
                store.put(b"b", b"%d" % number)
                assert take(watch, 1)[0].kv.value == b"%d" % number
        lease = store.grant_lease(60).id
        member.kill()
        guarded.restore()
        assert store.keep_alive(lease).ttl == 60
        store.revoke_lease(lease)


# --- certificates -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def bob(authority: Authority) -> Pair:
    """A certificate whose name is that of a user."""
    return authority.sign("bob")


@pytest.fixture(scope="module")
def secured(authority: Authority, bob: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An etcd that speaks TLS alone, with clients that show a certificate of the authority."""
    pair = authority.sign("server", "127.0.0.1")
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(bob.cert, bob.key)
    options = ["--cert-file", pair.cert, "--key-file", pair.key]
    options += ["--client-cert-auth", "--trusted-ca-file", authority.file]
    folder = tmp_path_factory.mktemp("secured")
    with running_cluster(folder, *options, size=1, context=context) as running:
        yield running


def test_clients_show_a_certificate(secured: Cluster, authority: Authority, bob: Pair) -> None:
    """With it every call goes; without one, or with the certificate of somebody else's authority, none does."""
    with (
        kvstore.connect(secured.url, ca=authority.file, cert=bob.cert, key=bob.key) as store,
        store.watch(b"b") as watch,  # bob may use it, should the cluster ask by now
    ):
        store.put(b"b", b"v" * 100_000)
        assert len(take(watch, 1)[0].kv.value) == 100_000
    with pytest.raises(Unavailable):
        kvstore.connect(secured.url, ca=authority.file, timeout_seconds=1)
    with pytest.raises(Unavailable, match="certificate"):
        kvstore.connect(secured.url, cert=bob.cert, key=bob.key, timeout_seconds=1)


def test_the_name_in_a_certificate_is_a_user(secured: Cluster, authority: Authority, bob: Pair) -> None:
    """No password is needed, and no more may be done than that user may do."""
    add_users(secured)
    with kvstore.connect(secured.url, ca=authority.file, cert=bob.cert, key=bob.key) as store:
        store.put(b"a", b"v")
        with pytest.raises(PermissionDenied):
            store.put(b"x", b"v")
    everything: Any = {"ca": authority.file, "cert": bob.cert, "key": bob.key, **ROOT}
    with kvstore.connect(secured.url, **everything) as store:
        store.put(b"x", b"v")
