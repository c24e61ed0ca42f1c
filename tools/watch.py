"""``kvstore watch KEY``: the events of keys from a revision on; with ``--follow`` future ones too.

Works while another process writes the store: it reads what is durable, and with ``--follow`` again every
half second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from kvstore.errors import Compacted
from kvstore.model import Event, WatchRequest, WatchResponse

from .command import Settings, etcdctl_style_of, range_of, write_json, write_line
from .kv_text import Printer

POLL_SECONDS = 0.5
ANSWER_SECONDS = 60.0
"""A watch that is silent for this long is broken."""


def register(app: typer.Typer) -> None:
    app.command("watch")(watch)


def watch(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument()],
    range_end: Annotated[str | None, typer.Argument(help="Watch [KEY, RANGE_END).")] = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY.")] = False,
    rev: Annotated[int, typer.Option(help="First revision to show; 0: only new events.")] = 0,
    prev_kv: Annotated[bool, typer.Option("--prev-kv", help="Also print the previous version.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep watching until interrupted.")] = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="Print bytes as \\x...")] = False,
) -> None:
    """Print the events of keys, in order. A delete prints only its key."""
    settings = Settings.of(ctx)
    start, end = range_of(key, range_end, prefix=prefix)
    printer = Printer(as_hex=as_hex)
    while True:
        with settings.open(read_only=True) as store:
            newest = store.revision
            first = rev or newest + 1
            if first <= newest:
                request = WatchRequest(start, end, first, prev_kv)
                for response in _until(store.engine.watch(request), newest):
                    if settings.json:
                        style = etcdctl_style_of(store)
                        write_json({"revision": response.revision, "events": style.events(response.events)})
                    else:
                        for event in response.events:
                            _print(event, printer)
        if not follow:
            return
        rev = max(first, newest + 1)
        time.sleep(POLL_SECONDS)


def _until(watching: object, newest: int) -> Iterator[WatchResponse]:
    """Responses up to a revision."""
    from kvstore.watch import Watch

    assert isinstance(watching, Watch)
    with watching as events:
        events.request_progress()
        while True:
            response = events.get_response(ANSWER_SECONDS)
            if response.canceled:
                raise Compacted(response.compact_revision)
            if response.events:
                yield response
            if response.revision >= newest:
                return


def _print(event: Event, printer: Printer) -> None:
    write_line(event.type.name)
    if event.prev_kv is not None:
        printer.key_values([event.prev_kv])
    printer.key_values([event.kv])
