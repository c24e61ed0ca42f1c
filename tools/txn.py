"""``kvstore txn``: a transaction from stdin, in etcdctl's text format (described in ``txn_text.py``)."""

from __future__ import annotations

import sys
from typing import Annotated

from .app import App, Context, Option
from .command import Settings, engine_of, etcdctl_style_of, write_json
from .kv_text import Printer
from .txn_text import parse_txn


def register(app: App) -> None:
    app.command("txn")(txn)


def txn(
    ctx: Context,
    interactive: Annotated[
        bool, Option("-i", "--interactive", help="Prompt for each part; an empty line ends it.")
    ] = False,
    as_hex: Annotated[bool, Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Run a transaction from stdin.

    Compares, an empty line, ops if they hold, an empty line, ops if not.
    """
    settings = Settings.of(ctx)
    request = parse_txn(_ask() if interactive else sys.stdin.buffer.read())
    with settings.open() as store:
        response = engine_of(store).txn(request)
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            Printer(as_hex=as_hex).answer(response)


def _ask() -> bytes:
    text = b""
    for part in ("compares", "success requests (get, put, del)", "failure requests (get, put, del)"):
        print(f"{part}:", file=sys.stderr)
        while line := sys.stdin.buffer.readline().strip():
            text += line + b"\n"
        text += b"\n"
    return text
