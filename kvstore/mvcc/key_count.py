"""How many keys there are, for whoever asks again and again.

A backend may have to look at each of them. So they are counted anew only once the last count was a hundredth of the
time that has passed since: the number is as old as that at most, and costs at most that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from kvstore.mvcc.state import State

SHARE = 100


class KeyCount:
    """The number of keys of one store. Threads may count at once."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counted = 0, -math.inf
        """(how many, when they are to be counted again)."""

    def of(self, state: State) -> int:
        count, due = self._counted
        began = self._now()
        if began >= due:
            count = state.count(b"", None, state.published)
            ended = self._now()
            self._counted = count, ended + SHARE * (ended - began)
        return count
