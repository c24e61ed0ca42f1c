"""Two classes for each recipe, made from one implementation."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import kvstore
from kvstore import recipes
from kvstore.recipes.faces import AsyncBlock, Block

PAIRS = [
    (getattr(recipes, name), getattr(recipes, f"Async{name}"))
    for name in recipes.__all__
    if hasattr(recipes, f"Async{name}")
]


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda face: face.__name__)
def test_both_classes_have_the_same_methods(blocking: type, awaited: type) -> None:
    """With the same parameters and docstrings; what one is as a context manager, the other one is too."""
    if issubclass(blocking, kvstore.Store):
        return  # tests of the stores' twins compare these
    names = [{name for name in dir(face) if not name.startswith("_")} for face in (blocking, awaited)]
    assert names[0] == names[1]
    for name in names[0]:
        one, other = (inspect.getattr_static(face, name) for face in (blocking, awaited))
        if callable(one) and not name.endswith("_"):
            assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters), name
            assert one.__doc__ == other.__doc__, name
    assert issubclass(blocking, Block) == issubclass(awaited, AsyncBlock)


def test_there_are_pairs_of_all() -> None:
    """None was forgotten."""
    assert len(PAIRS) == 11


def test_importing_kvstore_does_not_load_the_recipes() -> None:
    """They are loaded by who imports them."""
    program = "import sys, kvstore; sys.exit('kvstore.recipes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
