"""Where the fuzz targets put what they are given, if it is to be read from a file."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

SCRATCH = Path(tempfile.mkdtemp(prefix="kvstore-fuzz-"))


@atexit.register
def remove() -> None:
    """All of it, unless an input that failed is there."""
    if not any(SCRATCH.rglob("found-*")):
        shutil.rmtree(SCRATCH, ignore_errors=True)


def as_file(data: bytes, name: str = "file") -> Path:
    path = SCRATCH / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
