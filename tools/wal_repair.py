"""``kvstore wal repair``: make a refused log open again, and say what that costs.

    kvstore wal repair --dry-run         what is wrong, what would be cut, what would be lost; touches nothing
    kvstore wal repair                   flips flipped bits back, if each is the only one in its record;
                                         cuts an unfinished write (as opening would)
    kvstore wal repair --to-last-good    cuts at the damage: everything after it that the backend does not hold is
                                         GIVEN UP

A segment is copied aside before it is changed (``.broken``), and segments after the damage are renamed that way. What
the backend already holds is not read again; if the log is damaged only there, nothing needs to be cut. If the backend
holds more than the damaged log can prove, a new log begins after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from kvstore import layout
from kvstore.backend import check_closed, recognize_backend
from kvstore.directory import take_lock
from kvstore.errors import Corruption, KVStoreError, NotAStore
from kvstore.files import OSDisk
from kvstore.held import HeldDisk
from kvstore.layout import DataDir
from kvstore.mvcc.marks import Marks
from kvstore.mvcc.schema import TABLES
from kvstore.wal.inspect import Repair
from kvstore.wal.inspect import repair as repair_log
from kvstore.wal.restart import begin_anew

from .app import Context, Exit, Option
from .command import ExitCode, Settings, write_json, write_line


class Action(StrEnum):
    """The repair a log needs."""

    NOTHING = "nothing"
    FLIP_BACK = "flip a bit back"
    CUT_UNFINISHED = "cut a write that was not finished"
    CUT = "cut at the damage"
    BEGIN_ANEW = "start a new log after what the backend holds"


@dataclass(frozen=True, slots=True)
class Plan:
    action: Action
    held: Marks
    """What the backend knows of the log."""
    cut: Repair

    @property
    def lost(self) -> tuple[int, int]:
        """First and last entry that would be lost, as far as they can be read; (0, 0) if none can."""
        first = max(self.cut.last_good_index, self.held.applied_index) + 1
        return (first, self.cut.last_lost_index) if self.cut.last_lost_index >= first else (0, 0)

    @property
    def is_harmless(self) -> bool:
        return self.action in (Action.NOTHING, Action.FLIP_BACK, Action.CUT_UNFINISHED)


def repair(
    ctx: Context,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report what would be done, without doing it.")
    ] = False,
    to_last_good: Annotated[
        bool,
        Option(
            "--to-last-good", help="Give up every entry after the damage, although they were acknowledged."
        ),
    ] = False,
) -> None:
    """Flip flipped bits back, or cut the log after its last good entry."""
    settings = Settings.of(ctx)
    directory = DataDir.at(settings.directory, settings.load_options().wal_dir or None)
    if not layout.segments(directory.wal):
        raise NotAStore(f"{directory.wal} holds no log", directory.wal)
    lock = take_lock(directory)
    mended = []
    try:
        plan = make_plan(directory)
        while plan.action == Action.FLIP_BACK and not dry_run:
            carry_out(plan, directory)
            mended.append(plan)
            plan = make_plan(directory)
        may_do = plan.is_harmless or to_last_good
        is_done = may_do and plan.action != Action.NOTHING and not dry_run
        if is_done:
            carry_out(plan, directory)
    finally:
        lock.release()
    if settings.json:
        write_json({**plan_facts(plan, is_done=is_done), "mended": [flip_facts(each) for each in mended]})
    else:
        for each in mended:
            write_line(f"DONE: {each.cut.path}: {each.cut.flip} flipped back; nothing was lost")
        for line in explain(plan, is_done=is_done, may_do=may_do):
            write_line(line)
    if not may_do:
        raise Exit(ExitCode.DAMAGED)


def make_plan(directory: DataDir) -> Plan:
    """Find the repair. Raises ``Corruption`` if nothing can be done."""
    held = held_by_backend(directory)
    try:
        cut = repair_log(
            OSDisk(), directory.wal, after_index=held.applied_index, mark=held.log_mark, dry_run=True
        )
    except Corruption as damage:  # nothing of the log would be left, or it ends before the backend
        if not held.applied_index:
            raise
        path = Path(damage.path) if damage.path else None
        cut = Repair(0, damage.reason, path=path, offset=max(damage.offset, 0))
    if not cut.reason:
        return Plan(Action.NOTHING, held, cut)
    if cut.flip is not None:
        return Plan(Action.FLIP_BACK, held, cut)
    if cut.last_good_index < held.applied_index:
        return Plan(Action.BEGIN_ANEW, held, cut)
    return Plan(Action.CUT_UNFINISHED if cut.is_torn else Action.CUT, held, cut)


def held_by_backend(directory: DataDir) -> Marks:
    """The marks of the backend; those of an empty one if it cannot be read."""
    kind = recognize_backend(directory.db) if directory.db.is_file() else None
    if kind is None:
        return Marks()
    try:
        check_closed(kind, directory.db)
        backend = kind.open(directory.db, TABLES, read_only=True)
    except (KVStoreError, OSError):
        return Marks()
    try:
        with backend.read() as tx:
            return Marks.read(tx)
    except Corruption:
        return Marks()
    finally:
        backend.close()


def carry_out(plan: Plan, directory: DataDir) -> None:
    held, disk = plan.held, HeldDisk(OSDisk(), directory)
    if plan.action == Action.BEGIN_ANEW:
        begin_anew(disk, directory.wal, held.applied_index, held.cluster_id, held.member_id)
    else:
        repair_log(disk, directory.wal, after_index=held.applied_index, mark=held.log_mark)


# --- reporting -----------------------------------------------------------------------------


def explain(plan: Plan, *, is_done: bool, may_do: bool) -> list[str]:
    cut, held = plan.cut, plan.held
    if plan.action == Action.NOTHING:
        return [f"the log needs no repair: it can be read to its end, entry {cut.last_good_index}"]
    lines = [f"{cut.path} at byte {cut.offset}: {cut.reason}"]
    if plan.action == Action.CUT_UNFINISHED:
        lines.append("nothing there was acknowledged")
    elif plan.action == Action.FLIP_BACK:
        lines.append("all other bits are right: nothing is lost")
    else:
        lines.append(
            f"the last good entry is {cut.last_good_index}; the backend holds entries up to {held.applied_index}"
        )
    lines.append(f"{'DONE' if is_done else 'to do'}: {plan.action}")
    if not plan.is_harmless:
        lines.append(_loss(plan, is_done))
        if is_done:
            lines.append("take a snapshot now: older ones cannot be continued with this log")
    if not may_do:
        lines.append(
            "nothing was changed. Is there a snapshot or a copy? To give those entries up: --to-last-good"
        )
    return lines


def _loss(plan: Plan, is_done: bool) -> str:
    first, last = plan.lost
    if last:
        return (
            f"LOST{'' if is_done else ' if that is done'}: entries {first} to {last}. They were acknowledged."
        )
    return "nothing readable after the damage is missing from the backend; whether there was more is unknown"


def plan_facts(plan: Plan, *, is_done: bool) -> dict[str, Any]:
    return {
        "action": plan.action.value,
        "done": is_done,
        "reason": plan.cut.reason,
        "path": str(plan.cut.path or ""),
        "offset": plan.cut.offset,
        "last_good_index": plan.cut.last_good_index,
        "applied_index": plan.held.applied_index,
        "first_lost_index": plan.lost[0],
        "last_lost_index": plan.lost[1],
        "set_aside": [str(path) for path in plan.cut.set_aside],
    }


def flip_facts(plan: Plan) -> dict[str, Any]:
    flip = plan.cut.flip
    assert flip is not None
    return {"path": str(plan.cut.path), "offset": flip.offset, "bit": flip.bit}
