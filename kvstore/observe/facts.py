"""What the doctor finds: facts, each with a level and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    ADVICE = "advice"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was examined. ``advice``: what to do; with level ok, what to know."""

    name: str
    """What it is about."""
    value: str
    """What was found."""
    level: Level = Level.OK
    """Whether something should be done."""
    advice: str = ""
    """What to do."""
