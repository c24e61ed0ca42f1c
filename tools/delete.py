"""``kvstore del KEY [RANGE_END]``: delete keys, all in one revision."""

from __future__ import annotations

import sys
from typing import Annotated

from kvstore.model import FROM_KEY, DeleteRangeRequest, DeleteRangeResponse, RangeRequest

from .app import App, Argument, Context, Option
from .command import Settings, confirm, engine_of, etcdctl_style_of, range_of, write_json
from .kv_text import Printer


def register(app: App) -> None:
    app.command("del")(delete)


def delete(
    ctx: Context,
    key: Annotated[str, Argument()],
    range_end: Annotated[
        str | None, Argument(help="Delete the keys from KEY up to this one, exclusive.")
    ] = None,
    prefix: Annotated[bool, Option("--prefix", help="All keys that begin with KEY.")] = False,
    from_key: Annotated[bool, Option("--from-key", help="All keys from KEY on.")] = False,
    prev_kv: Annotated[bool, Option("--prev-kv", help="Also print the deleted versions.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report what would be deleted, without doing it.")
    ] = False,
    as_hex: Annotated[bool, Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Delete keys and print how many. At a terminal, it asks before it deletes every key.

    Example: kvstore del tmp/ --prefix --dry-run
    """
    start, end = range_of(key, range_end, prefix=prefix, from_key=from_key)
    if (start, end) == (FROM_KEY, FROM_KEY) and not dry_run and sys.stdin.isatty():
        confirm("This deletes every key.")
    settings = Settings.of(ctx)
    with settings.open_existing(read_only=dry_run) as store:
        if dry_run:
            found = engine_of(store).range(
                RangeRequest(start, end, keys_only=not prev_kv, count_only=not prev_kv)
            )
            response = DeleteRangeResponse(found.revision, found.count, found.kvs)
        else:
            response = engine_of(store).delete_range(DeleteRangeRequest(start, end, prev_kv))
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            Printer(as_hex=as_hex).answer(response)
