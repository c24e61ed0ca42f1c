"""Two processes: one asks, the other answers as soon as it hears of it, and neither misses anything.

python examples/two_processes.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import subprocess
import sys

import kvstore


def opened(where: str) -> kvstore.Store:
    return kvstore.connect(where) if "://" in where else kvstore.open(where, shared=True)


def answer(where: str, start: int) -> None:
    """The second process. It may begin late: a watch also tells what has been asked since ``start``."""
    with opened(where) as store, store.watch(prefix=b"asked/", start_revision=start) as asked:
        for event in asked:
            if event.kv.value == b"stop":
                return
            store.put(event.kv.key.replace(b"asked/", b"answers/"), b"%d" % int(event.kv.value) ** 2)


def ask(where: str) -> None:
    with opened(where) as store:
        start = store.revision + 1
        store.put(b"asked/a", b"3")
        with (
            subprocess.Popen([sys.executable, __file__, where, str(start)]),
            store.watch(prefix=b"answers/", start_revision=start) as answers,
        ):
            print("a:", next(answers).kv.value.decode())
            store.put(b"asked/b", b"4")
            print("b:", next(answers).kv.value.decode())
            store.put(b"asked/c", b"stop")
        store.delete(prefix=b"asked/")
        store.delete(prefix=b"answers/")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        answer(sys.argv[1], int(sys.argv[2]))
    else:
        ask(sys.argv[1])
