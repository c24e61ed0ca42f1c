"""How background work gives way to writers."""

from __future__ import annotations

import time

from kvstore.core import Core
from kvstore.mvcc.checkpoint import PAUSE_SECONDS, RUN_SECONDS

BUSY_SECONDS = 0.02
BREATH_SECONDS = 0.00005
BREATH_EVERY_SECONDS = 0.002


class Traffic:
    """Whether background work should take its time: writes come in, and the memory for them is far from full."""

    def __init__(self, core: Core) -> None:
        self._state = core.state
        self._overlay_limit = core.options.overlay_limit
        self._index = core.state.index
        self._busy_until = 0.0

    def __call__(self) -> bool:
        state = self._state
        if state.index != self._index:
            self._index = state.index
            self._busy_until = time.monotonic() + BUSY_SECONDS
        if 2 * state.active.size_bytes > self._overlay_limit:
            return False  # they will have to wait for this work to end
        return time.monotonic() < self._busy_until


class Courtesy:
    """Gives up the GIL: half of the time under write load, otherwise for a breath now and then."""

    def __init__(self, core: Core) -> None:
        self._is_busy = Traffic(core)
        self._resumed = time.perf_counter()

    def __call__(self) -> None:
        is_busy = self._is_busy()
        if time.perf_counter() - self._resumed > (RUN_SECONDS if is_busy else BREATH_EVERY_SECONDS):
            time.sleep(PAUSE_SECONDS if is_busy else BREATH_SECONDS)
            self._resumed = time.perf_counter()
