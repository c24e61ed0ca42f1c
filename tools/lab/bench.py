"""Measure this store against others, on this machine, in turns.

    python -m kvstore.tools.lab.bench                       everything (an hour; make bench)
    python -m kvstore.tools.lab.bench --quick               small and short: a look, not a result
    python -m kvstore.tools.lab.bench --only get --only put-1 --json-file result.json --plot result.png
    python -m kvstore.tools.lab.bench --sync-delay-ms 10    as on a slow disk
    python -m kvstore.tools.lab.bench --page docs           what docs/measured.md holds

What is measured, and how to read it: docs/benchmarks.md. The exit code is 1 if a row failed; a missed goal is a result.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.lab.bench", run_name="__main__", alter_sys=True)
    sys.exit()

import json
from pathlib import Path
from typing import Annotated

from ..app import App, Context, Exit, Option
from ..command import ExitCode, Settings, run, write_json, write_table
from ..usage import UsageError


def register(app: App) -> None:
    app.command("bench")(bench)


def bench(
    ctx: Context,
    only: Annotated[list[str] | None, Option(help="Only this row; may be repeated.", metavar="ROW")] = None,
    list_rows: Annotated[bool, Option("--list", help="List the rows and measure nothing.")] = False,
    quick: Annotated[bool, Option("--quick", help="Small stores and two short rounds.")] = False,
    pairs: Annotated[int | None, Option(help="Number of rounds; 5 by default.", min=1)] = None,
    scale: Annotated[float | None, Option(help="Factor for all sizes.", min=0.0001, max=10)] = None,
    seconds: Annotated[float | None, Option(help="Seconds per sample; 2 by default.", min=0.01)] = None,
    sync_delay_ms: Annotated[
        float, Option(help="Delay added to every sync of our log and of the raw loop.", min=0, max=1000)
    ] = 0,
    directory: Annotated[
        Path | None, Option("--dir", help="Directory to work in, on the disk to be measured.")
    ] = None,
    json_file: Annotated[Path | None, Option(help="Write all figures to this file, as JSON.")] = None,
    plot: Annotated[Path | None, Option(help="Write a plot to this file (PNG).")] = None,
    page: Annotated[
        Path | None,
        Option(help="Write measured.md (measured-python.md), with a plot for each area, to this folder."),
    ] = None,
) -> None:
    """Measure this store against others, in turns. With --json the figures go to stdout, the table to stderr."""
    from .benchmarks import session
    from .benchmarks.contest import Settings as Sizes

    settings = Settings.of(ctx)
    if list_rows:
        write_table(("row", "", "what is measured"), session.listed())
        return
    if unknown := session.unknown(only or []):
        raise UsageError(f"no row {unknown[0]!r}; --list shows them")
    said = {"pairs": pairs, "scale": scale, "seconds": seconds}
    sizes: dict[str, float] = {
        **(session.QUICK if quick else {}),
        **{name: value for name, value in said.items() if value is not None},
    }
    backends = (settings.backend,) if settings.backend else Sizes().backends
    found = session.measure(
        only or [],
        Sizes(**sizes, sync_delay_ms=sync_delay_ms, backends=backends),  # type: ignore[arg-type]  # pairs is whole
        directory,
        plot=plot,
        page_in=page,
        on_stderr=settings.json,
    )
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    if settings.json:
        write_json(found)
    if any(row["error"] for row in found["rows"]):
        raise Exit(ExitCode.FAILED)


if __name__ == "__main__":
    sys.exit(run(register))
