"""The errors of backups."""

from __future__ import annotations

from kvstore.errors import Code, KVStoreError, OpenError


class TargetFailed(KVStoreError):
    """The place of the backups did not do what it was asked, or did not answer. Whether it was done is unknown."""

    code = Code.UNAVAILABLE
    retryable = True

    def __init__(self, what: str, name: str, error: BaseException) -> None:
        super().__init__(f"{what} {name}: {type(error).__name__}: {error}")


class NoSuchObject(KVStoreError):
    """The place of the backups has no object of that name."""

    code = Code.NOT_FOUND


class WrongKey(OpenError):
    """The backup is encrypted with another key, or with none although one was given, or with one although none was."""


class NotCovered(OpenError):
    """No backup there reaches the requested point."""
