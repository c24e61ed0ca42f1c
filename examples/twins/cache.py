"""``cache.py`` on sqlite3: what is too old is not found, and deleted by the next look at the cache."""

import sqlite3
import sys
import time
from contextlib import closing

SCHEMA = """
    CREATE TABLE IF NOT EXISTS pages (path TEXT PRIMARY KEY, content TEXT NOT NULL, expires REAL NOT NULL);
    CREATE INDEX IF NOT EXISTS by_expiry ON pages (expires);
"""


class Pages:
    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)

    def put(self, path: str, content: str, ttl: float) -> None:
        row = (path, content, time.time() + ttl)
        self.database.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?)", row)

    def get(self, path: str) -> str | None:
        self.evict()
        row = self.database.execute("SELECT content FROM pages WHERE path = ?", (path,)).fetchone()
        return None if row is None else str(row[0])

    def evict(self) -> None:
        self.database.execute("DELETE FROM pages WHERE expires < ?", (time.time(),))

    def __len__(self) -> int:
        self.evict()
        return int(self.database.execute("SELECT count(*) FROM pages").fetchone()[0])


def render(path: str) -> str:
    print("computing", path)
    return f"<h1>{path}</h1>"


def page(pages: Pages, path: str) -> str:
    found = pages.get(path)
    if found is None:
        found = render(path)
        pages.put(path, found, ttl=2)
    return found


def main(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        pages = Pages(database)
        print(page(pages, "/"))
        print(page(pages, "/"))
        while pages.get("/") is not None:
            time.sleep(0.1)
        print("evicted:", len(pages), "left")
        print(page(pages, "/"))
        database.execute("DELETE FROM pages")


if __name__ == "__main__":
    main(sys.argv[1])
