"""Damage done to a bbolt file, drawn from a generator of random numbers: what a disk, a copy or a bug may leave."""

import random
from collections.abc import Callable
from dataclasses import replace

from kvstore.migrations.etcd.bbolt_page import Meta, decode_meta, encode_meta

PAGE = 4096


def cut(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return data[: draw.randrange(PAGE, len(data))]


def zeroed_pages(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """Pages that were never written, or were erased: from one to nine tenths of them."""
    found = bytearray(data)
    for page in draw.sample(range(len(data) // PAGE), draw.choice([1, 2, 5, 20, 40, 70])):
        found[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    return bytes(found)


def zeroed_tails(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """Pages of which only some sectors reached the disk."""
    found = bytearray(data)
    for page in draw.sample(range(2, len(data) // PAGE), draw.choice([1, 3, 10])):
        at = page * PAGE + 512 * draw.randrange(1, 8)
        found[at : (page + 1) * PAGE] = bytes((page + 1) * PAGE - at)
    return bytes(found)


def swapped_pages(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """Pages in each other's place."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 3, 10])):
        one, other = draw.sample(range(len(data) // PAGE), 2)
        first, second = (slice(page * PAGE, (page + 1) * PAGE) for page in (one, other))
        found[first], found[second] = found[second], found[first]
    return bytes(found)


def stale_pages(data: bytes, earlier: bytes, draw: random.Random) -> bytes:
    """Pages as they were earlier: writes that a disk confirmed and lost."""
    found = bytearray(data)
    for page in draw.sample(range(2, len(earlier) // PAGE), draw.choice([1, 3, 10, 30])):
        found[page * PAGE : (page + 1) * PAGE] = earlier[page * PAGE : (page + 1) * PAGE]
    return bytes(found)


def garbage_pages(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """Pages of random bytes."""
    found = bytearray(data)
    for page in draw.sample(range(len(data) // PAGE), draw.choice([1, 2, 5, 20])):
        found[page * PAGE : (page + 1) * PAGE] = draw.randbytes(PAGE)
    return bytes(found)


def wrong_metas(data: bytes, earlier: bytes, draw: random.Random) -> bytes:
    """Meta pages that are damaged, in each other's place, of an earlier time, or that point to another page."""
    found = bytearray(data)
    number = draw.randrange(2)
    place = slice(number * PAGE, (number + 1) * PAGE)
    other = slice((1 - number) * PAGE, (2 - number) * PAGE)
    kind = draw.choice(["flip", "erase", "earlier", "double", "root", "freelist", "both"])
    if kind == "flip":
        found[number * PAGE + draw.randrange(80)] ^= 1 << draw.randrange(8)
    elif kind == "erase":
        found[place] = bytes(PAGE)
    elif kind == "earlier":
        found[place] = earlier[place]
    elif kind == "double":
        found[place] = found[other]
    elif kind == "both":
        found[: 2 * PAGE] = bytes(2 * PAGE)
    else:
        meta: Meta = decode_meta(data[place], 0)
        pages = len(data) // PAGE
        wrong = (
            {"root": draw.randrange(2, pages)} if kind == "root" else {"freelist": draw.randrange(pages * 2)}
        )
        found[place] = encode_meta(replace(meta, **wrong), number)
    return bytes(found)


def flipped_bits(data: bytes, _earlier: bytes, draw: random.Random) -> bytes:
    """Single bits anywhere, values included."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 4, 16, 64])):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


Damage = Callable[[bytes, bytes, random.Random], bytes]

OF_PAGES: tuple[Damage, ...] = (cut, zeroed_pages, swapped_pages, stale_pages, garbage_pages, wrong_metas)
"""Damage that leaves what is left as it was, byte for byte."""
WITHIN: tuple[Damage, ...] = (flipped_bits, zeroed_tails)
"""Damage inside of pages, which may be inside of values."""
