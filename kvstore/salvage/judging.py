"""From evidence to the content of a new store: which facts count, and from which revision on nothing is missing.

    1  the same revision read twice   the same bytes: one fact, at the better level. Different bytes: the better level
                                      wins, then the more copies; if neither decides, none is believed
    2  facts of free pages            true, but a compaction may have removed them. Above the compaction nothing is ever
                                      removed, so they belong to the store. At or below it they count only in ranges
                                      that could not be read; in a range that was read whole, they were removed
    3  what is missing                revisions grow by one, and sub revisions count from 0: above the compaction every
                                      number must be there. Besides that: ranges that were not read, and keys whose
                                      version does not follow from the one before

    revision    1 ......... 40 | 41 ... 57 | 58 ........ 90
                 compaction    |  57 lost  |  all there
                                           ^ horizon 57

Up to the horizon nobody can know what else was written. So the new store is compacted there: of each key the newest
version that was found, no history, and reads in the past are refused instead of being answered with gaps. Above the
horizon history is complete. A key whose newest version is at or below the horizon *may be older* than what was lost: it
may have been changed or deleted since.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from kvstore.keyvalue import row_numbers
from kvstore.salvage.evidence import Covered, Evidence, Fact, Level, Revision

FIRST: Revision = (0, 0)
LAST: Revision = (1 << 63, 0)


@dataclass(slots=True)
class Judgment:
    """What the new store will hold."""

    by_key: dict[bytes, list[Fact]]
    """The facts to keep, oldest first: those above the compaction, and the newest at or below it."""
    revision: int
    compacted: int
    horizon: int
    """No change above this revision is missing; equal to ``revision`` or higher: everything may be older."""
    missing: list[tuple[int, int]]
    """Ranges of revisions (first, last) of which something is missing; last -1: no end is known."""
    contradictions: list[str] = field(default_factory=list)
    removed: int = 0
    """Facts that a compaction had removed, found in free pages."""
    superseded: int = 0
    """True facts at or below the horizon that a newer one replaced."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing and not self.contradictions and self.horizon < 0

    def may_be_older(self, fact: Fact) -> bool:
        """Whether the key may have been changed or deleted after this fact, unnoticed."""
        return fact.revision[0] <= self.horizon

    def live(self) -> Iterator[Fact]:
        """The newest fact of each key that is not deleted, in key order."""
        for key in sorted(self.by_key):
            fact = self.by_key[key][-1]
            if not fact.is_delete:
                yield fact


def judge(evidence: Evidence) -> Judgment:
    """Decide what is believed."""
    contradictions: list[str] = []
    facts = list(_agreed(evidence.facts, contradictions))
    holes = list(_holes(evidence.covered))
    compacted = evidence.compacted
    read_newest = max((fact.revision[0] for fact in facts if fact.level > Level.ALONE), default=0)
    kept = [
        fact
        for fact in facts
        if fact.level > Level.ALONE or fact.revision[0] > compacted or _lies_in(fact.revision, holes)
    ]
    newest = max((fact.revision[0] for fact in kept), default=0)
    revision = max(newest, evidence.newest, compacted, 1)
    missing = _missing(kept, holes, compacted, max(newest, evidence.newest), contradictions)
    if newest > read_newest:
        missing.append((newest + 1, -1))  # the tree ends before facts that were found: it is not the newest
    missing = _merged(missing)
    by_key = _by_key(kept)
    horizon = max((revision if last < 0 else min(last, revision) for _, last in missing), default=-1)
    horizon = max(horizon, _last_break(by_key, max(compacted, horizon)))
    lost = max(compacted, horizon) if horizon >= 0 else compacted
    superseded = _compact(by_key, lost)
    return Judgment(
        by_key=by_key,
        revision=revision,
        compacted=lost,
        horizon=horizon,
        missing=missing,
        contradictions=contradictions,
        removed=len(facts) - len(kept),
        superseded=superseded if lost > compacted else 0,
    )


def _agreed(facts: Iterable[Fact], contradictions: list[str]) -> Iterator[Fact]:
    """One fact for each revision."""
    ordered = sorted(facts, key=lambda fact: fact.revision)
    for revision, group in groupby(ordered, key=lambda fact: fact.revision):
        found = list(group)
        if len(found) == 1:
            yield found[0]
            continue
        best = max(fact.level for fact in found)
        contents = [(fact.key, fact.key_value) for fact in found]
        if len(set(contents)) == 1:
            yield max(found, key=lambda fact: fact.level)
            continue
        told_best = [content for content, fact in zip(contents, found, strict=True) if fact.level == best]
        (content, most), *others = Counter(told_best).most_common(2)
        chosen = next(
            fact for told, fact in zip(contents, found, strict=True) if fact.level == best and told == content
        )
        places = ", ".join(sorted({fact.place for fact in found}))
        told = f"revision {revision[0]}.{revision[1]} is told differently in {places}"
        if others and others[0][1] == most:
            contradictions.append(f"{told}: none is believed")
            continue
        contradictions.append(f"{told}: {chosen.place} is believed")
        yield chosen if best == Level.CHECKSUM else chosen._replace(level=Level.ALONE)


# --- what is missing ----------------------------------------------------------------------


def _holes(covered: list[Covered]) -> Iterator[tuple[Revision, Revision]]:
    """The revisions that no covered range has."""
    at = FIRST
    for start, end in sorted(covered, key=lambda each: each.start):
        if start > at:
            yield at, start
        at = max(at, LAST if end is None else end)
    if at < LAST:
        yield at, LAST


def _lies_in(revision: Revision, holes: list[tuple[Revision, Revision]]) -> bool:
    return any(start <= revision < end for start, end in holes)


def _missing(
    facts: list[Fact],
    holes: list[tuple[Revision, Revision]],
    compacted: int,
    newest: int,
    contradictions: list[str],
) -> list[tuple[int, int]]:
    """Ranges of main revisions of which something is missing, or may be."""
    missing = [_mains(start, end) for start, end in holes if start < end]
    for text in contradictions:
        if text.endswith("none is believed"):
            main = int(text.split()[1].split(".")[0])
            missing.append((main, main))
    expected = max(compacted, 1) + 1
    for main, group in groupby(facts, key=lambda fact: fact.revision[0]):
        if main <= compacted:
            continue
        if main > expected:
            missing.append((expected, main - 1))
        subs = [fact.revision[1] for fact in group]
        if subs != list(range(len(subs))):
            missing.append((main, main))
        expected = main + 1
    if newest >= expected:
        missing.append((expected, newest))
    return missing


def _mains(start: Revision, end: Revision) -> tuple[int, int]:
    """The main revisions that a range of (main, sub) touches."""
    if end >= LAST:
        return max(start[0], 1), -1
    return start[0], end[0] if end[1] else end[0] - 1


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges, key=lambda each: each[0]):
        if last >= 0 and (last < first or last < 1):
            continue
        if merged and (merged[-1][1] < 0 or first <= merged[-1][1] + 1):
            before = merged[-1]
            merged[-1] = before[0], -1 if -1 in (before[1], last) else max(before[1], last)
        else:
            merged.append((first, last))
    return merged


# --- keys ---------------------------------------------------------------------------------


def _by_key(facts: list[Fact]) -> dict[bytes, list[Fact]]:
    found: dict[bytes, list[Fact]] = defaultdict(list)
    for fact in facts:
        found[fact.key].append(fact)
    return dict(found)


def _last_break(by_key: dict[bytes, list[Fact]], above: int) -> int:
    """The newest revision at which a key does not follow from its version before; -1 if all do."""
    last = -1
    for facts in by_key.values():
        before: _Put | None = None
        for fact in facts:
            key_value = fact.key_value
            put = None if key_value is None else row_numbers(key_value)
            if fact.revision[0] > above and not _follows(before, put):
                last = max(last, fact.revision[0])
            before = put
    return last


_Put = tuple[int, int, int, int]
"""The numbers of a row: create and mod revision, version, lease."""


def _follows(before: _Put | None, put: _Put | None) -> bool:
    """Whether a change of a key, or its deletion (None), can come right after what it was (None: not there)."""
    if put is None:
        return before is not None
    create, _, version, _ = put
    if version == 1:
        return before is None
    return before is not None and (create, version) == (before[0], before[2] + 1)


def _compact(by_key: dict[bytes, list[Fact]], revision: int) -> int:
    """Leave of each key what a compaction leaves. Returns how many facts went."""
    dropped = 0
    for key, facts in list(by_key.items()):
        beyond = next((at for at, fact in enumerate(facts) if fact.revision[0] > revision), len(facts))
        keep_from = beyond - 1 if beyond and not facts[beyond - 1].is_delete else beyond
        dropped += keep_from
        if keep_from == len(facts):
            del by_key[key]
        else:
            by_key[key] = facts[keep_from:]
    return dropped
