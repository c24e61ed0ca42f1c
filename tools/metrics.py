"""``kvstore metrics``: a store's numbers in Prometheus' text format (of a store that another process may have open)."""

from __future__ import annotations

import typer

from .command import Settings, write_line


def register(app: typer.Typer) -> None:
    app.command("metrics")(metrics)


def metrics(ctx: typer.Context) -> None:
    """Sizes, revisions and counts as metrics, under etcd's names where they mean the same."""
    from kvstore.metrics import render

    with Settings.of(ctx).open(read_only=True) as store:
        write_line(render(store).rstrip("\n"))
