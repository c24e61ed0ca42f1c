"""What looking into a store costs: seconds of CPU and the most memory of each verb, as the kernel counts them.

    python -m kvstore.tools.lab.kubernetes_like FILE 360        # a file to look into
    python -m kvstore.tools.lab.inspect_cost PATH...            # a table in Markdown, a column for each

A path is a snapshot, or a data directory, of an etcd or of ours. Each verb runs as a command of its own, as a user
would run it. Keys and revisions to ask for are taken from the store. Of a directory the memory is the process's own
(``RssAnon``, looked at every few milliseconds): what the kernel has mapped of its files it can take back. ``verify``
and ``salvage`` are measured on files, ``salvage`` on the first 9 tenths, in a new store that is then removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kvstore.files import OSDisk

from ..command import Settings
from ..inspection.sources import open_path

LOOK_SECONDS = 0.005
CUT_SHARE = 0.9
COPIED_BYTES = 1 << 20
COMMAND = [sys.executable, "-m", "kvstore.tools.main"]


def measured(arguments: list[str], *, is_own: bool) -> str:
    """Seconds of CPU and megabytes of memory of a command, whose output is dropped."""
    own_kb = status = 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=said)
        ended = 0
        while not ended:
            own_kb = max(own_kb, _own_kb(process.pid))
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0 if ended else LOOK_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 4):  # 4: something is missing, which a salvage has to say
            said.seek(0)
            raise SystemExit(f"{' '.join(arguments)}: {said.read().decode()}")
    memory_kb = own_kb if is_own else used.ru_maxrss
    return f"{used.ru_utime + used.ru_stime:.1f} s, {memory_kb / 1024:.0f} MB"


def _own_kb(pid: int) -> int:
    """What a process has that is of no file; 0: it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")), 0)


def commands(path: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) of what is measured on a store."""
    file, page = str(path), str(folder / "page.html")
    with open_path(path, Settings()) as store:
        middle = (max(store.compact_revision, 1) + store.revision) // 2
        key = os.fsdecode(next(iter(store.scan(prefix=b"/registry/leases/"))).key)
    yield "`stats`", ["inspect", "stats", file]
    yield "`top`", ["inspect", "top", file]
    yield "`list`", ["inspect", "list", file]
    yield "`get KEY`", ["inspect", "get", file, key]
    yield "`history KEY`", ["inspect", "history", file, key]
    yield "`diff REVISION --summary`", ["inspect", "diff", file, str(middle), "--summary"]
    yield "`diff REVISION --content`", ["inspect", "diff", file, str(middle), "--content"]
    yield "`stats --html`", ["inspect", "stats", file, "--html", page]
    if path.is_dir():
        return
    yield "`verify FILE`", ["verify", file]
    cut = folder / "cut.db"
    copy_front(path, cut, int(path.stat().st_size * CUT_SHARE))
    yield "`salvage` of nine tenths of it", ["salvage", str(cut), str(folder / "salvaged")]


def copy_front(source: Path, target: Path, size_bytes: int) -> None:
    """The first bytes of a file as a file."""
    file = OSDisk().create(target)
    with open(source, "rb", buffering=0) as read:
        offset = 0
        while offset < size_bytes:
            data = os.pread(read.fileno(), min(COPIED_BYTES, size_bytes - offset), offset)
            file.pwrite(data, offset)
            offset += len(data)
    file.close()


def size_bytes(path: Path) -> int:
    files = path.rglob("db") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def main(paths: list[Path]) -> None:
    columns = []
    for path in paths:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            rows = {}
            for name, arguments in commands(path, Path(folder)):
                rows[name] = measured(arguments, is_own=path.is_dir())
                print(f"{path.name}: {name}: {rows[name]}", file=sys.stderr, flush=True)
            columns.append(rows)
    sizes = " | ".join(f"{size_bytes(path) / 1_000_000:,.0f} MB" for path in paths)
    print(f"| | {sizes} |\n|---|{'---|' * len(paths)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(rows.get(name, '') for rows in columns)} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
