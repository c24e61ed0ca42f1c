"""A replica's writes: what the source has done is planned here, and carried out like any write.

    RevisionRequest     the changes of one revision, as a watch tells them: planned as a transaction, and compared
    LeasesCopyRequest   leases, which no watch tells of
    EntryRequest        an entry of the source's log, with all that is in it

Every other request is refused before it comes here (``engine``). What does not continue what is here is refused: a
revision that is not the next, or that would give a key other numbers than it has at the source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

from kvstore.errors import WrongStore
from kvstore.keyvalue import decode_row
from kvstore.model import DeleteRangeRequest, EntryRequest, LeasesCopyRequest, PutRequest, RevisionRequest
from kvstore.mvcc import effects
from kvstore.mvcc.lessor import Lessor
from kvstore.mvcc.overlay import ChangedRow
from kvstore.mvcc.plan import Plan, Planner, Step
from kvstore.mvcc.state import State

DRIFT_MS = 1000
"""A deadline that has moved by less is left as it is: the answers of a server are in whole seconds."""


class ReplicaPlanner(Planner):
    """Also plans what a replica takes over."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._deciders |= {
            RevisionRequest: self._revision,
            LeasesCopyRequest: self._leases_copy,
            EntryRequest: self._entry,
        }

    def _revision(self, request: RevisionRequest) -> Plan:
        if request.revision != self._state.head + 1:
            raise WrongStore(
                f"revision {request.revision} of the source follows revision {self._state.head} here"
            )
        draft = self._draft()
        for ident, (ttl_seconds, left_seconds) in request.leases.items():
            if ident not in self._lessor.leases:
                draft.grant(ident, ttl_seconds, self._now_ms() + left_seconds * 1000)
        for _, _, key, key_value in request.changes:
            if key_value is None:
                draft.delete(DeleteRangeRequest(key))
            else:
                _, _, _, _, value, lease = decode_row(key_value)
                draft.put(PutRequest(key, value, lease))
        plan = draft.plan(None)
        _compare(plan.changes, request)
        return plan

    def _leases_copy(self, request: LeasesCopyRequest) -> Plan:
        draft, now_ms = self._draft(), self._now_ms()
        for ident, (ttl_seconds, left_seconds) in request.leases.items():
            known, deadline_ms = self._lessor.leases.get(ident), now_ms + left_seconds * 1000
            if known is None:
                draft.grant(ident, ttl_seconds, deadline_ms)
            elif abs(known.deadline_ms - deadline_ms) > DRIFT_MS:
                draft.renew(ident, deadline_ms)
        for ident in request.gone:
            known = self._lessor.leases.get(ident)
            if known is not None and not known.keys:
                draft.revoke(ident)
        return draft.plan(None)

    def _entry(self, request: EntryRequest) -> Plan:
        if request.at != self._state.index + 1:
            raise WrongStore(f"entry {request.at} of the source follows entry {self._state.index} here")
        recorder = _Recorder(self._state, self._lessor)
        effects.apply(request.entry, cast(State, recorder), cast(Lessor, recorder))
        return Plan(request.entry, None, recorder.head, recorder.index, recorder.changes, recorder.steps)


def _compare(planned: Collection[ChangedRow], request: RevisionRequest) -> None:
    """Raise ``WrongStore`` unless the plan makes of the keys what the source has made of them."""
    made = [(key, row and decode_row(row)) for _, _, key, row in planned]
    told = [(key, row and decode_row(row)) for _, _, key, row in request.changes]
    if made != told:
        differing = next((b[0] for a, b in zip(made, told, strict=False) if a != b), b"")
        raise WrongStore(
            f"revision {request.revision} of the source does not continue what is here (key {differing!r:.80}): "
            "it is another history, as after a restore of the source from a backup"
        )


class _Recorder:
    """State and leases for an entry that is not carried out yet: keeps what it would do, as a plan's."""

    def __init__(self, state: State, lessor: Lessor) -> None:
        self._state = state
        self._lessor = lessor
        self.head = state.head
        self.index = state.index
        self.active = state.active
        self.changes: list[ChangedRow] = []
        self.steps: list[Step] = []

    def change(self, change: ChangedRow) -> None:
        self.changes.append(change)

    def compact(self, revision: int) -> None:
        self.steps.append((self._state.compact, (revision,)))

    def set_alarm(self, *alarm: Any) -> None:
        self.steps.append((self._state.set_alarm, alarm))

    def set_carried(self, *row: Any) -> None:
        self.steps.append((self._state.set_carried, row))

    def __getattr__(self, name: str) -> Callable[..., None]:
        """``apply_grant`` and the like, of the leases."""
        change = getattr(self._lessor, name)
        return lambda *arguments: self.steps.append((change, arguments))
