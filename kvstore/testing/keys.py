"""Keys that are likely to come out in the wrong order somewhere."""

LONG = 511  # LMDB's longest key, but also fair to a backend with another limit
SLICE = 502  # what our LMDB backend cuts longer keys into

PLAIN = [b"a", b"b", b"ab", b"abc", b"k1", b"k10", b"k2"]
EDGES = [b"\0", b"\0\0", b"\xff", b"\xff\xff", b"a\0", b"a\0\0", b"a\0b", b"a\xff", b"\x7f", b"\x80"]
AT_THE_LIMIT = [bytes([byte]) * size for byte in (0, 97, 255) for size in range(LONG - 2, LONG + 3)]
PREFIXES = [b"p" * size for size in (1, 2, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, 2 * SLICE + 1, 3 * SLICE)]
COUSINS = [
    b"q" * shared + tail
    for shared in (LONG - 1, LONG, 2 * SLICE, 3000)
    for tail in (b"", b"\0", b"\0\0", b"\1", b"a", b"\xff", b"\xff" * 20, b"\0" * 600, b"z" * 600)
]
NASTY = sorted({*PLAIN, *EDGES, *AT_THE_LIMIT, *PREFIXES, *COUSINS})
HUGE = [b"h" * (3 << 19), b"h" * (3 << 19) + b"\0", b"h" * ((3 << 19) - 1) + b"a", b"h" * (3 << 19) + b"h"]
