"""``kvstore doctor``: versions, file system, speed of syncs, room, clocks, and what to do about them.

    kvstore doctor --data-dir DIR           a table; the advice stands below it
    kvstore doctor --data-dir DIR --json    one object for each fact: name, value, level, advice

Writes one small file beside the log, to measure syncs, and removes it. Whether data is damaged is ``kvstore
verify``'s to say. Exit code 1: there is a warning.
"""

from __future__ import annotations

import typer

from kvstore.observe.doctor import Level, diagnose

from .command import ExitCode, Settings, write_json, write_line, write_table


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(ctx: typer.Context) -> None:
    """Check the environment the store depends on, and give advice."""
    settings = Settings.of(ctx)
    facts = diagnose(settings.directory, options=settings.load_options())
    if settings.json:
        write_json(
            [{"name": f.name, "value": f.value, "level": f.level.value, "advice": f.advice} for f in facts]
        )
    else:
        write_table(("", "", ""), [(fact.name, fact.value, _sign(fact.level)) for fact in facts])
        for fact in facts:
            if fact.advice:
                write_line(f"{_sign(fact.level)}: {fact.name}: {fact.advice}")
    if any(fact.level == Level.WARNING for fact in facts):
        raise typer.Exit(ExitCode.FAILED)


def _sign(level: Level) -> str:
    return "" if level == Level.OK else level.value
