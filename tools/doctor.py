"""``kvstore doctor``: what is wrong with a store and what it stands on, and what to do about it.

    kvstore doctor --data-dir DIR           a table, followed by the advice
    kvstore doctor --data-dir DIR --json    one object for each fact: name, value, level, advice
    kvstore doctor --endpoint URL           what a server says of itself, ours or an etcd

Writes one small file beside the log, to measure syncs, and removes it. To find damaged data, use ``kvstore verify``.
Exit code 1: there is a warning.
"""

from __future__ import annotations

from kvstore.errors import KVStoreError
from kvstore.observe.doctor import diagnose, diagnose_served
from kvstore.observe.facts import Fact, Level

from .app import App, Context, Exit
from .command import ExitCode, Settings, write_json, write_line, write_table

_SIGNS = {Level.OK: "note", Level.ADVICE: "advice", Level.WARNING: "warning"}


def register(app: App) -> None:
    app.command("doctor")(doctor)


def doctor(ctx: Context) -> None:
    """Check a store and what it depends on, and give advice."""
    settings = Settings.of(ctx)
    facts = _of_server(settings) if settings.url else _of_directory(settings)
    if settings.json:
        write_json(
            [{"name": f.name, "value": f.value, "level": f.level.value, "advice": f.advice} for f in facts]
        )
    else:
        levels = {fact: "" if fact.level == Level.OK else fact.level.value for fact in facts}
        write_table(("", "", ""), [(fact.name, fact.value, levels[fact]) for fact in facts])
        for fact in facts:
            if fact.advice:
                write_line(f"{_SIGNS[fact.level]}: {fact.name}: {fact.advice}")
    if any(fact.level == Level.WARNING for fact in facts):
        raise Exit(ExitCode.FAILED)


def _of_directory(settings: Settings) -> list[Fact]:
    return diagnose(settings.directory, options=settings.load_options())


def _of_server(settings: Settings) -> list[Fact]:
    from kvstore.network.remote.page import Page, fetch

    with settings.open() as store:
        try:
            page = fetch(settings.url, "/metrics", settings.client_options())
        except KVStoreError:
            page = Page(0, "", "")
        return diagnose_served(store, page.text if page.status == 200 else "", page.date)
