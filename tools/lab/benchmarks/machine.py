"""Where a run took place."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sysconfig
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import etcd_server
from .contest import IMPLEMENTATION, Absent
from .timing import percentile

PACKAGES = ("kvstore-mvcc", "lmdb", "apsw", "protobuf", "plyvel", "rocksdict", "diskcache", "ZODB", "uvloop")
_SYNCS = 200
_IN_MEMORY = ("tmpfs", "ramfs")


def describe(directory: Path) -> dict[str, Any]:
    """Date, processor, kernel, versions, file system, and how long a sync takes."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {_build()}",
        "kvstore": _ours(),
        "file_system": file_system(directory),
        "fdatasync_us": sync_latency_us(directory),
        "versions": {**dict(_versions(PACKAGES)), "sqlite": _sqlite(), "etcd": _etcd()},
    }


def file_system(directory: Path) -> str:
    """The type of the file system, as the kernel names it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    path = directory.resolve()
    inside = [(len(fields[1]), fields[2]) for fields in mounts if path.is_relative_to(fields[1])]
    return max(inside)[1] if inside else "unknown"


def is_in_memory(file_system_type: str) -> bool:
    return file_system_type in _IN_MEMORY


def sync_latency_us(directory: Path) -> dict[str, float]:
    """Percentiles of writing 4 KiB into a zero-filled file and ``fdatasync``."""
    path, block = directory / "sync-latency", os.urandom(4096)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.pwrite(fd, bytes(_SYNCS * len(block)), 0)
        os.fsync(fd)
        took = []
        for number in range(_SYNCS):
            begin = time.perf_counter()
            os.pwrite(fd, block, number * len(block))
            os.fdatasync(fd)
            took.append((time.perf_counter() - begin) * 1e6)
    finally:
        os.close(fd)
        path.unlink()
    return {"p50": round(percentile(took, 50)), "p99": round(percentile(took, 99))}


def _build() -> str:
    """How the interpreter was optimized: without profiles it is 5 to 30 % slower."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimized = "--enable-optimizations" in arguments
    lto = "--with-lto" in arguments
    return f"configured {'with' if optimized else 'without'} PGO, {'with' if lto else 'without'} LTO"


def _ours() -> str:
    """The tree that was measured, and which implementation of its hot paths."""
    here = Path(__file__).parent
    tree = "no checkout"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", os.fspath(here), "describe", "--always", "--dirty"]
        tree = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return f"{tree}, {IMPLEMENTATION}"


def _first_value(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        field, _, value = line.partition(":")
        if field.strip() == name:
            return value.strip()
    return platform.machine()


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def _sqlite() -> str:
    try:
        import apsw
    except ImportError:
        return "not installed"
    return apsw.sqlite_lib_version()


def _etcd() -> str:
    try:
        return etcd_server.version()
    except (Absent, OSError):
        return "not installed"
