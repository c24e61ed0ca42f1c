"""From a target to a new store: a generation is chosen, fetched, and restored like any snapshot and its log.

    generations   |s====================|      |s=============|   |s======
    restore to                    *               *                       the newest moment

A moment or revision is restored from the newest generation whose snapshot is before it and whose log reaches it. One
that lies in no generation is refused; the nearest that can be had are named.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kvstore import layout, verification
from kvstore.backup.catalogue import Catalogue, Generation, Piece, Verified
from kvstore.backup.errors import NotCovered, TargetFailed
from kvstore.errors import Corruption
from kvstore.files import Disk, OSDisk
from kvstore.mvcc.schema import REVISION_END
from kvstore.options import Options, check_bounds
from kvstore.scratch import scratch
from kvstore.snapshot.building import check_target
from kvstore.snapshot.restore import TO_TIME_MAX, NewStore, Restored, restore
from kvstore.verification.report import Report

logger = logging.getLogger("kvstore.backup")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point to restore to; all zero: the newest."""

    revision: int = 0
    time_ms: int = 0

    def __str__(self) -> str:
        return f"revision {self.revision}" if self.revision else shown(self.time_ms)


def shown(time_ms: int) -> str:
    """A time, as people read it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def covers(generation: Generation, moment: Moment) -> bool:
    first, last = _covered(generation, moment)
    return first <= (moment.revision or moment.time_ms) <= last or moment == Moment()


def choose(generations: list[Generation], moment: Moment) -> Generation:
    """The newest generation that covers the moment. Raises ``NotCovered``.

    One whose snapshot is exactly at the revision comes last: it may hold a compaction that came after it.
    """
    if not generations:
        raise NotCovered(
            "there is no complete backup at that place: are its address and folder right? "
            "`kvstore backup status` shows what a place has"
        )
    usable = [each for each in generations if covers(each, moment)]
    if not usable:
        raise NotCovered(_not_covered(generations, moment))
    return max(usable, key=lambda each: (each.snapshot.revision != moment.revision, *_age(each)))


def _not_covered(generations: list[Generation], moment: Moment) -> str:
    """What there is just before the moment and just after it, and how to ask for that."""
    wanted, ranges = moment.revision or moment.time_ms, _ranges(generations, moment)
    before = max((range_ for range_ in ranges if range_[1] < wanted), default=None)
    after = min((range_ for range_ in ranges if range_[0] > wanted), default=None)
    ways = []
    for near, found in ((-1, before), (0, after)):
        if found is not None:
            first, last = (_at(moment, number) for number in found)
            option = "--to-revision" if moment.revision else "--to-time"
            ways.append(f"{first} to {last} ({option} {(first, last)[near]})")
    return (
        f"{moment} is in no generation; the nearest that can be had: {', and '.join(ways)}; "
        "`kvstore backup status` lists all"
    )


def _ranges(generations: list[Generation], moment: Moment) -> list[tuple[int, int]]:
    """(first, last) of the revisions, or times, that can be had without a gap, in order."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(_covered(generation, moment) for generation in generations):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        elif last >= first:
            found.append((first, last))
    return found


def _covered(generation: Generation, moment: Moment) -> tuple[int, int]:
    if moment.revision:
        return generation.snapshot.revision, generation.revision
    return generation.snapshot.time_ms, generation.complete_at_ms


def _at(moment: Moment, number: int) -> str:
    return str(number) if moment.revision else shown(number)


def _age(generation: Generation) -> tuple[int, int, str]:
    """Higher for a newer one: entries are numbered anew where the copy of a cluster was made anew, revisions never."""
    return generation.snapshot.revision, generation.snapshot.index, generation.name


def span(generation: Generation) -> str:
    return (
        f"revisions {generation.snapshot.revision} to {generation.revision} "
        f"({shown(generation.snapshot.time_ms)} to {shown(generation.last_ms)})"
    )


def fetch(shelf: Catalogue, generation: Generation, moment: Moment, folder: Path, disk: Disk) -> Path:
    """Write the snapshot and the segments up to the moment into ``folder``. Returns the snapshot's path."""
    snapshot = folder / "snapshot"
    _write(disk, snapshot, (shelf.get(chunk.name, chunk.sha256) for chunk in generation.snapshot.chunks))
    by_segment: dict[int, list[Piece]] = {}
    for piece in generation.pieces:
        by_segment.setdefault(piece.segment, []).append(piece)
        if (
            moment.revision
            and piece.revision >= moment.revision
            and piece.last_index > generation.snapshot.index
        ):
            break
    for segment, pieces in by_segment.items():
        path = folder / layout.segment_name(generation.snapshot.cluster_id, segment)
        _write(disk, path, (shelf.get(piece.name, piece.sha256) for piece in pieces))
    return snapshot


def _write(disk: Disk, path: Path, parts: Iterator[bytes]) -> None:
    file = disk.create(path)
    try:
        offset = 0
        for part in parts:
            file.pwrite(part, offset)
            offset += len(part)
    finally:
        file.close()


def restore_from(
    shelf: Catalogue,
    data_dir: str | os.PathLike[str],
    *,
    to_revision: int = 0,
    to_time: float = 0.0,
    generation: str = "",
    work_dir: str | os.PathLike[str] = "",
    new: NewStore | None = None,
    disk: Disk | None = None,
) -> Restored:
    """Make the new store ``data_dir``; see ``kvstore.backup.restore``."""
    check_bounds("to_revision", to_revision, 0, REVISION_END)
    check_bounds("to_time", to_time, 0, TO_TIME_MAX)
    check_target(Path(os.path.abspath(data_dir)))
    disk = disk or OSDisk()
    moment = Moment(to_revision, round(to_time * 1000))
    contents = shelf.contents()
    if contents.broken and not contents.generations:
        raise Corruption(contents.broken[-1].reason, contents.broken[-1].name)
    chosen = choose([each for each in contents.generations if generation in ("", each.name)], moment)
    newer = [each for each in contents.broken if each.claimed_ms > chosen.complete_at_ms]
    if newer and moment == Moment() and not generation:
        raise Corruption(
            f"a newer generation cannot be read ({newer[-1].reason}); the newest that can, by its name: "
            f"{chosen.name} with {span(chosen)}",
            newer[-1].name,
        )
    if chosen.damage and moment == Moment():
        raise Corruption(
            f"a part of it cannot be read ({chosen.damage[0]}); what can: {span(chosen)}, with --to-revision",
            chosen.name,
        )
    beside = Path(work_dir or Path(os.path.abspath(data_dir)).parent)
    with scratch(disk, beside) as folder:
        snapshot = fetch(shelf, chosen, moment, folder, disk)
        made = restore(
            snapshot,
            data_dir,
            new,
            archives=[folder],
            to_revision=to_revision,
            to_time=to_time if chosen.pieces else 0.0,
            disk=disk,
        )
    if moment == Moment() and made.revision != chosen.revision:
        raise Corruption(
            f"it ends at revision {made.revision}, its manifests say {chosen.revision}", chosen.name
        )
    return replace(made, base=Path(chosen.name))


def verify_from(
    shelf: Catalogue, *, generation: str = "", work_dir: str | os.PathLike[str] = "", disk: Disk | None = None
) -> Report:
    """Restore a generation into a scratch directory and check every row of that; see ``kvstore.backup.verify``."""
    disk, revision, damage = disk or OSDisk(), 0, ""
    try:
        with scratch(disk, Path(work_dir or tempfile.gettempdir())) as folder:
            made = restore_from(shelf, folder / "store", generation=generation, disk=disk)
            revision = made.revision
            report = verification.verify(made.data_dir, options=Options(backend=made.backend))
            damage = "; ".join(str(finding) for finding in report.findings[:3])
            return replace(report, path=str(made.base))
    except Corruption as error:
        damage = str(error)
        raise
    finally:
        if not generation and (revision or damage):
            _leave(shelf, Verified(time.time_ns() // 1_000_000, revision, damage))


def _leave(shelf: Catalogue, verified: Verified) -> None:
    """Who verifies may not be allowed to write there."""
    try:
        shelf.put_verified(verified)
    except TargetFailed as error:
        logger.warning("what came of the verification could not be left with the backup: %s", error)
