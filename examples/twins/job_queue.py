"""``job_queue.py`` on sqlite3. A claim is a time until which nobody else takes the job; workers look every 50 ms."""

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLAIM_SECONDS = 10
TRIES_MAX = 3
SCHEMA = """
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        payload BLOB NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        claimed_until REAL NOT NULL DEFAULT 0
    )
"""
CLAIM = """
    UPDATE jobs SET tries = tries + 1, claimed_until = ?
    WHERE id = (SELECT id FROM jobs WHERE tries < ? AND claimed_until < ? ORDER BY id LIMIT 1)
    RETURNING id, payload, tries
"""


@contextmanager
def connect(path: str) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(SCHEMA)
        yield database
    finally:
        database.close()


@contextmanager
def claim(database: sqlite3.Connection, timeout: float) -> Iterator[tuple[bytes, int]]:
    deadline = time.monotonic() + timeout
    while True:
        now = time.time()
        rows = database.execute(CLAIM, (now + CLAIM_SECONDS, TRIES_MAX, now)).fetchall()
        if rows:
            break
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)
    ((job, payload, tries),) = rows
    try:
        yield payload, tries
    except BaseException:
        database.execute("UPDATE jobs SET claimed_until = 0 WHERE id = ? AND tries = ?", (job, tries))
        raise
    done = database.execute("DELETE FROM jobs WHERE id = ? AND tries = ?", (job, tries))
    if not done.rowcount:
        raise RuntimeError("the claim ran out: another worker may have done the job, too")


def send(address: str, tries: int) -> None:
    if address == "nobody" or (address == "bob" and tries == 1):
        raise ConnectionError
    print(f"sent to {address}, try {tries}")


def work(path: str) -> None:
    with connect(path) as database:  # each thread has a connection of its own
        while True:
            try:
                with claim(database, timeout=0.5) as (payload, tries):
                    send(payload.decode(), tries)
            except ConnectionError:
                pass  # somebody tries again
            except TimeoutError:
                return  # nothing is left


def main(path: str) -> None:
    with connect(path) as database:
        for address in ["ann", "bob", "cid", "nobody", "eve"]:
            database.execute("INSERT INTO jobs (payload) VALUES (?)", (address.encode(),))
        workers = [threading.Thread(target=work, args=[path]) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for job, payload in database.execute("SELECT id, payload FROM jobs ORDER BY id").fetchall():
            print(f"given up: {payload.decode()}")
            database.execute("DELETE FROM jobs WHERE id = ?", (job,))


if __name__ == "__main__":
    main(sys.argv[1])
