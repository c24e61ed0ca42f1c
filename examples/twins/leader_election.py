"""``leader_election.py`` on sqlite3: the leader is a row, renewed by a thread. Candidates look every 50 ms."""

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TTL_SECONDS = 5
SCHEMA = """
    CREATE TABLE IF NOT EXISTS leaders (
        token INTEGER PRIMARY KEY AUTOINCREMENT, election TEXT NOT NULL UNIQUE, until REAL NOT NULL
    );
    CREATE TABLE IF NOT EXISTS plan (step INTEGER PRIMARY KEY);
"""
STEP = """
    INSERT INTO plan SELECT (SELECT count(*) FROM plan) + 1
    WHERE EXISTS (SELECT 1 FROM leaders WHERE token = ? AND until > ?) RETURNING step
"""


@contextmanager
def connect(path: str) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        yield database
    finally:
        database.close()


def campaign(database: sqlite3.Connection) -> int:
    while True:
        now = time.time()
        database.execute("DELETE FROM leaders WHERE until < ?", (now,))
        row = ("planner", now + TTL_SECONDS)
        entered = database.execute("INSERT OR IGNORE INTO leaders (election, until) VALUES (?, ?)", row)
        if entered.rowcount == 1:
            return int(entered.lastrowid or 0)
        time.sleep(0.05)


def renew(path: str, token: int, ended: threading.Event) -> None:
    with connect(path) as database:
        while not ended.wait(TTL_SECONDS / 3):
            until = time.time() + TTL_SECONDS
            database.execute("UPDATE leaders SET until = ? WHERE token = ?", (until, token))


@contextmanager
def leading(database: sqlite3.Connection, path: str) -> Iterator[int]:
    token = campaign(database)
    ended = threading.Event()
    renewal = threading.Thread(target=renew, args=[path, token, ended], daemon=True)
    renewal.start()
    try:
        yield token
    finally:
        ended.set()
        renewal.join()
        database.execute("DELETE FROM leaders WHERE token = ?", (token,))


def lead(path: str, name: str) -> None:
    with connect(path) as database, leading(database, path) as token:
        print(f"{name} leads")
        for _ in range(3):
            done = database.execute(STEP, (token, time.time())).fetchall()
            print(f"{name}: step {done[0][0]}" if done else f"{name} leads no more")


def main(path: str) -> None:
    with connect(path) as database:
        candidates = [threading.Thread(target=lead, args=[path, name]) for name in ("ann", "bob")]
        for candidate in candidates:
            candidate.start()
        for candidate in candidates:
            candidate.join()
        database.execute("DELETE FROM plan")


if __name__ == "__main__":
    main(sys.argv[1])
