"""What all commands share: the options that choose the store, how responses are printed, how failures end.

A command is a module with ``register(app)``; ``main.py`` lists them. These options are accepted before and after
the name of a command:

    --data-dir DIR     the store            (else KVSTORE_DATA_DIR)
    --endpoint URL     or one that is served: etcd://host:2379, unix:///run/kv.sock (else KVSTORE_ENDPOINT)
    --backend NAME     its backend          (else the one whose files are there, else KVSTORE_BACKEND, else lmdb)
    --set NAME=VALUE   any other option of the store, e.g. --set wal-dir=/fast/wal (else KVSTORE_<NAME>);
                       with --endpoint those of a client, e.g. --set user=alice (docs/remote.md)
    --json, -w json    answers as JSON, with etcdctl's field names: keys and values in base64
    -v                 log what happens behind the answer, on stderr

Exit codes: the members of ``ExitCode``. A failure is one line on stderr, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore._version import __version__
from kvstore.decoding.readable import readable as readable  # noqa: PLC0414  # for all commands
from kvstore.errors import (
    Corruption,
    KVStoreError,
    NotAStore,
    OpenError,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)
from kvstore.options import ENV_PREFIX, BadOption, Options, option_called, unknown_option

from . import quick
from .app import App, Command, Context, Exit, Option, Parameter
from .usage import UsageError

if TYPE_CHECKING:
    from kvstore.layout import DataDir
    from kvstore.protocol import Engine
    from kvstore.recovery import OpenedEngine
    from kvstore.snapshot.hash_state import HashState
    from kvstore.store import Store

    from .answers import Style

Register = Callable[[App], None]


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    """The request was refused, or a file could not be read or written."""
    USAGE = 2
    """The command line or the text on stdin is wrong."""
    CANNOT_OPEN = 3
    """The store is in use by another process, not a store, another store, or newer than this version."""
    DAMAGED = 4
    """Bytes on disk are damaged."""
    UNKNOWN = 5
    """A write was sent, and whether it was done is not known."""
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """The reader of the output closed it. Silent, as usual."""


EXIT_CODES = (
    "Exit codes: 0 done; 1 refused, or a file could not be read or written; 2 wrong command line; 3 the store cannot "
    "be opened or reached (in use, not a store, another store, too new, nobody answers); 4 damaged; 5 a write was "
    "sent, and whether it was done is not known; 130 interrupted; 141 output closed early."
)


@dataclass(slots=True)
class Settings:
    """The values of the shared options."""

    data_dir: str = ""
    endpoint: str = ""
    backend: str = ""
    json: bool = False
    write_out: str = ""
    options: list[str] = field(default_factory=list)
    verbose: bool = False
    hash_check: HashState | None = None
    """Of the files that the answer rests on, the worst; None: there is none that carries a hash."""

    @classmethod
    def of(cls, ctx: Context) -> Settings:
        settings = ctx.meta.setdefault(_META, cls())
        assert isinstance(settings, cls)
        return settings

    def settle(self) -> None:
        """Have effect what has been said so far."""
        if self.write_out not in ("", "json", "simple"):
            raise UsageError(f"-w {self.write_out}: there are json and simple")
        self.json = self.json or self.write_out == "json"
        if self.verbose:
            import logging

            logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.DEBUG)

    @property
    def url(self) -> str:
        """Where the store is served, if it is one that is; what is said with a flag counts before the environment."""
        if self.endpoint and self.data_dir:
            raise UsageError("--data-dir is a store here, --endpoint one elsewhere: give one of them")
        return self.endpoint or ("" if self.data_dir else os.environ.get("KVSTORE_ENDPOINT", ""))

    @property
    def directory(self) -> Path:
        """The data directory. Raises ``UsageError`` if none was given."""
        if self.url:
            raise UsageError("this works on the files of a store: give --data-dir instead of --endpoint")
        name = self.data_dir or os.environ.get("KVSTORE_DATA_DIR", "")
        if not name:
            raise UsageError("which store? give --data-dir or --endpoint, or set KVSTORE_DATA_DIR")
        return Path(name)

    @property
    def where(self) -> str:
        """The store, in a few words."""
        return self.url or str(self.directory)

    def load_options(self, **changes: Any) -> Options:
        """The store's options: from the environment, ``--set`` and ``changes``."""
        environ = dict(os.environ)
        for assignment in self.options:
            given, equals, value = assignment.partition("=")
            name = option_called(given.replace("-", "_"))
            if not equals or name == "clock":
                raise UsageError(f"--set {assignment}: not NAME=VALUE with the name of an option")
            if not name:
                raise unknown_option(given, [each.name.replace("_", "-") for each in fields(Options)])
            environ[ENV_PREFIX + name.upper()] = value
        return Options.load({"backend": self.backend or self._recognized(), **changes}, environ)

    def _recognized(self) -> str | None:
        """The backend whose files are in the data directory."""
        from kvstore.layout import DataDir
        from kvstore.recognition import backend_of

        kind = backend_of(DataDir.at(self.directory))
        return kind.name if kind else None

    def open(self, *, read_only: bool = False, **changes: Any) -> Store:
        """The store; with ``read_only`` even while another process writes it. One elsewhere takes no ``changes``."""
        if self.url:
            return self._connect()
        from kvstore.store import Store

        return Store(self._open_here(read_only=read_only, **changes))

    def open_to_read(self) -> Engine:
        """What answers requests that only read: a store's face takes a while to load."""
        if not self.url:
            return self._open_here(read_only=True)
        from kvstore.served import find_network

        return find_network().connect(self.url, **self.client_options())

    def _open_here(self, **changes: Any) -> OpenedEngine:
        from kvstore.recovery import open_engine

        try:
            return open_engine(self.directory, self.load_options(**changes))
        except NotAStore as error:
            self.advise(error)
            raise

    def advise(self, error: NotAStore) -> None:
        """Say what reads the directory, if it is another program's."""
        from kvstore.foreign import recognize_foreign

        foreign = recognize_foreign(self.directory)
        if foreign is not None:
            where = self.directory
            error.add_note(
                f"it is a store of {foreign.name}: `kvstore inspect list {where}` looks into it, "
                f"`kvstore import {foreign.name} {where} --data-dir NEW` makes one of ours of it"
            )

    def _connect(self) -> Store:
        import kvstore

        return kvstore.connect(self.url, **self.client_options())

    def client_options(self) -> dict[str, Any]:
        """What ``--set`` says of a client."""
        return client_options(self.options)

    def open_existing(self, **changes: Any) -> Store:
        """An existing store, mostly for writing: a misspelt name must not become a new, empty store."""
        if not self.url:
            self.check_exists()
        return self.open(**changes)

    def check_exists(self) -> DataDir:
        """The store's files. Raises ``NotAStore`` if there are none."""
        from kvstore.layout import DataDir

        directory = DataDir.at(self.directory, self.load_options().wal_dir or None)
        if not directory.snap.is_dir():
            raise NotAStore(f"{directory.root} is not a store", directory.root)
        return directory


def client_options(assignments: Iterable[str]) -> dict[str, Any]:
    """Options of a client, from NAME=VALUE."""
    options: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: not NAME=VALUE")
        name = name.replace("-", "_")
        options[name] = _as_a_client_takes_it(name, value)
    return options


def _as_a_client_takes_it(name: str, value: str) -> Any:
    """An option of a client, from its text."""
    from kvstore.network.remote.options import ClientOptions

    default = getattr(ClientOptions(), name, "")
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        return type(default)(value)
    except ValueError:
        return value  # refused by name


_META = "kvstore"

# --- output ----------------------------------------------------------------------------


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout, unchanged and all of them: with PYTHONUNBUFFERED one call may take a part."""
    left = memoryview(data)
    while left:
        left = left[sys.stdout.buffer.write(left) :]


def write_line(text: str) -> None:
    write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")


def warn(text: str) -> None:
    """Say what has to be said beside the answer."""
    print(f"WARNING: {text}", file=sys.stderr)


def confirm(what: str) -> None:
    """Ask whoever sits at the terminal before something that cannot be taken back. Raises ``UsageError`` for no."""
    print(f"{what} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")


def write_json(value: object) -> None:
    """One JSON value on one line."""
    import json

    write_line(json.dumps(value, separators=(",", ":")))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere tab-separated lines without a header, as they come."""
    if not sys.stdout.isatty():
        for row in rows:
            write_line("\t".join(row))
        return
    if find_spec("rich") is None:
        _write_columns(columns, list(rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, show_header=any(columns))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _write_columns(columns: Sequence[str], rows: list[Sequence[str]]) -> None:
    """Without lines, where rich is not installed."""
    shown = [columns, *rows] if any(columns) else rows
    widths = [max(map(len, cells)) for cells in zip_longest(*shown, fillvalue="")]
    for row in shown:
        write_line("  ".join(map(str.ljust, row, widths)).rstrip())


def number_text(number: int) -> str:
    """A number for people, or plain in a pipe."""
    return f"{number:,}" if sys.stdout.isatty() else str(number)


def size_text(size_bytes: int) -> str:
    """A number of bytes likewise."""
    if not sys.stdout.isatty():
        return str(size_bytes)
    if size_bytes < 1 << 10:
        return f"{size_bytes} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min((size_bytes.bit_length() - 1) // 10, len(units))
    return f"{size_bytes / (1 << 10 * power):.1f} {units[power - 1]}"


def engine_of(store: Store) -> Engine:
    """Takes requests as they are, wherever the store is."""
    return store._engine


def etcdctl_style_of(store: Store) -> Style:
    return style_of(engine_of(store))


def style_of(engine: Engine) -> Style:
    """How etcdctl would spell this engine's answers."""
    from .answers import etcdctl_style

    return etcdctl_style(engine.cluster_id, engine.member_id)


def argument_bytes(argument: str) -> bytes:
    """A command-line argument as the bytes that were typed."""
    return os.fsencode(argument)


def range_of(
    key: str, range_end: str | None, *, prefix: bool = False, from_key: bool = False
) -> tuple[bytes, bytes]:
    """(key, range_end) of a request from the command line."""
    from .requests import key_and_end

    end = None if range_end is None else argument_bytes(range_end)
    return key_and_end(argument_bytes(key), end, prefix=prefix, from_key=from_key)


# --- shared options --------------------------------------------------------------------

SHARED = (
    Parameter(
        "data_dir",
        str,
        Option("--data-dir", metavar="DIR", help="The store's directory. [env: KVSTORE_DATA_DIR]"),
        "",
    ),
    Parameter(
        "endpoint",
        str,
        Option(
            "--endpoint",
            metavar="URL",
            help="A store that is served: etcd://host:2379. [env: KVSTORE_ENDPOINT]",
        ),
        "",
    ),
    Parameter(
        "backend",
        str,
        Option("--backend", metavar="NAME", help="lmdb, sqlite or memory (detected for an existing store)."),
        "",
    ),
    Parameter(
        "options",
        list[str],
        Option("--set", metavar="NAME=VALUE", help="Any other option of the store."),
        [],
    ),
    Parameter("json", bool, Option("--json", help="Answer in JSON, as etcdctl does."), False),
    Parameter("write_out", str, Option("-w", "--write-out", metavar="FORMAT", hidden=True), ""),
    Parameter("verbose", bool, Option("-v", "--verbose", help="Log what happens, on stderr."), False),
)
"""The fields of ``Settings``, as options."""


def new_app(help_text: str, *, completes: bool = False) -> App:
    """An app for ``run``, or for a group of sub-commands."""
    return App(help_text, completes=completes)


def carry_out(command: Command, ctx: Any, arguments: dict[str, Any], said: dict[str, Any]) -> None:
    """Call a command's function. ``said``: the shared options that were given with it. Raises ``Exit``."""
    if not command.takes_all:
        settings = Settings.of(ctx)
        for name, value in said.items():
            setattr(settings, name, getattr(settings, name) + value if name == "options" else value)
        settings.settle()
    try:
        command.function(ctx, **arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise Exit(ExitCode.PIPE_CLOSED) from None


# --- running ---------------------------------------------------------------------------


def run(*registers: Register, prog_name: str = "") -> int:
    """Run a command line made of these commands. Returns the exit code.

    ``prog_name``: the name of the whole; empty: one command runs alone, under the name of its script.
    """
    app = new_app(
        "An embedded, durable, multi-version key-value store, from the command line.",
        completes=bool(prog_name),
    )
    app.epilog = EXIT_CODES
    for register in registers:
        register(app)
    try:
        if prog_name and sys.argv[1:] == ["--version"]:
            write_line(f"kvstore {__version__}")
            sys.stdout.flush()
            return ExitCode.OK
        plain = quick.read(app, sys.argv[1:], SHARED) if prog_name and _COMPLETING not in os.environ else None
        if plain is not None:
            carry_out(plain.command, Context(), plain.arguments, plain.shared)
            return ExitCode.OK
        if find_spec("typer") is None:
            from . import bare

            return bare.run(app, sys.argv[1:])
        from . import full

        return full.run(app, prog_name or Path(sys.argv[0]).name, is_one_of_many=bool(prog_name))
    except Exit as end:
        return end.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # while help was printed
        _forget_stdout()
        return ExitCode.PIPE_CLOSED
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        _say(error)
        return code


_COMPLETING = "_KVSTORE_COMPLETE"
"""Set by a shell that asks for completions."""


def _forget_stdout() -> None:
    """Drop what is still buffered: it would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(error: Exception) -> ExitCode | None:
    """The exit code of a failure; None for a bug, which is shown as one."""
    match error:
        case UsageError() | BadOption():
            return ExitCode.USAGE
        case OutcomeUnknown():
            return ExitCode.UNKNOWN
        case OpenError() | Unavailable() | Unauthenticated():
            return ExitCode.CANNOT_OPEN
        case Corruption():
            return ExitCode.DAMAGED
        case KVStoreError() | OSError():
            return ExitCode.FAILED
    return ExitCode.USAGE if hasattr(error, "format_message") else None  # typer's own usage errors


def _say(error: Exception) -> None:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    if message.startswith("Usage:"):  # a command without any arguments
        print(message, file=sys.stderr)
        return
    etcd_text = getattr(error, "etcd_text", "")  # first and alone, as etcdctl has it
    more = message.removeprefix(etcd_text).lstrip(":; ") if etcd_text else ""
    said = [etcd_text, more] if more else [message]
    for line in [f"Error: {said[0]}", *said[1:], *getattr(error, "__notes__", ())]:
        print(" ".join(line.split()), file=sys.stderr)
