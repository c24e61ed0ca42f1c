"""A bar with rate and remaining time, for work that takes longer than two seconds.

On stderr, and only where that is a terminal: a log file or a pipe gets nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from kvstore.backend import Progress

SHOW_AFTER_SECONDS = 2.0


@contextmanager
def progress_bar(label: str, unit: str = "bytes") -> Iterator[Progress | None]:
    """A callback (done, total) that draws the bar; None: nobody would see it, or rich is missing. Total 0: unknown."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    bar = _Bar(label, unit)
    try:
        yield bar.update
    finally:
        bar.stop()


class _Bar:
    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
        self._began = time.monotonic()
        self._drawn: Any = None
        self._task: Any = None

    def update(self, done: int, total: int) -> None:
        if self._drawn is None:
            if time.monotonic() - self._began < SHOW_AFTER_SECONDS:
                return
            self._draw()
        self._drawn.update(self._task, completed=done, total=total or None)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Drawn
        from rich.text import Text

        class Rate(ProgressColumn):
            """Units per second."""

            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

        unit = self._unit
        amounts: list[ProgressColumn] = [MofNCompleteColumn(), Rate()]
        if unit == "bytes":
            amounts = [DownloadColumn(), TransferSpeedColumn()]
        columns = [TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn()]
        self._drawn = Drawn(*columns, console=Console(stderr=True), transient=True)
        self._task = self._drawn.add_task(self._label, total=None)
        self._drawn.start()

    def stop(self) -> None:
        if self._drawn is not None:
            self._drawn.stop()
