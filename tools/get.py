"""``kvstore get KEY [RANGE_END]``: read keys, at the newest revision or at a past one."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from kvstore.model import RangeRequest

from .app import App, Argument, Context, Option
from .command import Settings, range_of, style_of, write_json, write_line
from .kv_text import Printer
from .requests import sort_order, sort_target


def register(app: App) -> None:
    app.command("get")(get)


def get(
    ctx: Context,
    key: Annotated[str, Argument()],
    range_end: Annotated[
        str | None, Argument(help="Read the keys from KEY up to this one, exclusive.")
    ] = None,
    prefix: Annotated[bool, Option("--prefix", help="All keys that begin with KEY.")] = False,
    from_key: Annotated[bool, Option("--from-key", help="All keys from KEY on.")] = False,
    rev: Annotated[int, Option(help="Read as of this revision; 0: the newest.")] = 0,
    limit: Annotated[int, Option(help="Return at most this many keys (0 = no limit).")] = 0,
    order: Annotated[str, Option(help="ASCEND or DESCEND.")] = "",
    sort_by: Annotated[str, Option(help="KEY, VERSION, CREATE, MODIFY or VALUE.")] = "",
    keys_only: Annotated[bool, Option("--keys-only", help="Leave out the values.")] = False,
    count_only: Annotated[bool, Option("--count-only", help="Print only the number of keys.")] = False,
    print_value_only: Annotated[
        bool, Option("--print-value-only", help="Print values without keys.")
    ] = False,
    as_hex: Annotated[bool, Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Read keys.

    Example: kvstore get config/ --prefix --rev 42
    """
    start, end = range_of(key, range_end, prefix=prefix, from_key=from_key)
    request = RangeRequest(
        start,
        end,
        limit,
        rev,
        sort_order(order, sort_by),
        sort_target(sort_by),
        keys_only,
        count_only,
    )
    settings = Settings.of(ctx)
    with closing(settings.open_to_read()) as engine:
        response = engine.range(request)
        if settings.json:
            write_json(style_of(engine).answer(response))
        elif count_only:
            write_line(str(response.count))
        else:
            Printer(as_hex=as_hex, values_only=print_value_only).answer(response)
