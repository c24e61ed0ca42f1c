"""What a shelf or a diskcache holds, into a cache.

    from_shelf("settings.db", cache, loads=pickle.loads)
    from_diskcache("cache/", cache)

A shelf holds nothing but pickles, and a diskcache those of its values that are neither text, bytes nor numbers.
**Reading a pickle runs whatever its writer put into it**, so nothing here does that unless the caller passes ``loads``:
do so only for files that nobody else could write. Without it such entries are left where they are, and named.

The source is opened for reading only, and stays as it is. Times to live go along; what has expired does not.
"""

from __future__ import annotations

import dbm
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore.adapters.cache import Cache
from kvstore.errors import NotAStore

Loads = Callable[[bytes], Any]
RAW, BINARY, TEXT, PICKLE = 1, 2, 3, 4
"""How diskcache keeps a value: in its row; in a file of bytes; in one of text; as a pickle in either."""


@dataclass
class Converted:
    """What has become of the entries."""

    copied: int = 0
    expired: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    """(key, why) of those that were not copied."""


def from_shelf(path: str | os.PathLike[str], cache: Cache, *, loads: Loads) -> Converted:
    """Copy a shelf. ``loads``: ``pickle.loads``, if the file is trusted, or whatever else reads its values.

    Raises ``NotAStore`` for a file that ``dbm`` does not know.
    """
    converted = Converted()
    try:
        shelf = dbm.open(os.fspath(path), "r")  # noqa: SIM115  # below
    except dbm.error as error:
        raise NotAStore(f"{os.fspath(path)} is not a shelf: {error}", Path(path)) from error
    with shelf:
        for key in shelf.keys():  # noqa: SIM118  # not every kind of dbm can be iterated over
            name = key.decode() if isinstance(key, bytes) else key
            _copy(converted, cache, name, lambda key=key: loads(shelf[key]), None)  # type: ignore[misc]  # a default
    return converted


def from_diskcache(
    directory: str | os.PathLike[str], cache: Cache, *, loads: Loads | None = None
) -> Converted:
    """Copy a diskcache's ``Cache`` (of a ``FanoutCache``: each of its numbered folders). ``loads``: see above.

    Keys that are no text are left. Raises ``NotAStore`` for a folder that holds no diskcache.
    """
    converted, now = Converted(), time.time()
    for key, raw, expires, mode, filename, value in _rows(Path(directory)):
        if expires is not None and expires <= now:
            converted.expired += 1
        elif not raw or not isinstance(key, str):
            converted.left.append((repr(key), "its key is no text"))
        elif mode == PICKLE and loads is None:
            converted.left.append(
                (key, "its value is a pickle: pass loads=pickle.loads if you trust the folder")
            )
        else:
            found = _Found(Path(directory), mode, filename, value, loads)
            _copy(converted, cache, key, found.read, None if expires is None else expires - now)
    return converted


@dataclass
class _Found:
    """A value of a diskcache."""

    directory: Path
    mode: int
    filename: str | None
    value: Any
    loads: Loads | None

    def read(self) -> Any:
        data = self.value if self.filename is None else (self.directory / self.filename).read_bytes()
        if self.mode == TEXT:
            return data.decode()
        return self.loads(data) if self.mode == PICKLE and self.loads is not None else data


def _copy(
    converted: Converted, cache: Cache, key: str, read: Callable[[], Any], expire: float | None
) -> None:
    try:
        value = read()
    except Exception as error:  # whatever a file or a pickle may raise
        converted.left.append((key, f"its value cannot be read: {error!r}"))
        return
    try:
        cache.set(key, value, expire)
    except (TypeError, ValueError) as error:  # no JSON, or a codec's own refusal
        converted.left.append((key, f"the cache's codec does not take it: {error}"))
        return
    converted.copied += 1


def _rows(directory: Path) -> Iterator[tuple[Any, ...]]:
    import apsw

    file = directory / "cache.db"
    if not file.is_file():
        raise NotAStore(f"{directory} holds no diskcache: there is no cache.db", directory)
    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        yield from connection.execute("SELECT key, raw, expire_time, mode, filename, value FROM Cache")
        connection.close()
    except apsw.Error as error:
        raise NotAStore(f"{file} is not the table of a diskcache: {error}", file) from error
