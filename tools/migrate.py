"""``kvstore migrate``: move a store to a newer or older format, or to another backend.

kvstore migrate format                    to this version's format (--to N: another; --dry-run; --into DIR)
kvstore migrate backend --to sqlite       the same store in another kind of file
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from kvstore.mvcc.schema import FORMAT_VERSION
from kvstore.offline import migration
from kvstore.offline.backend_move import move_backend

from .app import App, Context, Option
from .command import Settings, new_app, write_json, write_line
from .progress import progress_bar


def register(app: App) -> None:
    group = new_app("Change the format of a store, or its backend.")
    group.command("format")(format_)
    group.command("backend")(backend)
    app.add_group(group, "migrate")


def format_(
    ctx: Context,
    to: Annotated[int, Option(help="Format to migrate to. [default: the current one]")] = FORMAT_VERSION,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report what would be done, without doing it.")
    ] = False,
    into: Annotated[
        Path | None,
        Option(help="Leave the store alone and migrate a verified copy into this new directory."),
    ] = None,
) -> None:
    """Migrate a cleanly closed store to another format, step by step."""
    settings = Settings.of(ctx)
    planned = migration.plan(settings.directory, to, wal_dir=settings.load_options().wal_dir)
    if not dry_run and planned.steps:
        migration.migrate(planned, into=into)
    if settings.json:
        steps = [{"from": step.older, "to": step.newer, "summary": step.summary} for step in planned.steps]
        write_json({"found": planned.found, "wanted": planned.wanted, "dry_run": dry_run, "steps": steps})
        return
    if not planned.steps:
        write_line(f"{settings.directory} has format {planned.found}: nothing to do")
    for step in planned.steps:
        write_line(f"format {step.older} <-> {step.newer}: {step.summary}{' (not done)' if dry_run else ''}")


def backend(ctx: Context, to: Annotated[str, Option(help="Backend to move to: lmdb or sqlite.")]) -> None:
    """Move the store to another backend: copied, verified by HashKV, then swapped."""
    settings = Settings.of(ctx)
    with progress_bar(f"moving to {to}") as progress:
        wal_dir = settings.load_options().wal_dir
        moved = move_backend(settings.directory, to, wal_dir=wal_dir, progress=progress)
    if settings.json:
        write_json(asdict(moved) | {"data_dir": str(moved.data_dir)})
        return
    write_line(
        f"{moved.data_dir}: {moved.old_backend} ({moved.old_bytes} bytes) -> {moved.new_backend} "
        f"({moved.new_bytes} bytes), HashKV {moved.hash} at revision {moved.revision}"
    )
