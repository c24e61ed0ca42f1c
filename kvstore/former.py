"""Former names: what ``kvstore.put`` and the like were before ``kvstore.ops`` had them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from kvstore import ops

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _builds(make: Callable[_P, _T]) -> Callable[_P, _T]:
    """A former name of a function of ``ops``: it only builds an operation, and looks as if it did something."""

    @wraps(make)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        name = make.__name__
        text = (
            f"kvstore.{name} only builds an operation of a transaction: write kvstore.ops.{name} (or, to do it, "
            f"store.{name})"
        )
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return make(*args, **kwargs)

    return call


put = _builds(ops.put)
get = _builds(ops.get)
delete = _builds(ops.delete)
txn = _builds(ops.txn)
