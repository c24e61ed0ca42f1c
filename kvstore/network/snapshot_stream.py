"""A snapshot, as etcd streams it: a file of etcd's in parts, and its SHA-256 as the last of them.

    store --export--> file in the data directory, which loses its name before it is read --> the client, part by part

The export runs in a thread, and the next part is sent when the client has taken the ones before. One at a time: each
takes as much of the disk as the store has in use.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from functools import partial
from typing import BinaryIO, cast

from kvstore.engine import LocalEngine
from kvstore.errors import Compacted
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.foreign import find_foreign
from kvstore.network.call import Call, Running, decoded
from kvstore.network.dialect import V3_6
from kvstore.network.endpoint import Endpoint, Send
from kvstore.store import Reader

PART_BYTES = 32 << 10
READ_BYTES = 1 << 20
DIGEST_BYTES = 32
ATTEMPTS = 5
"""To write the file: where a compaction overtakes it, it is begun again."""

Export = tuple[BinaryIO, int]
"""A file, and how long it is without its SHA-256."""

_numbers = itertools.count()
"""Of files: a store may be served by several endpoints."""


def snapshot(endpoint: Endpoint, call: Call, message: bytes) -> Running:
    decoded(pb.SnapshotRequest, message)
    return endpoint.stream(call, partial(_snapshot, endpoint))


async def _snapshot(endpoint: Endpoint, send: Send) -> None:
    version = endpoint.dialect.cluster_version if endpoint.dialect >= V3_6 else ""

    async def send_part(blob: bytes, remaining_bytes: int) -> None:
        part = pb.SnapshotResponse(remaining_bytes=remaining_bytes, blob=blob, version=version)
        await send(part.SerializeToString())

    async with endpoint.exporting:
        file, size_bytes = await _exported(endpoint)
        with file:
            for start in range(0, size_bytes, READ_BYTES):
                data = await endpoint.worked(partial(file.read, min(READ_BYTES, size_bytes - start)))
                for at in range(0, len(data), PART_BYTES):
                    part = data[at : at + PART_BYTES]
                    await send_part(part, size_bytes - start - at - len(part))
            await send_part(await endpoint.worked(file.read), 0)


async def _exported(endpoint: Endpoint) -> Export:
    export = asyncio.ensure_future(
        endpoint.worked(partial(_export, cast(LocalEngine, endpoint.engine)), slow=True)
    )
    try:
        return await asyncio.shield(export)
    except asyncio.CancelledError:
        export.add_done_callback(_close)  # whose client has gone leaves nothing behind
        await asyncio.wait([export])  # and the next one begins when the thread is done
        raise


def _close(export: asyncio.Future[Export]) -> None:
    if not export.cancelled() and export.exception() is None:
        export.result()[0].close()


def _export(engine: LocalEngine) -> Export:
    for _ in range(ATTEMPTS - 1):
        with suppress(Compacted):
            return _written(engine)
    return _written(engine)


def _written(engine: LocalEngine) -> Export:
    path = engine.core.directory.etcd_snapshot(next(_numbers))
    try:
        exported = find_foreign("etcd").export_store(Reader(engine), path)
        return open(path, "rb"), exported.size_bytes - DIGEST_BYTES
    finally:
        engine.disk.remove(path)
