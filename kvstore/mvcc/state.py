"""The state: generations above a backend, the numbers that say what is published, and reads at a revision.

Every read is a read at one revision R. The newest read is a read at the published revision. Because past
versions stay until compaction, a read never needs to hold anything still: it may take pages from different
backend transactions and still sees exactly revision R.

    head       revision of the last planned write; only writers look at it
    published  revision of the last durable write: what readers see as newest
    compacted  reads below it are refused

``backend_revision`` is the newest revision that a backend transaction opened now could hold. It is raised before
a checkpoint commits, so a reader that finds it <= R after opening its transaction knows that every row of
``latest`` is valid at R, and need not decode any of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvstore import invariants
from kvstore.backend import Backend, ReadTx
from kvstore.errors import Compacted
from kvstore.invariants import hold
from kvstore.keyvalue import row_mod_revision, row_place
from kvstore.model import prefix_end
from kvstore.mvcc.marks import Marks, compacted_at
from kvstore.mvcc.overlay import ChangedRow, Generation, Generations, newest_rows, overlay_slice
from kvstore.mvcc.schema import (
    ALARM,
    HISTORY,
    LATEST,
    META,
    META_CARRIED,
    META_COMPACT_SCHEDULED,
    REVISION_BYTES,
    REVISION_LIMIT,
    escape,
    history_key,
    pack_u64,
    unescape,
)

PAGE_ROWS = 1000


class State:
    """What ``apply`` changes and reads look at. Changes are made under the planner's lock; reads take none."""

    def __init__(
        self, backend: Backend, *, marks: Marks | None = None, written_elsewhere: bool = False
    ) -> None:
        """``marks``: those of the backend, if they were read already.
        ``written_elsewhere``: another process goes on checkpointing and compacting under this state.
        """
        self.backend = backend
        self.generations: Generations = (Generation(),)
        with backend.read() as tx:
            marks = Marks.read(tx) if marks is None else marks
            self.alarms = {key for key, _ in tx.scan(ALARM)}
            self.carried: Mapping[bytes, bytes] = dict(tx.scan(META, META_CARRIED, _CARRIED_END))
        """The rows of etcd's that are kept beside the keys, by name in ``meta``. Replaced, never changed."""
        self.marks = marks
        """What the backend said of itself when the state was made."""
        self.applied_index = marks.applied_index
        self.head = marks.revision
        self.head_compacted = marks.compacted
        self.compact_finished = marks.finished
        self.backend_revision = _ANY_REVISION if written_elsewhere else self.head
        self._written_elsewhere = written_elsewhere
        self.index = self.applied_index
        """Index of the last planned log entry."""
        self.published = self.head
        self.compacted = self.head_compacted

    # --- changes: one way in, for live writes and for replay ---------------------------

    @property
    def active(self) -> Generation:
        return self.generations[0]

    @property
    def waiting_bytes(self) -> int:
        """The memory that changes have taken since the last ``freeze``."""
        return self.generations[0].size_bytes

    def change(self, change: ChangedRow) -> None:
        """Put or delete a key."""
        self.generations[0].add((change,))

    def compact(self, revision: int) -> None:
        """Refuse reads below ``revision`` from now on; the rows are deleted later, in the background."""
        self.head_compacted = revision
        self.generations[0].set_row(META, META_COMPACT_SCHEDULED, pack_u64(revision))

    def has_alarm(self, member_id: int, name: str) -> bool:
        return pack_u64(member_id) + name.encode() in self.alarms

    def set_alarm(self, member_id: int, name: str, on: bool) -> None:
        key = pack_u64(member_id) + name.encode()
        self.generations[0].set_row(ALARM, key, b"" if on else None)
        (self.alarms.add if on else self.alarms.discard)(key)

    def set_carried(self, name: bytes, value: bytes | None) -> None:
        """Put or delete a row that is kept beside the keys."""
        self.generations[0].set_row(META, name, value)
        kept = {each: row for each, row in self.carried.items() if each != name}
        self.carried = kept if value is None else {**kept, name: value}

    def reached(self, index: int) -> None:
        """Log entries up to ``index`` have been applied, whatever their effects."""
        self.index = index

    def publish(self, revision: int, compacted: int) -> None:
        """Let readers see everything up to here, which is durable now."""
        if self._written_elsewhere:
            compacted = max(compacted, self.compacted)  # the backend may be ahead
        elif invariants.ON:
            hold(7, compacted >= self.compacted, f"compacted to {compacted} after {self.compacted}")
        if invariants.ON:
            hold(2, revision >= self.published, f"published {revision} after {self.published}")
        self.compacted = compacted
        self.published = revision

    def adopt(self, other: State) -> None:
        """Take over ``other``, a state of the same backend that was just read. Published revisions do not change."""
        self.generations = other.generations
        self.applied_index, self.index = other.applied_index, other.index
        self.head, self.head_compacted = other.head, other.head_compacted
        self.alarms = other.alarms
        self.carried = other.carried

    def move_to(self, other: State) -> None:
        """Go on from ``other``, a later state of the same store, perhaps over another file. Publishes nothing.

        The backend comes first: it has all that the old generations lack, but the old one need not have what the new
        generations do.
        """
        self.backend_revision = _ANY_REVISION
        self._written_elsewhere = True
        self.backend = other.backend
        self.adopt(other)
        self.marks, self.compact_finished = other.marks, other.compact_finished
        self._written_elsewhere = other._written_elsewhere
        self.backend_revision = other.backend_revision

    def covered(self, index: int) -> None:
        """The backend, written by another process, holds the entries up to ``index``: drop the frozen generation if
        that covers it, and freeze the active one as the next to be dropped.

        Readers find every entry in the generations that they take, or in the view that they open after that.
        """
        if self.frozen is not None and self.frozen.last_index <= index:
            self.applied_index = self.frozen.last_index
            self.generations = self.generations[:1]
        if self.frozen is None and self.active.size_bytes:
            self.freeze()

    # --- checkpoints: what is in which generation, and what is in the backend ----------

    @property
    def frozen(self) -> Generation | None:
        """The generation that a checkpoint is moving into the backend, if there is one."""
        return self.generations[1] if len(self.generations) > 1 else None

    def freeze(self) -> Generation:
        """Put a new active generation in front. Returns the one that it hides. The caller holds the planner's lock."""
        frozen = self.active
        frozen.last_index, frozen.last_revision = self.index, self.head
        self.generations = (Generation(), frozen)
        return frozen

    def committing(self, generation: Generation) -> None:
        """The backend may hold ``generation`` from now on. Called before its commit, once the log durably has it."""
        self.backend_revision = generation.last_revision

    def committed(self, generation: Generation) -> None:
        """Drop ``generation``, which the backend now holds. The caller holds the planner's lock."""
        if invariants.ON:
            with self.backend.read() as tx:
                applied = Marks.read(tx).applied_index
            hold(
                3,
                applied == generation.last_index,
                f"entry {generation.last_index} dropped, {applied} applied",
            )
            hold(3, applied >= self.applied_index, f"applied {applied} after {self.applied_index}")
            hold(
                4, self.backend_revision >= generation.last_revision, "a commit that readers were not told of"
            )
        self.generations = tuple(kept for kept in self.generations if kept is not generation) or (
            Generation(),
        )
        self.applied_index = generation.last_index

    def swept(self, revision: int) -> None:
        """The rows that the compaction to ``revision`` made superfluous are deleted."""
        if invariants.ON:
            low, high = self.compact_finished, self.head_compacted
            hold(8, low <= revision <= high, f"swept to {revision}, between {low} and {high}")
        self.compact_finished = revision

    def use_backend(self, backend: Backend) -> None:
        """Replace the backend by another file with the same content. The caller holds the planner's lock."""
        self.backend = backend

    # --- reads ------------------------------------------------------------------------

    def look(self, kept: int) -> tuple[Generations, ReadTx]:
        """One look at one state (overlay.py): the generations, and a view of the backend that has all they lack.

        Close the view. Raises ``Compacted`` if revision ``kept`` is no longer kept: its rows may be half deleted.
        """
        generations = self.generations
        tx = self.backend.read()
        try:
            self.check_kept(kept, tx)
        except BaseException:
            tx.close()
            raise
        return generations, tx

    def check_kept(self, revision: int, tx: ReadTx | None = None) -> None:
        """Refuse a revision whose rows may be half deleted. Call it after opening ``tx``, which will be read."""
        if self._written_elsewhere and tx is not None:
            self.compacted = max(self.compacted, compacted_at(tx))
        if revision < self.compacted:
            raise Compacted(self.compacted, revision)

    def head_row(self, key: bytes) -> bytes | None:
        """The row of ``key`` after everything planned so far; None if it does not exist."""
        for generation in self.generations:
            change = generation.newest.get(key)
            if change is not None:
                return change[3]
        if self._written_elsewhere:
            return self.row_at(key, self.head)
        return self.backend.get(LATEST, key)

    def head_rows(self, keys: list[bytes]) -> list[bytes | None]:
        """``head_row`` of each key, with one view of the backend for all of them."""
        if self._written_elsewhere or len(keys) == 1:
            return [self.head_row(key) for key in keys]
        found: dict[bytes, bytes | None] = {}
        newest = tuple([generation.newest for generation in self.generations])
        missing = newest_rows(newest, keys, found)
        if missing:
            with self.backend.read() as tx:
                found.update(zip(missing, tx.get_many(LATEST, missing), strict=True))
        return [*map(found.__getitem__, keys)]

    def row_at(self, key: bytes, revision: int) -> bytes | None:
        """The row of ``key`` as it was at ``revision``; None if it did not exist."""
        for generation in self.generations:
            if key in generation.newest:
                change = generation.at(key, revision)
                if change is not None:
                    return change[3]
        backend = self.backend
        row = backend.get(LATEST, key)  # this opens a view of its own, for one key
        if self.backend_revision <= revision:
            return row
        if row is not None and row_mod_revision(row) <= revision:
            return row
        # What was live then is not in ``latest`` any more, so it has ended. A row that says so is right in any view ...
        row = backend.first_value(HISTORY, history_key(key, revision + 1, 0))
        if row is not None and not self._written_elsewhere:
            found, written = row_place(row)
            if found == key and written <= revision:
                self.check_kept(revision)
                return row
        _, tx = self.look(
            revision
        )  # ... but that there is none says only a view that was opened after ``get``
        with tx:
            return ended_row(tx, key, revision)

    def page(
        self, start: bytes, end: bytes | None, revision: int, limit: int = PAGE_ROWS
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """About ``limit`` live (key, row) of [start, end) at ``revision``, ascending, and where to continue.

        May return fewer rows (even none) with more to come; None as second value means the end.
        """
        generations, tx = self.look(revision)
        with tx:
            if self.backend_revision <= revision:
                rows = tx.scan(LATEST, start, end, limit=limit)
                horizon = rows[-1][0] if len(rows) == limit else None
            else:
                rows, horizon = past_rows(tx, start, end, revision, limit)
        pending, pending_horizon = overlay_slice(generations, start, end, revision, limit)
        if pending_horizon is not None and (horizon is None or pending_horizon < horizon):
            horizon = pending_horizon
        if pending:
            found: dict[bytes, bytes | None] = dict(rows)
            found.update(pending)
            rows = sorted([(key, row) for key, row in found.items() if row is not None])
        return _cut(rows, horizon), _after(horizon)

    def count(self, start: bytes, end: bytes | None, revision: int) -> int:
        """How many keys of [start, end) were live at ``revision``."""
        generations, tx = self.look(revision)
        with tx:
            pending, horizon = overlay_slice(generations, start, end, revision, _COUNT_PENDING_MAX)
            if horizon is None and self.backend_revision <= revision:
                keys = sorted(pending)
                present = tx.get_many(LATEST, keys) if keys else []
                gone = sum(1 for row in present if row is not None)
                live = sum(1 for row in pending.values() if row is not None)
                return tx.count(LATEST, start, end) - gone + live
        return self._count_pages(start, end, revision)

    def _count_pages(self, start: bytes, end: bytes | None, revision: int) -> int:
        total, at = 0, start
        while True:
            rows, following = self.page(at, end, revision)
            total += len(rows)
            if following is None:
                return total
            at = following


_COUNT_PENDING_MAX = 100_000
_ANY_REVISION = 1 << 63
_CARRIED_END = prefix_end(META_CARRIED)


def ended_row(tx: ReadTx, key: bytes, revision: int) -> bytes | None:
    """The version of ``key`` that was live at ``revision`` and has ended since: one seek, however many there are."""
    ended = tx.scan(HISTORY, history_key(key, revision + 1, 0), escape(key) + REVISION_LIMIT, limit=1)
    if ended and row_mod_revision(ended[0][1]) <= revision:
        return ended[0][1]
    return None


def past_rows(
    tx: ReadTx, start: bytes, end: bytes | None, revision: int, limit: int
) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Rows of [start, end) live at ``revision``, ascending, and the last key up to which they are complete."""
    latest = tx.scan(LATEST, start, end, limit=limit)
    horizon = latest[-1][0] if len(latest) == limit else None
    found = {key: row for key, row in latest if row_mod_revision(row) <= revision}
    at = escape(start) if start else b""
    stop = escape(horizon + b"\0") if horizon is not None else (escape(end) if end is not None else None)
    decided = b""
    ended_rows = 0
    while True:
        chunk = tx.scan(HISTORY, at, stop, limit=_HISTORY_CHUNK)
        for ended_key, row in chunk:
            prefix = ended_key[:-REVISION_BYTES]
            if prefix == decided or int.from_bytes(ended_key[-REVISION_BYTES:-8], "big") <= revision:
                continue
            decided = prefix
            if row_mod_revision(row) <= revision:
                found[unescape(prefix)] = row
                ended_rows += 1
        if len(chunk) < _HISTORY_CHUNK:
            return sorted(found.items()), horizon
        prefix = chunk[-1][0][:-REVISION_BYTES]
        if ended_rows >= limit and prefix == decided:
            horizon = unescape(prefix)
            return sorted([row for row in found.items() if row[0] <= horizon]), horizon
        # Skip the rest of a key with many versions instead of walking through it.
        at = prefix + REVISION_LIMIT if prefix == decided else prefix + (revision + 1).to_bytes(8, "big")
        at = max(at, chunk[-1][0] + b"\0")


_HISTORY_CHUNK = 256


def _cut(rows: list[tuple[bytes, bytes]], horizon: bytes | None) -> list[tuple[bytes, bytes]]:
    if horizon is None or not rows or rows[-1][0] <= horizon:
        return rows
    return [row for row in rows if row[0] <= horizon]


def _after(horizon: bytes | None) -> bytes | None:
    return None if horizon is None else horizon + b"\0"
