"""One row of the benchmark: contestants that are measured in turns, and goals between them.

    round 1:  A B C      round 2:  A B C      ...      at least five rounds
              '-- one sample each

A machine's mood changes from minute to minute, so absolute numbers mean little: contestants take turns, and a goal
is a ratio of medians, given with the smallest and the largest ratio within one round. Before each turn the file
system is synced, so that no contestant pays for what the one before it left to be written back.

A row is a function that adds contestants and goals to a ``Contest``; what it opens it leaves to the contest, which is
an ``ExitStack``. A contestant that cannot take part is skipped with the reason, never silently.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import kvstore

from .place import Place

IMPLEMENTATION: str = getattr(kvstore, "__impl__", "python")
"""What kvstore's hot paths are written in here: "python", or "native"."""


def reachable(python: float, native: float) -> float:
    """The bound of a goal, which is another one with the native core."""
    return native if IMPLEMENTATION == "native" else python


@dataclass(frozen=True, slots=True)
class Settings:
    """How large a run is."""

    pairs: int = 5
    scale: float = 1.0
    """Factor for the sizes of stores and workloads."""
    seconds: float = 2.0
    """How long one sample of a rate takes."""
    sync_delay_ms: float = 0.0
    backends: tuple[str, ...] = ("lmdb", "sqlite")

    def count(self, full: int, at_least: int = 200) -> int:
        """A size of the full run, scaled."""
        return max(at_least, int(full * self.scale))


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement, with whatever else is worth knowing about it (CPU time, percentiles)."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


Measure = Callable[[], Sample]


class Absent(Exception):
    """A contestant cannot take part; the message says why."""


@dataclass(slots=True)
class Contestant:
    name: str
    measure: Measure
    samples: list[Sample] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples]

    @property
    def median(self) -> float:
        return median(self.values)

    def values_of(self, detail: str) -> list[float]:
        """The samples' values; of a detail of theirs, if one is named."""
        return [sample.details[detail] for sample in self.samples] if detail else self.values

    def detail_medians(self) -> dict[str, float]:
        names = self.samples[0].details if self.samples else {}
        return {name: median(sample.details[name] for sample in self.samples) for name in names}


@dataclass(frozen=True, slots=True)
class Goal:
    """``subject`` ÷ ``reference`` (None: the subject's value itself) is at least, or at most, this much.

    ``of``: it is about this detail of the samples, not about their values.
    """

    subject: str
    reference: str | None
    at_least: float | None
    at_most: float | None
    of: str = ""

    def __str__(self) -> str:
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{bound}x" if self.reference else bound


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a goal."""

    goal: Goal
    ratio: float
    lowest: float
    highest: float

    @property
    def met(self) -> bool:
        low, high = self.goal.at_least, self.goal.at_most
        return (low is None or self.ratio >= low) and (high is None or self.ratio <= high)


class Contest(ExitStack):
    """The contestants of one row."""

    def __init__(self, settings: Settings, place: Place) -> None:
        super().__init__()
        self.settings = settings
        self.place = place
        self.contestants: dict[str, Contestant] = {}
        self.goals: list[Goal] = []
        self.skipped: dict[str, str] = {}

    def add(self, name: str, measure: Measure, *, own_syncs: bool = False) -> None:
        """``own_syncs``: it syncs by itself, so an injected delay would not reach it."""
        if own_syncs and self.settings.sync_delay_ms:
            self.skip(name, "its syncs cannot be slowed")
        else:
            self.contestants[name] = Contestant(name, measure)

    def skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason

    def goal(
        self,
        subject: str,
        reference: str | None = None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        of: str = "",
    ) -> None:
        self.goals.append(Goal(subject, reference, at_least, at_most, of))

    def run(self) -> None:
        """Run every contestant once per round, in turns."""
        for _ in range(self.settings.pairs):
            for contestant in list(self.contestants.values()):
                os.sync()
                try:
                    contestant.samples.append(contestant.measure())
                except Absent as reason:
                    self.skip(contestant.name, str(reason))
                    del self.contestants[contestant.name]

    def verdicts(self) -> list[Verdict]:
        """The goals whose contestants took part."""
        return [
            verdict
            for goal in self.goals
            if (verdict := judge(goal, self.contestants.get(goal.subject), self._reference(goal)))
        ]

    def _reference(self, goal: Goal) -> Contestant | None:
        return self.contestants.get(goal.reference) if goal.reference else None


def judge(goal: Goal, subject: Contestant | None, reference: Contestant | None) -> Verdict | None:
    """The verdict; None if one of the two did not take part."""
    if subject is None or not subject.samples:
        return None
    values = subject.values_of(goal.of)
    if goal.reference is None:
        return Verdict(goal, median(values), min(values), max(values))
    if reference is None or not reference.samples:
        return None
    others = reference.values_of(goal.of)
    ratios = [_ratio(a, b) for a, b in zip(values, others, strict=True)]
    return Verdict(goal, _ratio(median(values), median(others)), min(ratios), max(ratios))


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("inf")


# --- rows ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A named contest, ready to be held."""

    name: str
    title: str
    unit: str
    prepare: Callable[[Contest], None]

    @property
    def area(self) -> str:
        """The module that it is in, without "rows"."""
        return self.prepare.__module__.rpartition("rows_")[2]

    @property
    def what(self) -> str:
        """What exactly is measured."""
        return " ".join((self.prepare.__doc__ or "").split())


ROWS: dict[str, Row] = {}


def row(name: str, title: str, unit: str) -> Callable[[Callable[[Contest], None]], Callable[[Contest], None]]:
    """Make a function that prepares a contest into a row of the benchmark."""

    def register(prepare: Callable[[Contest], None]) -> Callable[[Contest], None]:
        ROWS[name] = Row(name, title, unit, prepare)
        return prepare

    return register


@dataclass(slots=True)
class Outcome:
    """A row that was held."""

    row: Row
    contest: Contest
    seconds: float
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "title": self.row.title,
            "unit": self.row.unit,
            "what": self.row.what,
            "seconds": round(self.seconds, 1),
            "error": self.error,
            "contestants": [
                {
                    "name": contestant.name,
                    "values": contestant.values,
                    "median": contestant.median,
                    "details": contestant.detail_medians(),
                }
                for contestant in self.contest.contestants.values()
                if contestant.samples
            ],
            "goals": [
                {
                    "subject": verdict.goal.subject,
                    "reference": verdict.goal.reference,
                    "of": verdict.goal.of,
                    "at_least": verdict.goal.at_least,
                    "at_most": verdict.goal.at_most,
                    "ratio": verdict.ratio,
                    "lowest": verdict.lowest,
                    "highest": verdict.highest,
                    "met": verdict.met,
                }
                for verdict in self.contest.verdicts()
            ],
            "skipped": dict(self.contest.skipped),
        }


def hold(chosen: Row, settings: Settings, place: Place) -> Outcome:
    """Prepare and run one row. A failure is part of the outcome: other rows still run."""
    begin = time.perf_counter()
    contest = Contest(settings, place)
    error = ""
    try:
        with contest:
            chosen.prepare(contest)
            contest.run()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(chosen, contest, time.perf_counter() - begin, error)
