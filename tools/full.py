"""The command line as typer has it, from the same declarations (app.py): help, completion, and what is wrong."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Annotated, Any

import typer

from kvstore._version import __version__

from .app import App, Argument, Command, Context, Exit, Option, Parameter
from .command import SHARED, carry_out, write_line


def typer_of(app: App) -> typer.Typer:
    """The same app, for typer."""
    made = typer.Typer(
        help=app.help_text,
        epilog=app.epilog or None,
        no_args_is_help=True,
        add_completion=app.completes,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in app.order:
        if group := app.groups.get(name):
            made.add_typer(typer_of(group), name=name)
        else:
            command = app.commands[name]
            more = _TAKES_ALL if command.takes_all else {}
            made.command(name, **command.more, **more)(_for_typer(command))
    return made


def run(app: App, prog_name: str, *, is_one_of_many: bool) -> int:
    """Read the command line and carry it out. Returns the exit code, or raises what the command raised."""
    made = typer_of(app)
    if is_one_of_many:
        made.callback()(_for_typer(Command(_before_the_command, {})))
    command = typer.main.get_command(made)
    out = sys.stdout
    try:
        return int(command.main(prog_name=prog_name, standalone_mode=False) or 0)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as end:
        if sys.stdout is out:
            raise
        sys.stdout = out  # typer has seen that it is closed
        raise BrokenPipeError from end


_TAKES_ALL: dict[str, Any] = {
    "context_settings": {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
    "add_help_option": False,
}


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"kvstore {__version__}")
        raise typer.Exit


def _before_the_command(
    ctx: Context,
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """The shared options, if given before the name of the command."""


def _for_typer(command: Command) -> Any:
    """The function with the shared options added, in typer's annotations."""
    context, own = command.context, command.parameters()
    shared = () if command.takes_all else SHARED
    parameters = [
        inspect.Parameter(context, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *map(_as_typers, own),
        *(_as_typers(each._replace(name=f"shared_{each.name}")) for each in shared),
    ]

    @functools.wraps(command.function)
    def call(**arguments: Any) -> None:
        said = {each.name: value for each in shared if (value := arguments.pop(f"shared_{each.name}"))}
        ctx = arguments.pop(context)
        try:
            carry_out(command, ctx, arguments, said)
        except Exit as end:
            raise typer.Exit(end.code) from None

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _as_typers(each: Parameter) -> inspect.Parameter:
    declare: Any = typer.Argument if isinstance(each.declared, Argument) else typer.Option
    declared = declare(*each.declared.names, **each.declared.more)
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=each.default,
        annotation=Annotated[each.kind, declared],
    )
