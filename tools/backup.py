"""``kvstore backup follow|restore|status|verify|prune``: backups that go on, to a folder or an object store.

    kvstore backup follow --data-dir DIR --to URL          beside the process that writes DIR, until SIGTERM
    kvstore backup follow --from etcd://h1,h2 --to URL     a cluster of etcd's; DIR then keeps a copy of it
    kvstore backup status URL                              generations, lag; --max-lag 60s for a monitor
    kvstore backup restore URL --data-dir NEW --to-time T  a new store; also --to-revision, or the newest
    kvstore backup verify URL                              restores into a scratch directory, and checks every row
    kvstore backup prune URL --keep 48h,14d,8w

Also a script: ``python tools/backup.py follow ...``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.backup", run_name="__main__", alter_sys=True)
    sys.exit()

import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from kvstore import backup
from kvstore.backup.restoring import shown
from kvstore.options import parse_duration
from kvstore.replica.endpoint import is_endpoint

from .app import App, Argument, Context, Exit, Option
from .command import ExitCode, Settings, new_app, run, write_json, write_line, write_table
from .snapshot import seconds_of
from .usage import UsageError
from .verify import show_report

URL = Annotated[str, Argument(metavar="URL", help="A path, file:///path, s3://bucket/folder ...")]
KeyFile = Annotated[
    Path | None,
    Option(
        "--key-file",
        envvar="KVSTORE_BACKUP_KEY_FILE",
        help="A file with the key: 32 bytes in hexadecimal. [default: not encrypted]",
    ),
]
WorkDir = Annotated[
    str, Option("--work-dir", metavar="DIR", help="For temporary files as large as the store.")
]
OneGeneration = Annotated[str, Option("--generation", metavar="NAME", help="Only from this one.")]


def register(app: App) -> None:
    group = new_app("Back up continuously, and restore to any moment.")
    register_verbs(group)
    app.add_group(group, "backup")


def register_verbs(app: App) -> None:
    app.command("follow")(follow)
    app.command("restore")(restore)
    app.command("status")(status)
    app.command("verify")(verify)
    app.command("prune")(prune)


def _key(path: Path | None) -> bytes | None:
    return None if path is None else backup.read_key(path)


def follow(
    ctx: Context,
    to: Annotated[str, Option("--to", metavar="URL", help="Where the backup goes.")],
    source: Annotated[
        str,
        Option(
            "--from",
            metavar="URL",
            help="An etcd cluster or a served store, etcd://h1,h2,h3; --data-dir then keeps a copy, from which the "
            "next run goes on. [default: the store in --data-dir]",
        ),
    ] = "",
    once: Annotated[bool, Option("--once", help="Bring it up to date, and end.")] = False,
    interval: Annotated[str, Option(help="How often to look at the log.")] = "1s",
    snapshot_every: Annotated[str, Option(help="How often a new generation begins.")] = "24h",
    keep: Annotated[str, Option(metavar="48h,14d,8w", help="Which generations to keep. [default: all]")] = "",
    hold_bytes: Annotated[int, Option(help="Released log kept on the disk while the target is away.")] = 1
    << 30,
    key_file: KeyFile = None,
    work_dir: WorkDir = "",
) -> None:
    """Bring a store's snapshots and log to URL, beside the process that writes it, until told to stop."""
    settings = Settings.of(ctx)
    follower = backup.new_follower(
        to=to,
        key=_key(key_file),
        **(_cluster(settings, source) if source else _store(settings)),
        interval_seconds=parse_duration(interval),
        snapshot_seconds=parse_duration(snapshot_every),
        keep=backup.Keep.parse(keep) if keep else None,
        hold_bytes=hold_bytes,
        work_dir=work_dir,
    )
    with follower:
        if once:
            follower.step()
        else:
            signal.signal(signal.SIGTERM, lambda *_: follower.stop())
            follower.run()
    done = follower.status()
    if settings.json:
        write_json({"generation": done.generation, "revision": done.revision, "error": done.error})
    else:
        write_line(f"{to} has revision {done.revision} (generation {done.generation or 'none'})")
    if done.error:
        raise Exit(ExitCode.FAILED)


def _store(settings: Settings) -> dict[str, Any]:
    """What ``new_follower`` takes for a store here."""
    settings.check_exists()
    options = settings.load_options(read_only=True)
    chosen = {name: getattr(options, name) for name in ("backend", "wal_dir") if getattr(options, name)}
    return {"source": settings.directory, "options": chosen}


def _cluster(settings: Settings, url: str) -> dict[str, Any]:
    """What ``new_follower`` takes for a store elsewhere."""
    if not is_endpoint(url):
        raise UsageError(f"--from {url}: not the URL of a server, such as etcd://127.0.0.1:2379")
    kind = {"backend": settings.backend} if settings.backend else {}
    return {
        "source": url,
        "data_dir": settings.data_dir,
        "options": kind,
        "connect": settings.client_options(),
    }


def restore(
    ctx: Context,
    url: URL,
    to_revision: Annotated[int, Option(min=0, help="The state right after this revision.")] = 0,
    to_time: Annotated[
        str, Option(help="The state at this time: ISO 8601 (UTC if no zone) or Unix seconds.")
    ] = "",
    generation: OneGeneration = "",
    key_file: KeyFile = None,
    work_dir: WorkDir = "",
) -> None:
    """Create a new store (--data-dir) from a backup."""
    settings = Settings.of(ctx)
    if to_revision and to_time:
        raise UsageError("--to-revision and --to-time: give one of them")
    made = backup.restore(
        url,
        settings.directory,
        to_revision=to_revision,
        to_time=seconds_of(to_time),
        generation=generation,
        key=_key(key_file),
        work_dir=work_dir,
        backend=settings.backend,
    )
    if settings.json:
        write_json(
            {
                "data_dir": str(made.data_dir),
                "backend": made.backend,
                "generation": str(made.base),
                "revision": made.revision,
                "cluster_id": f"{made.cluster_id:016x}",
            }
        )
    else:
        write_line(f"restored revision {made.revision} into {made.data_dir} from generation {made.base}")


def status(
    ctx: Context,
    url: URL,
    max_lag: Annotated[str, Option(metavar="DURATION", help="Exit with 1 if the backup lags by more.")] = "",
    max_unverified: Annotated[
        str, Option(metavar="DURATION", help="Exit with 1 if it was not verified for longer.")
    ] = "",
    key_file: KeyFile = None,
) -> None:
    """Show what can be restored, and how far the backup has come."""
    settings = Settings.of(ctx)
    limit_seconds = parse_duration(max_lag) if max_lag else None
    unverified_limit_seconds = parse_duration(max_unverified) if max_unverified else None
    found = backup.status(url, key=_key(key_file))
    rows = [_facts(generation) for generation in found.generations]
    if settings.json:
        write_json(
            {
                "revision": found.revision,
                "lag_seconds": round(found.lag_seconds, 3),
                "last_success": shown(found.complete_at_ms) if found.generations else None,
                "verified": asdict(found.verified) if found.verified else None,
                "generations": rows,
                "broken": [{"generation": each.name, "damage": each.reason} for each in found.broken],
            }
        )
    else:
        columns = ("generation", "revisions", "from", "to", "bytes", "damage")
        write_table(columns, [[str(row[name]) for name in columns] for row in rows])
        for each in found.broken:
            write_line(f"DAMAGED  {each.reason}")
        if found.generations:
            write_line(
                f"revision {found.revision}; complete up to {shown(found.complete_at_ms)}, "
                f"{found.lag_seconds:.1f} s ago"
            )
        else:
            write_line("there is no complete backup there")
        if found.generations or found.verified:
            write_line(_verified(found.verified))
    is_late = limit_seconds is not None and not 0 <= found.lag_seconds <= limit_seconds
    checked_at_ms = found.verified.at_ms if found.verified else 0
    is_unverified = (
        unverified_limit_seconds is not None and time.time() - checked_at_ms / 1000 > unverified_limit_seconds
    )
    is_damaged = found.verified is not None and bool(found.verified.damage)
    if is_late or is_unverified or is_damaged or found.broken or any(row["damage"] for row in rows):
        raise Exit(ExitCode.FAILED)


def _verified(found: backup.Verified | None) -> str:
    if found is None:
        return "it was never verified: kvstore backup verify"
    if found.damage:
        return f"DAMAGED  verified {shown(found.at_ms)}: {found.damage}"
    return f"verified {shown(found.at_ms)}, up to revision {found.revision}"


def _facts(generation: backup.Generation) -> dict[str, Any]:
    return {
        "generation": generation.name,
        "revisions": f"{generation.snapshot.revision}-{generation.revision}",
        "from": shown(generation.snapshot.time_ms),
        "to": shown(generation.last_ms),
        "bytes": generation.snapshot.size_bytes + generation.log_bytes,
        "pieces": len(generation.pieces),
        "cluster_id": f"{generation.snapshot.cluster_id:016x}",
        "damage": "; ".join(generation.damage),
    }


def verify(
    ctx: Context,
    url: URL,
    generation: OneGeneration = "",
    key_file: KeyFile = None,
    work_dir: WorkDir = "",
) -> None:
    """Restore the newest generation into a scratch directory, check every row, and remove it again."""
    settings = Settings.of(ctx)
    report = backup.verify(url, generation=generation, key=_key(key_file), work_dir=work_dir)
    show_report(settings, report)
    if not report.ok:
        raise Exit(ExitCode.DAMAGED)


def prune(
    ctx: Context,
    url: URL,
    keep: Annotated[str, Option(metavar="48h,14d,8w", help="Hours, days and weeks to keep.")],
    key_file: KeyFile = None,
) -> None:
    """Delete generations that need not be kept."""
    gone = backup.prune(url, keep, key=_key(key_file))
    if Settings.of(ctx).json:
        write_json({"removed": gone})
        return
    for name in gone:
        write_line(f"removed {name}")


if __name__ == "__main__":
    sys.exit(run(register_verbs))
