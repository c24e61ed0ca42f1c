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

KILLED_IN_EACH = """
import os, sys, threading
import kvstore.recovery, kvstore.store  # once for all
from kvstore.backend import find_backend
writer, folder, backend, *numbers = sys.argv[1:]
find_backend(backend)
nothing = os.open(os.devnull, os.O_WRONLY)
last = int(numbers[-1])

def write(number):
    for _ in range(last - number):  # so that the last call that is counted is the writer's own of this number
        os.pwrite(nothing, b"", 0)
    exec(writer, {})
    os.write(1, b"ended\\n")

for number in map(int, numbers):
    child = os.fork()
    if child == 0:
        sys.argv[1:] = [f"{folder}/store-{number}", backend]
        os.dup2(os.open(f"{folder}/store-{number}.said", os.O_WRONLY | os.O_CREAT), 1)
        thread = threading.Thread(target=write, args=(number,))
        thread.start()
        thread.join()
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Forks a writer for each of some numbers, ascending. Under a strace that kills in a thread's call of the last number,
each is killed in its own call of its number: one Python is started, not one for each."""


def check_acknowledged(data: Path, backend: str, said: list[str]) -> None:
    with kvstore.open(data, backend, background=False) as store:
        for number in said:
            kv = store.get(number.encode())
            assert kv is not None and kv.value == b"v" * 200, f"{number} was acknowledged"
        store.put(b"after", b"1")
