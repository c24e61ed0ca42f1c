"""A writer to be killed: threads put keys, and report each acknowledged write on stdout.

    python -m kvstore.tools.lab.crash_writer DATA_DIR BACKEND THREADS

After a put has returned, a line "KEY REVISION" goes to stdout in one write. So a process that reads stdout to its end
knows a subset of the acknowledged writes, however suddenly this process ends; all of them must be in the store.
"""

from __future__ import annotations

import os
import sys
import threading

import kvstore
from kvstore.store import Store


def value_of(key: str) -> bytes:
    """The value written under ``key``: a check needs only the key."""
    return f"written by {key} ".encode() * 8


def main(data_dir: str, backend: str, threads: str) -> None:
    store = kvstore.open(data_dir, backend)
    workers = [threading.Thread(target=_write, args=(store, number)) for number in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _write(store: Store, thread: int) -> None:
    number = 0
    while True:
        number += 1
        key = f"thread-{thread}/{number:06d}"
        revision = store.put(key.encode(), value_of(key)).revision
        os.write(sys.stdout.fileno(), f"{key} {revision}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
