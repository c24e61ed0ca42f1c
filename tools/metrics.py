"""``kvstore metrics``: a store's numbers in Prometheus' text format, also while another process has the store open.

Every name is there. Counts of calls and durations are those of a process, so here they are zero: the process that has
the store open shows its own (``store.metrics()``).
"""

from __future__ import annotations

from .app import App, Context
from .command import Settings, write_line


def register(app: App) -> None:
    app.command("metrics")(metrics)


def metrics(ctx: Context) -> None:
    """Print sizes, revisions and counts as metrics, under etcd's names where they mean the same."""
    with Settings.of(ctx).open(read_only=True, metrics=True) as store:
        write_line(store.metrics().rstrip("\n"))
