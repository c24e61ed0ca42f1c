"""The error of whoever typed something wrong. Apart, so that pure parsers need no command-line package."""

from __future__ import annotations

from kvstore.errors import Code, KVStoreError


class UsageError(KVStoreError):
    """Something on the command line, or in a text given to a command, is wrong."""

    code = Code.INVALID_ARGUMENT
