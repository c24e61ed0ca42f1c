"""Which implementation does the work on bytes: the Python one, or the same functions in C.

    KVSTORE_IMPL    python    Python alone
                    native    C; ``ImportError`` where it was not built
                    unset     C where it was built, else Python

The Python code is the reference. A function that C has as well is marked with ``native``; C then stands in for it, and
hands back to it whatever is out of the ordinary (kvstore/native/native.h). So both give the same bytes, answers and
errors; tests hold one against the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

VARIABLE = "KVSTORE_IMPL"
PYTHON, NATIVE = "python", "native"

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=type)


def _load(asked: str) -> Any:
    """The module in C; None where Python does its work."""
    if asked not in ("", PYTHON, NATIVE):
        raise ImportError(f"{VARIABLE} is {asked!r}; it may be {PYTHON!r}, {NATIVE!r}, or left out")
    if asked == PYTHON:
        return None
    try:
        return import_module("kvstore._native")
    except ImportError as error:
        if not asked:
            return None
        raise ImportError(
            f"{VARIABLE} is {NATIVE!r}, but kvstore._native cannot be loaded ({error}): install a C compiler and "
            f"Python's headers, then install kvstore again, or leave {VARIABLE} out"
        ) from error


module: Any = _load(os.environ.get(VARIABLE, ""))
name = __impl__ = PYTHON if module is None else NATIVE
references: dict[str, Any] = {}
"""The Python form of all that is marked, by name."""


def native(function: F) -> F:
    """Mark a function that C has as well. Gives the one that is used."""
    references[function.__name__] = function
    return function if module is None else module.bind(function.__name__, function)


def native_class(maker: str, *asked: Callable[..., Any]) -> Callable[[T], T]:
    """Mark a class that C has as well: ``maker`` of C makes it, given functions to ask. Gives the one that is used."""

    def choose(kind: T) -> T:
        references[kind.__name__] = kind
        if module is None:
            return kind
        made = getattr(module, maker)(*asked)
        made.__doc__ = kind.__doc__
        return made  # type: ignore[no-any-return]  # what C makes has no type here

    return choose
