r"""Keys of any length, in exact byte order, on a map whose keys have a limit.

LMDB takes keys up to 511 bytes. Short keys are stored as they are, at no extra cost. Long keys are in
a second map beside the first, as a tree of layers. A layer holds the keys that agree up to its
depth, each by the slice of ``SLICE`` bytes that comes next:

    layer (8 bytes, big-endian) | slice                 the key ends here             -> the value
    layer                       | slice (SLICE) | 00    the key goes on ("deep" row)  -> a leaf or a link

    leaf   00 | rest length (4, big-endian) | rest | value     one key only has this slice
    link   01 | layer (8) | common                             several do: they continue with ``common``
                                                               and then in ``layer``, without it

The trailing 00 puts a deep row after the key that ends with the same slice and before any other, so
byte order of rows is order of keys. ``common`` is a multiple of SLICE bytes long: every layer then
begins at a multiple of SLICE, and a link can be split in two without moving the rows below it. No key
ends where a layer begins: it ends with a whole slice in the layer above. Example with
SLICE = 2, keys "abcdefX", "abcdefY", "abz":

    0|"ab"|00 -> link 2, common ""
    2|"cd"|00 -> link 1, common "ef"      2|"z" -> value
    1|"X" -> value                        1|"Y" -> value

A lookup takes one step for each branching on its way, however many slices the key has: a million
versions of a key of one megabyte are two layers. This module knows LMDB's cursors, nothing of
environments or transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb

STORED_BYTES_MAX = 511
SLICE = STORED_BYTES_MAX - 9
_ROOT = bytes(8)
_LEAF, _LINK = b"\0", b"\1"
_PAST_LAYER = b"\xff" * (SLICE + 1)  # after any row of a layer: a deep row ends in 00

Span = tuple[bytes | None, bytes | None]
"""Bounds of a scan within one layer: first key, and the key to stop before; None: unbounded."""


class DamagedRow(Exception):
    """A row of the tree is not what this module writes; the message says how."""


class LongKeys:
    """The long keys of one table, seen through one transaction."""

    __slots__ = ("_db", "_tx")

    def __init__(self, tx: lmdb.Transaction[bytes], db: lmdb._Database) -> None:
        self._tx = tx
        self._db = db

    # --- reading --------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        layer, rest = _ROOT, key
        while len(rest) > SLICE:
            row = self._tx.get(_deep(layer, rest), None, self._db)
            if row is None:
                return None
            if row[:1] == _LEAF:
                leaf_rest, value = _parse_leaf(row)
                return value if leaf_rest == rest[SLICE:] else None
            layer, common = _parse_link(row)
            if not rest.startswith(common, SLICE):
                return None
            rest = rest[SLICE + len(common) :]
        return self._tx.get(layer + rest, None, self._db)

    def walk(self, start: bytes, end: bytes | None, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values with start <= key < end, in order."""
        levels = [(b"", _ROOT, self._rows(_ROOT, (start or None, end), reverse))]
        while levels:
            path, _, rows = levels[-1]
            found = next(rows, None)
            if found is None:
                levels.pop()
            elif isinstance(found[1], bytes):
                yield path + found[0], found[1]
            else:
                layer, span = found[1]
                if any(layer == above for _, above, _ in levels):
                    raise DamagedRow("the links of long keys form a circle")
                levels.append((path + found[0], layer, self._rows(layer, span, reverse)))

    def _rows(
        self, layer: bytes, span: Span, reverse: bool
    ) -> Iterator[tuple[bytes, bytes | tuple[bytes, Span]]]:
        """The layer's rows within ``span``: (key, value), or for a link (path, (layer, span below it))."""
        low, high = span
        for stored, row in self._stored_rows(layer, low, high, reverse):
            if len(stored) < STORED_BYTES_MAX:
                if _within(stored[8:], low, high):
                    yield stored[8:], row
                continue
            key = stored[8:-1]
            if row[:1] == _LEAF:
                rest, value = _parse_leaf(row)
                if _within(key + rest, low, high):
                    yield key + rest, value
                continue
            below, common = _parse_link(row)
            inner = _span_below(key + common, low, high)
            if inner is not None:
                yield key + common, (below, inner)

    def _stored_rows(
        self, layer: bytes, low: bytes | None, high: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """Every row of the layer that can matter to keys from ``low`` to ``high``."""
        first = layer + (low or b"")[:SLICE]
        if high is None:
            stop = layer + _PAST_LAYER
        else:  # past the deep row of its slice, if the bound itself goes on beyond the slice
            stop = layer + high if len(high) <= SLICE else layer + high[:SLICE] + b"\1"
        with self._tx.cursor(self._db) as cursor:
            if not reverse:
                if cursor.set_range(first):
                    for row in cursor.iternext():
                        if row[0] >= stop:
                            break
                        yield row
            elif cursor.prev() if cursor.set_range(stop) else cursor.last():
                for row in cursor.iterprev():
                    if row[0] < first:
                        break
                    yield row

    # --- writing --------------------------------------------------------------------

    def put(self, key: bytes, value: bytes) -> None:
        layer, rest = _ROOT, key
        while len(rest) > SLICE:
            stored = _deep(layer, rest)
            row = self._tx.get(stored, None, self._db)
            if row is None:
                self._set(stored, _leaf(rest[SLICE:], value))
                return
            layer, rest, done = self._descend(stored, row, rest, value)
            if done:
                return
        self._set(layer + rest, value)

    def _descend(self, stored: bytes, row: bytes, rest: bytes, value: bytes) -> tuple[bytes, bytes, bool]:
        """One step below the deep row ``stored``, making room for ``rest``: (layer, rest there, all done)."""
        tail = rest[SLICE:]
        if row[:1] == _LEAF:
            leaf_rest, leaf_value = _parse_leaf(row)
            if leaf_rest == tail:
                self._set(stored, _leaf(tail, value))
                return b"", b"", True
            layer, common = self._new_layer(), _common(leaf_rest, tail)
            self._set(stored, _link(layer, common))
            self._set_first(layer, leaf_rest[len(common) :], leaf_value)
        else:
            layer, linked = _parse_link(row)
            common = linked
            if not tail.startswith(linked) or len(tail) == len(linked):
                # split the link after the last slice that both share
                common, below = _common(linked, tail), layer
                layer = self._new_layer()
                left = linked[len(common) :]
                self._set(stored, _link(layer, common))
                self._set(_deep(layer, left), _link(below, left[SLICE:]))
        return layer, tail[len(common) :], False

    def _set_first(self, layer: bytes, rest: bytes, value: bytes) -> None:
        """Put the first key of a new layer."""
        if len(rest) > SLICE:
            self._set(_deep(layer, rest), _leaf(rest[SLICE:], value))
        else:
            self._set(layer + rest, value)

    def delete(self, key: bytes) -> None:
        layer, rest = _ROOT, key
        trail: list[tuple[bytes, bytes]] = []  # links on the way, with the layers they lead to
        while len(rest) > SLICE:
            stored = _deep(layer, rest)
            row = self._tx.get(stored, None, self._db)
            if row is None:
                return
            if row[:1] == _LEAF:
                if _parse_leaf(row)[0] == rest[SLICE:]:
                    self._remove(stored, trail)
                return
            layer, common = _parse_link(row)
            if not rest.startswith(common, SLICE):
                return
            trail.append((stored, layer))
            rest = rest[SLICE + len(common) :]
        self._remove(layer + rest, trail)

    def _remove(self, stored: bytes, trail: list[tuple[bytes, bytes]]) -> None:
        """Delete a row, and the links to layers that it leaves empty."""
        self._tx.delete(stored, db=self._db)
        for link, layer in reversed(trail):
            with self._tx.cursor(self._db) as cursor:
                if cursor.set_range(layer) and cursor.key().startswith(layer):
                    return
            self._tx.delete(link, db=self._db)

    def _new_layer(self) -> bytes:
        """A number greater than that of every layer in use: each has a row, and rows are in order."""
        with self._tx.cursor(self._db) as cursor:
            return _next_layer(cursor.key()[:8] if cursor.last() else _ROOT)

    def _set(self, stored: bytes, value: bytes) -> None:
        self._tx.put(stored, value, db=self._db)


# --- rows, as pure functions ------------------------------------------------------------


def _deep(layer: bytes, rest: bytes) -> bytes:
    return layer + rest[:SLICE] + b"\0"


def _next_layer(layer: bytes) -> bytes:
    number = int.from_bytes(layer, "big") + 1
    if number >> 64:
        raise DamagedRow("a layer of long keys has an impossible number")
    return number.to_bytes(8, "big")


def _leaf(rest: bytes, value: bytes) -> bytes:
    return b"\0%b%b%b" % (len(rest).to_bytes(4, "big"), rest, value)


def _parse_leaf(row: bytes) -> tuple[bytes, bytes]:
    end = 5 + int.from_bytes(row[1:5], "big")
    if len(row) < end:
        raise DamagedRow("a long key's row is too short")
    return row[5:end], row[end:]


def _link(layer: bytes, common: bytes) -> bytes:
    return b"\1%b%b" % (layer, common)


def _parse_link(row: bytes) -> tuple[bytes, bytes]:
    if row[:1] != _LINK or len(row) < 9 or (len(row) - 9) % SLICE:
        raise DamagedRow("a long key's link is malformed")
    return row[1:9], row[9:]


def _common(left: bytes, right: bytes) -> bytes:
    """The whole slices that both begin with, as long as both go on after them."""
    size, shorter = 0, min(len(left), len(right))
    while shorter > size + SLICE and right.startswith(left[size : size + SLICE], size):
        size += SLICE
    return left[:size]


def _within(key: bytes, low: bytes | None, high: bytes | None) -> bool:
    return (low is None or low <= key) and (high is None or key < high)


def _span_below(path: bytes, low: bytes | None, high: bytes | None) -> Span | None:
    """The bounds for what follows ``path``; None if no key that begins with it is within."""
    if low is not None:
        if low.startswith(path):
            low = low[len(path) :]
        elif path < low:
            return None
        else:
            low = None
    if high is not None:
        if high.startswith(path):
            high = high[len(path) :]
            if not high:
                return None
        elif path < high:
            high = None
        else:
            return None
    return low or None, high
