"""Whether a file can still grow.

Engines report a write that was cut short as an input/output error, whatever the reason. A full disk is
temporary, so it is worth distinguishing.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from kvstore.files import free_bytes

ROOM_BYTES_MIN = 1 << 20


def is_full(path: Path, *helpers: Path) -> bool:
    """Whether the file system is nearly full, or the process's limit for the size of a file nearly reached."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max((os.stat(file).st_size for file in (path, *helpers) if file.exists()), default=0)
    if limit != resource.RLIM_INFINITY and limit - largest < ROOM_BYTES_MIN:
        return True
    return free_bytes(path.parent) < ROOM_BYTES_MIN
