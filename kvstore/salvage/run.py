"""One salvage: read, judge, build, report."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from kvstore.backend import packed_hint
from kvstore.errors import NotAStore
from kvstore.files import Disk, OSDisk, disk_full_is_typed
from kvstore.foreign import find_foreign, foreign_names
from kvstore.options import Options
from kvstore.salvage.building import Built, build
from kvstore.salvage.evidence import Evidence, Level
from kvstore.salvage.judging import Judgment, judge
from kvstore.salvage.report import Salvaged
from kvstore.snapshot.building import check_target


@disk_full_is_typed()
def salvage(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None,
    *,
    backend: str = "",
    wal_dir: str = "",
    disk: Disk | None = None,
) -> Salvaged:
    """Make the new data directory ``data_dir`` from what can be read of ``source``; with None, only report.

    ``source``: a snapshot file, a database file, a log directory or a data directory, of ours or of an etcd; it is
    never changed. ``wal_dir``: its log directory, if it is elsewhere. Raises ``NotAStore`` if nothing of a store is in
    it, ``StoreLocked`` (a process uses it), ``WrongStore`` (the target exists), ``DiskFull``, ``BadOption``.
    """
    origin = Path(os.path.abspath(source))
    target = None if data_dir is None else Path(os.path.abspath(data_dir))
    if target is not None:
        check_target(target)
    evidence = _read(origin, wal_dir)
    with evidence.sources:
        found = judge(evidence)
        lost = [*evidence.unread, *evidence.lost_later]
        if not found.by_key and evidence.replay is None and (lost or not evidence.covered):
            told = "; ".join(lost[-3:]) or "no row of a store was found"
            raise NotAStore(f"{origin}: nothing can be salvaged: {told}", origin)
        name = backend or Options().backend
        built = build(disk or OSDisk(), target, name, evidence, found)
    return _report(evidence, found, built, target, name)


def _read(source: Path, wal_dir: str) -> Evidence:
    if not os.path.lexists(source):
        raise FileNotFoundError(2, "no such file or directory", os.fspath(source))
    from kvstore.salvage import own

    if own.recognizes(source):
        return own.read(source, wal_dir)
    others = [find_foreign(name).evidence(source, wal_dir=wal_dir) for name in foreign_names()]
    found = [each for each in others if each is not None]
    if not any(each.facts or each.replay for each in found) and own.has_pages(source):
        return own.read(source, wal_dir)
    if found:
        return found[0]
    raise NotAStore(
        f"{source} holds nothing of a store of ours or of a known other kind{packed_hint(source)}", source
    )


def _report(evidence: Evidence, found: Judgment, built: Built, target: Path | None, backend: str) -> Salvaged:
    levels = built.levels
    counts = Counter(level for level, _ in levels.values())
    figures = dict(evidence.figures)
    figures["facts in free pages that a compaction had removed, left out"] = found.removed
    figures["older versions at or below the horizon, left out"] = found.superseded
    return Salvaged(
        source=evidence.source,
        kind=evidence.kind,
        data_dir=target,
        backend=backend if target is not None else "",
        revision=built.marks.revision,
        compact_revision=built.marks.compacted,
        hash_kv=built.hash_kv,
        horizon=found.horizon,
        keys={level: counts[level] for level in Level},
        may_be_older=sum(older for _, older in levels.values()),
        levels=levels,
        missing=tuple(found.missing),
        figures={what: count for what, count in figures.items() if count},
        warnings=tuple(evidence.warnings),
        unread=(*evidence.unread, *evidence.lost_later, *built.notes),
        contradictions=tuple(found.contradictions),
    )
