"""``kvstore wal repair``: make a log that is refused one that opens, and say what that costs.

    kvstore wal repair --dry-run         what is wrong, what would be cut, what would be lost; touches nothing
    kvstore wal repair                   cuts a write that was not finished (opening would, too)
    kvstore wal repair --to-last-good    cuts at the damage: everything behind it is GIVEN UP

Whatever is cut is copied aside before (``.broken``), and segments behind the damage are renamed so. What the backend
holds already is not read again; if the log is damaged only there, nothing needs to be cut.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvstore import layout
from kvstore.backend import recognize_backend
from kvstore.errors import Corruption, KVStoreError, NotAStore
from kvstore.files import OSDisk
from kvstore.layout import DataDir
from kvstore.mvcc.schema import META, META_APPLIED_INDEX, META_LOG_MARK, TABLES, parse_u64
from kvstore.recovery import take_lock
from kvstore.verification.run import check_closed
from kvstore.wal.inspect import Repair
from kvstore.wal.inspect import repair as repair_log

from .command import ExitCode, Settings, write_json, write_line


def repair(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    to_last_good: Annotated[
        bool,
        typer.Option("--to-last-good", help="Give up every entry behind the damage. They were acknowledged."),
    ] = False,
) -> None:
    """Cut the log behind its last good entry."""
    settings = Settings.of(ctx)
    directory = DataDir.at(settings.directory, settings.load_options().wal_dir or None)
    if not layout.segments(directory.wal):
        raise NotAStore(f"{directory.wal} holds no log", directory.wal)
    lock = take_lock(directory)
    try:
        applied_index, mark = held_by_backend(directory)
        plan = repair_log(OSDisk(), directory.wal, after_index=applied_index, mark=mark, dry_run=True)
        code = verdict(plan, applied_index, to_last_good=to_last_good)
        is_done = code == ExitCode.OK and bool(plan.reason) and not dry_run
        if is_done:
            repair_log(OSDisk(), directory.wal, after_index=applied_index, mark=mark)
    finally:
        lock.release()
    if settings.json:
        write_json(repair_facts(plan, applied_index, is_done=is_done))
    else:
        for line in explain(plan, applied_index, is_done=is_done, to_last_good=to_last_good):
            write_line(line)
    if code != ExitCode.OK:
        raise typer.Exit(code)


def held_by_backend(directory: DataDir) -> tuple[int, bytes]:
    """(applied index, mark) of the backend; (0, nothing) where it cannot be read."""
    kind = recognize_backend(directory.db) if directory.db.is_file() else None
    if kind is None:
        return 0, b""
    try:
        check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except (KVStoreError, OSError):
        return 0, b""
    try:
        with backend.read() as tx:
            index, mark = tx.get_many(META, [META_APPLIED_INDEX, META_LOG_MARK])
        return parse_u64(index), mark or b""
    except Corruption:
        return 0, b""
    finally:
        backend.close()


def verdict(plan: Repair, applied_index: int, *, to_last_good: bool) -> ExitCode:
    """Whether the cut may be made."""
    if not plan.reason or plan.is_torn:
        return ExitCode.OK
    return ExitCode.OK if to_last_good and plan.last_good_index >= applied_index else ExitCode.DAMAGED


def explain(plan: Repair, applied_index: int, *, is_done: bool, to_last_good: bool) -> list[str]:
    if not plan.reason:
        return [f"the log needs no repair: it can be read to its end, entry {plan.last_good_index}"]
    lines = [f"{plan.path} at byte {plan.offset}: {plan.reason}"]
    if plan.is_torn:
        lines.append(
            f"{_will(is_done)} cut after entry {plan.last_good_index}; nobody was told of what comes behind"
        )
        return lines
    lines.append(
        f"the last good entry is {plan.last_good_index}; the backend holds entries up to {applied_index}"
    )
    if plan.last_good_index < applied_index:
        lines.append(
            "a cut would leave a log that ends before the backend, so nothing was changed; a new store can be"
        )
        lines.append(
            "made out of what is good: kvstore snapshot restore DIR --data-dir NEW --to-revision REVISION"
        )
        return lines
    lines += [f"{_will(is_done)} set aside: {path}" for path in plan.set_aside]
    if plan.last_lost_index:
        lost = f"entries {plan.last_good_index + 1} to {plan.last_lost_index}"
        lines.append(f"LOST{'' if is_done else ' if that is done'}: {lost}. They were acknowledged.")
    else:
        lines.append("behind it nothing readable is left; how many entries there were is unknown")
    if not to_last_good:
        lines.append(
            "nothing was changed. First try a snapshot; to give them up all the same: --to-last-good"
        )
    return lines


def _will(is_done: bool) -> str:
    return "was" if is_done else "to be"


def repair_facts(plan: Repair, applied_index: int, *, is_done: bool) -> dict[str, Any]:
    return {
        "needed": bool(plan.reason),
        "done": is_done,
        "reason": plan.reason,
        "unfinished_write_only": plan.is_torn,
        "path": str(plan.path or ""),
        "offset": plan.offset,
        "last_good_index": plan.last_good_index,
        "last_lost_index": plan.last_lost_index,
        "applied_index": applied_index,
        "set_aside": [str(path) for path in plan.set_aside],
    }
