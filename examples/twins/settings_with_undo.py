"""``settings_with_undo.py`` on sqlite3: each version is a row, and a deletion is a row without a value."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

SCHEMA = """
    CREATE TABLE IF NOT EXISTS versions (
        revision INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, value TEXT
    )
"""
AT = """
    SELECT name, value FROM versions
    WHERE revision IN (SELECT max(revision) FROM versions WHERE revision <= ? GROUP BY name)
    AND value IS NOT NULL ORDER BY name
"""


class Settings:
    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(SCHEMA)

    def put(self, name: str, value: Any) -> int:
        return self.write(name, json.dumps(value))

    def delete(self, name: str) -> int:
        return self.write(name, None)

    def write(self, name: str, text: str | None) -> int:
        added = self.database.execute("INSERT INTO versions (name, value) VALUES (?, ?)", (name, text))
        return int(added.lastrowid or 0)

    def at(self, revision: int = 2**62) -> dict[str, Any]:
        return {name: json.loads(text) for name, text in self.database.execute(AT, (revision,))}

    def history(self, name: str) -> list[Any]:
        found = self.database.execute("SELECT value FROM versions WHERE name = ? ORDER BY revision", (name,))
        return [None if text is None else json.loads(text) for (text,) in found]

    def diff(self, revision: int) -> Iterator[tuple[str, Any, Any]]:
        before, after = self.at(revision), self.at()
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield name, before.get(name), after.get(name)

    def undo(self, revision: int) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            for name, before, _after in self.diff(revision):
                self.write(name, None if before is None else json.dumps(before))
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")


def main(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        settings = Settings(database)
        settings.put("theme", "dark")
        before = settings.put("fonts", ["mono"])
        settings.put("theme", "light")
        settings.put("size", 12)
        settings.delete("fonts")
        print("now:", settings.at())
        print("theme:", settings.history("theme"))
        for name, old, new in settings.diff(before):
            print("changed:", name, old, new)
        settings.undo(before)
        print("undone:", settings.at())
        for name in settings.at():
            settings.delete(name)


if __name__ == "__main__":
    main(sys.argv[1])
