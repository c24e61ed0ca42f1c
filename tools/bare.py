"""The command line where typer is not installed: help, and what to do about a line that ``quick.py`` cannot read.

Plain commands work all the same. What is wrong with another line is said in a few words; typer says more, and
completes.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import get_origin

from . import quick
from .app import App, Argument, Command, Parameter
from .command import SHARED, ExitCode, write_line
from .usage import UsageError

REMEDY = "pip install 'kvstore-mvcc[cli]' (in a checkout: pip install '.[cli]')"


def run(app: App, words: Sequence[str]) -> ExitCode:
    """Print the help that is asked for, or that there is no verb. Raises ``UsageError`` for any other line."""
    if words and not {"-h", "--help"} & set(words):
        wrong = quick.what_is_wrong(app, words, SHARED)
        wrong = wrong or "this command line needs a package that is not installed (typer)"
        raise UsageError(f"{wrong} (--help tells more, and so does typer: {REMEDY})")
    name, found = "kvstore", app
    for word in words:
        if command := found.commands.get(word):
            _print([f"Usage: {name} {word} {_places(command)}".rstrip(), "", *_about(command)])
            return ExitCode.OK
        if word in found.groups:
            name, found = f"{name} {word}", found.groups[word]
    _print([f"Usage: {name} [OPTIONS] VERB ...", "", found.help_text, "", *_verbs(found), *_shared()])
    return ExitCode.OK if words else ExitCode.USAGE


def _print(lines: Sequence[str]) -> None:
    for line in [*lines, "", f"Completion, and more about a line that is wrong, take {REMEDY}"]:
        write_line(line)
    sys.stdout.flush()


def _verbs(app: App) -> Iterator[str]:
    for name in app.order:
        command = app.commands.get(name)
        if command is None:
            yield _row(name, app.groups[name].help_text)
        elif not command.more.get("hidden"):
            yield _row(name, (command.function.__doc__ or "").partition("\n")[0])


def _about(command: Command) -> Iterator[str]:
    yield from inspect.cleandoc(command.function.__doc__ or "").splitlines()
    yield ""
    if not command.takes_all:
        yield from (_option(each) for each in command.parameters() if not isinstance(each.declared, Argument))
        yield from _shared()


def _shared() -> Iterator[str]:
    yield ""
    yield from (_option(each) for each in SHARED if not each.declared.more.get("hidden"))


def _places(command: Command) -> str:
    """The arguments, each by its name in capitals; what need not be given in brackets."""
    if command.takes_all:
        return "[FLAGS]"
    places = [each for each in command.parameters() if isinstance(each.declared, Argument)]
    names = [(each, each.declared.more.get("metavar") or each.name.upper()) for each in places]
    return " ".join(name if each.default is inspect.Parameter.empty else f"[{name}]" for each, name in names)


def _option(each: Parameter) -> str:
    names = ", ".join(each.declared.names) or "--" + each.name.replace("_", "-")
    kind = each.kind if get_origin(each.kind) is None else str
    value = "" if kind is bool else f" {each.declared.more.get('metavar') or 'VALUE'}"
    return _row(names + value, each.declared.more.get("help", ""))


def _row(name: str, text: str) -> str:
    first, *rest = textwrap.wrap(text, 80) or [""]
    more = [" " * 28 + line for line in rest]
    return "\n".join([f"  {name:<24}  {first}".rstrip(), *more])
