"""``kvstore compact REVISION``: delete the versions superseded at or before a revision.

The store must not be open elsewhere: a process that has it open calls ``store.compact()``, or leaves it to
``auto_compaction_retention``. The rows are gone when the command ends; if it is interrupted, the next process that
opens the store continues. Also a script: ``python tools/compact.py REVISION --data-dir DIR``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.compact", run_name="__main__", alter_sys=True)
    sys.exit()

from typing import Annotated

from .app import App, Argument, Context, Option
from .command import Settings, etcdctl_style_of, run, write_json, write_line
from .progress import progress_bar


def register(app: App) -> None:
    app.command("compact")(compact)


def compact(
    ctx: Context,
    revision: Annotated[int, Argument(help="This revision and all newer ones stay readable.")],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report what would be deleted, without doing it.")
    ] = False,
    physical: Annotated[
        bool, Option("--physical", hidden=True, help="Always on here; accepted for etcdctl scripts.")
    ] = True,
) -> None:
    """Delete the versions superseded at or before a revision.

    Example: kvstore compact 1000 --dry-run
    """
    settings = Settings.of(ctx)
    with settings.open_existing(background=False) as store:
        if dry_run:
            found = store.compaction_estimate(revision)
            if settings.json:
                write_json(found._asdict())
            else:
                write_line(
                    f"compacting to revision {revision} would delete "
                    f"{found.versions:,} versions and {found.changes:,} changes"
                )
            return
        with progress_bar("compacting", unit="revisions") as bar:
            progress = None if settings.url else bar  # a server does not say how far it is
            response = store.compact(revision, physical=physical, progress=progress)
        if settings.json:
            write_json(etcdctl_style_of(store).answer(response))
        else:
            write_line(f"compacted revision {revision}")


if __name__ == "__main__":
    sys.exit(run(register))
