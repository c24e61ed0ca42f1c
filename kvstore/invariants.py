"""Invariants at run time: with ``KVSTORE_VERIFY=1`` in the environment each is checked where it could first break.

The numbers are those of ARCHITECTURE.md ("Invariants"). All tests run with them. Without the variable a check costs one
look-up of a name. Correctness does not depend on these checks; they only reveal a fault of kvstore sooner.
"""

from __future__ import annotations

import os
from typing import Any

ON = os.environ.get("KVSTORE_VERIFY", "0") not in ("", "0")


class InvariantBroken(AssertionError):
    """A fault of kvstore itself."""


def hold(number: int, is_so: bool, said: str) -> None:
    """Raise ``InvariantBroken`` unless invariant ``number`` holds; ``said`` describes what was found."""
    if not is_so:
        raise InvariantBroken(f"invariant {number}: {said}")


def held(lock: Any, name: str) -> None:
    """Raise ``InvariantBroken`` unless this thread holds ``lock``, an ``RLock``."""
    if not lock._is_owned():
        raise InvariantBroken(f"{name} is not held here")
