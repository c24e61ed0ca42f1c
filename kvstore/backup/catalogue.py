"""What lies at a target, and what it says of itself.

    GENERATION/snapshot/000000 ...          a snapshot file (docs/backup.md), in chunks
    GENERATION/snapshot.json                its manifest, put last: with it the generation exists
    GENERATION/log/INDEX-RUN-NUMBER         pieces of the log's segments after the snapshot, each a run of whole records
    GENERATION/log-RUN-PART.json            their manifests, each put after the pieces that it names
    verified.json                           what came of the last verification

A generation is named for the time it was begun. The chunks in order are the snapshot file, byte for byte, and the
pieces of a segment the segment: without encryption ``cat`` puts them together.

Every process that follows (a RUN) puts objects under names of its own, and none is ever put again with other content
but a manifest that has grown. So a put that is repeated, comes late, or is made by two processes at once damages
nothing: pieces that others cover too are left out when the log is put together. A piece follows another if it begins
where that one ends, and with the checksum that the log had there (wal/format.py): what a copy of the store wrote
elsewhere does not fit, and is never mixed in.

A manifest is a line of JSON, and the SHA-256 of that line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from kvstore.backup.errors import NoSuchObject
from kvstore.backup.sealing import Sealer
from kvstore.backup.targets import Target
from kvstore.errors import Corruption, TooNew

VERSION = 1
_VERIFIED = "verified.json"
_GENERATION = re.compile(r"(\d{8}T\d{9}Z-[0-9a-f]{8})/")
_LOG_MANIFEST = re.compile(r"log-[0-9a-f]{8}-\d{6}\.json")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the snapshot file."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """The snapshot that a generation begins with."""

    cluster_id: int
    backend: str
    index: int
    revision: int
    time_ms: int
    """When it was made, so nothing in it is later."""
    size_bytes: int
    chunks: tuple[Chunk, ...]
    complete_at_ms: int = 0
    """What the store had durably written by then is in it. 0: not said; then ``time_ms`` counts."""
    member_id: int = 0
    """The store's; 0: not said. A copy of a cluster that is made anew has another, and numbers its entries anew."""
    joint: tuple[int, int, int] | None = None
    """Where the log goes on after it (``pieces.joint``); None: not said."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes ``start`` to ``end`` of the segment whose first entry is ``segment``: whole records, durable."""

    name: str
    segment: int
    start: int
    end: int
    chain_before: int
    """The log's checksum before the first record; at the start of a segment, that of the segment before."""
    chain: int
    """The log's checksum after the last record."""
    last_offset: int
    """The last record begins here."""
    last_chain: int
    """The log's checksum before the last record."""
    last_first_index: int
    """The first entry of the last record."""
    last_index: int
    revision: int
    """The store's revision after the last entry."""
    time_ms: int
    """When the last record was written."""
    sha256: str


@dataclass(frozen=True, slots=True)
class LogManifest:
    """Some pieces, and a claim: with those of the manifests before it, what was durable at a time is here."""

    complete_at_ms: int
    index: int
    """The last entry that the claim covers."""
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of restoring the newest generation and checking every row of it."""

    at_ms: int
    revision: int
    """The newest that was restored; 0: none could be."""
    damage: str
    """Empty: all was well."""


@dataclass(slots=True)
class Generation:
    """A snapshot and the log after it."""

    name: str
    snapshot: SnapshotManifest
    pieces: list[Piece] = field(default_factory=list)
    """Those that follow each other, from the snapshot on."""
    complete_at_ms: int = 0
    """What the store had durably written by then is here."""
    damage: list[str] = field(default_factory=list)
    """Manifests that cannot be read, so what they name is left out."""
    newest_manifest: str = ""
    """The one that reaches furthest, which may still grow; empty: there is none."""

    @property
    def revision(self) -> int:
        return max(self.snapshot.revision, self.pieces[-1].revision if self.pieces else 0)

    @property
    def index(self) -> int:
        return max(self.snapshot.index, self.pieces[-1].last_index if self.pieces else 0)

    @property
    def last_ms(self) -> int:
        """The newest time that it is about; without a log after the snapshot that of the snapshot, for people."""
        return max(self.snapshot.time_ms, self.complete_at_ms)

    @property
    def log_bytes(self) -> int:
        return sum(piece.end - piece.start for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Broken:
    """A generation whose snapshot's manifest is damaged or gone: perhaps only half deleted."""

    name: str
    reason: str
    claimed_ms: int
    """It may have been complete up to then."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies at a target, oldest first."""

    generations: list[Generation]
    broken: list[Broken]


class Catalogue:
    """The objects of one target, checked and decrypted when read."""

    def __init__(self, target: Target, key: bytes | None = None) -> None:
        self._target = target
        self._sealer = Sealer(key)
        self.has_key = key is not None

    def put(self, name: str, data: bytes) -> str:
        """Put an object; its SHA-256 (of what was given, not of what is stored encrypted)."""
        self._target.put(name, self._sealer.seal(name, data))
        return hashlib.sha256(data).hexdigest()

    def get(self, name: str, sha256: str) -> bytes:
        """Raises ``Corruption`` if it is missing, or not what its manifest says."""
        try:
            data = self._sealer.unseal(name, self._target.get(name))
        except NoSuchObject as error:
            raise Corruption("the object is missing", name) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Corruption("the SHA-256 does not match the manifest", name)
        return data

    def put_manifest(self, name: str, content: dict[str, Any]) -> None:
        line = json.dumps({"kvstore-backup": VERSION, **content}, separators=(",", ":")).encode()
        self.put(name, line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")

    def _manifest(self, name: str, decode: Callable[[dict[str, Any]], T]) -> T:
        data = self._sealer.unseal(name, self._target.get(name))
        line, _, rest = data.partition(b"\n")
        if hashlib.sha256(line).hexdigest().encode() != rest.strip():
            raise Corruption("the SHA-256 of the manifest does not match", name)
        try:
            content = json.loads(line)
            version = content["kvstore-backup"]
            if isinstance(version, int) and version > VERSION:
                raise TooNew(f"{name} has format {version}; this version reads up to {VERSION}", name)
            return decode(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corruption(f"not a manifest: {error!r}", name) from error

    def put_verified(self, verified: Verified) -> None:
        self.put_manifest(_VERIFIED, asdict(verified))

    def verified(self) -> Verified | None:
        """None: there is nothing of it that can be read."""
        try:
            return self._manifest(
                _VERIFIED, lambda content: Verified(**{k: content[k] for k in Verified.__slots__})
            )
        except (NoSuchObject, Corruption):
            return None

    def delete(self, generation: str) -> None:
        """Delete a generation: its manifest first, so that it is gone before it is incomplete."""
        names = [name for name in self._target.list() if name.startswith(generation + "/")]
        for name in sorted(names, key=lambda name: name != snapshot_manifest_name(generation)):
            self._target.delete(name)

    def unfinished(self) -> list[str]:
        """The names of generations whose snapshot is not complete, oldest first."""
        names = self._target.list()
        return [each for each in _generations(names) if snapshot_manifest_name(each) not in names]

    def contents(self) -> Contents:
        """Everything there. Raises ``WrongKey``, ``TargetFailed``, ``TooNew``; damage is in the answer."""
        names = self._target.list()
        found = Contents([], [])
        for name in _generations(names):
            has_log = any(_is_log_manifest(each, name) for each in names)
            if snapshot_manifest_name(name) not in names and not has_log:
                continue  # it never became complete
            try:
                found.generations.append(self._generation(name, names))
            except (Corruption, NoSuchObject) as error:
                found.broken.append(Broken(name, str(error), self._claimed_ms(name, names)))
        return found

    def generations(self) -> list[Generation]:
        """The generations that can be read, oldest first. Raises ``Corruption`` if there are only others."""
        found = self.contents()
        if found.broken and not found.generations:
            raise Corruption(found.broken[-1].reason, found.broken[-1].name)
        return found.generations

    def log_manifest(self, name: str) -> LogManifest | None:
        """A manifest of pieces as it is now; None if it is not there. Raises ``Corruption``."""
        try:
            return self._manifest(name, _log_of)
        except NoSuchObject:
            return None

    def _claimed_ms(self, generation: str, names: list[str]) -> int:
        """The newest moment that any manifest of a broken generation speaks of."""
        claimed_ms = begun_ms(generation)
        for name in names:
            if _is_log_manifest(name, generation):
                with suppress(Corruption, NoSuchObject):
                    claimed_ms = max(claimed_ms, self._manifest(name, _log_of).complete_at_ms)
        return claimed_ms

    def _generation(self, name: str, names: list[str]) -> Generation:
        generation = Generation(name, self._manifest(snapshot_manifest_name(name), _snapshot_of))
        manifests: list[LogManifest] = []
        for manifest in names:
            if not _is_log_manifest(manifest, name):
                continue
            try:
                found = self._manifest(manifest, _log_of)
                if not manifests or found.complete_at_ms >= max(each.complete_at_ms for each in manifests):
                    generation.newest_manifest = manifest
                manifests.append(found)
            except NoSuchObject:
                continue
            except Corruption as error:
                generation.damage.append(str(error))
        generation.pieces = joined(generation.snapshot, [p for each in manifests for p in each.pieces])
        generation.complete_at_ms = max(
            [generation.snapshot.complete_at_ms or generation.snapshot.time_ms]
            + [each.complete_at_ms for each in manifests if each.index <= generation.index]
        )
        return generation


def joined(snapshot: SnapshotManifest, pieces: list[Piece]) -> list[Piece]:
    """Those of the pieces that make the longest log, from the segment with the entry after the snapshot on."""
    at: dict[tuple[int, int, int], list[Piece]] = {}
    for piece in pieces:
        at.setdefault((piece.segment, piece.start, piece.chain_before), []).append(piece)
    reach: dict[str, int] = {}
    following: dict[str, Piece | None] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.segment, piece.start), reverse=True):
        others = at.get((piece.segment, piece.end, piece.chain), [])
        others = others + at.get((piece.last_index + 1, 0, piece.chain), [])
        best = max(others, key=lambda other: reach[other.name], default=None)
        reach[piece.name] = piece.last_index if best is None else reach[best.name]
        following[piece.name] = best
    starts = [piece for piece in pieces if piece.start == 0 and piece.segment <= snapshot.index + 1]
    chosen: list[Piece] = []
    step = max(starts, key=lambda piece: (reach[piece.name], piece.segment), default=None)
    while step is not None:
        chosen.append(step)
        step = following[step.name]
    return chosen if chosen and chosen[-1].last_index >= snapshot.index else []


# --- names and content ----------------------------------------------------------------------


def snapshot_manifest_name(generation: str) -> str:
    return f"{generation}/snapshot.json"


def chunk_name(generation: str, number: int) -> str:
    return f"{generation}/snapshot/{number:06d}"


def log_manifest_name(generation: str, run: str, part: int) -> str:
    return f"{generation}/log-{run}-{part:06d}.json"


def next_log_manifest_name(name: str) -> str:
    """That of the manifest which the same run puts when one is full."""
    begin, number = name[: -len("000000.json")], int(name[-len("000000.json") : -len(".json")])
    return f"{begin}{number + 1:06d}.json"


def piece_name(generation: str, run: str, number: int, first_index: int) -> str:
    return f"{generation}/log/{first_index:016x}-{run}-{number:06d}"


def generation_name(now_ms: int, suffix: str) -> str:
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{now_ms % 1000:03d}Z-{suffix}"


def begun_ms(generation: str) -> int:
    """When a generation was begun, by its name."""
    moment = datetime.strptime(generation[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(generation[15:18])


def _is_log_manifest(name: str, generation: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder == generation and _LOG_MANIFEST.fullmatch(rest) is not None


def _generations(names: list[str]) -> list[str]:
    return sorted({found[1] for name in names if (found := _GENERATION.match(name))})


def snapshot_content(snapshot: SnapshotManifest) -> dict[str, Any]:
    return asdict(snapshot)


def _snapshot_of(content: dict[str, Any]) -> SnapshotManifest:
    chunks = tuple(Chunk(**chunk) for chunk in content["chunks"])
    joint = tuple(content["joint"]) if content.get("joint") else None
    fields = {name: value for name, value in content.items() if name in SnapshotManifest.__slots__}
    return SnapshotManifest(**{**fields, "chunks": chunks, "joint": joint})


def log_content(manifest: LogManifest) -> dict[str, Any]:
    return {
        "complete_at_ms": manifest.complete_at_ms,
        "index": manifest.index,
        "fields": Piece.__slots__,
        "pieces": [astuple(piece) for piece in manifest.pieces],
    }


def _log_of(content: dict[str, Any]) -> LogManifest:
    names = content["fields"]
    pieces = tuple(Piece(**dict(zip(names, values, strict=True))) for values in content["pieces"])
    return LogManifest(content["complete_at_ms"], content["index"], pieces)
