"""Other systems, as far as this one can play them: by taking away what they lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MACOS = """
import errno, fcntl, os, sys

for module, names in (
    (os, "O_DIRECT posix_fadvise POSIX_FADV_DONTNEED POSIX_FADV_SEQUENTIAL fdatasync"),
    (fcntl, "F_OFD_SETLK F_OFD_SETLKW F_OFD_GETLK F_SETPIPE_SZ"),
    (errno, "EREMOTEIO EUCLEAN"),
):
    for name in names.split():
        delattr(module, name)
fcntl.F_FULLFSYNC = FULL = 1 << 20
synced, call, fsync = [], fcntl.fcntl, os.fsync

def as_on_macos(fd, command, *arguments):
    if command != FULL:
        return call(fd, command, *arguments)
    synced.append(fd)
    if refuses:
        raise OSError(errno.ENOTSUP, "not here")
    return fsync(fd)

def plain(fd):
    assert refuses, "fsync alone reaches no disk"
    fsync(fd)

fcntl.fcntl, os.fsync, refuses = as_on_macos, plain, sys.argv[3] == "refuses"
"""
READ = """
import kvstore
with kvstore.open(*sys.argv[1:3], read_only=True) as store:
    assert store.count(prefix=b"") == 300
"""
LIFE = """
import subprocess, kvstore
path, backend = sys.argv[1:3]
with kvstore.open(path, backend) as store:
    before = len(synced)
    for number in range(300):
        store.put(b"%d" % number, b"v" * 1000)
    assert len(synced) >= before + 300
    store.compact(200)
    store.checkpoint()
    store.defragment()
    made = store.snapshot()
    other = subprocess.run([sys.executable, "-c", MACOS + READ, path, backend, sys.argv[3]], capture_output=True)
    assert b"StoreLocked" in other.stderr, other.stderr
with kvstore.open_snapshot(made.path, verify=True) as copy:
    assert copy.count(prefix=b"") == 300
for _ in range(2):
    subprocess.run([sys.executable, "-c", MACOS + READ, path, backend, sys.argv[3]], check=True)
with kvstore.open(path, backend, read_only=True) as reader:
    assert reader.count(prefix=b"") == 300
with kvstore.open(path, backend) as store:
    assert store.count(prefix=b"") == 300 and store.put(b"k").revision == 302
assert kvstore.verify(path, deep=True).ok
"""


def run(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)


@pytest.mark.parametrize("disk", ["syncs", "refuses"])
@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_life_without_the_calls_that_macos_lacks(tmp_path: Path, backend: str, disk: str) -> None:
    """Every sync is a full one, where the file system has it; readers in other processes are refused."""
    ended = run(f"MACOS, READ = {MACOS!r}, {READ!r}" + MACOS + LIFE, str(tmp_path / "data"), backend, disk)
    assert ended.returncode == 0, ended.stderr


def test_windows_is_refused_in_a_sentence() -> None:
    """At import, before anything that is not there is looked for."""
    ended = run("import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; import kvstore")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ImportError: kvstore needs a POSIX system")


def test_a_checkout_that_shadows_the_installed_package_works() -> None:
    """Whatever else is installed, in the checkout's root its own folders are meant."""
    program = "import kvstore, kvstore.backends.lmdb as lmdb, kvstore.migrations, kvstore.tools; print(lmdb.__file__)"
    ended = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[1:1] = {sys.path!r}; sys.meta_path[3:] = []; {program}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == os.fspath(ROOT / "backends" / "lmdb.py")


def test_nothing_is_said_to_those_who_set_up_no_logging() -> None:
    """A library's warnings go to whoever listens."""
    ended = run("import logging, kvstore; logging.getLogger('kvstore.network').warning('said')")
    assert (ended.returncode, ended.stderr) == (0, "")
