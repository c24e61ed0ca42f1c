"""A bbolt file from sorted rows, in one pass and bounded memory, as etcd accepts it.

    page 0, 1   the metas, written last: transaction 2 and 1, both describing the same tree
    page 2 ...  per bucket: leaves as their rows come, each branch when it is full
    last pages  the root bucket, naming the buckets' roots
    trailer     SHA-256 of everything before, as ``etcdctl snapshot save`` appends it

Only one leaf and one open branch per level are in memory. When a leaf is written, its first key and
page number go to the open branch above; a full branch is written the same way, except for its
last child, which opens the next branch: so no branch but the root's has fewer than two children. The
single page that is left at the top is the bucket's root.

There is no freelist page (etcd's server writes none either; openers rebuild it), and no inline bucket.
The file is made under a temporary name, read back for its hash, synced, and renamed into place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from kvstore import layout
from kvstore.files import Disk, File, OSDisk

from .bbolt_page import (
    BRANCH_ELEMENT,
    BUCKET,
    BUCKET_FLAG,
    FIRST_DATA_PAGE,
    HEADER,
    LEAF_ELEMENT,
    MAX_ELEMENTS,
    MAX_KEY_BYTES,
    MAX_PAGE_BYTES,
    MAX_VALUE_BYTES,
    MIN_PAGE_BYTES,
    NO_FREELIST,
    Meta,
    encode_branch,
    encode_leaf,
    encode_meta,
)

Rows = Iterable[tuple[bytes, bytes]]

_BUFFER_BYTES = 1 << 20
_MIN_CHILDREN_TO_SPLIT = 4


def write_bbolt(
    path: str | os.PathLike[str],
    buckets: Iterable[tuple[bytes, Rows]],
    *,
    trailer: bool = True,
    page_size: int = 4096,
    fill: float = 0.9,
    disk: Disk | None = None,
) -> int:
    """Write buckets of strictly ascending rows to ``path``. Returns its size in bytes.

    ``fill`` is the share of a page that rows may take before the next one is begun. A ``ValueError``
    (rows out of order, an empty key, one too long) leaves nothing behind, nor does a failing disk.
    """
    if not MIN_PAGE_BYTES <= page_size <= MAX_PAGE_BYTES or not 0.1 <= fill <= 1.0:
        raise ValueError(f"page size {page_size}, fill {fill}")
    disk = disk or OSDisk()
    target = Path(path)
    part = layout.temporary(target)
    disk.remove(part)
    file = disk.create(part)
    try:
        try:
            size_bytes = _write_all(file, buckets, page_size, int(page_size * fill), trailer)
            file.sync()
        finally:
            file.close()
        disk.rename(part, target)
        disk.sync_dir(target.absolute().parent)
    except BaseException:
        disk.remove(part)
        raise
    return size_bytes


def _write_all(
    file: File, buckets: Iterable[tuple[bytes, Rows]], page_size: int, fill_bytes: int, trailer: bool
) -> int:
    pages = _PageWriter(file, page_size)
    roots: dict[bytes, int] = {}
    for name, rows in buckets:
        if name in roots:
            raise ValueError(f"bucket {name!r} is given twice")
        roots[name] = _Tree(pages, fill_bytes, 0).add_all(rows)
    named = ((name, BUCKET.pack(roots[name], 0)) for name in sorted(roots))
    root = _Tree(pages, fill_bytes, BUCKET_FLAG).add_all(named)
    size_bytes = pages.finish(root)
    if trailer:
        digest = _sha256(file.path, size_bytes)
        file.pwrite(digest, size_bytes)
        size_bytes += len(digest)
    return size_bytes


def _sha256(path: str, size_bytes: int) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        if file.tell() != size_bytes:
            raise OSError(f"{path}: {file.tell()} bytes were read back, {size_bytes} had been written")
    return digest.digest()


class _PageWriter:
    """Hands out page numbers and writes pages in their order, a buffer at a time."""

    def __init__(self, file: File, page_size: int) -> None:
        self.file = file
        self.page_size = page_size
        self.next_id = FIRST_DATA_PAGE
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._written_bytes = FIRST_DATA_PAGE * page_size

    def add(self, page: bytes) -> None:
        self.next_id += len(page) // self.page_size
        self._buffer.append(page)
        self._buffered_bytes += len(page)
        if self._buffered_bytes >= _BUFFER_BYTES:
            self._flush()

    def finish(self, root: int) -> int:
        """Write the rest and both metas. Returns the database's size in bytes."""
        self._flush()
        for page_id, txid in ((0, 2), (1, 1)):
            meta = Meta(self.page_size, root, 0, NO_FREELIST, self.next_id, txid)
            self.file.pwrite(encode_meta(meta, page_id), page_id * self.page_size)
        return self._written_bytes

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self.file.pwrite(data, self._written_bytes)
        self._written_bytes += len(data)
        self._buffer.clear()
        self._buffered_bytes = 0


class _Tree:
    """One bucket's B+ tree, growing from the left."""

    def __init__(self, pages: _PageWriter, fill_bytes: int, flags: int) -> None:
        self.pages = pages
        self.fill_bytes = fill_bytes
        self.flags = flags
        self.levels: list[_OpenBranch] = []

    def add_all(self, rows: Rows) -> int:
        """Add every row. Returns the root's page number."""
        leaf: list[tuple[bytes, bytes]] = []
        leaf_bytes = HEADER.size
        last = b""
        fill_bytes = self.fill_bytes
        for row in rows:
            key, value = row
            if key <= last or len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
                raise ValueError(_what_is_wrong(key, value, last))
            last = key
            row_bytes = LEAF_ELEMENT.size + len(key) + len(value)
            if leaf and (leaf_bytes + row_bytes > fill_bytes or len(leaf) == MAX_ELEMENTS):
                self._write_leaf(leaf)
                leaf = []
                leaf_bytes = HEADER.size
            leaf.append(row)
            leaf_bytes += row_bytes
        if leaf or not self.levels:
            self._write_leaf(leaf)
        return self._close()

    def _write_leaf(self, rows: list[tuple[bytes, bytes]]) -> None:
        page_id = self.pages.next_id
        self.pages.add(encode_leaf(page_id, rows, self.flags, self.pages.page_size))
        self._add_child(0, rows[0][0] if rows else b"", page_id)

    def _add_child(self, level: int, key: bytes, page_id: int) -> None:
        if level == len(self.levels):
            self.levels.append(_OpenBranch())
        branch = self.levels[level]
        if branch.is_full(key, self.fill_bytes):
            self._write_branch(level, branch.take_all_but_last())
        branch.add(key, page_id)

    def _write_branch(self, level: int, children: list[tuple[bytes, int]]) -> int:
        page_id = self.pages.next_id
        self.pages.add(encode_branch(page_id, children, self.pages.page_size))
        self._add_child(level + 1, children[0][0], page_id)
        return page_id

    def _close(self) -> int:
        """Write the open branches, bottom up. Returns the root: the single page on the top level."""
        level = 0
        while True:
            children = self.levels[level].children
            if level + 1 == len(self.levels) and len(children) == 1:
                return children[0][1]
            self._write_branch(level, children)
            level += 1


class _OpenBranch:
    """A branch that can still take children."""

    __slots__ = ("children", "size_bytes")

    def __init__(self) -> None:
        self.children: list[tuple[bytes, int]] = []
        self.size_bytes = HEADER.size

    def is_full(self, key: bytes, fill_bytes: int) -> bool:
        after_bytes = self.size_bytes + BRANCH_ELEMENT.size + len(key)
        many = len(self.children)
        return many >= _MIN_CHILDREN_TO_SPLIT and (after_bytes > fill_bytes or many >= MAX_ELEMENTS)

    def add(self, key: bytes, page_id: int) -> None:
        self.children.append((key, page_id))
        self.size_bytes += BRANCH_ELEMENT.size + len(key)

    def take_all_but_last(self) -> list[tuple[bytes, int]]:
        taken, rest = self.children[:-1], self.children[-1]
        self.children = []
        self.size_bytes = HEADER.size
        self.add(*rest)
        return taken


def _what_is_wrong(key: bytes, value: bytes, last: bytes) -> str:
    if not key:
        return "an empty key"
    if key <= last:
        return f"key {key[:40]!r} after {last[:40]!r}: rows must ascend"
    return f"a key of {len(key)} bytes, or a value of {len(value)}, is too long for bbolt"
