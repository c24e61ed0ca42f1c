"""A process patched by gevent (gunicorn, celery): its threads are greenlets of one thread. The store works there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gevent", reason="gevent is not installed (it is large, and nothing else here needs it)")

CODE = """
from gevent import monkey; monkey.patch_all()
import gevent, kvstore, sys
path, backend = sys.argv[1:]
with kvstore.open(path + "/data", backend) as store:
    def write(number):
        for at in range(20):
            store.put(b"%d/%d" % (number, at), b"v")
    with store.watch(prefix=b"") as events:
        writers = [gevent.spawn(write, number) for number in range(5)]
        gevent.joinall(writers, raise_error=True)
        assert [events.get(20).kv.mod_revision for _ in range(100)] == list(range(2, 102))
    assert store.txn([kvstore.version(b"0/0") == 1], [kvstore.ops.put(b"t", b"1")]).succeeded
    lease = store.grant_lease(60).id
    store.put(b"leased", lease=lease)
    store.revoke_lease(lease)
    assert store.get(b"leased") is None
    assert store.count(prefix=b"") == 101
    store.checkpoint()
    assert store.snapshot(path + "/copy.snap").revision == store.revision
    assert store.snapshot().revision == store.revision
    store.compact(store.revision, physical=True)
    store.defragment()
    store.put(b"after")
with kvstore.open(path + "/data", backend) as store:
    assert store.count(prefix=b"") == 102
kvstore.restore(path + "/copy.snap", path + "/restored")
print("done")
"""

SERVED = """
from gevent import monkey; monkey.patch_all()
import gevent, kvstore, sys
from urllib.request import urlopen
path, backend = sys.argv[1:]
with kvstore.open(path + "/data", backend) as store, kvstore.serve(store, "http://127.0.0.1:0") as server:
    (url,) = server.endpoints
    assert b"true" in urlopen(url + "/health").read()
    try: kvstore.connect(url.replace("http", "etcd"))
    except kvstore.Unsupported: pass
try: kvstore.open(path + "/shared", backend, shared=True)
except kvstore.Unsupported: pass
with kvstore.open(path + "/shared", backend) as store:
    store.put(b"k")
print("done")
"""


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
@pytest.mark.parametrize("code", [CODE, SERVED], ids=["opened", "served"])
def test_everything_works_under_gevent(tmp_path: Path, code: str, backend: str) -> None:
    """Writes, watches, leases, checkpoints, snapshots, compaction, defragmentation, closing, restoring; one server."""
    command = [sys.executable, "-c", code, str(tmp_path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "done\n", done.stderr
