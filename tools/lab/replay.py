"""Play recorded conversations with etcd through the engine, and compare every response.

    python -m kvstore.tools.lab.replay FILE... --backend lmdb

Each file is played into a new, empty store. The exit code is 0 only if every response agreed, errors included.
Four options put the store through more than the recording did; no response may change:

    --reopen-every N       close and open the store after every N requests
    --crash-every N        continue from a copy of its files, taken while it is open, as after a power cut
    --checkpoint-every N   move the changes held in memory into the backend after every N requests
    --sweep-every N        the same, and delete what compactions have made garbage
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    import runpy

    sys.path.pop(0)  # where Python puts a script's folder
    runpy.run_module("kvstore.tools.lab.replay", run_name="__main__", alter_sys=True)
    sys.exit()

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from kvstore.calls import answer
from kvstore.engine import LocalEngine
from kvstore.errors import KVStoreError
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.model import CompactionRequest, Event, LeaseLeasesRequest, WatchRequest
from kvstore.options import Options
from kvstore.recovery import open_engine

from ..app import App, Argument, Context, Exit, Option
from ..command import ExitCode, Settings, run, write_json, write_line
from .conversation import (
    RECORDED,
    Exchange,
    Message,
    Request,
    parse_request,
    read_conversation,
    refusal,
    watched,
    without_defaults,
)
from .replay_stream import WATCH_TIMEOUT_SECONDS, PlayedStream

CLOCK_SECONDS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What happens between requests; 0: never."""

    reopen_every: int = 0
    crash_every: int = 0
    checkpoint_every: int = 0
    sweep_every: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A response of ours that is not etcd's."""

    exchange: Exchange
    ours: Message


@dataclass(slots=True)
class Result:
    """The outcome of one conversation."""

    agreed: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)


class Player:
    """Plays requests into one store, which it opens, crashes and reopens inside a folder of its own."""

    def __init__(self, folder: Path, options: Options, pace: Pace) -> None:
        self._folder = folder
        self._options = options
        self._pace = pace
        self._played = 0
        self._life = 0
        self._stream: PlayedStream | None = None
        self.engine = self._open()

    def play(self, conversation: Iterable[Exchange]) -> Result:
        result = Result()
        for exchange in conversation:
            request = parse_request(exchange)
            ours = self.ask(request)
            if ours == without_defaults(exchange.answer):
                result.agreed[exchange.op] += 1
            else:
                result.differences.append(Difference(exchange, ours))
            self._between()
        return result

    def ask(self, request: Request) -> Message:
        """The engine's response, or its error, as it would have been recorded."""
        try:
            if isinstance(request, WatchRequest):
                return self.watch(request)
            if isinstance(request, etcdserverpb.WatchRequest):
                self._stream = self._stream or PlayedStream(self.engine)
                return self._stream.ask(request)
            if isinstance(request, CompactionRequest) and self._stream is not None:
                self._stream.read()
            return RECORDED.answer(self.call(request))
        except KVStoreError as error:
            return refusal(error)

    def call(self, request: Request) -> object:
        """Ask the engine."""
        response = answer(self.engine, request)
        if isinstance(request, LeaseLeasesRequest):  # etcd returns them in no particular order
            return response._replace(leases=tuple(sorted(response.leases)))
        return response

    def watch(self, request: WatchRequest) -> Message:
        """Everything that a watch delivers up to the store's newest revision."""
        return _watch_until_now(self.engine, request)

    def close(self) -> None:
        self.engine.close()

    # --- between requests -------------------------------------------------------------

    def _between(self) -> None:
        self._played += 1
        if self._due(self._pace.checkpoint_every):
            self.engine.checkpoint()
        if self._due(self._pace.sweep_every):
            self.engine.run_compaction()
        if self._due(self._pace.crash_every):
            self._crash()
        if self._due(self._pace.reopen_every):
            self.engine.close()
            self.engine = self._open()

    def _due(self, every: int) -> bool:
        return every > 0 and self._played % every == 0

    def _open(self) -> LocalEngine:
        engine = open_engine(self._folder / str(self._life), self._options)
        assert isinstance(engine, LocalEngine)
        return engine

    def _crash(self) -> None:
        """Continue from a copy of the files as they are now; what closing would add is lost."""
        abandoned = self._folder / str(self._life)
        self._life += 1
        shutil.copytree(abandoned, self._folder / str(self._life))
        self.engine.close()
        shutil.rmtree(abandoned)
        self.engine = self._open()


def _watch_until_now(engine: LocalEngine, request: WatchRequest) -> Message:
    newest = engine.state.published
    events: list[Event] = []
    with engine.watch(request) as watch:
        if request.start_revision > newest and len(watch.stream) > 0:  # not refused
            return watched(events, None)
        watch.request_progress()
        while True:
            response = watch.get_response(WATCH_TIMEOUT_SECONDS)
            if response.canceled:
                return watched(events, response)
            events += response.events
            if response.revision >= newest:
                return watched(events, None)


def replay_options(backend: str, **options: Any) -> Options:
    """The options of a store that conversations are played into."""
    return Options(
        **{
            "backend": backend,
            "background": False,  # nothing happens except what the pace says
            "durability": "off",  # the folder does not outlive the command
            "wal_file_size": 1 << 18,
            "clock": lambda: CLOCK_SECONDS,  # it stands still: a lease has its full time left
            **options,
        }
    )


def replay(path: Path, backend: str = "lmdb", pace: Pace | None = None, **options: Any) -> Result:
    """Play one file into a new store in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="kvstore-replay-") as folder:
        player = Player(Path(folder), replay_options(backend, **options), pace or Pace())
        try:
            return player.play(read_conversation(path))
        finally:
            player.close()


# --- the command -----------------------------------------------------------------------


def register(app: App) -> None:
    app.command("replay")(main)


def main(
    ctx: Context,
    files: Annotated[list[Path], Argument(help="Conversations: .jsonl or .jsonl.xz.")],
    reopen_every: Annotated[
        int, Option(min=0, help="Close and reopen the store after every N requests.")
    ] = 0,
    crash_every: Annotated[int, Option(min=0, help="Simulate a power cut after every N requests.")] = 0,
    checkpoint_every: Annotated[int, Option(min=0, help="Checkpoint after every N requests.")] = 0,
    sweep_every: Annotated[int, Option(min=0, help="Sweep garbage after every N requests.")] = 0,
    show: Annotated[int, Option(min=0, help="How many differences to show per file.")] = 3,
) -> None:
    """Play recorded conversations with etcd, and compare every answer."""
    settings = Settings.of(ctx)
    pace = Pace(
        reopen_every=reopen_every,
        crash_every=crash_every,
        checkpoint_every=checkpoint_every,
        sweep_every=sweep_every,
    )
    failed = False
    for path in files:
        result = replay(path, settings.backend or "lmdb", pace)
        failed |= bool(result.differences) or not result.agreed
        if settings.json:
            write_json(_summary(path, result))
            continue
        write_line(f"{path.name}: {_sentence(result)}")
        for difference in result.differences[:show]:
            sys.stdout.flush()
            _show(difference)
    if failed:
        raise Exit(ExitCode.FAILED)


def _summary(path: Path, result: Result) -> dict[str, Any]:
    return {
        "file": str(path),
        "agreed": dict(result.agreed),
        "differences": [
            {
                "line": difference.exchange.line,
                "op": difference.exchange.op,
                "request": difference.exchange.request,
                "etcd": without_defaults(difference.exchange.answer),
                "ours": difference.ours,
            }
            for difference in result.differences
        ],
    }


def _sentence(result: Result) -> str:
    parts = [f"{result.agreed.total()} answers agree"]
    if result.differences:
        parts.append(f"{len(result.differences)} DIFFER")
    return ", ".join(parts)


def _show(difference: Difference) -> None:
    """The request, and the lines in which the two responses differ."""
    from difflib import unified_diff

    from rich.console import Console
    from rich.text import Text

    exchange = difference.exchange
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"  line {exchange.line}: {exchange.op} {json.dumps(exchange.request)}", style="bold"))
    theirs = json.dumps(without_defaults(exchange.answer), indent=2, sort_keys=True).splitlines()
    ours = json.dumps(difference.ours, indent=2, sort_keys=True).splitlines()
    styles = {"-": "red", "+": "green", "@": "cyan"}
    for line in unified_diff(theirs, ours, "etcd", "kvstore", lineterm="", n=2):
        console.print(Text(f"    {line}", style=styles.get(line[:1], "")))


if __name__ == "__main__":
    sys.exit(run(register))
