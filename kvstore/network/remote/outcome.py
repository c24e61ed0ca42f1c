"""What it means that a call was not answered with OK, and the error that its caller gets.

    NOT_DONE    the server never looked at it, or refused it before anything was proposed: whatever it was, repeat it
    UNKNOWN     it may have been done: repeat what may be done twice, and say so of the rest
    REFUSED     no: the caller has to know

A text of etcd's decides, where it is one that etcd is known to use; otherwise the code.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from kvstore import errors
from kvstore.errors import (
    Code,
    Corruption,
    DeadlineExceeded,
    KVStoreError,
    Overloaded,
    PermissionDenied,
    RequestError,
    RequestTooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from kvstore.etcdpb.status import CODES


class Outcome(Enum):
    NOT_DONE = "not done"
    UNKNOWN = "unknown"
    REFUSED = "refused"


_NOT_DONE = frozenset(
    f"etcdserver: {text}"
    for text in ("no leader", "not capable", "too many requests", "rpc not supported for learner")
)
_STALE_TOKEN = frozenset(
    f"etcdserver: {text}"
    for text in ("invalid auth token", "revision of auth store is old", "user name is empty")
)
_UNKNOWN_CODES = frozenset(
    (Code.CANCELLED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.INTERNAL, Code.UNAVAILABLE)
)
NOT_ENABLED = "etcdserver: authentication is not enabled"


def outcome_of(code: int, text: str) -> Outcome:
    """What a status says about what was asked for."""
    if text in _NOT_DONE:
        return Outcome.NOT_DONE
    if text == "etcdserver: unhealthy cluster" or code not in _UNKNOWN_CODES:
        return Outcome.REFUSED
    return Outcome.UNKNOWN


def wants_token(code: int, text: str) -> bool:
    """Whether a call was refused for want of a token that is good now."""
    return text in _STALE_TOKEN or code == Code.UNAUTHENTICATED


def is_members(code: int, text: str) -> bool:
    """Whether the trouble is this member's or its leader's, so that another one may do better."""
    return code == Code.UNAVAILABLE or text in _NOT_DONE


# --- errors ---------------------------------------------------------------------------------------


def _by_text() -> dict[str, type[KVStoreError]]:
    found: dict[str, type[KVStoreError]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, KVStoreError) and kind.message in CODES:
            found[kind.message] = kind
    return found


_ERRORS: dict[str, Callable[..., KVStoreError]] = dict(_by_text())
_BY_CODE: dict[int, type[KVStoreError]] = {
    Code.CANCELLED: Unavailable,
    Code.INVALID_ARGUMENT: RequestError,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: RequestError,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.RESOURCE_EXHAUSTED: Overloaded,
    Code.FAILED_PRECONDITION: RequestError,
    Code.OUT_OF_RANGE: RequestError,
    Code.UNIMPLEMENTED: Unsupported,
    Code.INTERNAL: Unavailable,
    Code.UNAVAILABLE: Unavailable,
    Code.UNAUTHENTICATED: Unauthenticated,
}
_NOT_PRIMARY = "not a primary lessor"
"""etcd 3.6, with the code for unknown errors, of a lease that it was asked to keep alive just as it lost the lead."""
_FOR_WANT_OF_USER = "etcdserver: user name is empty"


def error_of(code: int, text: str) -> KVStoreError:
    """The error for a status."""
    if text == _FOR_WANT_OF_USER:
        return Unauthenticated(f"{text}: the server has users; connect with the options user and password")
    if text == _NOT_PRIMARY:
        return Unavailable(f"{text}: the server that was asked leads no more")
    if text.startswith("grpc: received message larger"):
        error = RequestTooLarge()
        error.add_note(text)
        return error
    made = _ERRORS.get(text)
    if made is not None:
        return made()
    if text.startswith("etcdserver: authentication failed"):
        return Unauthenticated(text)
    if code == Code.DATA_LOSS:
        return Corruption(text, "the server")
    other = _BY_CODE.get(code, KVStoreError)(text)
    if code in Code.__members__.values():
        other.code = Code(code)
    return other
