"""Which generations to keep: ``48h,14d,8w``.

    h    every moment of that many hours can be restored: the generations that reach into them, and so all between
    d    beyond that, one generation of each of that many days
    w    and one of each of that many weeks

The newest generation is always kept. Days and weeks are those of UTC; of several, the newest is kept.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from kvstore.backup.catalogue import Generation
from kvstore.options import BadOption

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
_MONDAY_MS = 4 * DAY_MS
"""The first Monday after 1970 began."""
_PART = re.compile(r"(\d{1,6})([hdw])")


@dataclass(frozen=True, slots=True)
class Keep:
    """How many hours, days and weeks."""

    hours: int = 0
    days: int = 0
    weeks: int = 0

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Raises ``BadOption``."""
        found = [_PART.fullmatch(part.strip()) for part in text.split(",")]
        numbers = {match[2]: int(match[1]) for match in found if match}
        if None in found or len(numbers) != len(found) or not any(numbers.values()):
            raise BadOption(f"{text!r} does not say what to keep: hours, days and weeks, as in 48h,14d,8w")
        return cls(numbers.get("h", 0), numbers.get("d", 0), numbers.get("w", 0))

    def surplus(self, generations: list[Generation], now_ms: int) -> list[Generation]:
        """Those of the generations (oldest first) that nothing asks to keep."""
        kept = {generation.name for generation in generations[-1:]}
        since_ms = now_ms - self.hours * HOUR_MS
        for generation, following in itertools.pairwise(generations):
            if self.hours and following.snapshot.time_ms > since_ms:
                kept.add(generation.name)  # the moments before the next one begins need it
        for count, span_ms, offset_ms in ((self.days, DAY_MS, 0), (self.weeks, WEEK_MS, _MONDAY_MS)):
            this = (now_ms - offset_ms) // span_ms
            newest = {(each.snapshot.time_ms - offset_ms) // span_ms: each.name for each in generations}
            kept.update(name for number, name in newest.items() if this - number < count)
        return [generation for generation in generations if generation.name not in kept]
