"""``kvstore defragment``: give a store's free pages back to the file system.

The store must not be open elsewhere: a process that has it open calls ``store.defragment()``, beside which
everything goes on, or leaves it to the automatic one. Also a script: ``python tools/defragment.py --data-dir DIR``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.defragment", run_name="__main__", alter_sys=True)
    sys.exit()

from typing import Annotated

from .app import App, Context, Option
from .command import Settings, run, write_json, write_line
from .progress import progress_bar


def register(app: App) -> None:
    register_alone(app)
    app.command("defrag", hidden=True)(defragment)


def register_alone(app: App) -> None:
    app.command("defragment")(defragment)


def defragment(
    ctx: Context,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Report what would be reclaimed, without doing it.")
    ] = False,
) -> None:
    """Give free pages back to the file system."""
    settings = Settings.of(ctx)
    with settings.open_existing(read_only=dry_run, background=False) as store:
        if dry_run:
            found = store.defragment_estimate()
            if settings.json:
                write_json({**found._asdict(), "reclaimable_bytes": found.reclaimable_bytes})
            else:
                write_line(
                    f"{found.reclaimable_bytes:,} of {found.size_bytes:,} bytes would be given back; "
                    f"needs {found.needed_bytes:,} of {found.free_bytes:,} free bytes for a while"
                )
            return
        with progress_bar("defragmenting") as progress:
            done = store.defragment(progress=progress)
    if settings.json:
        write_json(done._asdict())
    else:
        before, after = done
        write_line(f"defragmented: {before:,} bytes before, {after:,} after")


if __name__ == "__main__":
    sys.exit(run(register_alone))
