"""Faults that kills, fuzzing and histories have found, each kept as a case."""

from __future__ import annotations

from pathlib import Path

import kvstore


def test_history_ends_at_the_compaction_before_its_rows_are_gone(tmp_path: Path) -> None:
    """The versions of a key are the same before and after the rows of a compaction are deleted."""
    with kvstore.open(tmp_path / "store", background=False) as store:
        for number in range(4):
            store.put(b"k", b"%d" % number)
        store.put(b"gone")
        store.delete(b"gone")
        store.checkpoint()
        store.compact(store.revision)
        found = {key: [kv.mod_revision for kv in store.history(key)] for key in (b"k", b"gone")}
        assert found == {b"k": [5], b"gone": []}
        store.checkpoint()
        store.engine.compaction.run()
        assert {key: [kv.mod_revision for kv in store.history(key)] for key in found} == found
