"""A backend that is several: every call goes to all of them, and their answers must be equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from kvstore.backend import Backend, BackendDefaults, Progress, ReadTx, ReadTxDefaults, Row, WriteTx

Answer = TypeVar("Answer")


class Disagreement(AssertionError):
    """Two backends gave different answers to the same call."""


def agreed(names: list[str], answers: list[Answer], call: str) -> Answer:
    """The answer that all gave."""
    for name, answer in zip(names, answers, strict=True):
        if answer != answers[0]:
            raise Disagreement(f"{call}: {names[0]} says {answers[0]!r}, {name} says {answer!r}")
    return answers[0]


class MirrorReadTx(ReadTxDefaults):
    def __init__(self, names: list[str], txs: Sequence[ReadTx]) -> None:
        self._names = names
        self._txs = txs

    def _ask(self, call: str, ask: Callable[[ReadTx], Answer]) -> Answer:
        return agreed(self._names, [ask(tx) for tx in self._txs], call)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._ask(f"get {key!r}", lambda tx: tx.get(table, key))

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._ask(f"get_many {keys!r}", lambda tx: tx.get_many(table, keys))

    def scan(
        self,
        table: str,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        limit: int = 0,
        reverse: bool = False,
    ) -> list[Row]:
        call = f"scan {start!r} {end!r} limit={limit} reverse={reverse}"
        return self._ask(call, lambda tx: tx.scan(table, start, end, limit=limit, reverse=reverse))

    def count(self, table: str, start: bytes = b"", end: bytes | None = None) -> int:
        return self._ask(f"count {start!r} {end!r}", lambda tx: tx.count(table, start, end))

    def close(self) -> None:
        for tx in self._txs:
            tx.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tx in self._txs:
            tx.__exit__(kind, error, trace)


class MirrorWriteTx(MirrorReadTx):
    _txs: Sequence[WriteTx]

    def put_many(self, table: str, rows: Iterable[Row], *, append: bool = False) -> None:
        kept = list(rows)
        for tx in self._txs:
            tx.put_many(table, kept, append=append)

    def delete_many(self, table: str, keys: Iterable[bytes]) -> None:
        kept = list(keys)
        for tx in self._txs:
            tx.delete_many(table, kept)

    def delete_ranges(self, table: str, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        kept = list(ranges)
        answers = [tx.delete_ranges(table, kept) for tx in self._txs]
        return agreed(self._names, answers, f"delete_ranges {kept!r}")

    def delete_all(self, table: str) -> int:
        return agreed(self._names, [tx.delete_all(table) for tx in self._txs], "delete_all")


class MirrorBackend(BackendDefaults):
    """Set ``kinds`` in a subclass."""

    name: ClassVar[str] = "mirror"
    persistent: ClassVar[bool] = True
    kinds: ClassVar[list[type[Backend]]]

    def __init__(self, path: Path, backends: list[Backend]) -> None:
        self.path = path
        self.backends = backends
        self._names = [type(backend).__name__ for backend in backends]

    @classmethod
    def file_of(cls, path: Path, kind: type[Backend]) -> Path:
        return path.with_name(f"{path.name}.{kind.__name__}")

    @classmethod
    def open(
        cls, path: Path, tables: Sequence[str], *, read_only: bool = False, immutable: bool = False
    ) -> Self:
        opened = [
            kind.open(cls.file_of(path, kind), tables, read_only=read_only, immutable=immutable)
            for kind in cls.kinds
        ]
        return cls(path, opened)

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        return all(kind.recognizes(cls.file_of(path, kind)) for kind in cls.kinds)

    def get(self, table: str, key: bytes) -> bytes | None:
        return agreed(self._names, [backend.get(table, key) for backend in self.backends], f"get {key!r}")

    def read(self) -> ReadTx:
        return MirrorReadTx(self._names, [backend.read() for backend in self.backends])

    def write(self) -> WriteTx:
        return MirrorWriteTx(self._names, [backend.write() for backend in self.backends])

    def sync(self) -> None:
        for backend in self.backends:
            backend.sync()

    def copy_to(self, path: Path) -> None:
        for kind, backend in zip(self.kinds, self.backends, strict=True):
            backend.copy_to(self.file_of(path, kind))

    def size_bytes(self) -> int:
        return sum(backend.size_bytes() for backend in self.backends)

    def in_use_bytes(self) -> int:
        return sum(backend.in_use_bytes() for backend in self.backends)

    def check(self, progress: Progress | None = None) -> None:
        for backend in self.backends:
            backend.check(progress)

    def close(self) -> None:
        for backend in self.backends:
            backend.close()

    @classmethod
    def stale_helpers(cls, path: Path) -> list[Path]:
        return []
