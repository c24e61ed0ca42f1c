"""A snapshot that is written more slowly than the server sends."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import kvstore
from kvstore.network.http2.limits import LIMITS
from kvstore.network.remote.engine import RemoteEngine
from kvstore.network.remote.snapshots import DIGEST_BYTES, WAITING_BYTES, Download
from tests.network.served_store import until

SLACK_BYTES = 1 << 20


def test_a_server_waits_for_a_slow_disk(tmp_path: Path) -> None:
    """No more waits in memory than the limit and a window; other calls go on meanwhile; then all of it comes."""
    with (
        kvstore.open(tmp_path / "store", max_request_bytes=1 << 20) as store,
        kvstore.serve(store, f"unix://{tmp_path}/s") as server,
        kvstore.connect(server.endpoints[0]) as remote,
    ):
        for number in range(24):
            store.put(b"%d" % number, number.to_bytes() * ((1 << 20) - 100))
        download = Download(cast(RemoteEngine, remote._engine)._client)
        download.start()
        data = [download.next()]
        until(lambda: download.waiting_bytes > WAITING_BYTES)
        for _ in range(20):
            remote.put(b"other", b"calls go on")
        assert download.waiting_bytes <= WAITING_BYTES + LIMITS.stream_window_bytes + SLACK_BYTES
        while part := download.next():
            data.append(part)
            assert download.waiting_bytes <= WAITING_BYTES + LIMITS.stream_window_bytes + SLACK_BYTES
        whole = b"".join(data)
        assert len(whole) > 20 << 20
        assert hashlib.sha256(whole[:-DIGEST_BYTES]).digest() == whole[-DIGEST_BYTES:]
