"""What a data directory holds, which backends keep one, and how long to wait for another process."""

from __future__ import annotations

from pathlib import Path

PERSISTENT = ["lmdb", "sqlite"]
PATIENCE_SECONDS = 60.0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those by which a database keeps track of its readers."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.endswith(("-lock", "-shm"))
    }
