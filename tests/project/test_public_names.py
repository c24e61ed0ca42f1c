"""What ``import kvstore`` offers stays what it is."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kvstore
from kvstore import recipes


def test_public_names_are_not_shadowed_by_modules_once_a_store_was_opened(tmp_path: Path) -> None:
    """Regression: a module of the same name took the place of the compare ``kvstore.lease``."""
    with kvstore.open(tmp_path / "data"):
        for name in kvstore.__all__:
            assert not isinstance(getattr(kvstore, name), ModuleType), name
        assert isinstance(kvstore.lease(b"k") == 0, kvstore.Compare)


def test_every_error_of_the_tree_is_public() -> None:
    """Whoever catches an error can name it without knowing the module."""
    from kvstore import errors

    public = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.KVStoreError)
    }
    missing = public - set(kvstore.__all__)
    assert not missing, sorted(missing)


@pytest.mark.parametrize("package", [kvstore, recipes], ids=["kvstore", "recipes"])
def test_every_public_name_and_field_has_a_docstring(package: ModuleType) -> None:
    """Whoever hovers over a name, or reads the reference, is told what it is: also each field of an answer."""
    silent = [
        said
        for name in package.__all__
        for said in without_docstring(getattr(package, name))
        if not said.startswith("OpenOptions.")  # these are the fields of Options, as a dictionary
    ]
    assert not silent, sorted(set(silent))


def without_docstring(public: Any) -> Iterator[str]:
    """What of a function or class says nothing of itself."""
    if inspect.isfunction(public) and not public.__doc__:
        yield public.__name__
    if not inspect.isclass(public):
        return
    for base in public.__mro__:
        if base.__module__.startswith("kvstore") and not base.__name__.startswith("_"):
            (body,) = (
                node
                for node in ast.walk(ast.parse(inspect.getsource(sys.modules[base.__module__])))
                if isinstance(node, ast.ClassDef) and node.name == base.__name__
            )
            if ast.get_docstring(body) is None:
                yield base.__name__
            yield from (f"{base.__name__}.{name}" for name in silent_members(base, body))


def silent_members(of: type, body: ast.ClassDef) -> Iterator[str]:
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not (is_told or node.target.id.startswith("_")):
                yield node.target.id
    for name, member in vars(of).items():
        is_member = inspect.isfunction(member) or isinstance(member, property)
        if is_member and not name.startswith("_") and not inspect.getdoc(getattr(of, name)):
            yield name
