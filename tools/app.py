"""What a command takes, as its function's signature says it. Nothing here needs a package.

    def get(ctx: Context, key: Annotated[str, Argument()], limit: Annotated[int, Option(help="...")] = 0) -> None

Two read it. ``quick.py`` reads a plain command line by itself, since loading typer takes longer than most commands
do. Everything else (help, completion, what is wrong) goes to typer, which ``full.py`` tells the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_args, get_origin

Function = Callable[..., Any]


class Declared:
    """How a parameter is given. ``names``: an option's, ``--it`` if there are none; ``more``: as typer calls it."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.names = names
        self.more = more


class Option(Declared):
    """A parameter that is given by name."""


class Argument(Declared):
    """A parameter that is given by its place."""


class Context:
    """What a command is told beside its parameters. Typer's has the same."""

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}
        self.args: list[str] = []


class Exit(Exception):
    """Ends a command with this exit code."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(code)
        self.code = int(code)


class Parameter(NamedTuple):
    """One parameter of a command."""

    name: str
    kind: Any
    """Its type: ``int``, ``str | None``, ``list[Path]``."""
    declared: Declared
    default: Any
    """``inspect.Parameter.empty`` if it has to be given."""


class Command(NamedTuple):
    """A verb: the function, and how typer is to list it."""

    function: Function
    more: dict[str, Any]
    takes_all: bool = False
    """Whether the function is given all that follows, to read it itself."""

    def parameters(self) -> list[Parameter]:
        """All but the context, in order."""
        found = inspect.signature(self.function, eval_str=True).parameters.values()
        return [
            parameter(each.name, each.annotation, each.default) for each in found if not _is_context(each)
        ]

    @property
    def context(self) -> str:
        """The name of the parameter that is the context."""
        return next(
            name for name, kind in self.function.__annotations__.items() if kind in ("Context", Context)
        )


class App:
    """Verbs under one name, and groups of them."""

    def __init__(self, help_text: str, *, completes: bool = False) -> None:
        self.help_text = help_text
        self.completes = completes
        self.epilog = ""
        self.commands: dict[str, Command] = {}
        self.groups: dict[str, App] = {}
        self.order: list[str] = []

    def command(self, name: str, *, takes_all: bool = False, **more: Any) -> Callable[[Function], Function]:
        """Adds a function as a verb. ``more``: typer's ``hidden`` and the like."""

        def add(function: Function) -> Function:
            self.commands[name] = Command(function, more, takes_all)
            self.order.append(name)
            return function

        return add

    def add_group(self, group: App, name: str) -> None:
        self.groups[name] = group
        self.order.append(name)


def parameter(name: str, annotation: Any, default: Any) -> Parameter:
    """From ``Annotated[type, Option(...)]``."""
    if get_origin(annotation) is not Annotated:
        raise TypeError(f"{name}: not annotated with an Option or Argument")
    kind, declared = get_args(annotation)
    return Parameter(name, kind, declared, default)


def _is_context(each: inspect.Parameter) -> bool:
    return each.annotation is Context
