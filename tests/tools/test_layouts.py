"""Other layouts of the tables: they answer as today's do, so that what is measured of them is worth comparing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kvstore.tools.lab.layouts import __main__ as command
from kvstore.tools.lab.layouts.base import Layout
from kvstore.tools.lab.layouts.measure import LAYOUTS, UNITS, measure

from kvstore import ops

KEYS = [b"key/%d" % number for number in range(12)] + [b"nul\0", b"nul\0\0x"]
COMPACTED = 30


def _answers(layout: Layout, path: Path, backend: str) -> object:
    """The same life under a layout: gets and ranges at every kept revision, and the changes, then the same once more
    after a compaction beneath the store."""
    draw = random.Random(7)
    with layout.open(path, backend) as store:
        for number in range(80):
            if draw.random() < 0.3:
                store.delete(draw.choice(KEYS))
            else:
                value = b"v" * draw.choice((0, 20, 1000))
                store.txn(success=[ops.put(key, value) for key in draw.sample(KEYS, draw.choice((1, 3)))])
            if number % 9 == 0:
                store.checkpoint()
        store.checkpoint()
        engine, newest = store.engine, store.revision
        found: list[object] = []
        for oldest in (2, COMPACTED):
            found += [store.get(key, revision=at) for key in KEYS for at in range(oldest, newest + 1)]
            found += [list(store.range(prefix=b"", revision=at).kvs) for at in range(oldest, newest + 1)]
            found += [
                list(store.range(b"key/3", b"nul\0\0", revision=at).kvs) for at in range(oldest, newest)
            ]
            changes = layout.replay(engine.state, oldest + 1, newest)
            found.append([change for page in changes for change in page])
            layout.compact(engine.backend, 0, COMPACTED)
    return found


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_every_layout_answers_as_todays_tables_do(scratch: Path, backend: str) -> None:
    """Newest and past, through deletes, re-creations, several changes of a key in one checkpoint, and a compaction."""
    today, *others = LAYOUTS
    expected = _answers(today, scratch / today.name, backend)
    for layout in others:
        assert _answers(layout, scratch / layout.name, backend) == expected, layout.name


def test_every_figure_is_taken_of_every_layout(scratch: Path) -> None:
    """A tiny run; and the table has a line for each figure."""
    found = measure(scratch, "lmdb", keys=400, changes=200, rounds=1, say=lambda _: None)
    assert all(figures.keys() == UNITS.keys() for figures in found.values())
    assert len(command.table("a title", found).splitlines()) == 2 + len(UNITS)
