"""The errors of recipes."""

from __future__ import annotations

from kvstore.errors import Code, KVStoreError


class LeaseLost(KVStoreError):
    """The lease has ended, or nobody can say that it has not: what is held under it may be another's by now."""

    code = Code.FAILED_PRECONDITION

    def __init__(self, lease: int, reason: str) -> None:
        super().__init__(f"lease {lease:x}: {reason}; what was held under it may be another's by now")
        self.lease = lease
        self.reasons = lease, reason


class KeyLost(LeaseLost):
    """Somebody deleted the key of a lock, a place or a claim, though its lease may go on."""


class AlreadyHeld(KVStoreError):
    """This session is in line for that name already; a second thread or task needs a session of its own."""

    code = Code.FAILED_PRECONDITION


class NotHeld(KVStoreError):
    """It is not held here: it was never acquired, or was released."""

    code = Code.FAILED_PRECONDITION


class TooManyClients(KVStoreError):
    """More took part in a double barrier than it was made for."""

    code = Code.FAILED_PRECONDITION


class TooManyConflicts(KVStoreError):
    """Other writers changed what a transaction had read, each time it was tried. Nothing was written."""

    code = Code.ABORTED
    retryable = True
