"""The ``kvstore`` command: the commands of this folder under one name.

Each command is one module with ``register(app)``; adding one is adding its name here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = (
    "put",
    "get",
    "delete",
    "txn",
    "history",
    "diff",
    "watch",
    "lease",
    "compact",
    "defragment",
    "alarm",
    "status",
    "health",
    "metrics",
    "hashkv",
    "wal",
    "snapshot",
    "backup",
    "verify",
    "salvage",
    "doctor",
    "import_store",
    "export_store",
    "inspect_store",
    "migrate",
    "servers",
    "dump",
    "lock",
)


MODULES = {
    "del": "delete",
    "defrag": "defragment",
    "import": "import_store",
    "export": "export_store",
    "inspect": "inspect_store",
    "load": "dump",
    "elect": "lock",
    "serve": "servers",
    "replica": "servers",
}
"""Verbs whose module has another name."""


def main() -> None:
    if sys.argv[1:2] in (
        ["serve"],
        ["replica"],
    ):  # they read their command line themselves, without other packages
        sys.exit(import_module(f".{sys.argv[1]}", __package__).run(sys.argv[2:]))
    from .command import run

    registers = [import_module(f".{name}", __package__).register for name in needed(sys.argv[1:])]
    sys.exit(run(*registers, prog_name="kvstore"))


def needed(arguments: Sequence[str]) -> Sequence[str]:
    """The modules to load. If the command line has a verb, only its module: starting is faster."""
    from .command import SHARED
    from .quick import verb

    if arguments == ["--version"]:
        return ()
    first = verb(arguments, SHARED)
    module = MODULES.get(first, first)
    return (module,) if module in COMMANDS else COMMANDS


if __name__ == "__main__":
    main()
