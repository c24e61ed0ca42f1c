"""The ``kvstore`` command: the commands of this folder under one name.

Each command is one module with ``register(app)``; adding one is adding its name here.
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = (
    "put",
    "get",
    "delete",
    "txn",
    "history",
    "diff",
    "compact",
    "status",
    "hashkv",
    "wal",
    "snapshot",
    "import_store",
    "export_store",
    "replay",
    "bench",
)


def main() -> None:
    try:
        from .command import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit("Error: the command line needs two more packages: pip install 'kvstore-mvcc[cli]'")
    sys.exit(run(*(import_module(f".{name}", __package__).register for name in COMMANDS)))


if __name__ == "__main__":
    main()
