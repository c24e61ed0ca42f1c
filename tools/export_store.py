"""``kvstore export etcd OUT.db``: a snapshot file that ``etcdctl snapshot restore`` takes."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from kvstore.foreign import find_foreign
from kvstore.opened import open_snapshot

from .app import App, Argument, Context, Option
from .command import Settings, write_json, write_line
from .progress import progress_bar


def register(app: App) -> None:
    app.command("export")(export)


def export(
    ctx: Context,
    kind: Annotated[str, Argument(metavar="KIND", help="Format to write: etcd.")],
    path: Annotated[Path, Argument(metavar="PATH", help="File to write; it must not exist.")],
    snapshot: Annotated[
        Path | None, Option("--from", help="A snapshot file to export, instead of --data-dir.")
    ] = None,
) -> None:
    """Write the store, or a snapshot, as a file of another store. Works while another process writes the store."""
    settings = Settings.of(ctx)
    adapter = find_foreign(kind)
    store = settings.open(read_only=True) if snapshot is None else open_snapshot(snapshot)
    started = time.monotonic()
    with store, progress_bar("exporting", "revisions") as progress:
        exported = adapter.export_store(store, path, progress)
    seconds = max(time.monotonic() - started, 1e-9)
    if settings.json:
        write_json(asdict(exported) | {"path": str(exported.path)})
        return
    mib = exported.size_bytes / (1 << 20)
    write_line(f"{exported.path}: {mib:.1f} MiB, {mib / seconds:.0f} MiB/s, revision {exported.revision}")
    for what, count in exported.counts.items():
        write_line(f"{count:>12,} {what}")
    for note in exported.notes:
        write_line(f"note: {note}")
