"""Tokens and passwords, by themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore.auth.store import Caller
from kvstore.errors import MissingDependency
from kvstore.network.call import Failed
from kvstore.network.tokens import (
    PASSWORD_BYTES_MAX,
    JWTTokens,
    SimpleTokens,
    hashed,
    is_password,
    tokens,
)
from kvstore.options import BadOption

ALICE = Caller(b"alice", 5)
LONG_SECRET = b"s" * 64


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


# --- simple --------------------------------------------------------------------------------------


def test_a_simple_token_looks_as_in_etcd() -> None:
    """Sixteen letters, a dot, a number; no two are the same."""
    made = {SimpleTokens(300).assign(b"alice", 5, 17) for _ in range(50)}
    assert len(made) == 50
    for token in made:
        letters, number = token.split(".")
        assert (len(letters), letters.isascii() and letters.isalpha(), number) == (16, True, "17")


def test_a_simple_token_lives_as_long_as_it_is_used() -> None:
    """It stands for the rules of now. Unused for its time it is none, and takes no memory once others are made."""
    clock = Clock()
    simple = SimpleTokens(300, clock)
    used, unused = (simple.assign(b"alice", 5, 1) for _ in range(2))
    for revision in (5, 6, 7):
        clock.now += 200
        assert simple.caller(used, revision) == Caller(b"alice", revision)
    assert simple.caller("no.1", 7) is None
    simple.assign(b"bob", 7, 1)
    assert len(simple) == 2
    assert simple.caller(unused, 7) is None
    clock.now += 300
    assert simple.caller(used, 7) is None


def test_simple_tokens_are_forgotten() -> None:
    """Those of one user, and all."""
    simple = SimpleTokens(300)
    first, second, other = (simple.assign(name, 5, 1) for name in (b"alice", b"alice", b"bob"))
    simple.forget_user(b"alice")
    assert [simple.caller(token, 5) for token in (first, second, other)] == [None, None, Caller(b"bob", 5)]
    simple.forget()
    assert simple.caller(other, 5) is None


# --- JWT -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Files of (private, public) keys, by kind."""
    pytest.importorskip("jwt")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    made: dict[str, Any] = {
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    made["PS512"] = made["RS256"]
    folder = tmp_path_factory.mktemp("keys")
    found = {}
    for kind, key in made.items():
        private, public = folder / f"{kind}.key", folder / f"{kind}.pub"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        found[kind] = private, public
    secret = folder / "secret"
    secret.write_bytes(LONG_SECRET)
    found["HS256"] = secret, secret
    return found


KINDS = ["RS256", "PS512", "ES256", "EdDSA", "HS256"]


@pytest.mark.parametrize("method", KINDS)
def test_a_jwt_says_who_and_by_which_rules(keys: dict[str, tuple[Path, Path]], method: str) -> None:
    """Its own revision, not that of now; whoever has the public key can tell, and a change of a letter is noticed."""
    private, public = keys[method]
    maker = tokens(f"jwt,sign-method={method},priv-key={private},pub-key={public},ttl=1h", 300)
    token = maker.assign(*ALICE, 1)
    assert maker.caller(token, 9) == ALICE
    for spoiled in (token[:-6] + "AAAAAA", token[1:], "", "a.b.c", "x" * 1000):
        assert maker.caller(spoiled, 9) is None
    if method != "HS256":
        checker = tokens(f"jwt,sign-method={method},pub-key={public}", 300)
        assert checker.caller(token, 9) == ALICE
        with pytest.raises(Failed, match="auth: token signing attempted with verify-only key"):
            checker.assign(*ALICE, 1)


def test_a_public_key_may_be_a_certificate(keys: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    """As etcd takes it: the server's own certificate will do."""
    from tests.network.certificates import Authority

    pair = Authority(tmp_path).sign("server", "127.0.0.1")
    checker = tokens(f"jwt,sign-method=ES256,priv-key={pair.key},pub-key={pair.cert}", 300)
    assert checker.caller(checker.assign(*ALICE, 1), 9) == ALICE
    assert (
        checker.caller(tokens(f"jwt,sign-method=ES256,priv-key={keys['ES256'][0]}", 300).assign(*ALICE, 1), 9)
        is None
    )
    with pytest.raises(BadOption, match="no key for RS256"):
        tokens(f"jwt,sign-method=RS256,pub-key={pair.cert}", 300)


def test_a_jwt_ends(keys: dict[str, tuple[Path, Path]]) -> None:
    """At the time that it names, also once it is known."""
    clock = Clock()
    maker = JWTTokens("HS256", LONG_SECRET, LONG_SECRET, 60, clock)
    token = maker.assign(*ALICE, 1)
    assert maker.caller(token, 5) == ALICE
    clock.now += 59
    assert maker.caller(token, 5) == ALICE
    clock.now += 1
    assert maker.caller(token, 5) is None


def test_a_jwt_of_another_algorithm_is_none(keys: dict[str, tuple[Path, Path]]) -> None:
    """Not even where the key fits: neither one without a signature, nor one signed with the public key as a secret."""
    jwt = pytest.importorskip("jwt")
    private, _public = keys["RS256"]
    maker = tokens(f"jwt,sign-method=RS256,priv-key={private}", 300)
    claims = {"username": "root", "revision": 5, "exp": 1 << 40}
    good = jwt.encode(claims, private.read_bytes(), algorithm="RS256")
    assert maker.caller(good, 5) == Caller(b"root", 5)
    unsigned = jwt.encode(claims, None, algorithm="none")
    other = jwt.encode(claims, private.read_bytes(), algorithm="RS512")
    confused = jwt.encode(claims, LONG_SECRET, algorithm="HS256")
    for token in (unsigned, other, confused):
        assert maker.caller(token, 5) is None


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"username": "a", "revision": 5},
        {"username": 7, "revision": 5, "exp": 1 << 40},
        {"username": "a", "revision": "x", "exp": 1 << 40},
        {"username": "a", "revision": 5, "exp": "soon"},
        {"username": "a", "revision": None, "exp": 1 << 40},
    ],
)
def test_a_jwt_that_claims_nothing_is_none(claims: dict[str, Any]) -> None:
    """However well it is signed."""
    jwt = pytest.importorskip("jwt")
    maker = JWTTokens("HS256", LONG_SECRET, LONG_SECRET)
    assert maker.caller(jwt.encode(claims, LONG_SECRET, algorithm="HS256"), 5) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "must be simple, or jwt"),
        ("nop", "must be simple, or jwt"),
        ("simple,ttl=5m", "must be simple, or jwt"),
        ("jwt", "needs sign-method="),
        ("jwt,sign-method=RS257", "not 'RS257'"),
        ("jwt,sign-method=none", "not 'none'"),
        ("jwt,sign-method=RS256", "needs priv-key=FILE"),
        ("jwt,sign-method=RS256,key=x", "no option 'key'"),
        ("jwt,sign-method=RS256,priv-key=/nowhere", "/nowhere: No such file"),
        ("jwt,sign-method=HS256,priv-key={file},ttl=soon", "'soon' is not a duration"),
        ("jwt,sign-method=HS256,priv-key={file},ttl=0s", "ttl must be positive"),
        ("jwt,sign-method=RS256,priv-key={file}", "this is no key for RS256"),
    ],
)
def test_an_option_that_makes_no_tokens_is_refused(tmp_path: Path, spec: str, said: str) -> None:
    """Before anything is served, with what is wrong about it."""
    pytest.importorskip("jwt")
    file = tmp_path / "file"
    file.write_bytes(b"no key")
    with pytest.raises(BadOption, match=said):
        tokens(spec.format(file=file), 300)
    with pytest.raises(BadOption, match="must be positive"):
        tokens("simple", 0)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    secret = tmp_path / "secret"
    secret.write_bytes(LONG_SECRET)
    for name in ("jwt", "bcrypt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"kvstore-mvcc\[jwt\]"):
        tokens(f"jwt,sign-method=HS256,priv-key={secret}", 300)
    with pytest.raises(MissingDependency, match=r"kvstore-mvcc\[serve\]"):
        hashed(b"x", 4)


# --- passwords -----------------------------------------------------------------------------------


def test_a_password_is_known_again() -> None:
    """As etcd keeps it; of a long one as much as bcrypt looks at. Where nothing is kept, none is right."""
    kept = hashed(b"secret", 4)
    assert kept.startswith(b"$2a$04$") and is_password(b"secret", kept)
    assert not is_password(b"Secret", kept) and not is_password(b"", kept)
    long = b"x" * PASSWORD_BYTES_MAX
    assert is_password(long + b"more", hashed(long + b"other", 4))
    for nothing in (b"", b"$2a$", b"\xff"):
        assert not is_password(b"", nothing)
