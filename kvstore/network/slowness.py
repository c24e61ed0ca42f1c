"""What took long, in the log: at most a line a second for each kind, however slow the disk is.

    first of a second    its line, at once
    others               counted; the next line says how many there were, and how long the slowest took

Writers share syncs, so a disk that stalls once is slow for all of them together. Runs on the endpoint's loop.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("kvstore.network")

LINE_SECONDS = 1.0


class Slowness:
    """Of one kind: ``sentence`` is its line, with a ``%s`` for what and how long."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        self.count = 0
        self._quiet_until = 0.0
        self._untold = 0
        self._slowest_seconds = 0.0

    def note(self, seconds: float, now: float, what: str = "") -> None:
        """Something took so long; ``now`` is a time that only goes on."""
        self.count += 1
        if now < self._quiet_until:
            self._untold += 1
            self._slowest_seconds = max(self._slowest_seconds, seconds)
            return
        told = f"{what}{seconds:.3f} s"
        if self._untold:
            told += f" ({self._untold} more since the last line, up to {self._slowest_seconds:.3f} s)"
        self._quiet_until = now + LINE_SECONDS
        self._untold = 0
        self._slowest_seconds = 0.0
        logger.warning(self._sentence, told)
