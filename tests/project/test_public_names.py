"""What ``import kvstore`` offers stays what it is."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import kvstore


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
