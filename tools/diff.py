"""``kvstore diff OLDER [NEWER]``: the keys that differ between two revisions."""

from __future__ import annotations

from typing import Annotated

from kvstore.model import Change

from .app import App, Argument, Context, Option
from .command import Settings, argument_bytes, etcdctl_style_of, readable, write_json, write_table


def register(app: App) -> None:
    app.command("diff")(diff)


def diff(
    ctx: Context,
    older: Annotated[int, Argument(help="A revision.")],
    newer: Annotated[int, Argument(help="The newer revision; 0: the newest there is.")] = 0,
    prefix: Annotated[str, Option(help="Only keys that begin with this prefix.")] = "",
) -> None:
    """Show the keys that differ between two revisions.

    In key order; + added, - deleted, ~ changed.

    Example: kvstore diff 42 --prefix config/
    """
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        changes = store.diff(older, newer, prefix=argument_bytes(prefix))
        if settings.json:
            style = etcdctl_style_of(store)
            for change in changes:
                write_json(
                    {
                        "key": style.text(change.key),
                        **({"before": style.key_value(change.before)} if change.before else {}),
                        **({"after": style.key_value(change.after)} if change.after else {}),
                    }
                )
            return
        write_table(("", "key", "before", "after"), (_row(change) for change in changes))


def _row(change: Change) -> tuple[str, str, str, str]:
    before, after = change.before, change.after
    return (
        "+" if before is None else "-" if after is None else "~",
        readable(change.key),
        readable(before.value) if before is not None else "",
        readable(after.value) if after is not None else "",
    )
