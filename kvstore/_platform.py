"""Where this runs: imported before anything that the system might lack."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError(
        "kvstore needs a POSIX system (Linux; macOS for one process at a time): on Windows, use it under WSL"
    )
