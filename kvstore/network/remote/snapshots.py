"""A snapshot of a store elsewhere: what the server streams, written to a file that is checked before it has its name.

    Maintenance.Snapshot ──parts──> <path>.tmp, synced ──SHA-256, then every row──> <path>

The last 32 bytes are the SHA-256 of all before them, and stay in the file, as ``etcdctl snapshot save`` leaves them.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from kvstore.backend import Progress
from kvstore.bell import Bell
from kvstore.errors import BadArgument, Corruption, KVStoreError, Unavailable
from kvstore.etcdpb.messages import etcdserverpb
from kvstore.files import Disk, OSDisk
from kvstore.network.remote.methods import SNAPSHOT
from kvstore.network.remote.streams import Stream, Streams
from kvstore.snapshot.formats import inspect
from kvstore.snapshot.reader import SnapshotInfo

DIGEST_BYTES = 32
SILENT_SECONDS = 60.0
"""In which a part has to come. A server may write the whole file before it sends the first."""
WAITING_BYTES = 4 << 20
"""What may wait for the disk before the server is told to stop, until half of it is written."""


class Client(Streams, Protocol):
    def check(self) -> None: ...


class Download:
    """The parts as they come: received on the client's loop, taken by the thread that writes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bell = Bell()
        self._stream: Stream | None = None
        self._parts: deque[bytes] = deque()
        self._error: KVStoreError | None = None
        self._has_ended = False
        self._received_bytes = self._taken_bytes = 0
        """Each is counted by one thread."""
        self._is_held = False
        self.remaining_bytes = 0

    def start(self) -> None:
        self._client.soon(self._open)

    def cancel(self) -> None:
        self._client.soon(self._cancel)

    @property
    def waiting_bytes(self) -> int:
        """What was received and is not taken."""
        return self._received_bytes - self._taken_bytes

    # --- on the client's loop ---------------------------------------------------------

    def _open(self) -> None:
        self._stream = self._client.open(SNAPSHOT, self)
        self._stream.send(b"")
        self._stream.finish()

    def _cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def _hold(self) -> None:
        """Have the server stop, or go on."""
        is_full = self.waiting_bytes > (WAITING_BYTES // 2 if self._is_held else WAITING_BYTES)
        if self._stream is not None and is_full is not self._is_held:
            self._is_held = is_full
            self._stream.hold(is_full)
            self._bell.ring()  # whoever takes has perhaps taken everything meanwhile

    def received(self, message: bytes) -> None:
        try:
            part = etcdserverpb.SnapshotResponse.FromString(message)
        except DecodeError as error:
            self.ended(Corruption(f"a part of the snapshot is no message: {error}", "the server"))
            return
        self.remaining_bytes = part.remaining_bytes
        self._received_bytes += len(part.blob)
        self._parts.append(part.blob)
        self._bell.ring()
        self._hold()

    def ended(self, error: KVStoreError | None) -> None:
        self._error = self._error or error
        self._has_ended = True
        self._bell.ring()

    # --- on the thread that writes ----------------------------------------------------

    def next(self) -> bytes:
        """The next part; empty at the end. Waits. Raises what ended it early."""
        while True:
            has_ended = self._has_ended
            if self._parts:
                part = self._parts.popleft()
                self._taken_bytes += len(part)
                self._go_on()
                return part
            if has_ended:
                if self._error is not None:
                    raise self._error
                return b""
            self._go_on()
            if not self._bell.wait(SILENT_SECONDS):
                raise Unavailable(f"no part of the snapshot in {SILENT_SECONDS:g} seconds")

    def _go_on(self) -> None:
        if self._is_held and self.waiting_bytes <= WAITING_BYTES // 2:
            self._client.soon(self._hold)


def take(
    client: Client, path: str | os.PathLike[str] | None, progress: Progress | None, disk: Disk | None = None
) -> SnapshotInfo:
    """Write a verified snapshot to ``path``. Raises ``Corruption``, ``DiskFull``, ``Unavailable``."""
    client.check()
    if path is None:
        raise BadArgument("path: a store elsewhere keeps no snapshots here; say where the file goes")
    disk = disk or OSDisk()
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    if target.is_dir():
        raise BadArgument(f"path: {target} is a directory")
    try:
        _download(client, temporary, progress, disk)
        info = inspect(temporary, verified=True)
        disk.rename(temporary, target)
    except BaseException:
        if os.path.lexists(temporary):
            disk.remove(temporary)
        raise
    disk.sync_dir(target.absolute().parent)
    return replace(info, path=target)


def _download(client: Client, path: Path, progress: Progress | None, disk: Disk) -> None:
    download = Download(client)
    if os.path.lexists(path):
        disk.remove(path)
    file = disk.create(path)
    try:
        download.start()
        digest, tail, offset = hashlib.sha256(), b"", 0
        while part := download.next():
            file.pwrite(part, offset)
            offset += len(part)
            tail += part
            digest.update(tail[:-DIGEST_BYTES])
            tail = tail[-DIGEST_BYTES:]
            if progress is not None:
                progress(offset, offset + download.remaining_bytes)
        if offset <= DIGEST_BYTES or digest.digest() != tail:
            raise Corruption(
                "the snapshot's SHA-256 does not match its content: it was cut short or changed", path
            )
        file.sync()
    finally:
        download.cancel()
        file.close()
