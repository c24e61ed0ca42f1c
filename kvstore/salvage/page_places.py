"""Where the pages of a file lie, if its first bytes are missing or others stand before them.

Pages that carry their own number tell: page n of a file whose page 0 would begin at byte z is at z + n * size, so all
sound pages agree on z, whatever else happened to the file. z is below 0 where the beginning is missing. What only
looks like a page is at odds with all others.

Headers are searched for in windows spread over the file: there are many in each, unless values are large.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

WINDOW_BYTES = 64 << 10
WINDOWS = 256
AGREEING_PAGES = 2
"""So many at least: one page agrees with itself."""
LOST_BYTES_MAX = 64 << 30
"""No file has lost more of its beginning: what says so only looks like a page."""


def spread(count: int, most: int) -> range:
    """At most so many of the first ``count`` numbers, spread over all of them."""
    return range(0, count, max(1, -(-count // most)))


def find_pages(
    read: Callable[[int, int], bytes], file_bytes: int, header: re.Pattern[bytes], sizes: Iterable[int]
) -> tuple[int, int] | None:
    """(page size, where page 0 is or would be); None if no two pages agree.

    ``read`` gives the bytes of the file from one place to another. ``header`` matches where a header may begin, without
    taking bytes; its first group is the page's number, little-endian.
    """
    votes: Counter[tuple[int, int]] = Counter()
    for window in spread(-(-file_bytes // WINDOW_BYTES), WINDOWS):
        at = window * WINDOW_BYTES
        for match in header.finditer(read(at, at + 2 * WINDOW_BYTES)):
            if match.start() >= WINDOW_BYTES:
                break
            number = int.from_bytes(match[1], "little")
            places = ((size, at + match.start() - number * size) for size in sizes)
            votes.update(place for place in places if place[1] >= -LOST_BYTES_MAX)
    place, agreeing = max(votes.items(), key=lambda item: item[1], default=((0, 0), 0))
    return place if agreeing >= AGREEING_PAGES else None
