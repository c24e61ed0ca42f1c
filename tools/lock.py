"""``kvstore lock NAME [-- COMMAND...]``, ``kvstore elect NAME [PROPOSAL]``: turns among processes, on one elsewhere.

Keys and output are etcdctl's, so its locks and ours exclude each other. A command runs while the lock is held, with
ETCD_LOCK_KEY and ETCD_LOCK_REV (the fencing token) in its environment, and its exit code becomes ours. If the lock is
lost meanwhile (nobody could be reached for as long as the lease runs), the command is told to end (SIGTERM), and the
exit code is 1: a lock is a lease, and whoever does not check the token may be wrong about it (docs/recipes.md). SIGTERM
ends both as SIGINT does: the command first, then what is held, so that nobody has to wait for the lease to run out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

from .app import App, Argument, Context, Exit, Option
from .command import Settings, argument_bytes, write_line
from .kv_text import Printer
from .usage import UsageError

TTL_SECONDS = 60
LOOK_SECONDS = 0.2

Name = Annotated[str, Argument(show_default=False)]
TTL = Annotated[int, Option(help="Seconds after which what a dead holder holds is free.")]


def register(app: App) -> None:
    app.command("lock")(lock)
    app.command("elect")(elect)


def lock(
    ctx: Context,
    name: Name,
    command: Annotated[list[str] | None, Argument(metavar="[-- COMMAND...]", show_default=False)] = None,
    ttl: TTL = TTL_SECONDS,
) -> None:
    """Hold a lock while a command runs; without one, until interrupted.

    Example: kvstore lock deploy --endpoint etcd://h1,h2,h3 -- ./deploy.sh
    """
    from kvstore.recipes import Lock, Session

    settings = _elsewhere(Settings.of(ctx))
    lost = threading.Event()
    with (
        _heeding_sigterm(),
        settings.open() as store,
        Session(store, ttl, on_lost=lambda _: lost.set()) as session,
    ):
        held = Lock(session, argument_bytes(name))
        held.acquire()
        if command:
            code = _run(command, lost, ETCD_LOCK_KEY=os.fsdecode(held.key), ETCD_LOCK_REV=str(held.token))
        else:
            write_line(os.fsdecode(held.key))
            sys.stdout.flush()
            lost.wait()
            code = 0
        held.release()
    if code:
        raise Exit(code)


def _run(command: list[str], lost: threading.Event, **environ: str) -> int:
    try:
        process = subprocess.Popen(command, env={**os.environ, **environ})
    except FileNotFoundError as error:
        raise UsageError(f"there is no command {command[0]!r}") from error
    with process:
        while True:
            try:
                return process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if lost.is_set():
                    process.terminate()
            except (KeyboardInterrupt, SystemExit):
                process.terminate()
                process.wait()
                raise


def elect(
    ctx: Context,
    name: Name,
    proposal: Annotated[str | None, Argument(show_default=False)] = None,
    listen: Annotated[
        bool, Option("-l", "--listen", help="Only show who leads, each time it changes.")
    ] = False,
    ttl: TTL = TTL_SECONDS,
) -> None:
    """Take part in an election, and lead until interrupted.

    Example: kvstore elect primary host-7 --endpoint etcd://h1,h2,h3
    """
    from kvstore.recipes import Election, Session

    settings = _elsewhere(Settings.of(ctx))
    if listen == (proposal is not None):
        raise UsageError("elect takes a PROPOSAL, or --listen")
    printer = Printer(as_hex=False)
    lost = threading.Event()
    with settings.open() as store:
        if proposal is None:
            for leader in Election(store, argument_bytes(name)).observe():
                printer.key_values([leader])
                sys.stdout.flush()
            return
        with _heeding_sigterm(), Session(store, ttl, on_lost=lambda _: lost.set()) as session:
            election = Election(session, argument_bytes(name))
            election.campaign(argument_bytes(proposal))
            write_line(os.fsdecode(election.key))
            write_line(proposal)
            sys.stdout.flush()
            lost.wait()


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """The first SIGTERM is an exception, which gives back what is held; a second one ends the process."""

    def end(number: int, _frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _elsewhere(settings: Settings) -> Settings:
    if not settings.url:
        raise UsageError("this needs --endpoint: while a command has --data-dir open, nobody else can come")
    return settings
