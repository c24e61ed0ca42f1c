"""Following a store: its log goes to the target piece by piece, and now and then a snapshot.

    look      open the log's new segments, so that none goes before it has arrived
    ship      read the records after the last piece, sync them, put a piece, then the manifest that names it
    begin     where there is no generation to go on with: a snapshot, put chunk by chunk while the log of the generation
              before still goes on, and reaches as far as the snapshot; then ship

Everything that was durable when a step began is at the target when it ends; ``lag`` is the time since the last such
moment. A step that fails changes nothing but the names that are used up, and the next one goes on: what it had not
published, nobody has seen.

The target may be away for as long as it likes. What has not arrived is held: segments that the store releases meanwhile
stay on the disk until this lets go. Beyond ``hold_bytes``, or when the disk has no more room than that left, it does,
for a store that cannot write because of its backup would be worse; then nothing more of this generation comes, which
its manifests say, and the next begins with a fresh snapshot as soon as the target answers. A process that ends lets go
too, and finds out when it comes back whether the log still goes on. So a moment is either in a generation, or between
two, where a restore refuses it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from kvstore.backup import catalogue as named
from kvstore.backup.catalogue import (
    Catalogue,
    Chunk,
    Generation,
    LogManifest,
    Piece,
    SnapshotManifest,
    Verified,
)
from kvstore.backup.errors import WrongKey
from kvstore.backup.keeping import HOUR_MS, Keep
from kvstore.backup.pieces import Content, Gap, HeldLog, Place, joint, read_pieces
from kvstore.backup.sources import Source
from kvstore.core import BackupStatus
from kvstore.errors import StoreClosed, WrongStore, said_of
from kvstore.files import Disk, OSDisk, free_bytes
from kvstore.following import sync_log
from kvstore.ongoing import Ongoing
from kvstore.options import check_bounds
from kvstore.snapshot.reader import SnapshotInfo

logger = logging.getLogger("kvstore.backup")

PIECES_MOST = 256
"""Pieces in one manifest, which is put again with each."""
LOG_SHARE = 4
LOG_BYTES_LEAST = 256 << 20
"""A new generation begins when the log of the last has outgrown its snapshot this many times, but not below this."""
HEARTBEAT_SECONDS = 30.0
"""How often a manifest is put when there is nothing new, so that others see that the backup is complete."""
RETRY_SECONDS_MAX = 60.0
STALE_MS = 60_000
PRUNE_SECONDS = 600.0
VERIFIED_SECONDS = 600.0
"""How often it is looked whether somebody has verified the backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a backup goes on."""

    interval_seconds: float = 1.0
    """How often the log is looked at: about what a lost machine costs."""
    snapshot_seconds: float = 86_400.0
    """A new generation begins at least this often, if there were writes."""
    hold_bytes: int = 1 << 30
    """Released segments kept on the disk for a target that is away."""
    piece_bytes: int = 8 << 20
    chunk_bytes: int = 16 << 20
    keep: Keep | None = None
    """None: everything."""
    work_dir: str = ""
    """Where a snapshot lies on its way, as large as the store; default: the system's temporary directory."""

    def __post_init__(self) -> None:
        if self.work_dir:
            object.__setattr__(self, "work_dir", os.path.abspath(self.work_dir))
        check_bounds("interval_seconds", self.interval_seconds, 0.01, 86_400)
        check_bounds("snapshot_seconds", self.snapshot_seconds, 1, 10 * 366 * 86_400)
        check_bounds("hold_bytes", self.hold_bytes, 0, 1 << 60)
        check_bounds("piece_bytes", self.piece_bytes, 1, 1 << 30)
        check_bounds("chunk_bytes", self.chunk_bytes, 1, 1 << 30)


@dataclass(slots=True)
class _Draft:
    """A generation whose snapshot is on its way."""

    name: str
    path: Path
    info: SnapshotInfo
    time_ms: int
    complete_at_ms: int
    chunks: list[Chunk]


@dataclass(slots=True)
class _Going:
    """The generation that goes on."""

    name: str
    snapshot: SnapshotManifest
    place: Place | None
    log_bytes: int
    complete_at_ms: int
    part: int = 0
    pieces: tuple[Piece, ...] = ()
    """Those of the current part."""


class Follower(Ongoing):
    """Follows one store, to one target. ``step`` and ``close`` may be called from any thread."""

    thread_name = "kvstore-backup"
    logger = logger
    waits = "the backup waits"
    retry_seconds_max = RETRY_SECONDS_MAX

    def __init__(
        self,
        source: Source,
        shelf: Catalogue,
        settings: Settings,
        *,
        disk: Disk | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        super().__init__(settings.interval_seconds, settings.interval_seconds)
        self._source = source
        self._shelf = shelf
        self._settings = settings
        self._disk = disk or OSDisk()
        self._now_ms = now_ms
        self._log = HeldLog(source.directory.wal, source.cluster_id)
        self._run = os.urandom(4).hex()
        self._number = 0
        self._work = Path(settings.work_dir or tempfile.gettempdir()) / f"kvstore-backup-{self._run}"
        self._going: _Going | None = None
        self._draft: _Draft | None = None
        self._has_looked = False
        self._complete_at_ms = 0
        self._revision = 0
        self._began_ms = now_ms()
        self._claimed_at = float("-inf")
        self._pruned_at = 0.0
        self._verified: Verified | None = None
        self._verified_look_at = float("-inf")
        self._error = ""
        self._held_bytes = 0
        self._stepping = threading.Lock()
        self._is_closed = False
        source.watched_by.append(self.status)

    def status(self) -> BackupStatus:
        going = self._going
        since_ms = self._complete_at_ms or self._began_ms
        return BackupStatus(
            generation=going.name if going else "",
            revision=self._revision,
            complete_at_ms=self._complete_at_ms,
            lag_seconds=max(0, self._now_ms() - since_ms) / 1000,
            held_bytes=self._held_bytes,
            error=self._error,
            verified_at_ms=self._verified.at_ms if self._verified else 0,
            damage=self._verified.damage if self._verified else "",
        )

    # --- one step ---------------------------------------------------------------------

    def step(self) -> None:
        """Bring the target up to what is durable now. Raises ``TargetFailed`` and what reading the store raises."""
        with self._stepping:
            if self._is_closed:
                raise StoreClosed("the backup is closed")
            try:
                self._log.look()
                self._step()
                self._error = ""
            except Exception as error:
                self._error = said_of(error)
                self._check_held()
                raise
            finally:
                self._held_bytes = self._log.released_bytes

    def _step(self) -> None:
        if not self._has_looked:
            self._resume()
        if self._going is not None:
            self._ship_or_end()
        if self._draft is not None or self._going is None or self._is_old(self._going):
            self._begin()
            self._ship()
        self._prune()
        if time.monotonic() - self._verified_look_at >= VERIFIED_SECONDS:
            self._verified, self._verified_look_at = self._shelf.verified(), time.monotonic()

    def _resume(self) -> None:
        """Go on with the newest generation, if this log still continues it."""
        contents = self._shelf.contents()
        generations = contents.generations
        if contents.broken and not generations and self._shelf.has_key:
            raise WrongKey(f"nothing at the target can be read with this key: {contents.broken[-1].reason}")
        for generation in generations:
            if generation.snapshot.cluster_id != self._source.cluster_id:
                raise WrongStore(
                    f"the target has backups of another store ({generation.snapshot.cluster_id:016x}): "
                    "give each store a place of its own"
                )
        last = generations[-1] if generations else None
        is_whole = (
            last is not None and not last.damage and not any(b.name > last.name for b in contents.broken)
        )
        if last is not None and is_whole and (last.pieces or self._follows(last.snapshot)):
            place = None
            if last.pieces:
                place = Place(**{each.name: getattr(last.pieces[-1], each.name) for each in fields(Place)})
            self._going = _Going(last.name, last.snapshot, place, last.log_bytes, last.complete_at_ms)
            self._complete_at_ms, self._revision = last.complete_at_ms, last.revision
        self._has_looked = True

    def _follows(self, snapshot: SnapshotManifest) -> bool:
        """Whether the log goes on after the snapshot, of which no piece has arrived: its follower was killed."""
        there = joint(self._log.look(), snapshot.index, snapshot.member_id)
        return there is not None and there == snapshot.joint

    def _ship_or_end(self) -> None:
        try:
            self._ship()
        except Gap as gap:
            logger.warning("a new generation begins: %s", gap)
            self._end()

    def _end(self) -> None:
        """Go on with a new generation, from a fresh snapshot."""
        self._going = None
        self._drop_draft()
        self._log.close()
        self._log.look()

    def _ship(self) -> None:
        """Put everything that the log has after the last piece, and say so."""
        going = self._going
        assert going is not None
        as_of_ms = self._source.as_of_ms(self._now_ms())
        files, snapshot, limit = self._log.look(), going.snapshot, self._settings.piece_bytes
        is_new = False
        for content in read_pieces(
            files, snapshot.index, snapshot.revision, going.place, limit, snapshot.member_id
        ):
            is_new = True
            self._publish(going, self._put_piece(going, content), content.place)
        if is_new or time.monotonic() - self._claimed_at >= HEARTBEAT_SECONDS:
            self._claim(going, max(as_of_ms, going.complete_at_ms), going.pieces)
        going.complete_at_ms = max(as_of_ms, going.complete_at_ms)
        self._complete_at_ms = max(going.complete_at_ms, self._complete_at_ms)
        if going.place is not None and self._draft is None:
            self._log.let_go(going.place.segment)

    def _put_piece(self, going: _Going, content: Content) -> Piece:
        sync_log(self._disk, self._source.directory.wal)
        self._number += 1
        name = named.piece_name(going.name, self._run, self._number, content.first_index)
        sha256 = self._shelf.put(name, content.data)
        known = {each.name: getattr(content.place, each.name) for each in fields(Place)}
        return Piece(
            name=name, start=content.start, chain_before=content.chain_before, sha256=sha256, **known
        )

    def _publish(self, going: _Going, piece: Piece, place: Place) -> None:
        if len(going.pieces) >= PIECES_MOST:
            going.part, going.pieces = going.part + 1, ()
        pieces = (*going.pieces, piece)
        self._claim(going, going.complete_at_ms, pieces, place.last_index)
        going.pieces, going.place = pieces, place
        going.log_bytes += piece.end - piece.start
        self._revision = max(self._revision, place.revision)

    def _claim(
        self, going: _Going, complete_at_ms: int, pieces: tuple[Piece, ...], last_index: int = 0
    ) -> None:
        index = last_index or (going.place.last_index if going.place else going.snapshot.index)
        name = named.log_manifest_name(going.name, self._run, going.part)
        try:
            self._shelf.put_manifest(name, named.log_content(LogManifest(complete_at_ms, index, pieces)))
        except BaseException:
            going.part += 1  # that put may still be done, late: never put a newer one under the same name
            raise
        self._claimed_at = time.monotonic()

    # --- a generation -----------------------------------------------------------------

    def _is_old(self, going: _Going) -> bool:
        verified = self._verified
        if verified is not None and verified.damage and verified.at_ms > going.snapshot.time_ms:
            logger.error("a new generation begins, for the last is damaged: %s", verified.damage)
            return True
        if going.place is None or going.place.last_index <= going.snapshot.index:
            return False
        if self._now_ms() - self._source.as_of_ms(self._now_ms()) > STALE_MS:
            return False  # a copy whose source is away: a generation begins when it is complete again
        if self._now_ms() - going.snapshot.time_ms >= self._settings.snapshot_seconds * 1000:
            return True
        return going.log_bytes >= max(LOG_BYTES_LEAST, LOG_SHARE * going.snapshot.size_bytes)

    def _begin(self) -> None:
        draft = self._draft or self._take_snapshot()
        self._draft = draft
        shipped_at = time.monotonic()
        with open(draft.path, "rb") as file:
            file.seek(sum(chunk.size_bytes for chunk in draft.chunks))
            while data := file.read(self._settings.chunk_bytes):
                name = named.chunk_name(draft.name, len(draft.chunks))
                draft.chunks.append(Chunk(name, len(data), self._shelf.put(name, data)))
                if (
                    self._going is not None
                    and time.monotonic() - shipped_at >= self._settings.interval_seconds
                ):
                    self._ship()
                    shipped_at = time.monotonic()
        if self._going is not None:  # up to where the next begins, so that no moment is between the two
            self._claimed_at = float("-inf")
            self._ship()
        manifest = SnapshotManifest(
            cluster_id=draft.info.cluster_id,
            backend=draft.info.backend,
            index=draft.info.index,
            revision=draft.info.revision,
            time_ms=draft.time_ms,
            size_bytes=draft.info.size_bytes,
            chunks=tuple(draft.chunks),
            complete_at_ms=draft.complete_at_ms,
            member_id=draft.info.member_id,
            joint=joint(self._log.look(), draft.info.index, draft.info.member_id),
        )
        name = named.snapshot_manifest_name(draft.name)
        self._shelf.put_manifest(name, named.snapshot_content(manifest))
        self._going = _Going(draft.name, manifest, None, 0, manifest.complete_at_ms)
        self._complete_at_ms = max(self._complete_at_ms, manifest.complete_at_ms)
        # What was written beside the snapshot is claimed with the first look.
        self._claimed_at = float("-inf")
        self._revision = max(self._revision, manifest.revision)
        self._drop_draft()
        logger.info("generation %s begins at revision %d", draft.name, manifest.revision)

    def _take_snapshot(self) -> _Draft:
        self._disk.make_dir(self._work)
        name = named.generation_name(self._now_ms(), os.urandom(4).hex())
        path = self._work / name
        complete_at_ms = max(self._source.as_of_ms(self._now_ms()), 1)
        info = self._source.snapshot(path)
        return _Draft(name, path, info, max(self._now_ms(), info.created_ms), complete_at_ms, [])

    def _drop_draft(self) -> None:
        self._draft = None
        with suppress(FileNotFoundError):
            for path in os.listdir(self._work):
                self._disk.remove(self._work / path)
        self._disk.remove_dir(self._work)

    # --- limits -----------------------------------------------------------------------

    def _check_held(self) -> None:
        """Let go of what is held for a target that is away, if it is too much."""
        held_bytes = self._log.released_bytes
        if not held_bytes:
            return
        if held_bytes > self._settings.hold_bytes or free_bytes(self._source.directory.wal) < held_bytes:
            if self._going is not None or self._draft is not None:
                logger.error(
                    "the target is away, and %d bytes of log are no longer held for it: when it is back, a new "
                    "generation begins, and the time until then will be in none",
                    held_bytes,
                )
            self._has_looked = False  # no snapshot is taken before the target answers
            self._end()

    def _prune(self) -> None:
        if self._settings.keep is None or (
            time.monotonic() - self._pruned_at < PRUNE_SECONDS and self._pruned_at
        ):
            return
        prune(self._shelf, self._settings.keep, self._now_ms())
        self._pruned_at = time.monotonic()

    # --- by itself --------------------------------------------------------------------

    def _take_step(self) -> None:
        self.step()

    def _wait(self, seconds: float) -> None:
        """Wait, and look at the log meanwhile as often as always: a segment must not go unseen."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._bell.wait(min(left, self._settings.interval_seconds))
            if left > self._settings.interval_seconds:
                with self._stepping, suppress(Exception):
                    self._log.look()
                    self._check_held()
                    self._held_bytes = self._log.released_bytes

    def close(self) -> None:
        """End. If the last step succeeded, what is durable by now is brought to the target before.

        So it is if the thread was stopped before its first step: a process that ends at once has a backup, too.
        """
        self.end()
        with self._stepping:
            is_wanted = self._going is not None or self._was_begun
            if is_wanted and not self._error and not self._is_closed:
                self._last_step()
            self._is_closed = True
            self._drop_draft()
            self._log.close()
        with suppress(ValueError):  # closed before
            self._source.watched_by.remove(self.status)

    def _last_step(self) -> None:
        try:
            self._log.look()
            if self._going is None:
                self._step()
            else:
                self._ship()
        except Exception as error:
            self._error = said_of(error)
            logger.warning("the backup is not complete: %s", self._error)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prune(shelf: Catalogue, keep: Keep, now_ms: int) -> list[str]:
    """Delete the generations that need not be kept, and what was left of some that never began. Returns their names."""
    generations: list[Generation] = shelf.generations()
    gone = [generation.name for generation in keep.surplus(generations, now_ms)]
    if generations:
        gone += [name for name in shelf.unfinished() if named.begun_ms(name) < now_ms - 24 * HOUR_MS]
    for name in gone:
        shelf.delete(name)
    return gone
