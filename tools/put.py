"""``kvstore put KEY [VALUE]``: write a key. Without VALUE it is read from stdin."""

from __future__ import annotations

import sys
from typing import Annotated

from .app import App, Argument, Context, Option
from .command import Settings, argument_bytes, etcdctl_style_of, write_json
from .kv_text import Printer
from .requests import lease_id


def register(app: App) -> None:
    app.command("put")(put)


def put(
    ctx: Context,
    key: Annotated[str, Argument()],
    value: Annotated[str | None, Argument(help="Read from stdin if absent.")] = None,
    lease: Annotated[str, Option(help="Id of a lease to attach, in hexadecimal.")] = "0",
    ttl: Annotated[
        float | None,
        Option(help="Delete the key after this many seconds, such as 0.5 (by a lease of its own)."),
    ] = None,
    prev_kv: Annotated[bool, Option("--prev-kv", help="Also print the previous version.")] = False,
    ignore_value: Annotated[bool, Option("--ignore-value", help="Keep the current value.")] = False,
    ignore_lease: Annotated[bool, Option("--ignore-lease", help="Keep the current lease.")] = False,
    as_hex: Annotated[bool, Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Write a key.

    Example: kvstore put config/theme dark --data-dir data
    """
    settings = Settings.of(ctx)
    if value is not None:
        data = argument_bytes(value)
    else:
        data = b"" if ignore_value else sys.stdin.buffer.read()
    with settings.open() as store:
        response = store.put(
            argument_bytes(key),
            data,
            lease=lease_id(lease),
            ttl=ttl,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            Printer(as_hex=as_hex).answer(response)
