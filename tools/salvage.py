"""``kvstore salvage SOURCE [TARGET-DIR]``: a new store from what can be read of a cut or damaged one.

    kvstore salvage backup.db new-store           an etcd snapshot, or a copy of member/snap/db
    kvstore salvage /var/lib/etcd new-store       a stopped etcd's data directory: database and log
    kvstore salvage broken-store new-store        a store of ours, a snapshot or segments of it
    kvstore salvage backup.db                     only the report

The source is never changed. The report says of every live key how sure it is (--keys), what could not be read, and
whether a checksum was checked. Exit code 4: something is missing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from kvstore.etcdpb.json import base64_text
from kvstore.options import ENV_PREFIX
from kvstore.salvage import Salvaged, salvage

from .app import App, Argument, Context, Exit, Option
from .command import ExitCode, Settings, readable, write_json, write_line, write_table

BACKEND = f"{ENV_PREFIX}BACKEND"


def register(app: App) -> None:
    app.command("salvage")(salvage_command)


def salvage_command(
    ctx: Context,
    source: Annotated[
        Path, Argument(metavar="SOURCE", help="A file, data directory or log of an etcd, or of ours.")
    ],
    target: Annotated[
        Path | None, Argument(metavar="[TARGET-DIR]", help="The new data directory; none: only report.")
    ] = None,
    wal_dir: Annotated[str, Option(help="The source's log directory, if it is elsewhere.")] = "",
    keys: Annotated[bool, Option("--keys", help="List every live key with its level.")] = False,
    all_lines: Annotated[bool, Option("--all", help="List everything that could not be read.")] = False,
) -> None:
    """Make a new store from what can be read of a damaged one, and say how sure it is."""
    settings = Settings.of(ctx)
    found = salvage(source, target, backend=settings.backend or os.environ.get(BACKEND, ""), wal_dir=wal_dir)
    if settings.json:
        write_json(found.as_json() | ({"levels": _levels_json(found)} if keys else {}))
    else:
        for line in found.lines(0 if all_lines else 20):
            write_line(line)
        if keys:
            write_table(
                ("level", "", "key"),
                (
                    (level.name.lower(), "may be older" if older else "", readable(key, 1000))
                    for key, (level, older) in found.levels.items()
                ),
            )
    if not found.is_complete:
        raise Exit(ExitCode.DAMAGED)


def _levels_json(found: Salvaged) -> list[dict[str, object]]:
    return [
        {"key": base64_text(key), "level": level.name.lower(), "may_be_older": older}
        for key, (level, older) in found.levels.items()
    ]
