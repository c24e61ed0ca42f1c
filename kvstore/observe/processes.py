"""Other processes of this machine, as far as the kernel tells (``/proc``); elsewhere, or of other users: nothing."""

from __future__ import annotations

import os
from pathlib import Path

SHOWN_CHARACTERS = 60


def described(pid: int) -> str:
    """A process by its number and its command."""
    command = " ".join(_read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").split())
    shown = "".join(each for each in command if each.isprintable())[:SHOWN_CHARACTERS]
    return f"process {pid} ({shown})" if shown else f"process {pid}"


def is_stopped(pid: int) -> bool:
    """Whether it was stopped by a signal, and has not been continued."""
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] == [b"T"]


def mapped_bytes(pid: int, path: Path) -> int:
    """The addresses that it has mapped of a file."""
    name, found = os.fsencode(path), 0
    for line in _read(pid, "maps").splitlines():
        if line.endswith(name) and line.split(None, 5)[5:] == [name]:
            first, _, end = line.split(b" ", 1)[0].partition(b"-")
            found += int(end, 16) - int(first, 16)
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
