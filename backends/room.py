"""Whether a file can still grow.

Engines report a write that was cut short as an input/output error, whatever the reason. No room is a
reason that passes, so it is worth a look.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from kvstore.files import free_bytes

ROOM_BYTES_MIN = 1 << 20


def is_full(path: Path, *helpers: Path) -> bool:
    """Whether the file system, or the largest size that this process may give a file, is all but reached."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max((os.stat(file).st_size for file in (path, *helpers) if file.exists()), default=0)
    if limit != resource.RLIM_INFINITY and limit - largest < ROOM_BYTES_MIN:
        return True
    return free_bytes(path.parent) < ROOM_BYTES_MIN
