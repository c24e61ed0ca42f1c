"""``kvstore history KEY``: every kept version of a key, oldest first; deletes show too."""

from __future__ import annotations

from typing import Annotated

from .app import App, Argument, Context, Option
from .command import Settings, argument_bytes, etcdctl_style_of, readable, write_json, write_table


def register(app: App) -> None:
    app.command("history")(history)


def history(
    ctx: Context,
    key: Annotated[str, Argument()],
    since: Annotated[int, Option(help="First revision; 0: the oldest kept.")] = 0,
    until: Annotated[int, Option(help="Last revision; 0: the newest.")] = 0,
) -> None:
    """Show every kept version of a key, oldest first.

    Columns: revision, version (0: deleted), lease, value.

    Example: kvstore history config/theme
    """
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        versions = store.history(argument_bytes(key), since=since, until=until)
        if settings.json:
            style = etcdctl_style_of(store)
            for kv in versions:
                write_json(style.key_value(kv))
            return
        rows = (
            (
                str(kv.mod_revision),
                str(kv.version),
                f"{kv.lease & (1 << 64) - 1:x}" if kv.lease else "",
                readable(kv.value) if kv.version else "(deleted)",
            )
            for kv in versions
        )
        write_table(("revision", "version", "lease", "value"), rows)
