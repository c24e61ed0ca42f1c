"""TLS: who a server is, whom it lets in, and that it goes by its files as they are at each handshake."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.files import OSDisk
from kvstore.network.revoked import revoked_serials
from kvstore.network.self_signed import self_signed
from kvstore.network.tls import TLS, TLSSettings, common_name, is_for, openssl_name
from kvstore.options import BadOption
from tests.network.certificates import Authority, Pair, serialization


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.sign("server", "localhost", "127.0.0.1")


def settings_of(pair: Pair, **more: Any) -> TLSSettings:
    return TLSSettings(cert_file=pair.cert, key_file=pair.key, **more)


def client_of(ca: str, pair: Pair | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that trusts ``ca`` and shows ``pair``."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


def meet(tls: TLS, client_context: ssl.SSLContext, session: Any = None) -> tuple[Any, Any]:
    """A handshake in memory: (server's side, client's side). Raises ``ssl.SSLError`` as either would."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(there, back, server_side=True)
    client = client_context.wrap_bio(back, there, server_hostname="localhost", session=session)
    waiting = [client, server]
    for _step in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return server, client


def names_of(side: Any) -> str:
    certificate = side.getpeercert()
    return common_name(certificate or {})


def is_let_in(tls: TLS, server: Any) -> bool:
    """What is decided after a handshake."""
    return not tls.refusal(server.getpeercert())


def test_a_client_meets_the_server_that_it_asked_for(authority: Authority, pair: Pair) -> None:
    """No certificate is asked of a client; HTTP/2 is agreed on."""
    server, client = meet(TLS(settings_of(pair)), client_of(authority.file))
    assert names_of(client) == "server"
    assert server.getpeercert() is None
    assert client.selected_alpn_protocol() == "h2"


def test_old_tls_is_not_spoken(authority: Authority, pair: Pair) -> None:
    """TLS 1.2 is the least; where 1.3 is asked for, 1.2 is refused, and the reverse."""
    old = client_of(authority.file, maximum_version=ssl.TLSVersion.TLSv1_2)
    new = client_of(authority.file, minimum_version=ssl.TLSVersion.TLSv1_3)
    assert TLS(settings_of(pair)).context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert meet(TLS(settings_of(pair)), old)[1].version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        meet(TLS(settings_of(pair, min_version="TLS1.3")), old)
    with pytest.raises(ssl.SSLError):
        meet(TLS(settings_of(pair, max_version="TLS1.2")), new)


def test_cipher_suites_are_chosen_by_go_s_names(authority: Authority, pair: Pair) -> None:
    """Only what is listed is spoken; what OpenSSL has not is refused by name."""
    suites = ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
    old = client_of(authority.file, maximum_version=ssl.TLSVersion.TLSv1_2)
    server, _client = meet(TLS(settings_of(pair, cipher_suites=suites)), old)
    assert server.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with pytest.raises(BadOption, match="does not know TLS_MADE_UP"):
        TLS(settings_of(pair, cipher_suites=("TLS_MADE_UP",)))


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"),
        ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", "DES-CBC3-SHA"),
        ("TLS_AES_128_GCM_SHA256", ""),
        ("anything", ""),
    ],
)
def test_suites_have_openssl_s_names(suite: str, name: str) -> None:
    """The names of Go and IANA, as OpenSSL spells them."""
    assert openssl_name(suite) == name


# --- clients ------------------------------------------------------------------------------


def test_clients_need_a_certificate_of_the_authority(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    """With a CA for clients, one without a certificate, or with another's, is turned away."""
    stranger = Authority(tmp_path, "stranger").sign("mallory")
    tls = TLS(settings_of(pair, trusted_ca_file=authority.file))
    server, _client = meet(tls, client_of(authority.file, authority.sign("alice")))
    assert names_of(server) == "alice"
    for shown in (None, stranger):
        with pytest.raises(ssl.SSLError):
            meet(tls, client_of(authority.file, shown))


def test_a_name_is_a_user_only_where_that_is_asked_for(authority: Authority, pair: Pair) -> None:
    """trusted_ca_file alone asks for a certificate; client_cert_auth makes its name a user."""
    alice = {"subject": ((("organizationName", "x"),), (("commonName", "alice"),))}
    plain = TLS(settings_of(pair, trusted_ca_file=authority.file))
    named = TLS(settings_of(pair, trusted_ca_file=authority.file, client_cert_auth=True))
    assert (plain.user_of(alice), named.user_of(alice), named.user_of(None)) == ("", "alice", "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_revoked_certificate_is_turned_away(
    authority: Authority, pair: Pair, version: ssl.TLSVersion
) -> None:
    """One that is on the list is refused, another one is not; the list counts from its next handshake on."""
    alice, bob = authority.sign("alice"), authority.sign("bob")
    tls = TLS(settings_of(pair, trusted_ca_file=authority.file, crl_file=authority.revoke(bob)))

    def arrives(who: Pair) -> bool:
        shown = client_of(authority.file, who, minimum_version=version, maximum_version=version)
        return is_let_in(tls, meet(tls, shown)[0])

    assert (arrives(alice), arrives(bob)) == (True, False)
    authority.revoke(alice)
    assert (arrives(alice), arrives(bob)) == (False, True)
    authority.revoke(bob, encoding=serialization.Encoding.DER)
    assert (arrives(alice), arrives(bob)) == (True, False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_outlives_a_certificate(authority: Authority, pair: Pair, version: ssl.TLSVersion) -> None:
    """A client whose certificate is revoked cannot go on in the session that it had begun."""
    alice = authority.sign("alice")
    tls = TLS(settings_of(pair, trusted_ca_file=authority.file, crl_file=authority.revoke()))
    shown = client_of(authority.file, alice, minimum_version=version, maximum_version=version)
    server, client = meet(tls, shown)
    server.write(b"x")  # in TLS 1.3 a session is known once something was read
    client.read(1)
    assert is_let_in(tls, server)
    authority.revoke(alice)
    assert not is_let_in(tls, meet(tls, shown, client.session)[0])


def test_an_overdue_list_goes_on(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    """Who is on it is turned away, nobody else; an authority that has no list is none the worse."""
    alice, bob = authority.sign("alice"), authority.sign("bob")
    other = Authority(tmp_path, "other")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(authority.file).read_bytes() + Path(other.file).read_bytes())
    tls = TLS(settings_of(pair, trusted_ca_file=str(both), crl_file=authority.revoke(bob, days_ago=1000)))
    arrives = [
        is_let_in(tls, meet(tls, client_of(authority.file, who))[0])
        for who in (alice, bob, other.sign("carol"))
    ]
    assert arrives == [True, False, True]


def test_who_is_revoked_is_not_served(authority: Authority, pair: Pair) -> None:
    """The connection is closed before anything is answered; others are served."""
    alice, bob = authority.sign("alice"), authority.sign("bob")
    with (
        kvstore.open_memory() as store,
        kvstore.serve(
            store,
            "https://127.0.0.1:0",
            cert_file=pair.cert,
            key_file=pair.key,
            trusted_ca_file=authority.file,
            crl_file=authority.revoke(bob, days_ago=2),
        ) as server,
    ):
        url = server.endpoints[0]
        with kvstore.connect(url, ca=authority.file, cert=alice.cert, key=alice.key) as client:
            client.put(b"k", b"v")
        with pytest.raises(kvstore.Unavailable):
            kvstore.connect(url, ca=authority.file, cert=bob.cert, key=bob.key, timeout_seconds=0.5)


def test_lists_of_several_authorities_count_together(authority: Authority, tmp_path: Path) -> None:
    """In one file of PEM."""
    (tmp_path / "other").mkdir()
    other, bob, carol = Authority(tmp_path / "other"), authority.sign("bob"), authority.sign("carol")
    lists = Path(authority.revoke(bob)).read_bytes()
    assert revoked_serials(lists) == {bob.serial}
    assert revoked_serials(Path(authority.revoke()).read_bytes()) == set()
    assert revoked_serials(lists + Path(other.revoke(carol)).read_bytes()) == {bob.serial, carol.serial}


def test_what_is_no_list_is_refused(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    """When the server starts, naming the file; wherever a list is cut off, too."""
    broken = tmp_path / "broken.crl"
    for content in (b"", b"noise", Path(authority.file).read_bytes()):
        broken.write_bytes(content)
        with pytest.raises(BadOption, match=r"broken\.crl is no list of revoked certificates"):
            TLS(settings_of(pair, trusted_ca_file=authority.file, crl_file=str(broken)))
    whole = Path(authority.revoke(pair, encoding=serialization.Encoding.DER)).read_bytes()
    assert revoked_serials(whole) == {pair.serial}
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="revoked certificates"):
            revoked_serials(whole[:end])


def test_a_client_s_certificate_must_be_for_an_allowed_host(authority: Authority, pair: Pair) -> None:
    """The hosts are in its alternative names; who is turned away is told why."""
    tls = TLS(settings_of(pair, trusted_ca_file=authority.file, allowed_hostnames=("a.example", "::1")))
    for hosts, is_allowed in (
        (["a.example"], True),
        (["*.example"], True),
        (["::1"], True),
        (["b.example"], False),
        ([], False),
    ):
        server, _client = meet(tls, client_of(authority.file, authority.sign("client", *hosts)))
        assert bool(tls.refusal(server.getpeercert())) is not is_allowed, hosts
    assert tls.refusal(None) == "its certificate is for none of a.example, ::1"
    assert TLS(settings_of(pair)).refusal(None) == ""


@pytest.mark.parametrize(
    ("name", "host", "matches"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "A.Example.Com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("a.example.com.", "a.example.com", True),
        ("*", "localhost", False),
        ("localhost", "localhost", True),
        ("*.", "localhost", False),
    ],
)
def test_a_star_stands_for_one_label(name: str, host: str, matches: bool) -> None:
    """As in a server's certificate: the first label, and all of it."""
    assert is_for(host, {"subjectAltName": (("DNS", name),)}) is matches


# --- files --------------------------------------------------------------------------------


def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that changed are read anew; half of a change (a certificate without its key) changes nothing."""
    caplog.set_level(logging.INFO, "kvstore.network")
    tls = TLS(settings_of(pair))
    old_key = Path(pair.key).read_bytes()
    authority.sign("renewed", "localhost", file="server")
    new_key = Path(pair.key).read_bytes()
    Path(pair.key).write_bytes(old_key)
    assert names_of(meet(tls, client_of(authority.file))[1]) == "server"
    assert "certificates stay what they were" in caplog.text
    Path(pair.key).write_bytes(new_key)
    os.utime(pair.key, ns=(0, 0))  # the change shows, however coarse the clock of the file system is
    assert names_of(meet(tls, client_of(authority.file))[1]) == "renewed"
    assert "certificates were read anew" in caplog.text
    os.unlink(pair.cert)
    assert names_of(meet(tls, client_of(authority.file))[1]) == "renewed"


def test_a_change_of_directory_does_not_change_the_files(
    authority: Authority, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is renewed after it is found where it was."""
    monkeypatch.chdir(Path(pair.cert).parent)
    tls = TLS(TLSSettings(cert_file=Path(pair.cert).name, key_file=os.path.relpath(pair.key)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    authority.sign("renewed", "localhost", file="server")
    os.utime(pair.key, ns=(0, 0))
    assert names_of(meet(tls, client_of(authority.file))[1]) == "renewed"


def test_another_authority_for_clients_counts_from_the_next_handshake_on(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    """What an old authority signed is worth nothing once its file has another one in it."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(authority.file).read_bytes())
    tls = TLS(settings_of(pair, trusted_ca_file=str(trusted)))
    alice = authority.sign("alice")
    meet(tls, client_of(authority.file, alice))
    other = Authority(tmp_path, "other")
    trusted.write_bytes(Path(other.file).read_bytes() + b"\n")
    with pytest.raises(ssl.SSLError):
        meet(tls, client_of(authority.file, alice))
    meet(tls, client_of(authority.file, other.sign("bob")))


def test_files_that_cannot_be_used_are_named(pair: Pair, tmp_path: Path) -> None:
    """A missing file, and one that is no certificate, are refused when the server starts."""
    with pytest.raises(BadOption, match=r"absent\.crt with .*cannot be used for TLS"):
        TLS(TLSSettings(cert_file=str(tmp_path / "absent.crt"), key_file=pair.key))
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(BadOption, match="noise cannot be used for TLS"):
        TLS(settings_of(pair, trusted_ca_file=str(tmp_path / "noise")))


# --- a certificate of our own ---------------------------------------------------------------


def test_a_certificate_of_our_own_is_made_once(tmp_path: Path) -> None:
    """It is for the hosts that are listened at, and the same after a restart; its files are the owner's alone."""
    wanted = TLSSettings(auto=True)
    made = self_signed(wanted, tmp_path / "tls", ["127.0.0.1", "localhost"], OSDisk())
    first = Path(made.cert_file).read_bytes()
    strict = client_of(made.cert_file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    _server, client = meet(TLS(made), strict)
    assert is_for("127.0.0.1", client.getpeercert())
    again = self_signed(wanted, tmp_path / "tls", ["127.0.0.1"], OSDisk())
    assert again == made
    assert Path(made.cert_file).read_bytes() == first
    assert Path(made.key_file).stat().st_mode & 0o077 == 0


def test_a_pair_that_does_not_fit_is_made_anew(tmp_path: Path) -> None:
    """A crash between the two files, or damage, leaves no server that cannot start."""
    made = self_signed(TLSSettings(auto=True), tmp_path, ["localhost"], OSDisk())
    for file in (made.key_file, made.cert_file):
        Path(file).write_bytes(b"damaged")
        self_signed(TLSSettings(auto=True), tmp_path, ["localhost"], OSDisk())
        meet(TLS(made), client_of(made.cert_file))
