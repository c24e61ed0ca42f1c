"""For mkdocstrings: methods that are made when the program runs, as they are then.

The asynchronous twins of a store, and the two faces of each recipe, are made from other methods (kvstore/twins.py,
kvstore/recipes/faces.py). Whoever only reads the source sees an assignment, or nothing.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import griffe

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}
MADE = ("kvstore.aio", "kvstore.recipes", "kvstore.map_view", "kvstore.opened")
"""Where there are such methods."""


class MadeMethods(griffe.Extension):
    """Puts them among the members of their classes."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        if not cls.module.path.startswith(MADE):
            return
        real = getattr(import_module(cls.module.path), cls.name, None)
        for name, value in vars(real).items() if inspect.isclass(real) else ():
            known = cls.members.get(name)
            if name.startswith("_") or not inspect.isfunction(value):
                continue
            if known is None or isinstance(known, griffe.Attribute):
                cls.set_member(name, function(name, value))
            elif known.docstring is None:  # it was given another's
                known.docstring = griffe.Docstring(inspect.getdoc(value) or "")


def function(name: str, value: Any) -> griffe.Function:
    signature = inspect.signature(value)
    parameters = [
        griffe.Parameter(
            each.name,
            annotation=None if each.annotation is each.empty else str(each.annotation),
            kind=KINDS[each.kind],
            default=None if each.default is each.empty else repr(each.default),
        )
        for each in signature.parameters.values()
    ]
    made = griffe.Function(
        name,
        parameters=griffe.Parameters(*parameters),
        returns=None if signature.return_annotation is signature.empty else str(signature.return_annotation),
        docstring=griffe.Docstring(inspect.getdoc(value) or ""),
    )
    if inspect.iscoroutinefunction(value):
        made.labels.add("async")
    return made
