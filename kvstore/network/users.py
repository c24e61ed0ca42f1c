"""Users at the endpoint: whose a call is, and whether he may do what it asks for.

    call --caller--> a token, or the name in a certificate --access--> may he?

Nothing here is asked as long as ``Endpoint.users_are_on`` is false. Times when a call is checked:

    door       before anything else: maintenance, members, users themselves
    guarded    a logged request, when it is planned: under the planner's lock no rule can change
    reading    what is only read: before, and after; if the rules have changed meanwhile, the answer is void

Passwords are hashed in threads, two at a time, so that whoever guesses at them takes no more than that from everybody
else; and guesses are counted by address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from kvstore.auth.permissions import Span
from kvstore.auth.store import NOBODY, Caller, Refused, Rules
from kvstore.errors import Code
from kvstore.model import GuardedRequest, KeysOfLease, RangeRequest, Request
from kvstore.mvcc.validate import check_range
from kvstore.network import access, limits
from kvstore.network.call import Asking, Call, Failed, Peer
from kvstore.network.dialect import V3_6, Dialect
from kvstore.network.http2.limits import Bucket
from kvstore.network.tokens import Tokens, hashed, is_password
from kvstore.options import BadOption
from kvstore.protocol import EmbeddedEngine
from kvstore.wire import varint

T = TypeVar("T")

COSTS = range(4, 32)
"""Those of bcrypt."""
_NAME_BYTES, _REVISION_BYTES = 2, 1
"""The tags, and the name's length, in the header of a logged request."""


class Users:
    """The users of one endpoint's store, seen from its loop."""

    def __init__(
        self, engine: EmbeddedEngine, dialect: Dialect, tokens: Tokens, bcrypt_cost: int = 10
    ) -> None:
        if bcrypt_cost not in COSTS:
            raise BadOption(f"bcrypt_cost must be from {COSTS[0]} to {COSTS[-1]}, not {bcrypt_cost}")
        self._engine = engine
        self._dialect = dialect
        self._access = access.rules_of(dialect)
        self._cost = bcrypt_cost
        self._rules = Rules(engine.carried)
        self.tokens = tokens
        self._threads = ThreadPoolExecutor(2, "kvstore-serve-passwords")
        self._logins: dict[str, Bucket] = {}
        """By address."""
        self._hashing = 0
        """How many passwords are being hashed, or wait for that."""

    @property
    def rules(self) -> Rules:
        """The rules as they are now."""
        return self._rules_of(self._engine.carried)

    def _rules_of(self, rows: Mapping[bytes, bytes]) -> Rules:
        found = self._rules
        if found.rows is not rows:
            found = self._rules = Rules(rows)
        return found

    # --- whose call it is -------------------------------------------------------------

    def caller(self, call: Asking) -> Caller:
        """Whose call it is. Raises ``Refused`` for a token that is none."""
        rules = self.rules
        if not rules.enabled:
            return NOBODY
        metadata = call.metadata
        token = metadata.get("token")
        if token is None:
            token = metadata.get("authorization")
            if token is not None and self._dialect >= V3_6:
                token = token.removeprefix("Bearer ")
        if token is not None:
            found = self.tokens.caller(token, rules.revision)
            if found is None:
                raise Refused("invalid auth token")
            return found
        peer = call.peer
        if peer.common_name and not peer.is_gateway:
            return Caller(peer.common_name.encode("utf-8", "surrogateescape"), rules.revision)
        return NOBODY

    # --- whether he may ---------------------------------------------------------------

    def check(self, call: Call, request: Any, name: str = "") -> None:
        """Raise what refuses a request, one of the model's or a message, at this moment.

        ``name``: its row in the table, where that is not its own name.
        """
        rule = self._access[name or request.__class__.__name__]
        if rule is not None:
            self._checked(rule, call, request)

    def _checked(self, rule: access.Rule, call: Asking, request: Any) -> Caller:
        try:
            caller = self.caller(call)
            rule.check(self.rules, caller, request, _no_keys)
            return caller
        except Refused as refusal:
            raise access.bare(refusal) if rule.is_bare else refusal from None

    def guarded(self, call: Asking, request: Request, name: str = "") -> Request:
        """The request, to be checked when it is planned. Raises what refuses it already.

        ``name``: its row in the table, where that is not its own name.
        """
        name = name or request.__class__.__name__
        rule = self._access["ALARM_CHANGE" if name == "AlarmRequest" else name]
        if rule is None:
            return request
        self._engine.check(request)  # a request that makes no sense is told so, whoever it comes from
        try:
            caller = self.caller(call)
        except Refused as refusal:
            raise access.bare(refusal) if rule.is_bare else refusal from None
        header_bytes = 0
        if caller.name:
            header_bytes = _NAME_BYTES + len(caller.name) + _REVISION_BYTES + len(varint(caller.revision))
        return GuardedRequest(request, partial(self._guard, rule.check, caller), header_bytes)

    def _guard(
        self,
        check: access.Check,
        caller: Caller,
        request: Any,
        rows: Mapping[bytes, bytes],
        keys_of_lease: KeysOfLease,
    ) -> None:
        check(self._rules_of(rows), caller, request, keys_of_lease)

    def reading(self, call: Asking, request: Any, read: Callable[[], T]) -> Callable[[], T]:
        """``read``, for a call that may read what the request asks for. Raises what refuses it."""
        if isinstance(request, RangeRequest):
            check_range(request)
        else:
            self._engine.check(request)
        return self._rechecked(self._checked(access.KEYS, call, request), read)

    def reading_allowed(self, call: Asking, read: Callable[[list[Span]], T]) -> Callable[[], T]:
        """``read``, given the spans of keys that a call may read. Raises what refuses the call as a whole."""
        caller = self.caller(call)
        return self._rechecked(caller, partial(read, self.rules.spans(caller)))

    def _rechecked(self, caller: Caller, read: Callable[[], T]) -> Callable[[], T]:
        def checked() -> T:
            found = read()
            if caller.revision and caller.revision != self.rules.revision:
                raise Refused("revision of auth store is old")
            return found

        return checked

    # --- passwords --------------------------------------------------------------------

    def admit_login(self, peer: Peer) -> None:
        """Refuse who asks for tokens too often."""
        bucket = self._logins.pop(peer.address, None)
        if bucket is None:
            bucket = Bucket(limits.LOGINS_PER_SECOND, limits.LOGINS_BURST, time.monotonic)
            while len(self._logins) >= limits.LOGIN_ADDRESSES:
                del self._logins[next(iter(self._logins))]
        self._logins[peer.address] = bucket
        if not bucket.take():
            raise Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")

    async def hashed(self, password: bytes) -> bytes:
        """What is kept of a password."""
        return await self._in_thread(partial(hashed, password, self._cost))

    async def log_in(self, name: bytes, password: bytes) -> str:
        """A token for who knows the password of a user. Raises ``Refused``.

        If the rules change while it is being looked at, it is looked at again.
        """
        while True:
            rules = self.rules
            if not rules.enabled:
                raise Refused("authentication is not enabled")
            user = rules.user(name)
            if user is None:
                raise Refused("authentication failed, invalid user ID or password")
            if user.options.no_password:
                raise Failed(
                    Code.UNKNOWN, "auth: authentication failed, password was given for no password user"
                )
            if not await self._in_thread(partial(is_password, password, user.password)):
                raise Refused("authentication failed, invalid user ID or password")
            if self.rules.revision == rules.revision:
                return self.tokens.assign(name, rules.revision, self._engine.revision)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._hashing >= limits.PASSWORDS_WAITING:
            raise Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        self._hashing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._hashing -= 1

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _no_keys(_lease: int | None) -> tuple[bytes, ...]:
    """What is checked at the door touches no lease."""
    return ()
