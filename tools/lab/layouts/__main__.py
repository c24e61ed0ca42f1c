"""The command: ``python -m kvstore.tools.lab.layouts``. See the package for what it measures."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from .measure import LAYOUTS, UNITS, Figures, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=10_000, help="changes of one checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", choices=["lmdb", "sqlite"], action="append")
    parser.add_argument("--dir", type=Path, help="where the stores lie while it runs")
    parser.add_argument("--json-file", type=Path)
    given = parser.parse_args()
    found = {}
    for backend in given.backend or ["lmdb", "sqlite"]:
        with tempfile.TemporaryDirectory(dir=given.dir) as folder:
            say = lambda text: print(text, flush=True)  # noqa: E731
            found[backend] = measure(Path(folder), backend, given.keys, given.changes, given.rounds, say)
        print(table(f"{backend}, {given.keys:,} keys", found[backend]))
    if given.json_file:
        given.json_file.write_text(json.dumps(found, indent=1) + "\n")


def table(title: str, figures: dict[str, Figures]) -> str:
    """Markdown; behind each figure how it compares with today's (more than 1: better)."""
    lines = [
        f"| {title} | {' | '.join(layout.name for layout in LAYOUTS)} |",
        "|---" * (len(LAYOUTS) + 1) + "|",
    ]
    today = figures[LAYOUTS[0].name]
    for name, unit in UNITS.items():
        cells = [f"{today[name]:.4g}"]
        for layout in LAYOUTS[1:]:
            value = figures[layout.name][name]
            cells.append(f"{value:.4g} ({today[name] / value:.2f}x)")
        lines.append(f"| {name}, {unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
