"""``kvstore import etcd PATH``: a new store out of an etcd snapshot, or of a stopped etcd's data directory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from kvstore.foreign import ImportOptions, find_foreign

from .app import App, Argument, Context, Option
from .command import Settings, write_json, write_line
from .progress import progress_bar


def register(app: App) -> None:
    app.command("import")(import_)


def import_(
    ctx: Context,
    kind: Annotated[str, Argument(metavar="KIND", help="Format of the source: etcd.")],
    path: Annotated[Path, Argument(metavar="PATH", help="A snapshot file or a data directory.")],
    wal_dir: Annotated[str, Option(help="Its log directory, if it is elsewhere.")] = "",
    skip_hash_check: Annotated[
        bool,
        Option("--skip-hash-check", help="Accept a snapshot whose SHA-256 is missing or wrong."),
    ] = False,
    cluster_id: Annotated[str, Option(help="Cluster id in hexadecimal. [default: that of the source]")] = "",
) -> None:
    """Create the store --data-dir from another store's files: every kept revision, leases, identity."""
    settings = Settings.of(ctx)
    options = ImportOptions(
        backend=settings.backend or settings.load_options().backend,
        wal_dir=wal_dir,
        skip_hash_check=skip_hash_check,
        cluster_id=int(cluster_id or "0", 16),
    )
    with progress_bar(f"importing {path.name}") as progress:
        imported = find_foreign(kind).import_store(path, settings.directory, options, progress)
    if settings.json:
        write_json(asdict(imported) | {"data_dir": str(imported.data_dir)})
        return
    write_line(f"{imported.data_dir} ({imported.backend}) is at revision {imported.revision}")
    if imported.compact_revision >= 0:
        write_line(f"compacted at revision {imported.compact_revision}")
    write_line(f"cluster {imported.cluster_id:016x}, member {imported.member_id:016x}")
    for what, count in imported.counts.items():
        write_line(f"{count:>12,} {what}")
    for note in imported.notes:
        write_line(f"note: {note}")
