"""A guided tour for newcomers, in less than a minute: ``make demo``.

    1  a conversation recorded with a real etcd is played into a store; every response must be etcd's
    2  the past: the versions of a key, the store as it was, what differs between two revisions
    3  a process that writes from several threads is killed with SIGKILL; no acknowledged write may be missing

Parts 1 and 3 run on LMDB and on SQLite. Everything is in a temporary folder. The exit code is 0 only if every claim
held.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

import kvstore
from kvstore.store import Store

from ..app import App, Context, Exit, Option
from ..command import ExitCode, readable, run
from .conversation import Exchange, parse_exchange, read_conversation
from .crash_writer import value_of
from .demo_conversation import SHOP
from .replay import Pace, Player, Result, replay_options

BACKENDS = ("lmdb", "sqlite")
THREADS = 8
POD = b"registry/pods/shop/web-1"
PODS = b"registry/pods/shop/"


def register(app: App) -> None:
    app.command("demo")(main)


def main(
    ctx: Context,
    writes: Annotated[int, Option(min=1, help="Kill the writer after this many writes.")] = 3000,
) -> None:
    """A guided tour: a conversation, the past, and a crash."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="kvstore-demo-") as folder:
        held = [_conversations(console, Path(folder))]
        _the_past(console, Path(folder))
        held.append(_crashes(console, Path(folder), writes))
    if not all(held):
        console.print("[bold red]Something above is not as it should be.[/]")
        raise Exit(ExitCode.FAILED)
    console.print(
        "[bold green]All of it held.[/] Now yours: [bold]import kvstore[/], or [bold]kvstore --help[/]."
    )


def _print_reading(console: Console, call: str, table: Table) -> None:
    console.print(f"[bold]{call}[/]")
    console.print(table)


# --- 1: a conversation -----------------------------------------------------------------


def _conversations(console: Console, folder: Path) -> bool:
    console.rule("1  A real conversation")
    console.print(
        "Requests and the answers of a real etcd were recorded. A new store gets the same requests.\n"
    )
    table = Table("recorded", "backend", "requests", "same answer", "seconds")
    held = True
    for name, exchanges in _recordings():
        for backend in BACKENDS:
            began = time.perf_counter()
            result = _play(folder / f"{name}-{backend}", backend, exchanges)
            seconds = time.perf_counter() - began
            agreed = result.agreed.total()
            held &= agreed == len(exchanges)
            table.add_row(
                name, backend, str(len(exchanges)), _verdict(agreed, len(exchanges)), f"{seconds:.2f}"
            )
    console.print(table)
    return held


def _recordings() -> list[tuple[str, list[Exchange]]]:
    """The recording that is part of this demo, and a long one if the project has any beside it."""
    lines = SHOP.strip().replace("\n ", " ").splitlines()
    found = [("shop", [parse_exchange(line, number, "shop") for number, line in enumerate(lines, 1)])]
    shared = Path(os.environ.get("KVSTORE_SHARED", Path(__file__).parents[1].parent / "shared"))
    for path in sorted((shared / "traces").glob("small-*.jsonl.xz"))[:1]:
        found.append((path.name.split(".")[0], list(read_conversation(path))))
    return found


def _play(folder: Path, backend: str, exchanges: Iterable[Exchange]) -> Result:
    player = Player(folder, replay_options(backend), Pace(reopen_every=500))
    try:
        return player.play(exchanges)
    finally:
        player.close()


def _verdict(good: int, all_of_them: int) -> str:
    return f"[green]all {good}[/]" if good == all_of_them else f"[red]{good} of {all_of_them}[/]"


# --- 2: the past -----------------------------------------------------------------------


def _the_past(console: Console, folder: Path) -> None:
    console.rule("2  The past")
    with kvstore.open(folder / "shop-lmdb" / "0", "lmdb") as store:
        console.print(
            f"The store is at revision {store.revision}; all since revision {store.compact_revision} is kept.\n"
        )
        _print_reading(console, f"store.history({POD!r})", _history(store))
        _print_reading(console, f"store.at(9).scan(prefix={PODS!r}), and now", _as_it_was(store, 9))
        _print_reading(console, f"store.diff(9, {store.revision})", _difference(store, 9))


def _history(store: Store) -> Table:
    table = Table("revision", "version", "value")
    for kv in store.history(POD):
        table.add_row(
            str(kv.mod_revision), str(kv.version), readable(kv.value) if kv.version else "(deleted)"
        )
    return table


def _as_it_was(store: Store, revision: int) -> Table:
    past = store.at(revision)
    table = Table("key", f"at {revision}", "now")
    for kv in past.scan(prefix=PODS):
        now = store.get(kv.key)
        table.add_row(readable(kv.key), readable(kv.value), readable(now.value) if now else "(gone)")
    return table


def _difference(store: Store, revision: int) -> Table:
    table = Table("key", "before", "after")
    for change in store.diff(revision):
        before, after = change.before, change.after
        table.add_row(
            readable(change.key),
            readable(before.value) if before is not None else "",
            readable(after.value) if after is not None else "(deleted)",
        )
    return table


# --- 3: a crash ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crash:
    """What was acknowledged before the kill, and what the store holds after it."""

    acknowledged: int
    missing: int
    unacknowledged: int
    """Written, but not reported before the kill: these may be there."""
    writing_seconds: float
    opening_seconds: float


def _crashes(console: Console, folder: Path, writes: int) -> bool:
    console.rule("3  kill -9")
    console.print(
        f"A process writes from {THREADS} threads and says so each time that a write was acknowledged. "
        "In the middle of it, it is killed; then the store is opened again.\n"
    )
    table = Table(
        "backend", "acknowledged", "writes/s", "of them missing", "in flight at the kill", "reopened in"
    )
    held = True
    for backend in BACKENDS:
        crash = crash_once(folder / f"crash-{backend}", backend, writes)
        held &= crash.missing == 0 and crash.acknowledged >= writes
        table.add_row(
            backend,
            str(crash.acknowledged),
            f"{crash.acknowledged / crash.writing_seconds:,.0f}",
            "[green]none[/]" if not crash.missing else f"[red]{crash.missing}[/]",
            str(crash.unacknowledged),
            f"{crash.opening_seconds * 1000:.1f} ms",
        )
    console.print(table)
    return held


def crash_once(folder: Path, backend: str, writes: int) -> Crash:
    """Kill a writer once it has reported ``writes`` acknowledged writes; look for all that it reported."""
    module = f"{__package__}.crash_writer"
    command = [sys.executable, "-m", module, str(folder), backend, str(THREADS)]
    told: list[bytes] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        began = time.perf_counter()
        for line in writer.stdout:  # reads to the end of what was reported before the kill
            told.append(line)
            if len(told) == 1:
                began = time.perf_counter()
            if len(told) == writes:
                writer.send_signal(signal.SIGKILL)
                seconds = time.perf_counter() - began
    if len(told) < writes:
        raise RuntimeError(f"the writer ended by itself, with exit code {writer.returncode}")
    return _check(folder, backend, told, seconds)


def _check(folder: Path, backend: str, told: list[bytes], writing_seconds: float) -> Crash:
    began = time.perf_counter()
    with kvstore.open(folder, backend) as store:
        opening_seconds = time.perf_counter() - began
        missing = sum(not _is_there(store, *line.split()) for line in told)
        there = store.count(prefix=b"thread-")
    return Crash(len(told), missing, there - (len(told) - missing), writing_seconds, opening_seconds)


def _is_there(store: Store, key: bytes, revision: bytes) -> bool:
    kv = store.get(key)
    return kv is not None and kv.mod_revision == int(revision) and kv.value == value_of(key.decode())


if __name__ == "__main__":
    sys.exit(run(register))
