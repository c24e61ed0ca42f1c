"""Tokens: what a client gets for a password, and shows with each call after that.

    simple    16 letters, a dot, a number. Known to this server alone: gone after a restart, when it has not been used
              for its time, when its user's password changes, and when users are turned off. It is found out by the
              rules as they are at each use, so it outlives changes of other users
    jwt       a signed claim {username, revision, exp}, good wherever the key is known; it stands for the rules as they
              were when it was made, and so ends with the next change of any user or role

    --auth-token simple
    --auth-token jwt,sign-method=RS256,priv-key=FILE,pub-key=FILE,ttl=5m      without priv-key: tokens are only checked

Tokens are made and looked up on the endpoint's loop.
"""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from kvstore.auth.store import Caller
from kvstore.errors import Code, MissingDependency
from kvstore.network.call import Failed
from kvstore.options import BadOption, parse_duration

Now = Callable[[], float]

LETTERS = 16
JWT_TTL_SECONDS = 300.0
REMEMBERED = 1024
"""So many tokens need not be verified again."""


class Tokens(Protocol):
    """Tokens of one kind."""

    def assign(self, name: bytes, revision: int, number: int) -> str:
        """A token for a user who has logged in by the rules of a revision. ``number``: goes into a simple one."""

    def caller(self, token: str, revision: int) -> Caller | None:
        """Whose token it is; None: it is none, or none any more. ``revision``: of the rules now."""

    def forget_user(self, name: bytes) -> None:
        """His tokens are none any more, where that can be."""

    def forget(self) -> None:
        """Nobody's are."""


def tokens(spec: str, ttl_seconds: float) -> Tokens:
    """The tokens that an option asks for. ``ttl_seconds`` is for simple ones.

    Raises ``BadOption``, and ``MissingDependency`` without PyJWT.
    """
    kind, *words = spec.split(",")
    if kind == "simple" and not words:
        return SimpleTokens(ttl_seconds)
    if kind == "jwt":
        return _jwt(words)
    raise BadOption(f"auth_token must be simple, or jwt and its options, not {spec!r:.100}")


# --- simple ----------------------------------------------------------------------------------------


class SimpleTokens:
    """Random ones, in memory."""

    def __init__(self, ttl_seconds: float, now: Now = time.monotonic) -> None:
        if ttl_seconds <= 0:
            raise BadOption(f"auth_token_ttl_seconds must be positive, not {ttl_seconds}")
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._random = random.SystemRandom()
        self._users: dict[str, tuple[bytes, float]] = {}
        """Name and end of each, the one that ends first in front."""

    def assign(self, name: bytes, revision: int, number: int) -> str:
        self._drop_old()
        token = f"{''.join(self._random.choices(string.ascii_letters, k=LETTERS))}.{number}"
        self._users[token] = name, self._now() + self._ttl_seconds
        return token

    def caller(self, token: str, revision: int) -> Caller | None:
        name, end = self._users.pop(token, (b"", 0.0))
        now = self._now()
        if end <= now:
            return None
        self._users[token] = name, now + self._ttl_seconds
        return Caller(name, revision)

    def _drop_old(self) -> None:
        now = self._now()
        for token, (_, end) in list(self._users.items()):
            if end > now:
                return
            del self._users[token]

    def forget_user(self, name: bytes) -> None:
        self._users = {token: found for token, found in self._users.items() if found[0] != name}

    def forget(self) -> None:
        self._users = {}

    def __len__(self) -> int:
        return len(self._users)


# --- JWT -------------------------------------------------------------------------------------------

_METHODS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"),
)
_OPTIONS = ("sign-method", "priv-key", "pub-key", "ttl")


def _jwt(words: list[str]) -> JWTTokens:
    given = dict(word.partition("=")[::2] for word in words)
    for name in given:
        if name not in _OPTIONS:
            raise BadOption(f"auth_token: jwt has no option {name!r:.40}, only {', '.join(_OPTIONS)}")
    method = given.get("sign-method", "")
    if method not in _METHODS:
        raise BadOption(
            f"auth_token: jwt needs sign-method=, one of {', '.join(_METHODS)}, not {method!r:.40}"
        )
    private, public = (_key(given.get(name, "")) for name in ("priv-key", "pub-key"))
    if method.startswith("HS"):
        public = private
    if private is None and public is None:
        raise BadOption(
            "auth_token: jwt needs priv-key=FILE (or pub-key=FILE, to check tokens and make none)"
        )
    ttl_seconds = parse_duration(given["ttl"]) if "ttl" in given else JWT_TTL_SECONDS
    return JWTTokens(method, private, public, ttl_seconds)


def _key(file: str) -> bytes | None:
    try:
        return Path(file).read_bytes() if file else None
    except OSError as error:
        raise BadOption(f"auth_token: {file}: {error.strerror}") from None


class JWTTokens:
    """Signed ones."""

    def __init__(
        self,
        method: str,
        private: bytes | None,
        public: bytes | None,
        ttl_seconds: float = JWT_TTL_SECONDS,
        now: Now = time.time,
    ) -> None:
        """Keys are PEM, or the secret itself for HMAC; without a public one, that of the private one is used.

        The public one may be a certificate, as for etcd.
        """
        if ttl_seconds <= 0:
            raise BadOption(f"auth_token: ttl must be positive, not {ttl_seconds}")
        self._method = method
        self._ttl_seconds = ttl_seconds
        self._now = now
        try:
            import jwt

            algorithm = jwt.get_algorithm_by_name(method)
        except (ImportError, NotImplementedError) as error:
            raise MissingDependency(
                f"auth_token: jwt needs PyJWT and cryptography: pip install 'kvstore-mvcc[jwt]' ({error})"
            ) from None
        self._jwt: Any = jwt
        try:
            self._private = None if private is None else algorithm.prepare_key(private)
            self._public = (
                _public_of(self._private) if public is None else algorithm.prepare_key(_key_of(public))
            )
        except (ValueError, TypeError, jwt.exceptions.InvalidKeyError) as error:
            raise BadOption(f"auth_token: this is no key for {method}: {error}") from None
        self._claims = lru_cache(REMEMBERED)(self._verified)

    def assign(self, name: bytes, revision: int, number: int) -> str:
        if self._private is None:
            raise Failed(Code.UNKNOWN, "auth: token signing attempted with verify-only key")
        claims = {
            "username": name.decode("utf-8", "surrogateescape"),
            "revision": revision,
            "exp": int(self._now() + self._ttl_seconds),
        }
        token: str = self._jwt.encode(claims, self._private, algorithm=self._method)
        return token

    def caller(self, token: str, revision: int) -> Caller | None:
        found = self._claims(token)
        if found is None or found[1] <= self._now():
            return None
        return found[0]

    def _verified(self, token: str) -> tuple[Caller, float] | None:
        """Who is claimed, and until when."""
        options = {"verify_signature": True, "verify_exp": False, "verify_aud": False}
        try:
            claims = self._jwt.decode(token, self._public, algorithms=[self._method], options=options)
            name, revision = claims["username"].encode(), int(claims["revision"])
            return Caller(name, revision), float(claims["exp"])
        except (
            self._jwt.exceptions.PyJWTError,
            KeyError,
            AttributeError,
            TypeError,
            ValueError,
            OverflowError,
        ):
            return None

    def forget_user(self, name: bytes) -> None:
        """They end by themselves: a change of the user made the rules newer than they are."""

    def forget(self) -> None:
        """Neither: users are off."""


def _key_of(public: bytes) -> Any:
    if b"-----BEGIN CERTIFICATE-----" not in public:
        return public
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(public).public_key()


def _public_of(private: Any) -> Any:
    return private if isinstance(private, bytes) else private.public_key()


# --- passwords -------------------------------------------------------------------------------------

PASSWORD_BYTES_MAX = 72
"""As much of a password as bcrypt looks at."""


def hashed(password: bytes, cost: int) -> bytes:
    """What is kept of a password. Takes tens of milliseconds, without the GIL. Raises ``MissingDependency``."""
    bcrypt = _bcrypt()
    found: bytes = bcrypt.hashpw(password[:PASSWORD_BYTES_MAX], bcrypt.gensalt(cost, prefix=b"2a"))
    return found


def is_password(password: bytes, kept: bytes) -> bool:
    """Whether a password is the one of which this was kept. Takes as long."""
    bcrypt = _bcrypt()
    try:
        return bool(bcrypt.checkpw(password[:PASSWORD_BYTES_MAX], kept))
    except ValueError:  # nothing was kept: no password is right
        return False


def _bcrypt() -> Any:
    try:
        import bcrypt
    except ImportError as error:
        raise MissingDependency(
            f"passwords need bcrypt: pip install 'kvstore-mvcc[serve]' ({error})"
        ) from None
    return bcrypt
