"""Files that were open when this process was forked: here they may be opened anew.

LMDB's locks are the process's own (fcntl), so a file may be open once in a process: closing a second handle would drop
the locks of the first. py-lmdb keeps a list of open files for that. A fork copies the list, but none of the locks:

    parent                                   child
    its environment, in use                  the parent's environment: never used, never closed
    its locks, its slots among the readers   neither
    py-lmdb's list: the file is open         py-lmdb's list: the file is open

LMDB asks of a child that it does not use what it inherited. It does not: the engine refuses every call. Nor does it
ever close the parent's environment, also when the interpreter ends: that would free the slot of the transaction that
py-lmdb keeps in reserve, which is the parent's, and wait for ever for calls that other threads had begun.

What the child opens itself has descriptors, a map, locks and slots of its own, as in any other process. So from the
fork on, py-lmdb is told other names for the files that the parent had open, with the child's pid in them: the parent's
are not open here, and what the child has open is still refused a second time.

A py-lmdb that keeps its list otherwise refuses, and the error says what helps (``lmdb_errors.typed``).
"""

from __future__ import annotations

import atexit
import os
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import lmdb

try:
    _envid: Any = import_module("lmdb._envid")
    """py-lmdb's names of open files: ``env_keys(path, subdir)``."""
except ImportError:
    _envid = None

_opened: weakref.WeakKeyDictionary[lmdb.Environment, tuple[int, int]] = weakref.WeakKeyDictionary()
_inherited: set[tuple[int, int]] = set()


def note_opened(path: Path, environment: lmdb.Environment) -> None:
    _opened[environment] = _identity(path)


def is_barred(path: Path) -> bool:
    """Whether py-lmdb takes the file for open because the parent has it open."""
    return _envid is None and _is_inherited(path)


def _is_inherited(path: str | bytes | Path) -> bool:
    try:
        return _identity(path) in _inherited
    except OSError:
        return False


def _identity(path: str | bytes | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _in_child() -> None:
    if not _opened:
        return
    _inherited.update(_opened.values())
    atexit.register(_never_close, list(_opened))
    if _envid is None:
        return
    names_of = _envid.env_keys

    def names_here(path: str | bytes, subdir: bool) -> tuple[object, ...]:
        names: tuple[object, ...] = names_of(path, subdir)
        return tuple((os.getpid(), name) for name in names) if _is_inherited(path) else names

    _envid.env_keys = names_here


def _never_close(environments: list[lmdb.Environment]) -> None:
    """Count a reference to each that nobody gives back."""
    try:
        import ctypes
    except ImportError:  # a Python without: nothing else can
        return
    for environment in environments:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment))


os.register_at_fork(after_in_child=_in_child)
