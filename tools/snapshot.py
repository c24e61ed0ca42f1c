"""``kvstore snapshot save|status|list|prune|restore``: single-file copies of a store, and new stores from them.

    kvstore snapshot save backup.snap --data-dir DIR      also while another process writes the store
    kvstore snapshot status backup.snap                   checks every byte; exit code 4: damaged
    kvstore snapshot list --data-dir DIR                  the store's own snapshots
    kvstore snapshot prune --data-dir DIR [--dry-run]     keeps only the newest of them
    kvstore snapshot restore backup.snap --data-dir NEW   a new store; NEW must be absent or empty
    kvstore snapshot restore OLD --data-dir NEW --to-revision 1234 [--archive DIR]
                                                          from the snapshots and the log of a data directory

Also a script: ``python tools/snapshot.py save ...``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.snapshot", run_name="__main__", alter_sys=True)
    sys.exit()

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import kvstore
from kvstore.engine import LocalEngine
from kvstore.errors import KVStoreError
from kvstore.reads import Reads
from kvstore.snapshot.formats import inspect
from kvstore.snapshot.hash_state import HashState, state_after_check
from kvstore.snapshot.reader import SnapshotInfo, read_info
from kvstore.upkeep.snapshots import own_snapshots, surplus_of

from .app import App, Argument, Context, Exit, Option
from .command import ExitCode, Settings, exit_code, new_app, run, write_json, write_line, write_table
from .progress import progress_bar
from .usage import UsageError


def register(app: App) -> None:
    group = new_app("Save, check, list and restore snapshots.")
    register_verbs(group)
    app.add_group(group, "snapshot")


def register_verbs(app: App) -> None:
    app.command("save")(save)
    app.command("status")(status)
    app.command("list")(list_)
    app.command("prune")(prune)
    app.command("restore")(restore)


# --- save --------------------------------------------------------------------------------


def save(
    ctx: Context,
    file: Annotated[
        Path | None,
        Argument(
            metavar="[FILE]",
            help="Default: among the store's own snapshots; no other process may have the store open.",
        ),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write a verified snapshot of everything durable now.

    Example: kvstore snapshot save backup.snap --data-dir data
    """
    settings = Settings.of(ctx)
    if file is not None and file.exists() and not overwrite:
        raise UsageError(f"{file} exists: name another file, or give --overwrite")
    if settings.url:
        if file is None:
            raise UsageError("a snapshot of a store elsewhere needs a FILE to be written to")
        beside = True
    else:
        directory = settings.check_exists()
        beside = file is not None and directory.db.exists()  # a store in memory has no file to copy
    with settings.open(read_only=beside) as store, progress_bar("saving") as progress:
        info = store.snapshot(file, progress=progress)
    if settings.json:
        write_json(facts(info, state_after_check(info)))
    else:
        write_line(f"saved revision {info.revision} as {info.path} ({info.size_bytes} bytes)")


# --- status and list ---------------------------------------------------------------------


def status(
    ctx: Context,
    files: Annotated[list[Path], Argument(metavar="FILE...")],
) -> None:
    """Check every byte of a snapshot file and show what it holds."""
    settings = Settings.of(ctx)
    worst = ExitCode.OK
    for file in files:
        try:
            with progress_bar(f"verifying {file.name}") as progress:
                info = inspect(file, progress)
        except (KVStoreError, OSError) as error:
            if len(files) == 1:
                raise
            worst = max(worst, exit_code(error) or ExitCode.FAILED)
            _show(settings, {"path": str(file), "damage": str(error)})
        else:
            state = state_after_check(info)
            _show(settings, facts(info, state))
            if state.caution and not settings.json:
                write_line(f"WARNING: {state.caution}")
    if worst:
        raise Exit(worst)


def list_(ctx: Context) -> None:
    """List the store's own snapshots, oldest first. Only their manifests are read."""
    settings = Settings.of(ctx)
    directory = settings.check_exists()
    found = [_facts_or_damage(file.path) for file in directory.snapshots()]
    if settings.json:
        write_json(found)
        return
    columns = ("path", "revision", "index", "created", "keys", "size_bytes", "damage")
    write_table(columns, [[str(item.get(name, "")) for name in columns] for item in found])


def prune(
    ctx: Context,
    keep: Annotated[
        int | None, Option(min=1, help="How many to keep. [default: the option max-snapshots]")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report which would be removed, without doing it.")
    ] = False,
) -> None:
    """Remove all but the newest of the store's own snapshots, as taking a new one does by itself."""
    settings = Settings.of(ctx)
    settings.check_exists()
    with settings.open(read_only=dry_run, background=False) as store:
        engine: Reads = store.engine
        count = engine.options.max_snapshots if keep is None else keep
        if isinstance(engine, LocalEngine):
            files = engine.snapshots.prune(count)
        else:
            assert engine.directory is not None
            files = surplus_of(own_snapshots(engine.directory, engine.cluster_id), count)
        gone = [str(file.path) for file in files]
    if settings.json:
        write_json({"dry_run": dry_run, "removed": gone})
        return
    for path in gone:
        write_line(f"{'would remove' if dry_run else 'removed'} {path}")


def _facts_or_damage(path: Path) -> dict[str, Any]:
    try:
        return facts(read_info(path), HashState.SKIPPED)
    except (KVStoreError, OSError) as error:
        return {"path": str(path), "damage": str(error)}


def facts(info: SnapshotInfo, state: HashState) -> dict[str, Any]:
    """All fields of a manifest, by name, and whether the SHA-256 among them was checked."""
    return {
        "path": str(info.path),
        "backend": info.backend,
        "revision": info.revision,
        "compact_revision": info.compact_revision,
        "index": info.index,
        "created": _time_text(info.created_ms),
        "keys": info.keys,
        "changes": info.changes,
        "leases": info.leases,
        "cluster_id": f"{info.cluster_id:016x}",
        "member_id": f"{info.member_id:016x}",
        "members": [{"id": f"{member.id:016x}", "name": member.name} for member in info.members],
        "size_bytes": info.size_bytes,
        "sha256": info.sha256.hex(),
        "hash_check": state.value,
        **info.said_by_others,
    }


def _show(settings: Settings, values: dict[str, Any]) -> None:
    if settings.json:
        write_json(values)
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in values.items()]
    write_table(("", ""), rows)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{member['name']} ({member['id']})" for member in value)
    return str(value)


def _time_text(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


# --- restore -----------------------------------------------------------------------------


def restore(
    ctx: Context,
    source: Annotated[Path, Argument(metavar="SOURCE", help="A snapshot file or a data directory.")],
    to_revision: Annotated[
        int, Option(min=0, help="Restore the state right after this revision was written.")
    ] = 0,
    to_time: Annotated[
        str, Option(help="Restore the state at this time: ISO 8601 (UTC if no zone) or Unix seconds.")
    ] = "",
    archive: Annotated[
        list[Path] | None,
        Option(help="A directory of archived log segments; may be repeated.", metavar="DIR"),
    ] = None,
    name: Annotated[str, Option(help="Name of the new member.")] = "default",
    cluster_id: Annotated[
        str, Option(help="Cluster id of the new store, in hexadecimal. [default: random]")
    ] = "0",
    member_id: Annotated[
        str, Option(help="Member id of the new store, in hexadecimal. [default: random]")
    ] = "0",
    bump_revision: Annotated[int, Option(help="Raise the revision by this much.")] = 0,
    mark_compacted: Annotated[
        bool, Option("--mark-compacted", help="With --bump-revision: mark the past as compacted.")
    ] = False,
) -> None:
    """Create a new store (--data-dir) from SOURCE, which is not changed."""
    settings = Settings.of(ctx)
    with progress_bar("restoring") as progress:
        made = kvstore.restore(
            source,
            settings.directory,
            archives=archive or (),
            to_revision=to_revision,
            to_time=seconds_of(to_time),
            progress=progress,
            backend=settings.backend,
            cluster_id=_identity(cluster_id),
            member_id=_identity(member_id),
            name=name,
            bump_revision=bump_revision,
            mark_compacted=mark_compacted,
        )
    if settings.json:
        write_json(
            {
                "data_dir": str(made.data_dir),
                "backend": made.backend,
                "base": str(made.base or ""),
                "index": made.index,
                "revision": made.revision,
                "compact_revision": made.compact_revision,
                "cluster_id": f"{made.cluster_id:016x}",
                "member_id": f"{made.member_id:016x}",
            }
        )
    else:
        write_line(
            f"restored revision {made.revision} into {made.data_dir} ({made.backend}) "
            f"from {made.base or 'the log alone'}; its cluster id is {made.cluster_id:016x}"
        )


def seconds_of(text: str) -> float:
    if not text:
        return 0.0
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"not a time: {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _identity(text: str) -> int:
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"not an id (hexadecimal, of 64 bits): {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(run(register_verbs))
