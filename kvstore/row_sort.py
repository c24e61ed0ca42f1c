"""Any number of rows, sorted by key in bounded memory.

    add         rows pile up; a full pile is sorted and written to a temporary file: a run, made of blocks
    in_order    one block of each run is in memory. Up to the least of their last keys nothing is missing: that
                much is taken from every block, sorted together and passed on. Used-up blocks are replaced.

    block       | rows u32 | lengths of the keys, of the values, u32 each | keys | values |

No two rows are compared in Python: sorting and merging are each one call of ``sorted``, which is fast with runs that
are already in order. Of several rows with the same key, one is passed on.
"""

from __future__ import annotations

import struct
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from kvstore.backend import Row
from kvstore.files import disk_full_is_typed

RUN_BYTES = 32 << 20
BLOCK_BYTES = 128 << 10
ROW_OVERHEAD_BYTES = 250
_COUNT = struct.Struct("<I")


class RowSorter:
    """Takes rows in any order. Use it as a context manager: the temporary file ends with it.

    ``folder``: where that file is; None: in the system's folder for such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._pile: dict[bytes, bytes] = {}
        self._pile_bytes = 0
        self._file: BinaryIO | None = None
        self._runs: list[_Run] = []

    def __enter__(self) -> RowSorter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rows: list[Row]) -> None:
        self._pile.update(rows)
        self._pile_bytes += sum([len(value) for _, value in rows]) + ROW_OVERHEAD_BYTES * len(rows)
        if self._pile_bytes >= RUN_BYTES:
            self._write_run()

    def in_order(self) -> Iterator[list[Row]]:
        """All rows, ascending, in lists. Only once."""
        if not self._runs:
            keys = sorted(self._pile)
            yield list(zip(keys, map(self._pile.__getitem__, keys), strict=True))
            return
        self._write_run()
        runs = [run for run in self._runs if run.fill()]
        while runs:
            last_key = min([run.last_key for run in runs])
            found: dict[bytes, bytes] = {}
            for run in runs:
                run.move_to(found, last_key)
            yield sorted(found.items())
            runs = [run for run in runs if run.fill()]

    def _write_run(self) -> None:
        pile, self._pile, self._pile_bytes = self._pile, {}, 0
        keys = sorted(pile)
        values = list(map(pile.__getitem__, keys))
        with disk_full_is_typed():
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # __exit__ closes it
            start = self._file.tell()
            self._file.writelines(_blocks(keys, values))
            self._file.flush()
        self._runs.append(_Run(self._file, start, self._file.tell()))


class _Run:
    """A sorted run on disk, and what is left of its block in memory."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._at = start
        self._end = end
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._taken = 0

    @property
    def last_key(self) -> bytes:
        return self._keys[-1]

    def move_to(self, found: dict[bytes, bytes], last_key: bytes) -> None:
        """Hand over the rows up to a key."""
        first, self._taken = self._taken, bisect_right(self._keys, last_key, lo=self._taken)
        found.update(zip(self._keys[first : self._taken], self._values[first : self._taken], strict=True))

    def fill(self) -> bool:
        """Make sure that rows are in memory. False at the end of the run."""
        if self._taken == len(self._keys) and self._at < self._end:
            self._file.seek(self._at)
            (rows,) = _COUNT.unpack(self._file.read(_COUNT.size))
            lengths = struct.unpack(f"<{2 * rows}I", self._file.read(2 * rows * _COUNT.size))
            self._keys, self._values = map(self._read, (lengths[:rows], lengths[rows:]))
            self._at = self._file.tell()
            self._taken = 0
        return self._taken < len(self._keys)

    def _read(self, lengths: tuple[int, ...]) -> list[bytes]:
        data = self._file.read(sum(lengths))
        return [data[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def _blocks(keys: list[bytes], values: list[bytes]) -> Iterator[bytes]:
    """Sorted rows as blocks of about ``BLOCK_BYTES``, at least one row each."""
    ends = list(accumulate(map(len, values)))
    at = 0
    while at < len(keys):
        block_bytes = BLOCK_BYTES + (ends[at - 1] if at else 0)
        beyond = max(bisect_left(ends, block_bytes), at + 1)
        some_keys, some_values = keys[at:beyond], values[at:beyond]
        lengths = [*map(len, some_keys), *map(len, some_values)]
        yield struct.pack(f"<{1 + len(lengths)}I", beyond - at, *lengths)
        yield b"".join(some_keys)
        yield b"".join(some_values)
        at = beyond
