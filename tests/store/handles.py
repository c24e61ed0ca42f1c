"""Every call of a store, and a Python of its own to make some in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import kvstore
from kvstore import Store
from tests.store.folders import PATIENCE_SECONDS, PERSISTENT

BACKENDS = [*PERSISTENT, "memory"]


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", program, *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


CALLS: list[Callable[[Store], Any]] = [
    lambda store: store.get(b"k"),
    lambda store: store.get(b"k", revision=2),
    lambda store: store.range(b"k"),
    lambda store: list(store.scan(prefix=b"")),
    lambda store: list(store.history(b"k")),
    lambda store: list(store.diff(1)),
    lambda store: store.at(2),
    lambda store: store.count(prefix=b""),
    lambda store: store.hash_kv(),
    lambda store: store.put(b"k"),
    lambda store: store.put_nowait(b"k"),
    lambda store: store.delete(b"k"),
    lambda store: store.txn(success=[kvstore.ops.put(b"k")]),
    lambda store: store.txn(success=[kvstore.ops.get(b"k")]),
    lambda store: store.grant_lease(10),
    lambda store: store.revoke_lease(1),
    lambda store: store.keep_alive(1),
    lambda store: store.lease_time_to_live(1),
    lambda store: store.leases(),
    lambda store: store.compact(2),
    lambda store: store.checkpoint(),
    lambda store: store.alarms(),
    lambda store: store.snapshot(),
]
