"""``two_processes.py`` on sqlite3: each process looks for news every 50 ms, at numbers that it has not seen."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

SCHEMA = """
    CREATE TABLE IF NOT EXISTS asked (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, value TEXT);
    CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, value TEXT);
"""


def opened(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=60)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA)
    return database


def put(database: sqlite3.Connection, table: str, name: str, value: str) -> None:
    database.execute(f"INSERT INTO {table} (name, value) VALUES (?, ?)", (name, value))


def last(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0])


def watch(database: sqlite3.Connection, table: str, after: int) -> Iterator[tuple[str, str]]:
    while True:
        rows = database.execute(f"SELECT id, name, value FROM {table} WHERE id > ? ORDER BY id", (after,))
        for number, name, value in rows.fetchall():
            after = number
            yield name, value
        time.sleep(0.05)


def answer(path: str, after: int) -> None:
    with closing(opened(path)) as database:
        for name, value in watch(database, "asked", after):
            if value == "stop":
                return
            put(database, "answers", name, str(int(value) ** 2))


def ask(path: str) -> None:
    with closing(opened(path)) as database:
        after, answers = last(database, "asked"), watch(database, "answers", last(database, "answers"))
        put(database, "asked", "a", "3")
        with subprocess.Popen([sys.executable, __file__, path, str(after)]):
            print("a:", next(answers)[1])
            put(database, "asked", "b", "4")
            print("b:", next(answers)[1])
            put(database, "asked", "c", "stop")
        database.execute("DELETE FROM asked")
        database.execute("DELETE FROM answers")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        answer(sys.argv[1], int(sys.argv[2]))
    else:
        ask(sys.argv[1])
