"""``kvstore status``: what a store holds, how large it is, and what is wrong with it, if anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import kvstore
from kvstore import layout

from .command import Settings, write_json, write_table

if TYPE_CHECKING:
    from kvstore.store import Store


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(ctx: typer.Context) -> None:
    """What the store holds, and how large it is. Works beside the process that writes it."""
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        facts = store_facts(store)
    if settings.json:
        write_json(facts)
    else:
        write_table(
            ("", ""), [(name.replace("_", " "), _shown(name, value)) for name, value in facts.items()]
        )


def store_facts(store: Store) -> dict[str, Any]:
    """Everything ``status`` says, by name."""
    engine = store.engine
    directory = engine.directory
    assert directory is not None
    segments = layout.segments(directory.wal)
    snapshots = directory.snapshots()
    return {
        "version": kvstore.__version__,
        "data_dir": str(directory.root),
        "backend": engine.backend.name,
        "cluster_id": f"{engine.cluster_id:016x}",
        "member_id": f"{engine.member_id:016x}",
        "revision": store.revision,
        "compact_revision": store.compact_revision,
        "keys": store.count(prefix=b""),
        "backend_bytes": engine.backend.size_bytes(),
        "backend_bytes_in_use": engine.backend.in_use_bytes(),
        "applied_index": engine.state.applied_index,
        "last_index": engine.state.index,
        "wal_segments": len(segments),
        "wal_bytes": _bytes(file.path for file in segments),
        "snapshots": len(snapshots),
        "snapshot_bytes": _bytes(file.path for file in snapshots),
        "leases": len(store.leases()),
        "alarms": [f"{alarm.alarm} (member {alarm.member_id:x})" for alarm in store.alarms()],
    }


def _bytes(paths: Any) -> int:
    return sum(Path(path).stat().st_size for path in paths)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if name == "compact_revision" and value < 0:
        return "never compacted"
    return f"{value:,}" if isinstance(value, int) else str(value)
