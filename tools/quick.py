"""A plain command line, read without typer: ``read`` knows what was meant, or leaves all of it to ``full.py``.

Plain is: known verbs, options spelt out (``--limit 3``, ``--limit=3``, ``-v``), as many arguments as there are places.
Whatever else there is (a wrong option, ``--help``, ``-vf``, a number that is none) is not looked into here: typer reads
the same line from its beginning, and says what is wrong with it; or ``bare.py``, where that is not installed.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from .app import App, Argument, Command, Option, Parameter


class Call(NamedTuple):
    """What was meant."""

    command: Command
    arguments: dict[str, Any]
    shared: dict[str, Any]
    """The shared options that were given."""


class _NotPlain(Exception):
    """Typer has to read it. What is wrong with it, if that is plain."""


_SHOWN = {"help", "metavar", "hidden", "show_default"}
"""What changes only how a parameter is shown."""
_READ = _SHOWN | {"min", "max", "envvar"}
"""With what else is read here."""


def verb(words: Sequence[str], shared: Sequence[Parameter]) -> str:
    """The first word that is neither a shared option nor its value; empty if there is none, or it is not plain."""
    left = deque(words)
    try:
        _take_options(left, _by_name(shared), {})
    except _NotPlain:
        return ""
    return left[0] if left else ""


def read(app: App, words: Sequence[str], shared: Sequence[Parameter]) -> Call | None:
    """The call that a command line means; None if it is not a plain one."""
    try:
        return _read(app, words, shared)
    except _NotPlain:
        return None


def what_is_wrong(app: App, words: Sequence[str], shared: Sequence[Parameter]) -> str:
    """In a few words; empty where only typer can tell, or nothing is."""
    try:
        _read(app, words, shared)
    except _NotPlain as wrong:
        return str(wrong)
    return ""


def _read(app: App, words: Sequence[str], shared: Sequence[Parameter]) -> Call:
    left, said = deque(words), dict[str, Any]()
    _take_options(left, _by_name(shared), said)
    command = _take_command(app, left)
    return Call(command, _take_arguments(command, left, shared, said), said)


def _take_command(app: App, left: deque[str]) -> Command:
    while left:
        name = left.popleft()
        if command := app.commands.get(name):
            if command.takes_all:
                raise _NotPlain(f"{name} has to be the first word, before all options")
            return command
        if name not in app.groups:
            raise _NotPlain(f"there is no verb {name!r}{_similar(name, app.order)}")
        app = app.groups[name]
    raise _NotPlain(f"a verb is missing: there are {', '.join(app.order)}")


def _take_arguments(
    command: Command, left: deque[str], shared: Sequence[Parameter], said: dict[str, Any]
) -> dict[str, Any]:
    parameters = command.parameters()
    places = [each for each in parameters if isinstance(each.declared, Argument)]
    given = dict[str, Any]()
    own, ours = _by_name(parameters), _by_name(shared)
    is_over = False  # after ``--`` nothing is an option
    while left:
        if left[0] == "--" and not is_over:
            is_over = bool(left.popleft())
        elif is_over or not left[0].startswith("-") or left[0] == "-":
            if not places:
                raise _NotPlain(f"{left[0]!r} is one argument too many")
            if _item(places[0]):
                _add(places[0], left.popleft(), given)
            else:
                place = places.pop(0)
                given[place.name] = _value(place, left.popleft())
        elif left[0].partition("=")[0] in own:
            _take_option(left, own, given)
        else:
            _take_option(left, ours, said, besides=own)
    for each in parameters:
        if each.name not in given:
            if each.default is inspect.Parameter.empty:
                raise _NotPlain(f"{_shown(each)} is missing")
            if each.declared.more.keys() - _READ:
                raise _NotPlain  # perhaps given in another way
            surrounding = os.environ.get(each.declared.more.get("envvar", ""), "")
            given[each.name] = _value(each, surrounding) if surrounding else each.default
    return given


# --- options -----------------------------------------------------------------------------


_ByName = dict[str, tuple[Parameter, bool | None]]
"""By each spelling. True or False: what a flag of that spelling says; None: a value follows."""


def _by_name(parameters: Iterable[Parameter]) -> _ByName:
    found: _ByName = {}
    for each in parameters:
        if isinstance(each.declared, Option):
            is_flag = each.kind is bool
            name = each.name.replace("_", "-")
            for spelling in each.declared.names or (f"--{name}/--no-{name}" if is_flag else f"--{name}",):
                yes, _slash, no = spelling.partition("/")
                found[yes] = each, True if is_flag else None
                if no:
                    found[no] = each, False
    return found


def _take_options(left: deque[str], known: _ByName, given: dict[str, Any]) -> None:
    """All options up to the first word that is none."""
    while left and left[0].startswith("-"):
        _take_option(left, known, given)


def _take_option(
    left: deque[str], known: _ByName, given: dict[str, Any], *, besides: Iterable[str] = ()
) -> None:
    """The next option. ``besides``: others that might have been meant."""
    word = left.popleft()
    spelling, equals, value = word.partition("=")
    if spelling not in known or (equals and not spelling.startswith("--")):
        raise _NotPlain(f"there is no option {spelling}{_similar(spelling, [*known, *besides])}")
    option, says = known[spelling]
    if says is not None:
        if equals:
            raise _NotPlain(f"{spelling} takes no value")
        given[option.name] = says
        return
    if not equals:
        if not left or left[0].startswith("-"):
            raise _NotPlain(f"{spelling} needs a value" + (f", not {left[0]}" if left else ""))
        value = left.popleft()
    if _item(option):
        _add(option, value, given)
    else:
        given[option.name] = _value(option, value)


def _add(each: Parameter, value: str, given: dict[str, Any]) -> None:
    """One more of several values."""
    given[each.name] = [*given.get(each.name, ()), _value(each, value, _item(each))]


def _item(each: Parameter) -> Any:
    """The type of each of several values (``list[str]``, ``list[str] | None``); None: there is one value."""
    kind = get_args(each.kind)[0] if isinstance(each.kind, UnionType) else each.kind
    return get_args(kind)[0] if get_origin(kind) is list else None


def _value(of: Parameter, text: str, kind: Any = None) -> Any:
    kind = kind or of.kind
    if isinstance(kind, UnionType):  # ``str | None``
        kind = get_args(kind)[0]
    if of.declared.more.keys() <= _READ:
        if kind is str or kind is Path:
            return kind(text)
        if text.isascii():
            if kind is int and text.isdecimal() and _is_within(int(text), of):
                return int(text)
            if kind is float and text.replace(".", "", 1).isdecimal():
                return float(text)
    raise _NotPlain(f"{text!r} does not do for {_shown(of)}")


def _is_within(number: int, of: Parameter) -> bool:
    least, most = of.declared.more.get("min"), of.declared.more.get("max")
    return (least is None or number >= least) and (most is None or number <= most)


# --- what is wrong -----------------------------------------------------------------------


def _shown(each: Parameter) -> str:
    if isinstance(each.declared, Argument):
        return str(each.declared.more.get("metavar") or each.name.upper())
    return "/".join(each.declared.names) or "--" + each.name.replace("_", "-")


def _similar(given: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(given, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""
