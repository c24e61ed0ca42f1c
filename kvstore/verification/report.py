"""What a verification found, and what it checked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore.errors import Corruption, KVStoreError, NotAStore, WrongStore

Steps = Callable[[str, int, int], None]
"""Called with (what is being checked, done, total); total 0 = unknown."""

DAMAGE = (Corruption, NotAStore, WrongStore)
"""Errors that say something about a file's bytes: findings. Any other error (no descriptor, no memory, no permission,
a file that is newer than us) means that they could not be read: what may be sound must not be healed."""

FINDINGS_MAX = 100
"""At most this many are kept; the rest are only counted."""

LOG, BACKEND, SNAPSHOT = "log", "backend", "snapshot"
AHEAD = "backend ahead of its log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. Fields that do not apply are empty, 0, or -1 (``offset``)."""

    area: str
    """``log``, ``backend``, ``snapshot``, or ``AHEAD``: both are sound, but do not belong together."""
    problem: str
    path: str = ""
    offset: int = -1
    table: str = ""
    key: bytes | None = None
    """A user key."""
    revision: int = 0

    def __str__(self) -> str:
        where = [self.area, f"table {self.table}" if self.table else ""]
        where += [f"key {self.key!r}" if self.key is not None else ""]
        where += [f"revision {self.revision}" if self.revision else ""]
        if self.path:
            where.append(self.path + (f" at byte {self.offset}" if self.offset >= 0 else ""))
        return f"{', '.join(part for part in where if part)}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome. ``findings`` is empty if everything that was checked is in order."""

    path: str
    """What was looked at."""
    findings: tuple[Finding, ...]
    """What was found, in order."""
    findings_total: int
    """More than ``len(findings)`` if there were too many to keep."""
    notes: tuple[str, ...]
    """Things worth knowing, and what could not be checked."""
    counts: dict[str, int]
    """How much was checked: rows by table, log entries, segments, snapshots."""
    first_divergent_revision: int = 0
    """The lowest revision at which a deep verification found the backend to differ; 0: none."""
    cautions: tuple[str, ...] = ()
    """What could not be checked, and has to be said beside "in order": a file that carries no hash."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings_total

    def raise_if_damaged(self) -> None:
        """Raise ``Corruption`` with the first finding, if there is any."""
        if self.findings:
            first = self.findings[0]
            raise Corruption(str(first), first.path or self.path, first.offset)


@dataclass(slots=True)
class Collector:
    """Collects what the checks find. Bounded, however much is wrong."""

    steps: Steps | None = None
    area: str = BACKEND
    """The file whose tables are being checked."""
    path: str | os.PathLike[str] = ""
    findings: list[Finding] = field(default_factory=list)
    total: int = 0
    notes: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    first_divergent_revision: int = 0

    def add(
        self,
        area: str,
        problem: str,
        *,
        path: str | os.PathLike[str] = "",
        offset: int = -1,
        table: str = "",
        key: bytes | None = None,
        revision: int = 0,
    ) -> None:
        self.total += 1
        if len(self.findings) < FINDINGS_MAX:
            finding = Finding(
                area=area,
                problem=problem,
                path=os.fspath(path),
                offset=offset,
                table=table,
                key=key,
                revision=revision,
            )
            self.findings.append(finding)

    def add_error(self, area: str, error: KVStoreError | OSError, path: str | os.PathLike[str] = "") -> None:
        """Record a check that ended with an error."""
        if isinstance(error, Corruption):
            self.add(area, error.reason, path=error.path or path, offset=error.offset)
        else:
            self.add(area, str(error), path=path)

    def add_row(self, table: str, problem: str, key: bytes | None = None, revision: int = 0) -> None:
        """A finding about a row of the tables being checked."""
        self.add(self.area, problem, path=self.path, table=table, key=key, revision=revision)

    def take(self, other: Collector) -> None:
        """Add the findings of another collector; its counts are not added."""
        self.total += other.total
        self.findings += other.findings[: FINDINGS_MAX - len(self.findings)]

    def diverged(self, revision: int) -> None:
        """A deep verification found a difference that began with this revision."""
        if not self.first_divergent_revision or revision < self.first_divergent_revision:
            self.first_divergent_revision = revision

    def step(self, what: str, done: int, total: int = 0) -> None:
        if self.steps is not None:
            self.steps(what, done, total)

    def report(self, path: str | os.PathLike[str]) -> Report:
        return Report(
            path=os.fspath(path),
            findings=tuple(self.findings),
            findings_total=self.total,
            notes=tuple(self.notes),
            counts=dict(self.counts),
            first_divergent_revision=self.first_divergent_revision,
            cautions=tuple(self.cautions),
        )
