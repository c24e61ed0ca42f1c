"""What a killed store may hold, and what it must: the checker of the crash loop.

    Step      a write that a worker began; its id is in every value it writes
    told      events that a watch delivered before the kill, and that are therefore durable
    acks      responses that returned before the kill; these writes are durable, at the revision they name

``History`` goes through the revisions that survived, in order. Each must be the whole effect of exactly one step (or
of an expired lease) on the state before it; every acknowledged step must be at its revision, and every event that was
delivered must be there as it was delivered. What the store then answers (all keys, past versions, leases, HashKV) must
match this history. Nothing here is shared with the engine except the encoding of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c

import kvstore
from kvstore.keyvalue import encode_key_value
from kvstore.mvcc.changes import change_page
from kvstore.store import Store

PAGE_ROWS = 1000
DELETING = ("revoke", "prefix", "delete")
"""Steps that only delete."""


class BrokenPromise(Exception):
    """The store lost, invented or altered something."""


class Row(NamedTuple):
    """A version of a key; its value is ``value_of(step, size)``."""

    step: str
    size: int
    create_revision: int
    version: int
    lease: int


Changes = list[tuple[bytes, Row | None]]
"""The changes of one revision, in order; None: a delete."""


def value_of(step: str, size: int) -> bytes:
    return f"{step} ".encode().ljust(size, b".")


def row_of(kv: kvstore.KeyValue) -> Row:
    """The row behind a version that was read. Raises ``BrokenPromise`` if no step wrote such a value."""
    step = kv.value.split(b" ")[0].decode("latin-1")
    if kv.value != value_of(step, len(kv.value)):
        raise BrokenPromise(f"{kv.key!r} has a value that nobody wrote: {kv.value[:80]!r}")
    return Row(step, len(kv.value), kv.create_revision, kv.version, kv.lease)


@dataclass(frozen=True, slots=True)
class Step:
    """One write. ``do``: put, txn (puts all but the last key, deletes that), delete, prefix, ttl, grant, revoke."""

    id: str
    do: str
    keys: tuple[str, ...] = ()
    size: int = 0
    lease: int = 0

    @property
    def worker(self) -> str:
        return self.id.rpartition(".")[0]


class Ack(NamedTuple):
    revision: int
    wrote: bool


@dataclass
class Heard:
    """The writer's output since the last check."""

    steps: dict[str, Step] = field(default_factory=dict)
    acks: dict[str, Ack] = field(default_factory=dict)
    told: dict[int, Changes] = field(default_factory=dict)
    compacting: list[int] = field(default_factory=list)
    """Compactions that were asked for ..."""
    compacted: int = -1
    """... and the highest that was acknowledged."""


class History:
    """Everything that has survived so far."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.state: dict[bytes, Row] = {}
        self.changes: list[tuple[int, int, bytes, Row | None]] = []
        self.leases: set[int] = set()
        self._expiring: set[int] = set()
        """Leases that may expire."""

    def check(self, store: Store, heard: Heard) -> int:
        """Compare the reopened store with what was heard, and record what survived of it.

        Returns the number of steps that survived although they were not acknowledged. Raises ``BrokenPromise``.
        """
        self._check_bounds(store, heard)
        used: dict[str, int] = {}
        acked_at = {ack.revision: step for step, ack in heard.acks.items() if ack.wrote}
        for revision, changes in self._survived(store, heard):
            if revision in heard.told and heard.told[revision] != changes:
                raise BrokenPromise(
                    f"revision {revision} was told as {heard.told[revision]} and is {changes}"
                )
            step = self._explain(revision, changes, heard, acked_at.get(revision), used)
            if step:
                used[step] = revision
            self._apply(revision, changes)
        self._check_acks(heard, used)
        self._check_leases(store, heard)
        self.compacted = store.compact_revision
        self._check_answers(store)
        return len(used.keys() - heard.acks.keys())

    # --- revisions -------------------------------------------------------------------------

    def _check_bounds(self, store: Store, heard: Heard) -> None:
        acked = (ack.revision for ack in heard.acks.values())
        known = max(self.revision, *heard.told, *acked, 1)
        if store.revision < known:
            raise BrokenPromise(f"revision {known} was known, the store is at {store.revision}")
        least = max(self.compacted, heard.compacted)
        if store.compact_revision < least or store.compact_revision not in (least, *heard.compacting):
            raise BrokenPromise(f"compacted to {least}, the store says {store.compact_revision}")

    def _survived(self, store: Store, heard: Heard) -> Iterator[tuple[int, Changes]]:
        """Every revision since the last check: from the store, or from its delivered events if it is compacted."""
        first_kept = max(self.revision, store.compact_revision) + 1
        for revision in range(self.revision + 1, first_kept):
            if revision not in heard.told:
                raise BrokenPromise(f"revision {revision} is compacted, but was never told")
            yield revision, heard.told[revision]
        kept = _kept(store, first_kept)
        for revision in range(first_kept, store.revision + 1):
            if revision not in kept:
                raise BrokenPromise(f"revision {revision} is empty, the store is at {store.revision}")
            yield revision, kept[revision]

    def _explain(
        self, revision: int, changes: Changes, heard: Heard, acked: str | None, used: dict[str, int]
    ) -> str | None:
        """The step that made the revision; None: a lease expired."""
        wrote = {row.step for _, row in changes if row is not None}
        if not wrote and acked is None and self._is_expiry(changes):
            return None
        names: Iterable[str] = wrote or ([acked] if acked else _deletes(revision, heard))
        for name in names:
            step = heard.steps.get(name)
            if step is None or name in used or self._effect(step, revision, changes) != changes:
                continue
            if acked not in (None, name):
                raise BrokenPromise(f"revision {revision} is {name}'s, acknowledged was {acked}")
            return name
        raise BrokenPromise(
            f"no step has the effect of revision {revision}: {changes}; acknowledged: {acked}"
        )

    def _effect(self, step: Step, revision: int, changes: Changes) -> Changes:
        """What ``step`` does to the state; a lease id picked by the store is taken from ``changes``."""
        keys = [key.encode() for key in step.keys]
        match step.do:
            case "put":
                return [(keys[0], self._put(step, keys[0], revision, step.lease))]
            case "ttl":
                drawn = changes[0][1].lease if changes[0][1] is not None else 0
                self._expiring.add(drawn)
                return [(keys[0], self._put(step, keys[0], revision, drawn))]
            case "txn":
                puts: Changes = [(key, self._put(step, key, revision, 0)) for key in keys[:-1]]
                return puts + [(key, None) for key in keys[-1:] if key in self.state]
            case "delete":
                return [(key, None) for key in keys if key in self.state]
            case "prefix":
                return [(key, None) for key in sorted(self.state) if key.startswith(keys[0])]
            case "revoke":
                return [(key, None) for key in sorted(self.state) if self.state[key].lease == step.lease]
        return []

    def _put(self, step: Step, key: bytes, revision: int, lease: int) -> Row:
        old = self.state.get(key)
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        return Row(step.id, max(step.size, len(step.id) + 1), created, version, lease)

    def _is_expiry(self, changes: Changes) -> bool:
        """Whether these are exactly the keys of leases that may expire."""
        leases = {self.state[key].lease for key, _ in changes if key in self.state}
        attached = {key for key, row in self.state.items() if row.lease in leases}
        return 0 not in leases and leases <= self._expiring and attached == {key for key, _ in changes}

    def _apply(self, revision: int, changes: Changes) -> None:
        for sub, (key, row) in enumerate(changes):
            self.changes.append((revision, sub, key, row))
            if row is None:
                del self.state[key]
            else:
                self.state[key] = row
        self.revision = revision

    # --- acknowledgements ------------------------------------------------------------------

    def _check_acks(self, heard: Heard, used: dict[str, int]) -> None:
        for name, ack in heard.acks.items():
            if ack.wrote and used.get(name) != ack.revision:
                raise BrokenPromise(f"{heard.steps[name]} was acknowledged at revision {ack.revision}")
        last: dict[str, int] = {}
        for name in heard.steps:  # in the order in which each worker began them, one after the other
            worker, revision = heard.steps[name].worker, used.get(name, 0)
            if revision and revision < last.get(worker, 0):
                raise BrokenPromise(f"{name} went back in time, to revision {revision}")
            last[worker] = max(revision, last.get(worker, 0))

    def _check_leases(self, store: Store, heard: Heard) -> None:
        there = set(store.leases())
        granted = {step.lease for step in heard.steps.values() if step.do == "grant"}
        acked = {heard.steps[name].lease for name in heard.acks if heard.steps[name].do == "grant"}
        revoking = {step.lease for step in heard.steps.values() if step.do == "revoke"}
        revoked = {heard.steps[name].lease for name in heard.acks if heard.steps[name].do == "revoke"}
        if lost := (self.leases | acked) - revoking - there:
            raise BrokenPromise(f"leases {lost} are gone")
        if undead := revoked & there:
            raise BrokenPromise(f"leases {undead} had been revoked")
        self.leases = there & (self.leases | granted)
        attached = {row.lease for row in self.state.values()} - {0}
        if dangling := attached - there:
            raise BrokenPromise(f"keys are attached to leases {dangling}, which are gone")

    # --- answers ---------------------------------------------------------------------------

    def _check_answers(self, store: Store) -> None:
        found = {kv.key: row_of(kv) for kv in store.scan(prefix=b"")}
        if found != self.state:
            raise BrokenPromise(f"the keys differ: {found.items() ^ self.state.items()}")
        for key in list(self.state)[:3]:
            answer = [(kv.mod_revision, row_of(kv) if kv.version else None) for kv in store.history(key)]
            if answer != self._kept_versions(key):
                raise BrokenPromise(f"versions of {key!r}: {answer}, not {self._kept_versions(key)}")
        if self.state and store.hash_kv().hash != self.hash_kv():
            raise BrokenPromise(f"HashKV at revision {self.revision} is not that of the history")

    def _kept_versions(self, key: bytes) -> list[tuple[int, Row | None]]:
        versions = [(main, row) for main, _, name, row in self.changes if name == key]
        before = [version for version in versions if version[0] <= self.compacted][-1:]
        return [version for version in before if version[1]] + [v for v in versions if v[0] > self.compacted]

    def hash_kv(self) -> int:
        """etcd's HashKV at the newest revision."""
        value = crc32c(b"key")
        for main, sub, key, row in self.changes:
            if main <= self.compacted and (row is None or self.state.get(key) is not row):
                continue
            name = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + b"t" * (row is None)
            if row is None:
                encoded = encode_key_value(key, 0, 0, 0, b"", 0)
            else:
                content = value_of(row.step, row.size)
                encoded = encode_key_value(key, row.create_revision, main, row.version, content, row.lease)
            value = crc32c(encoded, crc32c(name, value))
        return value


def _deletes(revision: int, heard: Heard) -> list[str]:
    """Steps that may have deleted something at ``revision``, those that fit the fewest places first.

    The response of a revoke does not say whether it deleted anything: if acknowledged for this revision, it may have.
    """
    open_steps: list[Step] = []
    revoked: list[str] = []
    for name, step in heard.steps.items():
        ack = heard.acks.get(name)
        if ack is not None:
            revoked += [name] * (step.do == "revoke" and ack.revision == revision)
        elif step.do in DELETING:
            open_steps.append(step)
    open_steps.sort(key=lambda step: DELETING.index(step.do))
    return revoked + [step.id for step in open_steps]


def _kept(store: Store, first: int) -> dict[int, Changes]:
    """The changes from revision ``first`` on, as watches read them."""
    found: dict[int, Changes] = {}
    while first <= store.revision:
        page, covered = change_page(store.engine.state, first, store.revision, PAGE_ROWS)
        for main, _, key, row in page:
            kept = None if row is None else row_of(kvstore.KeyValue.from_row(row))
            found.setdefault(main, []).append((key, kept))
        first = covered + 1
    return found
