"""A copy that another process removes while it is being opened: opened all the same, or absent, and nothing worse."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kvstore.backend import Backend
from tests.backends.files import KINDS, TABLES, copy_of

LINES_AT_MOST = 2000


def open_and_remove(kind: type[Backend], path: Path, line: int) -> bool:
    """Open the file, which goes before that line of the backend's code is run. Returns whether that line was run."""
    left = line

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if "/backends/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if not left:
                path.unlink()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        kind.open(path, TABLES, immutable=True).close()
    except FileNotFoundError:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.persistent])
def test_a_copy_that_goes_at_any_line_of_its_opening_is_absent(kind: type[Backend], tmp_path: Path) -> None:
    """Snapshots are removed by the store's own process while others look at them: no disk has failed then."""
    copy = copy_of(kind, tmp_path / "copy")
    for line in range(1, LINES_AT_MOST):
        path = tmp_path / "looked at"
        os.link(copy, path)
        if not open_and_remove(kind, path, line):
            assert line > 20
            return
    pytest.fail("it never opens")
