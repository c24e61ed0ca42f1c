"""``kvstore watch KEY [END] [-- COMMAND...]``: the events of keys, as they happen.

Works while another process writes the store, whose newest durable state it reads a few times a second, and on a store
that is served. With ``--no-follow`` it ends at the newest revision. A command after ``--`` is run for each event, one
after the other, with etcdctl's variables: ETCD_WATCH_REVISION, and ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and
ETCD_WATCH_VALUE, which are quoted as etcdctl quotes them.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from kvstore.errors import Compacted, WatchTimeout
from kvstore.model import Event, WatchRequest, WatchResponse
from kvstore.watch import Watch

from .app import App, Argument, Context, Option
from .command import Settings, engine_of, etcdctl_style_of, range_of, write_json, write_line
from .kv_text import Printer
from .usage import UsageError

REFRESH_SECONDS = 0.1
LOOK_SECONDS = 0.5
"""How often a watch that has nothing to say looks whether somebody still listens."""


def register(app: App) -> None:
    app.command("watch")(watch)


def watch(
    ctx: Context,
    words: Annotated[list[str], Argument(metavar="KEY [END] [-- COMMAND...]", show_default=False)],
    prefix: Annotated[bool, Option("--prefix", help="All keys that begin with KEY.")] = False,
    rev: Annotated[int, Option(help="First revision to show; 0: only new events.")] = 0,
    prev_kv: Annotated[bool, Option("--prev-kv", help="Also print the previous version.")] = False,
    follow: Annotated[
        bool,
        Option("--follow/--no-follow", "-f", help="Until interrupted, or up to the newest revision."),
    ] = True,
    as_hex: Annotated[bool, Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Print the events of keys, in order; or run a command for each. A delete prints only its key.

    Example: kvstore watch config/ --prefix -- sh -c 'echo $ETCD_WATCH_KEY'
    """
    settings = Settings.of(ctx)
    keys, command = _parted(words, sys.argv)
    if not 1 <= len(keys) <= 2:
        raise UsageError("watch takes a KEY, or KEY and END, and perhaps a command after --")
    start, end = range_of(keys[0], keys[1] if keys[1:] else None, prefix=prefix)
    moving: dict[str, Any] = {"refresh_interval_seconds": REFRESH_SECONDS}
    with settings.open(read_only=True, **moving) as store:
        newest = store.revision
        first = rev or newest + 1
        if not follow and first > newest:
            return
        printer, style = Printer(as_hex=as_hex), etcdctl_style_of(store)
        with engine_of(store).watch(WatchRequest(start, end, first, prev_kv)) as watching:
            for response in _responses(watching, None if follow else newest):
                if command:
                    for event in response.events:
                        _run(command, event)
                elif settings.json:
                    write_json({"revision": response.revision, "events": style.events(response.events)})
                else:
                    for event in response.events:
                        _print(event, printer)
                sys.stdout.flush()


def _parted(words: Sequence[str], typed: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The keys, and the command, which is what was typed after ``--``."""
    if "--" not in typed:
        return words, ()
    count = len(typed) - typed.index("--") - 1
    return words[: len(words) - count], words[len(words) - count :]


def _responses(watching: Watch, last_revision: int | None) -> Iterator[WatchResponse]:
    """Responses with events; up to a revision, if there is a last one."""
    if last_revision is not None:
        watching.request_progress()
    while True:
        try:
            response = watching.get_response(timeout=LOOK_SECONDS)
        except WatchTimeout:
            _check_reader()
            continue
        if response.canceled:
            raise Compacted(response.compact_revision)
        if response.events:
            yield response
        if last_revision is not None and response.revision >= last_revision:
            return


def _check_reader() -> None:
    """Raise ``BrokenPipeError`` if whoever read the output has closed it: the next event may never come."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except OSError:  # it is no file
        return
    if any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0)):
        raise BrokenPipeError


def _run(command: Sequence[str], event: Event) -> None:
    facts = {
        "ETCD_WATCH_REVISION": str(event.kv.mod_revision),
        "ETCD_WATCH_EVENT_TYPE": f'"{event.type.name}"',
        "ETCD_WATCH_KEY": _quoted(event.kv.key),
        "ETCD_WATCH_VALUE": _quoted(event.kv.value),
    }
    sys.stdout.flush()
    try:
        subprocess.run(command, env={**os.environ, **facts}, check=False)
    except FileNotFoundError as error:
        raise UsageError(f"there is no command {command[0]!r}") from error


def _quoted(data: bytes) -> str:
    """As Go quotes a string (%q)."""
    text = "".join(_escaped(character) for character in data.decode("utf-8", "surrogateescape"))
    return f'"{text}"'


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    short = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b"}
    short |= {"\f": "\\f", "\v": "\\v"}
    if character in short:
        return short[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _print(event: Event, printer: Printer) -> None:
    write_line(event.type.name)
    if event.prev_kv is not None:
        printer.key_values([event.prev_kv])
    printer.key_values([event.kv])
