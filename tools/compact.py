"""``kvstore compact REVISION``: forget what was superseded at or before a revision."""

from __future__ import annotations

from typing import Annotated

import typer

from .command import Settings, etcdctl_style_of, write_json, write_line


def register(app: typer.Typer) -> None:
    app.command("compact")(compact)


def compact(
    ctx: typer.Context,
    revision: Annotated[int, typer.Argument(help="It and all newer ones stay readable.")],
    physical: Annotated[
        bool,
        typer.Option("--physical", help="Return when the rows are gone too (they go at closing anyway)."),
    ] = False,
) -> None:
    """Forget what was superseded at or before a revision."""
    settings = Settings.of(ctx)
    with settings.open() as store:
        response = store.compact(revision, physical=physical)
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            write_line(f"compacted revision {revision}")
