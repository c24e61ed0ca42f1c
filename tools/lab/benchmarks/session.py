"""One run: the chosen rows, one after the other, reported as they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from . import machine, page, report
from .catalogue import ROWS
from .contest import Absent, Settings, hold
from .place import Place

QUICK = {"pairs": 2, "scale": 0.02, "seconds": 0.3}
_WIDTH_OF_A_FILE = 160


def listed() -> list[tuple[str, str, str]]:
    """(name, title, what is measured) of every row."""
    return [(row.name, row.title, row.what) for row in ROWS.values()]


def unknown(names: list[str]) -> list[str]:
    return [name for name in names if name not in ROWS]


def measure(
    names: list[str],
    settings: Settings,
    directory: Path | None,
    *,
    plot: Path | None,
    page_in: Path | None = None,
    on_stderr: bool,
) -> dict[str, Any]:
    """Hold the named rows (none named: all) and print their outcomes. Returns everything again, for JSON.

    ``plot``: a picture of all goals. ``page_in``: a folder for a page of them, with a picture for each area.
    """
    console = Console(stderr=on_stderr)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    outcomes = []
    with Place(directory) as place:
        where = machine.describe(place.root)
        report.print_machine(console, where, settings)
        if machine.is_in_memory(where["file_system"]):
            console.print("[red]This directory is in memory: syncs cost nothing here. Use --dir.[/red]\n")
        for row in ROWS.values():
            if not names or row.name in names:
                with console.status(f"measuring {row.name}: {row.title}"):
                    outcomes.append(hold(row, settings, place))
                report.print_outcome(console, outcomes[-1])
    console.print(report.summary(outcomes), highlight=False)
    try:
        if plot is not None:
            report.write_plot(plot, outcomes)
        if page_in is not None:
            page.write(page_in, where, settings, outcomes)
    except Absent as reason:
        console.print(f"no picture: {reason}", highlight=False)
    return report.to_json(where, settings, outcomes)
