"""Leases: named deadlines with keys attached. When a deadline passes, the keys are deleted.

A lease's deadline is a time of day (clock.py) and is in the log and the backend, so a restart neither forgets nor
renews it: time that passes while the store is closed counts (policy ``count_downtime``), or does not (``pause``);
with ``renew`` an opening renews all of them.
``Lessor`` holds the leases in memory (as etcd does); the attachments of a key are changed only by effects.

A put with a TTL grants its key a lease of its own, which ends when no key is left to it: a key that is refreshed for
ever has one lease, not one for each put. Such a lease is known by its id, whose lower half spells "ttls"; no other
lease gets such an id unless a caller asks for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import TYPE_CHECKING

from kvstore.errors import Corruption
from kvstore.mvcc.schema import ATTACHMENT, LEASE, lease_key, parse_lease_key
from kvstore.wire import WireError, counter_field, fields, int_field

if TYPE_CHECKING:
    from kvstore.backend import Backend, ReadTx
    from kvstore.mvcc.overlay import Generation

TTL_MAX_SECONDS = 9_000_000_000
_OWN = int.from_bytes(b"ttls", "big")
_OWN_MASK = (1 << 32) - 1
STALE_DEADLINES_MAX = 1000


def own_lease_id(number: int) -> int:
    """The id of a lease that belongs to one key, from 31 bits."""
    return number << 32 | _OWN


def is_own_lease(ident: int) -> bool:
    """Whether a put with a TTL granted it."""
    return ident & _OWN_MASK == _OWN


class Lease:
    """One lease. ``deadline_ms`` is in the time of ``Clock.lease_ms``."""

    __slots__ = ("_fixed", "deadline_ms", "id", "ident", "keys", "ttl_seconds")

    def __init__(self, ident: int, ttl_seconds: int, deadline_ms: int) -> None:
        self.id = ident
        self.ttl_seconds = ttl_seconds
        self.deadline_ms = deadline_ms
        self.keys: set[bytes] = set()
        self.ident = int_field(1, ident)
        """The id, as a field of what is written about the lease."""
        self._fixed = self.ident + int_field(2, ttl_seconds)

    def has_at_most_its_ttl(self, now_ms: int) -> bool:
        return self.deadline_ms <= now_ms + self.ttl_seconds * 1000

    def encode(self) -> bytes:
        return self._fixed + counter_field(3, self.deadline_ms)


class Lessor:
    """All leases of a store. Changed only by ``apply_*``, under the planner's lock; each call may be repeated."""

    def __init__(self) -> None:
        self.leases: dict[int, Lease] = {}
        self._deadlines: list[tuple[int, int]] = []
        """Heap of (deadline_ms, id); entries of renewed or revoked leases are skipped when they come up."""

    @classmethod
    def loaded(cls, backend: Backend) -> Lessor:
        """The leases that the backend holds."""
        lessor = Lessor()
        with backend.read() as tx:
            lessor._load(tx)
        return lessor

    def _load(self, tx: ReadTx) -> None:
        for key, row in tx.scan(LEASE):
            try:
                parts = dict(fields(row))
            except WireError as error:
                raise Corruption(f"the table of leases is damaged: {error}") from None
            ident, ttl, deadline = parse_lease_key(key), parts.get(2, 0), parts.get(3, 0)
            if isinstance(ttl, int) and isinstance(deadline, int):
                self._add(Lease(ident, ttl, deadline))
        for key, _ in tx.scan(ATTACHMENT):
            lease = self.leases.get(parse_lease_key(key))
            if lease is not None:
                lease.keys.add(key[8:])

    def _add(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self._note_deadline(lease)

    def _note_deadline(self, lease: Lease) -> None:
        heapq.heappush(self._deadlines, (lease.deadline_ms, lease.id))
        if len(self._deadlines) > 2 * len(self.leases) + STALE_DEADLINES_MAX:
            deadlines = [(lease.deadline_ms, lease.id) for lease in self.leases.values()]
            heapq.heapify(deadlines)
            self._deadlines = deadlines

    def next_deadline(self) -> tuple[int, int] | None:
        """(deadline_ms, id) of the lease that is due first; None if there are none."""
        deadlines = self._deadlines
        while deadlines:
            deadline_ms, ident = deadlines[0]
            lease = self.leases.get(ident)
            if lease is not None and lease.deadline_ms == deadline_ms:
                return deadline_ms, ident
            heapq.heappop(deadlines)
        return None

    def adopt(self, other: Lessor) -> None:
        """Take over the content of ``other``."""
        self.leases, self._deadlines = other.leases, other._deadlines

    # --- effects ----------------------------------------------------------------------

    def apply_grant(self, generation: Generation, ident: int, ttl_seconds: int, deadline_ms: int) -> None:
        lease = Lease(ident, ttl_seconds, deadline_ms)
        self._add(lease)
        generation.set_row(LEASE, lease_key(ident), lease.encode())

    def apply_renew(self, generation: Generation, ident: int, deadline_ms: int) -> None:
        lease = self.leases.get(ident)
        if lease is not None:
            lease.deadline_ms = deadline_ms
            self._note_deadline(lease)
            generation.set_row(LEASE, lease_key(ident), lease.encode())

    def apply_revoke(self, generation: Generation, ident: int) -> None:
        lease = self.leases.get(ident)
        generation.set_row(LEASE, lease_key(ident), None)
        if lease is not None:
            self.apply_detach(generation, ident, list(lease.keys))
            self.leases.pop(ident, None)

    def apply_attach(self, generation: Generation, ident: int, key: bytes) -> None:
        lease = self.leases.get(ident)
        if lease is not None:
            lease.keys.add(key)
        generation.set_row(ATTACHMENT, lease_key(ident) + key, b"")

    def apply_detach(self, generation: Generation, ident: int, keys: Collection[bytes]) -> None:
        """Detach keys from a lease, which may already be gone."""
        lease, begin = self.leases.get(ident), lease_key(ident)
        generation.delete_rows(ATTACHMENT, [begin + key for key in keys])
        if lease is not None:
            lease.keys.difference_update(keys)
