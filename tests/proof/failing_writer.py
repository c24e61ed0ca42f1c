"""A writer in a process of its own, whose system calls somebody makes fail."""

from __future__ import annotations

from pathlib import Path

import kvstore

BACKENDS = ["lmdb", "sqlite"]

WRITER = """
import os, sys, threading
if threading.current_thread() is threading.main_thread():  # strace counts calls by thread: all go into one
    thread = threading.Thread(target=exec, args=(sys.orig_argv[sys.orig_argv.index("-c") + 1], {}))
    thread.start()
    thread.join()
    sys.exit()
import kvstore
from kvstore.errors import KVStoreError
data, backend = sys.argv[1:]
os.write(1, b"opening\\n")
store = kvstore.open(data, backend, background=False, wal_file_size=3000, max_wals=1)
os.write(1, b"open\\n")
refused = 0
for number in range(40):
    try:
        store.put(b"%d" % number, b"v" * 200)
        os.write(1, b"%d\\n" % number)
        if refused:
            os.write(1, b"written after a failure\\n")
        if number % 7 == 6:
            store.checkpoint()
        if number == 20:
            store.snapshot()
        if number == 30:
            store.defragment()
    except (KVStoreError, OSError) as error:
        refused += isinstance(error, kvstore.StorePoisoned) or not isinstance(error, KVStoreError)
try:
    store.close()
except (KVStoreError, OSError):
    pass
"""


def check_acknowledged(data: Path, backend: str, said: list[str]) -> None:
    with kvstore.open(data, backend, background=False) as store:
        for number in said:
            kv = store.get(number.encode())
            assert kv is not None and kv.value == b"v" * 200, f"{number} was acknowledged"
        store.put(b"after", b"1")
