"""What an LMDB data file says about itself, read before liblmdb maps it.

A file that is cut short, or is something else, can end the whole process inside a mapped
library (SIGBUS). So the two meta pages are read here first, with plain reads:

    page 0, page 1 (each of the page size; integers in the byte order of the machine)

      0  page number (8)   8  pad (2)   10  flags (2; 08 = meta page)   12  unused (4)
     16  magic BEEFC0DE (4)            20  format version (4; 1)
     24  map address (8)               32  map size (8)
     40  free-page tree (48; begins with the page size, 4)
     88  tree of tables (48; root page in the last 8)
    136  last page number (8)         144  transaction number (8)

The page with the greater transaction number is in force. Format 3 (LMDB 1.0) has the magic at 24.
"""

from __future__ import annotations

import os
import struct
import sys
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from kvstore.backend import recognize_backend
from kvstore.errors import Corruption, NotAStore, TooNew, WrongStore

walker: Any = import_module("lmdb.verify")

MAGIC = 0xBEEFC0DE
FORMAT_VERSION = 1
META_BYTES = 152
PAGE_NUMBER_BYTES = 8
DEPTH_MAX = 32
"""Levels of a tree that LMDB follows (``CURSOR_STACK``)."""
FLAGS_OF_OTHERS = 0x76
"""Kinds of databases that this library never makes: if a plain one is expected, liblmdb's copy aborts on them."""
_META = struct.Struct("=QHHIIIQQ48s48sQQ")
_MAGIC_AT, _MAGIC_AT_IN_1_0 = 16, 24
_META_FLAG = 0x08
_NO_PAGE = 2**64 - 1
_PAGE_BYTES = [256 << shift for shift in range(8)]


class Meta(NamedTuple):
    """One meta page."""

    page_bytes: int
    last_page: int
    transaction: int
    roots: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        """Whether the file holds nothing, ours or not."""
        return self.roots == (_NO_PAGE, _NO_PAGE)


def has_magic(head: bytes) -> bool:
    return _magic_at(head, _MAGIC_AT)


def parse_meta(data: bytes, page: int) -> Meta:
    """The meta page in ``data``; raises ``ValueError`` with what is wrong, ``TooNew`` for a later format."""
    if len(data) < META_BYTES:
        raise ValueError("the meta page is cut short")
    number, _, flags, _, magic, version, _, _, free, main, last_page, transaction = _META.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("the meta page has no magic")
    if version > FORMAT_VERSION:
        raise TooNew(f"LMDB data format {version}; this version reads format {FORMAT_VERSION}")
    page_bytes = int.from_bytes(free[:4], sys.byteorder)
    if number != page or not flags & _META_FLAG or version != FORMAT_VERSION or page_bytes not in _PAGE_BYTES:
        raise ValueError("the meta page is malformed")
    roots = tuple(int.from_bytes(tree[-8:], sys.byteorder) for tree in (free, main))
    if last_page < 1 or any(root != _NO_PAGE and not 1 < root <= last_page for root in roots):
        raise ValueError("the meta page points outside the file")
    return Meta(page_bytes, last_page, transaction, (roots[0], roots[1]))


def read_meta(path: Path) -> Meta:
    """The meta page in force; raises for anything but a whole LMDB file of our format.

    The file may have bytes after its last page. It may also end before it: pages that were taken
    and given back within one transaction are never written. Then ``is_cut_short`` has to decide.
    """
    if not S_ISREG(os.stat(path).st_mode):
        raise NotAStore(f"{path} is not a regular file", path)
    with open(path, "rb", buffering=0) as file:
        first = file.read(META_BYTES)
        if not has_magic(first):
            _refuse(path, first, file.read(_PAGE_BYTES[-1] + META_BYTES))
        try:
            metas = [parse_meta(first, 0)]
            offset = metas[0].page_bytes
            metas.append(parse_meta(os.pread(file.fileno(), META_BYTES, offset), 1))
        except ValueError as error:
            raise Corruption(str(error), path, 0) from error
        except TooNew as error:
            raise TooNew(f"{path}: {error}", path) from error
    if metas[1].page_bytes != metas[0].page_bytes:
        raise Corruption("the meta pages disagree on the page size", path, metas[0].page_bytes)
    return max(metas, key=lambda meta: meta.transaction)


def is_cut_short(path: Path, meta: Meta) -> bool:
    """Whether the file ends before its last page."""
    return os.stat(path).st_size < (meta.last_page + 1) * meta.page_bytes


def verify_pages(path: Path, fd: int = -1) -> None:
    """Walk every page with plain reads; raise ``Corruption`` with the first thing that is wrong.

    ``fd``: a descriptor of the file, if another file may have taken its name since; for one walk at a time.
    A commit in the first instant of the walk can look like damage, so only what is found twice counts.
    """
    problems: list[str] = []
    for _ in range(3):
        try:
            with open(path if fd < 0 else fd, "rb", closefd=fd < 0) as file:
                problems = _Walk(file, os.fstat(file.fileno()).st_size).verify()
        except walker.VerifyError as error:
            problems = [str(error)]
        except (struct.error, IndexError) as error:  # what the walk itself does not expect
            problems = [f"the pages cannot be walked: {error}"]
        if not problems:
            return
    raise Corruption(problems[0], path)


class _Walk(walker._Verifier):  # type: ignore[misc]  # the base has no stub
    """py-lmdb's walk, which mistakes for damage a long value that was overwritten with a shorter one: LMDB leaves it
    where it is, with all its pages."""

    def _bigdata(
        self, ctx: Any, pgno: int, i: int, buf: bytes, doff: int, dsize: int, want_bytes: bool
    ) -> Any:
        extent_bytes = self._extent_bytes(buf[doff : doff + 8])
        if extent_bytes <= self.hdrsz + dsize:
            return super()._bigdata(ctx, pgno, i, buf, doff, dsize, want_bytes)
        value = super()._bigdata(ctx, pgno, i, buf, doff, extent_bytes - self.hdrsz, want_bytes)
        return value[:dsize] if value else value

    def _walk_page(self, ctx: Any, page: int, depth: int) -> None:
        if depth > DEPTH_MAX:
            self.err(f"{ctx['name']} DB: page {page} lies deeper than LMDB goes ({DEPTH_MAX})")
        else:
            super()._walk_page(ctx, page, depth)

    def load_metas(self) -> None:
        super().load_metas()
        for flags in (self.meta.main.flags, self.meta.free.flags):
            if flags & FLAGS_OF_OTHERS:
                self.err(f"a meta page has the flags {flags:#x}")

    def _validate_named_subdb(self, name: str, page: int, node: int, database: Any) -> None:
        super()._validate_named_subdb(name, page, node, database)
        if database.flags & FLAGS_OF_OTHERS:
            self.err(f"{name} DB: page {page} node {node} has flags {database.flags:#x}")

    def read_extent(self, page: int, pages: int) -> Any:
        """A list of free pages, the only long value that is read: none is longer than all pages of the file make it."""
        most_bytes = PAGE_NUMBER_BYTES * (self.next_pgno + 1) + self.psize
        return super().read_extent(page, pages) if pages * self.psize <= most_bytes else None

    def _extent_bytes(self, number: bytes) -> int:
        """The size that the first page of a long value states; 0 if there is no such page."""
        page = int.from_bytes(number, sys.byteorder)
        first = self.read_page(page) if len(number) == 8 and page < self.next_pgno else None
        pages: int = self._pg_pages(first, 0) if first is not None else 0
        return pages * int(self.psize) if page + pages <= self.next_pgno else 0


def _refuse(path: Path, head: bytes, rest: bytes) -> None:
    """Raise the error for a file without the magic, saying what it is."""
    if _magic_at(head, _MAGIC_AT_IN_1_0):
        raise TooNew(f"{path} has the data format of LMDB 1.0", path)
    if any(has_magic((head + rest)[page_bytes:]) for page_bytes in _PAGE_BYTES):
        raise Corruption("the first meta page is overwritten", path, 0)
    other = recognize_backend(path)
    if other is not None:
        raise WrongStore(f"{path} is a file of the {other.name} backend, not of lmdb", path)
    raise NotAStore(f"{path} is not an LMDB file", path)


def _magic_at(data: bytes, offset: int) -> bool:
    return data[offset : offset + 4] == MAGIC.to_bytes(4, sys.byteorder)
