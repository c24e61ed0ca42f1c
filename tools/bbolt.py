"""``kvstore inspect bbolt``: the pages of an etcd's database file or snapshot, damaged or not.

kvstore inspect bbolt check FILE      what it is, which checksum holds, everything that is wrong with it
kvstore inspect bbolt page FILE N     one page: its header, its keys or children
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kvstore.foreign import find_foreign

from .app import App, Argument, Context, Exit
from .command import ExitCode, Settings, new_app, write_json, write_line, write_table

FileArgument = Annotated[Path, Argument(metavar="FILE", help="A snapshot, or a copy of member/snap/db.")]


def register(app: App) -> None:
    group = new_app("The pages of an etcd's database file.")
    group.command("check")(check)
    group.command("page")(page)
    app.add_group(group, "bbolt")


def check(ctx: Context, file: FileArgument) -> None:
    """Show what the file is, whether its checksum holds, and everything that is wrong with it."""
    settings = Settings.of(ctx)
    found = find_foreign("etcd").look_at_pages(file)
    problems = found.pop("problems")
    if settings.json:
        write_json(found | {"problems": problems})
    else:
        write_table(("", ""), [(name.replace("_", " "), str(value)) for name, value in found.items()])
        for problem in problems or ["nothing is wrong with its pages"]:
            write_line(problem)
    if problems:
        raise Exit(ExitCode.DAMAGED)


def page(ctx: Context, file: FileArgument, number: Annotated[int, Argument(metavar="N", min=0)]) -> None:
    """Show one page."""
    settings = Settings.of(ctx)
    found = find_foreign("etcd").look_at_pages(file, number)
    if settings.json:
        write_json(found)
        return
    rows = found.pop("rows")
    write_table(
        ("", ""), [(name.replace("_", " "), str(value)) for name, value in found.items() if value != ""]
    )
    write_table(
        ("key", "bytes or page", ""),
        ((row["key"], str(row.get("bytes", row.get("page", ""))), str(row.get("is", ""))) for row in rows),
    )
