"""``kvstore health``: whether a store can be opened, read, and would accept writes. Exit code 1: it would not."""

from __future__ import annotations

from .app import App, Context, Exit
from .command import ExitCode, Settings, write_json, write_line


def register(app: App) -> None:
    app.command("health")(health)


def health(ctx: Context) -> None:
    """Tell whether writes are accepted, and if not, why."""
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        found = store.health()
    if settings.json:
        write_json({"health": found.healthy, "reasons": list(found.reasons)})
    else:
        write_line("healthy" if found.healthy else "unhealthy: " + "; ".join(found.reasons))
    if not found.healthy:
        raise Exit(ExitCode.FAILED)
