"""Live writes and replay are two interpreters of a write. Here they are compared.

    live:     request --decide--> plan --carry_out--> state
    replay:   entry --effects.apply--> state

A plan's entry must do to a state what the plan does. ``Twin`` is a state small enough to be made for each write: the
entry is applied to it, and it is compared once the plan has been carried out (invariant 9, with ``KVSTORE_VERIFY=1``).
"""

from __future__ import annotations

from typing import Any, cast

from kvstore.invariants import hold
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lease, Lessor
from kvstore.mvcc.overlay import ChangedRow, Generation
from kvstore.mvcc.state import State

LEASES_MAX = 100
"""If there are more, leases are not compared: copying them for each write would take too long."""


class Twin:
    """The part of the state that an entry may look at and change, as it is before the write."""

    def __init__(self, state: State, lessor: Lessor) -> None:
        self.active = Generation()
        self.head = state.head
        self.index = state.index
        self.head_compacted = state.head_compacted
        self.alarms = set(state.alarms)
        self.carried = state.carried
        self._compares_leases = len(lessor.leases) <= LEASES_MAX
        self._lessor = _copy(lessor) if self._compares_leases else Lessor()

    change = State.change
    compact = State.compact
    set_alarm = State.set_alarm
    set_carried = State.set_carried

    @property
    def generations(self) -> tuple[Generation, ...]:
        return (self.active,)

    def take(self, entry: bytes) -> None:
        effects.apply(entry, cast(State, self), self._lessor)

    def compare(self, state: State, lessor: Lessor, changes: tuple[ChangedRow, ...]) -> None:
        """Compare it with the state that the plan was carried out in."""
        for name in ("head", "index", "head_compacted", "alarms", "carried"):
            _hold_same(name, getattr(state, name), getattr(self, name))
        _hold_same("changes", list(changes), self.active.changes)
        if self._compares_leases:
            _hold_same("leases", _facts(lessor), _facts(self._lessor))
            for table, rows in self.active.rows.items():
                live = state.active.rows.get(table, {})
                for key, value in rows.items():
                    hold(9, live.get(key, 0) == value, f"row {key!r} of {table} differs")


def _hold_same(name: str, live: object, replayed: object) -> None:
    if live != replayed:  # only then is it put into words: that takes longer than the write
        hold(9, False, f"{name}: {live} live, {replayed} replayed")


def _copy(lessor: Lessor) -> Lessor:
    copy = Lessor()
    for lease in lessor.leases.values():
        twin = copy.leases[lease.id] = Lease(lease.id, lease.ttl_seconds, lease.deadline_ms)
        twin.keys = set(lease.keys)
    return copy


def _facts(lessor: Lessor) -> dict[int, Any]:
    return {lease.id: (lease.ttl_seconds, lease.deadline_ms, lease.keys) for lease in lessor.leases.values()}
