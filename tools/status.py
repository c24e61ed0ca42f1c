"""``kvstore status``: what a store holds, how large it is, and what is wrong with it, if anything."""

from __future__ import annotations

from typing import Any

from .app import App, Context
from .command import Settings, number_text, size_text, write_json, write_table


def register(app: App) -> None:
    app.command("status")(status)


def status(ctx: Context) -> None:
    """Show what the store holds and how large it is. Works while another process writes the store.

    Example: kvstore status --endpoint unix:///run/kv.sock
    """
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        facts = {**store.status().as_dict(), "keys": store.count(prefix=b"")}
    if settings.json:
        write_json(facts)
    else:
        write_table(
            ("", ""), [(name.replace("_", " "), _shown(name, value)) for name, value in facts.items()]
        )


def _shown(name: str, value: Any) -> str:
    if name in ("wal", "snapshots"):
        size_bytes = sum(file["size_bytes"] for file in value)
        return f"{len(value)} files, {size_text(size_bytes)}" if value else "none"
    if name.endswith("_bytes") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, list | tuple):
        return ", ".join(value) or "none"
    if value is None:
        return "none"
    if name == "compact_revision" and value < 0:
        return "never compacted"
    return number_text(value) if isinstance(value, int) else str(value) or "none"
