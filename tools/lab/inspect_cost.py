"""What looking into a file costs: seconds of CPU and the most memory of each verb, as the kernel counts them.

    python -m kvstore.tools.lab.kubernetes_like FILE 360        # a file to look into
    python -m kvstore.tools.lab.inspect_cost FILE...            # a table in Markdown, a column for each file

Each verb runs as a command of its own, as a user would run it. Keys and revisions to ask for are taken from the file.
``salvage`` is measured on the first 9 tenths of the file, in a new store that is then removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kvstore
from kvstore.files import OSDisk

CUT_SHARE = 0.9
COPIED_BYTES = 1 << 20
COMMAND = [sys.executable, "-m", "kvstore.tools.main"]


def measured(arguments: list[str]) -> str:
    """Seconds of CPU and megabytes of memory of a command, whose output is dropped."""
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=nowhere, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):  # 4: something is missing, which a salvage has to say
        raise SystemExit(f"{' '.join(arguments)}: {said.decode()}")
    return f"{used.ru_utime + used.ru_stime:.1f} s, {used.ru_maxrss / 1024:.0f} MB"


def commands(path: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) of what is measured on a file."""
    file, page = str(path), str(folder / "page.html")
    with kvstore.open_snapshot(path) as store:
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


def main(paths: list[Path]) -> None:
    columns = []
    for path in paths:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            rows = {}
            for name, arguments in commands(path, Path(folder)):
                rows[name] = measured(arguments)
                print(f"{path.name}: {name}: {rows[name]}", file=sys.stderr, flush=True)
            columns.append(rows)
    sizes = " | ".join(f"{path.stat().st_size / 1_000_000:,.0f} MB" for path in paths)
    print(f"| | {sizes} |\n|---|{'---|' * len(paths)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(rows[name] for rows in columns)} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
