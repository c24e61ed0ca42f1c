"""Three workers send mail out of one queue. What fails is tried again, and given up after three tries.

python examples/job_queue.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import sys
import threading

import kvstore
from kvstore.recipes import Queue, Session


def send(address: str, tries: int) -> None:
    if address == "nobody" or (address == "bob" and tries == 1):
        raise ConnectionError
    print(f"sent to {address}, try {tries}")


def work(store: kvstore.Store) -> None:
    with Session(store, ttl=10) as session:  # if a worker dies, its job is free within ten seconds
        queue = Queue(session, b"mail", tries_max=3, codec=kvstore.TEXT)
        while True:
            try:
                with queue.claim(timeout=0.5) as job:  # acknowledged at the end; given back after an error
                    send(job.payload, job.tries)
            except ConnectionError:
                pass  # somebody tries again
            except TimeoutError:
                return  # nothing is left


def main(where: str) -> None:
    with kvstore.connect(where) if "://" in where else kvstore.open(where) as store:
        queue = Queue(store, b"mail", codec=kvstore.TEXT)
        for address in ["ann", "bob", "cid", "nobody", "eve"]:
            queue.put(address)
        workers = [threading.Thread(target=work, args=[store]) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for job in queue.dead():
            print(f"given up: {job.payload}")
            queue.discard(job.ident)


if __name__ == "__main__":
    main(sys.argv[1])
