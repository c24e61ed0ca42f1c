"""``kvstore verify [FILE]``: is what is on disk what was written?

    kvstore verify --data-dir DIR           log, backend, snapshots, each by itself and compared
    kvstore verify --data-dir DIR --deep    also: rebuild the backend from snapshot and log, compare every row
    kvstore verify --data-dir DIR --heal    and if the backend is damaged, replace it by the rebuilt one; if it is
                                            sound and ahead of its log, start a new log after it; if it has what
                                            the damaged part of the log held, set that part aside
    kvstore verify backup.snap              a snapshot file
    kvstore verify DIR                      as --data-dir DIR

Works beside the process that writes the store; ``--heal`` does not. Exit code 4: damaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from kvstore.errors import NotAStore
from kvstore.etcdpb.json import base64_text
from kvstore.verification import Finding, Report, heal, verify
from kvstore.verification.report import AHEAD, BACKEND, LOG

from .app import App, Argument, Context, Exit, Option
from .command import ExitCode, Settings, write_json, write_line
from .progress import progress_bar
from .usage import UsageError


def register(app: App) -> None:
    app.command("verify")(verify_command)


def verify_command(
    ctx: Context,
    file: Annotated[
        Path | None,
        Argument(help="Check this snapshot file, or this data directory, instead of the store."),
    ] = None,
    deep: Annotated[
        bool, Option("--deep", help="Compare every row with what snapshot and log say it should be.")
    ] = False,
    heal_it: Annotated[
        bool,
        Option(
            "--heal",
            help="Rebuild a damaged backend, or start a new log if it ends too early; old files are kept as *.broken.",
        ),
    ] = False,
    scratch_dir: Annotated[
        Path | None, Option(help="Where --deep builds its copy. [default: beside the backend]")
    ] = None,
) -> None:
    """Look for damage in the store or in a snapshot file.

    Example: kvstore verify --deep --data-dir data
    """
    settings = Settings.of(ctx)
    if file is not None and file.is_dir():  # a store, named as if it were a snapshot
        settings.data_dir, file = str(file), None
    if file is not None and (heal_it or deep):
        raise UsageError("--deep and --heal need a store: a snapshot file has no log beside it")
    report = _look(settings, file, deep, scratch_dir)
    if heal_it and any(finding.area in (BACKEND, AHEAD, LOG) for finding in report.findings):
        show_report(settings, report)
        _heal(settings)
        report = _look(settings, file, deep, scratch_dir)
    show_report(settings, report)
    if not report.ok:
        raise Exit(ExitCode.DAMAGED)


def _look(settings: Settings, file: Path | None, deep: bool, scratch_dir: Path | None) -> Report:
    with progress_bar("verifying", unit="rows") as bar:

        def step(what: str, done: int, total: int) -> None:
            if bar is not None:
                bar(done, total)

        if file is not None:
            return verify(file, progress=step)
        options, directory = settings.load_options(), settings.directory
        try:
            return verify(directory, deep=deep, options=options, scratch_dir=scratch_dir, progress=step)
        except NotAStore as error:
            settings.advise(error)
            raise


def _heal(settings: Settings) -> None:
    """Heal the store, then open it once, which replays the log."""
    healed = heal(settings.directory, options=settings.load_options())
    settings.open().close()
    if not settings.json:
        write_line(healed.what)


def show_report(settings: Settings, report: Report) -> None:
    if settings.json:
        write_json(report_facts(report))
        return
    for finding in report.findings:
        write_line(f"DAMAGED  {finding}")
    if report.findings_total > len(report.findings):
        write_line(f"... and {report.findings_total - len(report.findings)} more")
    if report.first_divergent_revision:
        write_line(f"the backend differs from revision {report.first_divergent_revision} on")
    for caution in report.cautions:
        write_line(f"WARNING  {caution}")
    for note in report.notes:
        write_line(f"note     {note}")
    looked = ", ".join(f"{count:,} {name}" for name, count in report.counts.items() if count)
    write_line(f"{'in order' if report.ok else 'DAMAGED'}: {report.path} ({looked})")


def report_facts(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "path": report.path,
        "ok": report.ok,
        "findings_total": report.findings_total,
        "findings": [_finding_facts(finding) for finding in report.findings],
        "first_divergent_revision": report.first_divergent_revision,
        "notes": list(report.notes),
        "cautions": list(report.cautions),
        "counts": report.counts,
    }


def _finding_facts(finding: Finding) -> dict[str, Any]:
    facts: dict[str, Any] = {"area": finding.area, "problem": finding.problem}
    facts |= {"path": finding.path} if finding.path else {}
    facts |= {"offset": finding.offset} if finding.offset >= 0 else {}
    facts |= {"table": finding.table} if finding.table else {}
    facts |= {"key": base64_text(finding.key)} if finding.key is not None else {}
    return facts | ({"revision": finding.revision} if finding.revision else {})
