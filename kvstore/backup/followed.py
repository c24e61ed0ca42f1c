"""A backup as a source of replicas: a snapshot from there, and then the log, piece by piece as it arrives.

    a full look     everything at the target: which generation goes on after what is here
    a glance        its newest manifest, and the one that would be next: two small objects, each time

Every entry of the source's log is taken over as it is, under its own number, so leases, users and roles, compaction
and alarms come with it. A replica that a new generation has left behind, because the backup had a gap, begins anew.

Pieces have to follow each other by position and by the log's checksum, as in a restore.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from kvstore import wire
from kvstore.backup.catalogue import Catalogue, Generation, LogManifest, Piece, next_log_manifest_name
from kvstore.backup.errors import NotCovered
from kvstore.backup.restoring import Moment, choose, fetch
from kvstore.bell import Gate
from kvstore.errors import Corruption, WrongStore
from kvstore.files import Disk, OSDisk
from kvstore.model import EntryRequest
from kvstore.replica.engine import ReplicaEngine
from kvstore.replica.upstream import Behind, Costly, Seen
from kvstore.snapshot.restore import NewStore, Restored, restore
from kvstore.wal import format as fmt
from kvstore.wal.reader import SegmentReader

STILL_SECONDS = 45.0
"""Without news from a generation for longer than its heartbeat, all of the target is looked at."""
PIECE = "piece"


class Shelf:
    """A backup, with one replica that follows it."""

    follows_entries = True

    def __init__(self, shelf: Catalogue, where: str, disk: Disk | None = None) -> None:
        """Raises ``NotCovered`` (there is no complete backup), ``TargetFailed``, ``WrongKey``, ``TooNew``."""
        self._shelf = shelf
        self._where = where
        self._disk = disk or OSDisk()
        self._going: Generation | None = None
        self._index = 0
        """The last entry that was taken."""
        self._revision = 0
        """The store's at that entry."""
        self._at = 0
        """The next piece of the generation."""
        self._chain: int | None = None
        """The log's checksum there; None: not known."""
        self._folder = Path()
        self._news_at = 0.0
        self._closed = Gate()
        self._generations = self._look()

    def _look(self) -> list[Generation]:
        found = self._shelf.generations()
        if not found:
            raise NotCovered(f"{self._where}: there is no complete backup there")
        self._news_at = time.monotonic()
        return found

    def identify(self) -> int:
        return self._generations[-1].snapshot.cluster_id

    def close(self) -> None:
        self._closed.open()

    # --- from scratch -----------------------------------------------------------------

    def fetch(self, folder: Path) -> None:
        self._generations = self._look()
        fetch(self._shelf, choose(self._generations, Moment()), Moment(), folder, self._disk)

    def build(self, folder: Path, data_dir: Path, new: NewStore, disk: Disk) -> Restored:
        return restore(folder / "snapshot", data_dir, new, archives=[folder], disk=disk)

    # --- what comes next --------------------------------------------------------------

    def begin(self, engine: ReplicaEngine) -> None:
        self._index, self._revision = engine.state.index, engine.state.head
        self._folder = engine.core.directory.replica
        self._go_on()

    def _go_on(self) -> None:
        self._going, self._at = self._continuing(), 0

    def _continuing(self) -> Generation:
        """The newest generation that goes on after the last entry here. Raises ``Behind``, ``WrongStore``."""
        newest = self._generations[-1]
        for generation in reversed(self._generations):
            may_grow = generation is newest or not newest.pieces
            if self._continues(generation) and self._index < generation.index + may_grow:
                return generation
        if newest.revision < self._revision:
            raise WrongStore(
                f"{self._where} ends at revision {newest.revision}, and the replica at {self._revision}: the backup is "
                "of an older copy; make a new replica of it"
            )
        raise Behind(f"no generation at {self._where} goes on after entry {self._index}")

    def _continues(self, generation: Generation) -> bool:
        """Whether a generation has, or will have, what comes after the last entry here, as far as numbers tell.

        Where the copy of a cluster was made anew, its log numbers entries anew: then the revision is another.
        """
        first, before, after = (
            generation.snapshot.index + 1,
            generation.snapshot.revision,
            generation.revision,
        )
        if generation.pieces:
            first = generation.pieces[0].segment
            before = max((p.revision for p in generation.pieces if p.last_index <= self._index), default=0)
            after = min((p.revision for p in generation.pieces if p.last_index >= self._index), default=after)
        return first <= self._index + 1 and before <= self._revision <= after

    def take(self, timeout_seconds: float) -> list[Costly]:
        found = self._taken()
        if not found and timeout_seconds:
            self._closed.wait(timeout_seconds)
            self._glance()
            found = self._taken()
        return found

    def look(self) -> Seen | None:
        self._glance()
        assert self._going is not None
        if self._going.index > self._index:
            return None
        return Seen(self._going.revision, self._going.complete_at_ms)

    def tend(self, _: ReplicaEngine) -> list[Costly]:
        return []

    # --- manifests --------------------------------------------------------------------

    def _glance(self) -> None:
        """See what is new in the generation that goes on; after a while without news, in all of the target."""
        going = self._going
        assert going is not None
        newest = going.newest_manifest
        manifest = self._shelf.log_manifest(newest) if newest else None
        following = self._shelf.log_manifest(next_log_manifest_name(newest)) if newest else None
        if following is not None:
            going.newest_manifest = next_log_manifest_name(newest)
        is_new = [self._add(going, each) for each in (manifest, following) if each is not None]
        if any(is_new):
            self._news_at = time.monotonic()
        is_over = going.index <= self._index and going.name != self._generations[-1].name
        if is_over or not newest or time.monotonic() - self._news_at > STILL_SECONDS:
            self._generations = self._look()
            self._go_on()

    def _add(self, going: Generation, manifest: LogManifest) -> bool:
        """Add what a manifest has more than is known. Returns whether it has."""
        before = going.index, going.complete_at_ms
        for piece in manifest.pieces:
            if piece.last_index > going.index and _follows(going.pieces, piece):
                going.pieces.append(piece)
        if manifest.index <= going.index:
            going.complete_at_ms = max(going.complete_at_ms, manifest.complete_at_ms)
        return before != (going.index, going.complete_at_ms)

    # --- pieces -----------------------------------------------------------------------

    def _taken(self) -> list[Costly]:
        """The entries of the next piece."""
        assert self._going is not None
        pieces = self._going.pieces
        while self._at < len(pieces) and pieces[self._at].last_index <= self._index:
            self._at += 1
        if self._at == len(pieces):
            return []
        self._check_chain(pieces)
        found = self._entries(pieces[self._at])
        return [Costly(EntryRequest(number, entry), len(entry)) for number, entry in found]

    def _check_chain(self, pieces: list[Piece]) -> None:
        """Raise ``WrongStore`` if the next piece begins right after the last entry here, and continues another log."""
        piece = pieces[self._at]
        before = (
            piece.segment - 1 if piece.start == 0 else pieces[self._at - 1].last_index if self._at else -1
        )
        if before == self._index and self._chain not in (None, piece.chain_before):
            raise WrongStore(
                f"{self._where} goes on after entry {self._index} with another log than the replica: it is another "
                "history; make a new replica of it"
            )

    def _entries(self, piece: Piece) -> Iterator[tuple[int, bytes]]:
        """The entries of a piece after the last that was taken. Raises ``Corruption``."""
        for frame in self._frames(piece, self._shelf.get(piece.name, piece.sha256)):
            if frame.kind != fmt.BATCH:
                continue
            try:
                batch = fmt.decode_batch(frame.data)
            except wire.WireError as error:
                raise Corruption(str(error), piece.name, frame.offset) from None
            for number, entry in enumerate(batch.entries, batch.first_index):
                if number > self._index:
                    yield number, entry
        self._index, self._revision, self._chain = piece.last_index, piece.revision, piece.chain

    def _frames(self, piece: Piece, data: bytes) -> Iterator[fmt.Frame]:
        """The records of a piece, each checked at its place in the segment."""
        assert self._going is not None
        path = self._folder / PIECE
        self._disk.remove(path)
        file = self._disk.create(path)
        try:
            file.pwrite(data, piece.start)
        finally:
            file.close()
        cluster_id = self._going.snapshot.cluster_id
        try:
            with SegmentReader(path) as reader:
                if piece.start:
                    reader.expect(cluster_id, piece.segment)
                    reader.end, reader.chain = piece.start, piece.chain_before
                else:
                    reader.head(cluster_id, piece.segment)
                yield from reader.frames()
                if reader.end != piece.end or reader.chain != piece.chain:
                    raise Corruption("its records are not those that its manifest says", piece.name)
        except fmt.BadFrame as bad:
            raise Corruption(bad.reason, piece.name, bad.offset) from None
        finally:
            self._disk.remove(path)


def _follows(pieces: list[Piece], piece: Piece) -> bool:
    """Whether a piece begins where the last one ends, with the checksum that the log had there."""
    if not pieces:
        return piece.start == 0
    last = pieces[-1]
    if piece.chain_before != last.chain:
        return False
    return (piece.segment, piece.start) in ((last.segment, last.end), (last.last_index + 1, 0))
