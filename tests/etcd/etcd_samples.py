"""Files of real etcd servers, unpacked, with what etcd itself said of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kvstore.migrations.etcd.rows import KeyValueRow

DumpRow = list[Any]  # key and value in base64, create_revision, mod_revision, version, lease


def truth(folder: Path) -> dict[str, Any]:
    with lzma.open(folder / "truth.json.xz") as file:
        found: dict[str, Any] = json.load(file)
    return found


class Holed(NamedTuple):
    """A file without the zeros in it, which are most of a log of etcd's."""

    size_bytes: int
    pieces: list[tuple[int, bytes]]

    @classmethod
    def of(cls, data: bytes) -> Holed:
        starts = range(0, len(data), _PIECE_BYTES)
        pieces = [(start, data[start : start + _PIECE_BYTES]) for start in starts]
        return cls(len(data), [(start, piece) for start, piece in pieces if piece != bytes(len(piece))])

    def write(self, target: Path) -> Path:
        """The zeros are left to the file system, as holes."""
        with open(target, "wb") as file:
            for start, piece in self.pieces:
                file.seek(start)
                file.write(piece)
            file.truncate(self.size_bytes)
        return target


_PIECE_BYTES = 4096


@cache
def _unpacked(packed: Path) -> Holed:
    return Holed.of(lzma.decompress(packed.read_bytes()))


@cache
def _members(packed: Path) -> dict[str, Holed | None]:
    """The folders (None) and files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed.read_bytes()))) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: Holed.of(file.read()) if file else None for name, file in files.items()}


def unxz(packed: Path, target: Path) -> Path:
    """Unpack a file."""
    return _unpacked(packed).write(target)


def untar(packed: Path, into: Path) -> Path:
    """Unpack a data directory; the folder that holds ``member``."""
    for name, file in _members(packed).items():
        if file is None:
            (into / name).mkdir(parents=True, exist_ok=True)
        else:
            file.write(into / name)
    return next(into.rglob("member")).parent


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def dump_row(row: KeyValueRow) -> DumpRow:
    return [text(row.key), text(row.value), row.create_revision, row.mod_revision, row.version, row.lease]


def event(row: KeyValueRow) -> list[Any]:
    """A row as a watch delivers it."""
    if row.is_tombstone:
        return ["DELETE", text(row.key), "", 0, row.main, 0, 0]
    return ["PUT", *dump_row(row)]


def dump_hash(dumped: Iterable[DumpRow]) -> str:
    """The SHA-256 that the truth files give for a dump."""
    lines = "".join(" ".join(map(str, row)) + "\n" for row in dumped)
    return hashlib.sha256(lines.encode()).hexdigest()


class Replayed:
    """A store just good enough for the requests of the samples: what a log leads to."""

    def __init__(self, rows: Iterable[KeyValueRow] = (), revision: int = 1) -> None:
        self.live = {row.key: row for row in rows}
        self.revision = revision

    def apply(self, request: Any) -> None:
        before = self.revision
        if request.HasField("put"):
            self._put(request.put)
        elif request.HasField("delete_range"):
            self._delete(request.delete_range)
        elif request.HasField("txn"):
            assert not request.txn.compare
            for operation in request.txn.success:
                if operation.HasField("request_put"):
                    self._put(operation.request_put)
                elif operation.HasField("request_delete_range"):
                    self._delete(operation.request_delete_range)
        self.revision = min(self.revision, before + 1)

    def _put(self, put: Any) -> None:
        self.revision += 1
        old = self.live.get(put.key)
        created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
        self.live[put.key] = KeyValueRow(
            self.revision, 0, False, put.key, put.value, created, self.revision, version, put.lease
        )

    def _delete(self, delete: Any) -> None:
        end = delete.range_end
        gone = [key for key in self.live if key == delete.key or (end and delete.key <= key < end)]
        for key in gone:
            del self.live[key]
        self.revision += bool(gone)

    def dump(self) -> list[DumpRow]:
        return [dump_row(self.live[key]) for key in sorted(self.live)]
