"""Values in place in an LMDB file that is not being written: views without a copy.

py-lmdb can give views too, but of memory that is gone once its transaction or environment is. The views given here
keep their map (Python's own, of the same file) alive for as long as one of them or a slice of one exists; there is no
rule to break. So the few steps down the tree are made here:

    page   10 flags (2): 01 branch, 02 leaf     12 end of the offsets (2)     16 offsets of the nodes (2 each) ...
    node   0 low (2)  2 high (2)  4 flags (2)  6 length of the key (2)  8 the key, then
           in a branch   nothing; low, high and flags are the number of the child. The first key counts as empty
           in a leaf     the value; low and high are its length. Flags 01: only the number of the pages that it is in,
                         from byte 16 on; 02: a table, the number of its first page in the last 8 bytes

Integers are in the machine's order; only little-endian ones are understood (elsewhere values are copied).
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from kvstore.errors import Corruption

from .lmdb_file import Meta

_BRANCH, _LEAF = 0x01, 0x02
_IN_PAGES, _TABLE = 0x01, 0x02
_HEADER_BYTES = 16
_DEPTH_MAX = 32

_HEAD = struct.Struct("<10xHH2x")
_NODE = struct.Struct("<HHHH")
_U64 = struct.Struct("<Q")


class LMDBMap:
    """A map of a file whose meta page has been read."""

    def __init__(self, path: Path, meta: Meta) -> None:
        self._path = path
        self._page_bytes = meta.page_bytes
        self._root = meta.roots[1]
        with open(path, "rb", buffering=0) as file:
            size_bytes = min(os.fstat(file.fileno()).st_size, (meta.last_page + 1) * meta.page_bytes)
            self._view = memoryview(mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ))
        self._tables: dict[str, int] = {}

    def find(self, table: str, key: bytes) -> memoryview | None:
        """The value of ``key`` in place. Raises ``Corruption`` if pages are malformed."""
        try:
            if table not in self._tables:
                entry = self._value(self._root, table.encode())
                if entry is None:
                    raise Corruption(f"table {table!r} is missing", self._path)
                self._tables[table] = _U64.unpack(entry[-8:])[0]
            return self._value(self._tables[table], key)
        except (struct.error, IndexError) as error:
            raise Corruption(f"malformed page: {error}", self._path) from None

    def _value(self, page: int, key: bytes) -> memoryview | None:
        if page == 2**64 - 1:  # an empty table
            return None
        for _ in range(_DEPTH_MAX):
            at = page * self._page_bytes
            flags, end = _HEAD.unpack_from(self._view, at)
            count = (end - _HEADER_BYTES) // 2
            nodes = struct.unpack_from(f"<{max(count, 0)}H", self._view, at + _HEADER_BYTES)
            if flags & _LEAF:
                return self._in_leaf(at, nodes, key)
            if not flags & _BRANCH or not nodes:
                break
            low, high, top, _ = _NODE.unpack_from(self._view, at + nodes[self._last_up_to(at, nodes, key, 1)])
            page = low | high << 16 | top << 32
        raise Corruption(
            "a page of the tree is neither a branch nor a leaf", self._path, page * self._page_bytes
        )

    def _last_up_to(self, at: int, nodes: tuple[int, ...], key: bytes, first: int) -> int:
        """The last node from ``first`` on whose key is at most ``key``; the one before ``first`` if there is none."""
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(at + nodes[middle]) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _key(self, node: int) -> bytes:
        length = _NODE.unpack_from(self._view, node)[3]
        return bytes(self._view[node + 8 : node + 8 + length])

    def _in_leaf(self, at: int, nodes: tuple[int, ...], key: bytes) -> memoryview | None:
        index = self._last_up_to(at, nodes, key, 0)
        if index < 0 or self._key(at + nodes[index]) != key:
            return None
        node = at + nodes[index]
        low, high, flags, key_length = _NODE.unpack_from(self._view, node)
        begin, length = node + 8 + key_length, low | high << 16
        if flags & _IN_PAGES:
            begin = _U64.unpack_from(self._view, begin)[0] * self._page_bytes + _HEADER_BYTES
        value = self._view[begin : begin + length]
        if len(value) != length:
            raise Corruption("a value runs past the end of the file", self._path, begin)
        return value
