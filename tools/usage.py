"""The error for wrong input. In a module of its own, so that pure parsers need no command-line package."""

from __future__ import annotations

from kvstore.errors import Code, KVStoreError


class UsageError(KVStoreError):
    """The command line, or a text given to a command, is wrong."""

    code = Code.INVALID_ARGUMENT
