"""A bbolt file opened for reading: its buckets, by seek and by scan, straight from the mapped file.

    root bucket --leaf--> b"key"  -> Bucket --branch--> leaf, leaf, ...
                          b"meta" -> Bucket (inline: its one page is in the value)

Opening reads two pages. A ``get`` reads one page per level of the tree, a ``scan`` the pages of its
range, one at a time. The file is never copied to memory, and the memory of pages that a scan has passed is
given back to the system, so a walk through a large file stays small.

Damage ends in ``Corruption`` with file and byte, whatever the bytes are: a page must carry its own
number, elements must be inside their page, keys must ascend through the whole scan, no scan visits
more pages than the file has, and no tree is deeper than ``MAX_DEPTH``. Time and memory are therefore
bounded by the size of the file.

A file made by ``etcdctl snapshot save`` has 32 bytes after its pages, the SHA-256 of everything before them.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import crc32c

from kvstore.backend import packed_hint
from kvstore.errors import Corruption, NotAStore, StoreLocked, TooNew

from .bbolt_page import (
    BUCKET,
    FIRST_DATA_PAGE,
    HEADER,
    MAGIC,
    MAX_PAGE_BYTES,
    META,
    META_BYTES,
    LaterVersion,
    Meta,
    NotMeta,
    Page,
    PageError,
    Span,
    branch_children,
    decode_meta,
    leaf_spans,
    open_page,
)

MAX_DEPTH = 32
TRAILER_BYTES = hashlib.sha256().digest_size
SECTOR_BYTES = 512

RELEASE_EVERY_BYTES = 16 << 20
FAULT_AROUND_BYTES = 64 << 10  # what the kernel maps around a page that is touched
_SMALLEST_PROBED_PAGE_BYTES = 1024
_PROBED_BYTES = (
    0,
    *(_SMALLEST_PROBED_PAGE_BYTES << shift for shift in range(7)),
)  # where a meta page may be
_MAGIC = MAGIC.to_bytes(4, "little")


def is_bbolt(path: str | os.PathLike[str]) -> bool:
    """Whether either meta page is there. It need not be intact: the reader reports damage."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = os.pread(file.fileno(), HEADER.size, 0)
            marks = [os.pread(file.fileno(), 4, at + HEADER.size) for at in _PROBED_BYTES]
    except OSError:
        return False
    return _MAGIC in marks or head == HEADER.pack(0, META, 0, 0)


class Row(NamedTuple):
    """A key of a bucket and its value."""

    key: bytes
    value: bytes


class BboltFile:
    """A bbolt file, read-only. Use it as a context manager, or ``close`` it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size < META_BYTES:
                raise NotAStore(f"{self.path} is not a bbolt file", self.path)
            self.file_bytes = found.st_size
            _lock_shared(fd, self.path)
            self.data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd  # holds the lock
        self._visited_bytes = 0
        try:
            self.meta = self._newest_meta()
            self._check_size()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.data.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """For reading past the mapping."""
        return self._fd

    def __enter__(self) -> BboltFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- metas ---------------------------------------------------------------------------

    def _newest_meta(self) -> Meta:
        """The valid meta with the higher transaction id; either may be damaged."""
        errors: list[PageError] = []
        metas = self._valid_metas(errors)
        if not metas:
            raise self._no_meta(errors)
        return max(metas, key=lambda meta: meta.txid)

    def _valid_metas(self, errors: list[PageError]) -> list[Meta]:
        """The first meta says where the second is; without the first, the second is searched for."""
        first = self._meta_at(0, errors)
        if first:
            second = self._meta_at(first.page_size, errors)
            return [first, second] if second and second.page_size == first.page_size else [first]
        size = _SMALLEST_PROBED_PAGE_BYTES
        while size <= MAX_PAGE_BYTES and size + META_BYTES <= self.file_bytes:
            meta = self._meta_at(size, errors)
            if meta and meta.page_size == size:
                return [meta]
            size *= 2
        return []

    def _meta_at(self, offset: int, errors: list[PageError]) -> Meta | None:
        try:
            return decode_meta(self.data[offset : offset + META_BYTES], offset)
        except PageError as error:
            errors.append(error)
            return None

    def _no_meta(self, errors: list[PageError]) -> Exception:
        for error in errors:
            if isinstance(error, LaterVersion):
                return TooNew(f"{self.path}: {error.reason}", self.path)
        for error in errors:
            if not isinstance(error, NotMeta):
                return self._damaged(error)
        if self.data[: HEADER.size] == HEADER.pack(0, META, 0, 0):
            return Corruption("both meta pages are damaged", self.path, 0)
        return NotAStore(f"{self.path} is not a bbolt file{packed_hint(self.path)}", self.path)

    def _check_size(self) -> None:
        if self.meta.size_bytes > self.file_bytes:
            raise Corruption(
                f"the file ends here, its {self.meta.high_water} pages need {self.meta.size_bytes} bytes",
                self.path,
                self.file_bytes,
            )

    # --- pages ---------------------------------------------------------------------------

    def page(self, page_id: int) -> Page:
        """The leaf or branch page with that number."""
        meta = self.meta
        if not FIRST_DATA_PAGE <= page_id < meta.high_water:
            raise Corruption(f"page {page_id} of {meta.high_water} does not exist", self.path)
        size = meta.page_size
        try:
            page = open_page(self.data, page_id * size, meta.size_bytes, page_id, size)
        except PageError as error:
            raise self._damaged(error) from None
        self.release_passed(page.end - page.start)
        return page

    def release_passed(self, visited_bytes: int) -> None:
        """Count the pages read; from time to time give their memory back."""
        self._visited_bytes += max(visited_bytes, FAULT_AROUND_BYTES)
        if self._visited_bytes >= RELEASE_EVERY_BYTES:
            self._visited_bytes = 0
            self.data.madvise(mmap.MADV_DONTNEED)

    def spans(self, page: Page) -> Iterator[Span]:
        """A leaf's elements; unless their keys ascend, it is damaged."""
        last = b""
        try:
            for span in leaf_spans(self.data, page):
                if span.key <= last:
                    raise PageError("keys are not in ascending order", page.start)
                last = span.key
                yield span
        except PageError as error:
            raise self._damaged(error) from None

    def children(self, page: Page) -> tuple[list[bytes], list[int]]:
        try:
            return branch_children(self.data, page)
        except PageError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: PageError) -> Corruption:
        return Corruption(error.reason, self.path, error.offset)

    # --- buckets -------------------------------------------------------------------------

    @property
    def root(self) -> Bucket:
        """The bucket of buckets."""
        return Bucket(self, self.meta.root, None)

    def buckets(self) -> list[bytes]:
        """Names of the top-level buckets, in byte order."""
        return [span.key for span in self.root.spans() if span.is_bucket]

    def bucket(self, name: bytes) -> Bucket | None:
        return self.root.bucket(name)

    # --- the whole file ------------------------------------------------------------------

    @property
    def trailer(self) -> bytes | None:
        """The SHA-256 at the end of a file of ``snapshot save``; None if there is none."""
        if (
            self.file_bytes % SECTOR_BYTES != TRAILER_BYTES
            or self.file_bytes < self.meta.size_bytes + TRAILER_BYTES
        ):
            return None
        return self.data[self.file_bytes - TRAILER_BYTES : self.file_bytes]

    def verify_hash(self) -> bool:
        """True if the trailer matches, False if there is no trailer; a mismatch is ``Corruption``."""
        trailer = self.trailer
        if trailer is None:
            return False
        digest = hashlib.sha256()
        end = self.file_bytes - TRAILER_BYTES
        for start in range(0, end, 1 << 20):
            digest.update(self.data[start : min(start + (1 << 20), end)])
            self.release_passed(1 << 20)
        if digest.digest() != trailer:
            raise Corruption(
                f"SHA-256 is {digest.hexdigest()}, the file says {trailer.hex()}", self.path, end
            )
        return True

    def status_hash(self) -> int:
        """The CRC-32C that ``snapshot status`` prints: names, keys and values of all buckets."""
        crc = 0
        root = self.root
        for named in root.spans():
            if named.is_bucket:
                crc = crc32c.crc32c(named.key, crc)
                crc = root.sub_bucket(named).crc(crc)
        return crc


class Bucket:
    """One bucket: an ordered map of bytes to bytes."""

    def __init__(self, file: BboltFile, root: int, inline: Page | None) -> None:
        self.file = file
        self.root_page_id = root
        self.inline = inline

    def root_page(self) -> Page:
        return self.inline if self.inline is not None else self.file.page(self.root_page_id)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if it is absent or a bucket."""
        span = self._find(key)
        return None if span is None or span.is_bucket else self.value(span)

    def value(self, span: Span) -> bytes:
        return self.file.data[span.value_start : span.value_end]

    def scan(self, start: bytes = b"", end: bytes | None = None, reverse: bool = False) -> Iterator[Row]:
        """Rows with ``start <= key < end`` (None: to the last), sub-buckets left out."""
        data = self.file.data
        for key, value_start, value_end, is_bucket in self.spans(start, end, reverse):
            if not is_bucket:
                yield Row(key, data[value_start:value_end])

    def spans(self, start: bytes = b"", end: bytes | None = None, reverse: bool = False) -> Iterator[Span]:
        """Like ``scan``, with values left where they are."""
        last: bytes | None = None
        for page in self._leaves(start, end, reverse):
            elements: Iterator[Span] | list[Span] = self.file.spans(page)
            if reverse:
                elements = list(elements)[::-1]
            for span in elements:
                key = span.key
                if last is not None and ((key >= last) if reverse else (key <= last)):
                    raise Corruption("keys are not in ascending order", self.file.path, page.start)
                last = key
                if key >= start and (end is None or key < end):
                    yield span

    def crc(self, crc: int) -> int:
        """``crc`` continued over each key and value."""
        data = self.file.data
        for key, value_start, value_end, is_bucket in self.spans():
            crc = crc32c.crc32c(key, crc)
            if not is_bucket:
                crc = crc32c.crc32c(data[value_start:value_end], crc)
        return crc

    def bucket(self, name: bytes) -> Bucket | None:
        """The bucket of that name inside this one."""
        span = self._find(name)
        return self.sub_bucket(span) if span is not None and span.is_bucket else None

    def sub_bucket(self, span: Span) -> Bucket:
        """The bucket that a span's value describes."""
        file, start, end = self.file, span.value_start, span.value_end
        if end - start < BUCKET.size:
            raise Corruption("a bucket's value is cut short", file.path, start)
        root, _sequence = BUCKET.unpack_from(file.data, start)
        if root:
            return Bucket(file, root, None)
        try:
            page = open_page(file.data, start + BUCKET.size, end, 0, 0)
            if not page.is_leaf:
                raise PageError("an inline bucket is not one leaf", start)
        except PageError as error:
            raise Corruption(error.reason, file.path, error.offset) from None
        return Bucket(file, 0, page)

    def leaf_page_id(self, key: bytes) -> int:
        """The number of the leaf where the key is or would be; 0 for an inline page."""
        return self._leaf_of(key)[0]

    def _find(self, key: bytes) -> Span | None:
        _page_id, page = self._leaf_of(key)
        found = next((span for span in self.file.spans(page) if span.key >= key), None)
        return found if found is not None and found.key == key else None

    def _leaf_of(self, key: bytes) -> tuple[int, Page]:
        page_id, page = self.root_page_id, self.root_page()
        for _level in range(MAX_DEPTH):
            if page.is_leaf:
                return page_id, page
            keys, children = self.file.children(page)
            page_id = children[max(bisect_right(keys, key) - 1, 0)]
            page = self.file.page(page_id)
        raise self._too_deep(page)

    def _leaves(self, start: bytes, end: bytes | None, reverse: bool) -> Iterator[Page]:
        """Leaf pages that may hold keys of the range, in the order of the scan."""
        budget_bytes = self.file.meta.size_bytes
        stack: list[Iterator[int]] = []
        page = self.root_page()
        while True:
            if page.is_leaf:
                yield page
            elif len(stack) == MAX_DEPTH:
                raise self._too_deep(page)
            else:
                stack.append(iter(self._children_between(page, start, end, reverse)))
            while stack and (child := next(stack[-1], 0)) == 0:
                stack.pop()
            if not stack:
                return
            page = self.file.page(child)
            budget_bytes -= page.end - page.start
            if budget_bytes < 0:
                raise Corruption("pages are reached more than once", self.file.path, page.start)

    def _children_between(self, page: Page, start: bytes, end: bytes | None, reverse: bool) -> list[int]:
        keys, children = self.file.children(page)
        low = max(bisect_right(keys, start) - 1, 0)
        high = len(keys) if end is None else max(bisect_left(keys, end), 1)
        if 0 in children:
            raise Corruption("a branch points to page 0", self.file.path, page.start)
        chosen = children[low:high]
        return chosen[::-1] if reverse else chosen

    def _too_deep(self, page: Page) -> Corruption:
        return Corruption(f"the tree is deeper than {MAX_DEPTH} levels", self.file.path, page.start)


def _lock_shared(fd: int, path: Path) -> None:
    """A running etcd locks its file exclusively; anything read meanwhile could be half written."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(path) from None
    except OSError:
        return  # a file system without locks
