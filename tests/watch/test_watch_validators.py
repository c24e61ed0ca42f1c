"""Each promise of a watch has a validator that finds it broken, and none accuses a good watch."""

from dataclasses import replace

import pytest

from tests.harness.checkers.store_model import ChangeLog, Event, KeyValue
from tests.harness.checkers.watch_validators import (
    VALIDATORS,
    WatchRecord,
    WatchRequest,
    WatchResponse,
    validate,
)


def kv(key: bytes, value: bytes, revision: int, created: int | None = None, version: int = 1) -> KeyValue:
    return KeyValue(key, value, created or revision, revision, version)


def delete(key: bytes, revision: int) -> Event:
    return Event("delete", KeyValue(key, mod_revision=revision))


LOG = ChangeLog(
    [
        Event("put", kv(b"a1", b"x", 2)),
        Event("put", kv(b"z", b"x", 3)),
        Event("put", kv(b"a1", b"y", 4, created=2, version=2)),
        Event("put", kv(b"a2", b"y", 4)),
        delete(b"a1", 5),
        Event("put", kv(b"a1", b"n", 6)),
    ]
)
A1, Z, A1_AGAIN, A2, A1_GONE, A1_NEW = LOG.events
WATCH = WatchRequest(b"a", b"b", start_revision=2, prev_kv=True)


def watched(*responses: WatchResponse, request: WatchRequest = WATCH, created: int = 0) -> WatchRecord:
    return WatchRecord(request, responses, created)


def response(*events: Event, fragment: bool = False) -> WatchResponse:
    return WatchResponse(events[-1].revision, events, fragment=fragment)


def progress(revision: int) -> WatchResponse:
    return WatchResponse(revision, progress=True)


GOOD = watched(
    response(A1), progress(3), response(A1_AGAIN, A2), response(A1_GONE), response(A1_NEW), progress(6)
)


def without_prev(record: WatchRecord) -> WatchRecord:
    """The record as it would be without ``prev_kv``."""
    responses = tuple(
        replace(each, events=tuple(replace(event, prev_kv=None) for event in each.events))
        for each in record.responses
    )
    return replace(record, request=replace(record.request, prev_kv=False), responses=responses)


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        without_prev(GOOD),
        watched(),
        watched(response(A1, A1_AGAIN, A2, A1_GONE, A1_NEW)),
        watched(response(A1), response(A1_AGAIN, fragment=True), response(A2), response(A1_GONE)),
        watched(response(A1_NEW), request=replace(WATCH, start_revision=0), created=5),
        watched(response(A1_GONE), request=replace(WATCH, filters=frozenset({"put"}))),
        watched(
            response(A1), response(A1_AGAIN), request=WatchRequest(b"a1", start_revision=2, prev_kv=True)
        ),
        watched(response(Z), request=WatchRequest(b"b", b"\0", start_revision=2, prev_kv=True)),
    ],
)
def test_a_good_watch_keeps_every_promise(record: WatchRecord) -> None:
    """Nothing is said against watches that delivered what they promised, in whatever batches."""
    assert validate(record, LOG) == []


WRONG_VALUE = replace(A2, kv=replace(A2.kv, value=b"other"))
NOT_CREATED = replace(A1_NEW, kv=replace(A1_NEW.kv, create_revision=2, version=3))

BROKEN = [
    ("filter", watched(response(A1), response(Z)), "not asked for"),
    ("filter", watched(response(A1), request=replace(WATCH, filters=frozenset({"put"}))), "not asked for"),
    ("ordered", watched(response(A1), response(A1_GONE), response(A1_AGAIN, A2)), "came after revision 5"),
    ("ordered", watched(response(A1_AGAIN, A1)), "came after revision 4"),
    ("unique", watched(response(A1), response(A1)), "more than once"),
    ("unique", watched(response(A1_AGAIN, A1_AGAIN, A2)), "more than once"),
    ("atomic", watched(response(A1), response(A1_AGAIN), response(A2)), "revision 4 came in more than one"),
    ("reliable", watched(response(A1), response(A1_GONE)), "is missing"),
    ("reliable", watched(response(A1), response(A1_AGAIN), response(A1_GONE)), "is missing"),
    ("reliable", watched(response(A1), response(A1_AGAIN, WRONG_VALUE)), "never happened"),
    ("reliable", watched(response(A1), response(A2, A1_AGAIN)), "not in the order"),
    ("resumable", watched(response(A1_AGAIN, A2)), "is the first from revision 2 on"),
    (
        "resumable",
        watched(response(A1), request=replace(WATCH, start_revision=3)),
        "before the start revision",
    ),
    (
        "resumable",
        watched(response(A1_NEW), request=replace(WATCH, start_revision=0), created=4),
        "the first",
    ),
    ("bookmarkable", watched(response(A1), progress(4), response(A1_AGAIN, A2)), "after a progress notice"),
    ("bookmarkable", watched(response(A1), progress(5)), "had not come before"),
    ("bookmarkable", watched(progress(1), progress(0)), "came after one at 1"),
    ("prev_kv", watched(response(A1), response(replace(A1_AGAIN, prev_kv=None), A2)), "before it, not"),
    ("prev_kv", watched(response(A1), response(replace(A1_AGAIN, prev_kv=Z.kv), A2)), "before it, not"),
    ("prev_kv", watched(response(replace(A1, prev_kv=Z.kv))), "before it, not None"),
    ("prev_kv", watched(response(A1_GONE), request=WatchRequest(b"a", b"b", 5)), "nobody asked for"),
    (
        "is_create",
        watched(response(NOT_CREATED), request=replace(WATCH, start_revision=6)),
        "created its key",
    ),
    (
        "is_create",
        watched(response(replace(A1_AGAIN, kv=replace(A1_AGAIN.kv, create_revision=4)), A2)),
        "created its key",
    ),
    ("is_create", watched(response(replace(A1, kv=replace(A1.kv, version=2)))), "has version 2"),
]


@pytest.mark.parametrize(("name", "record", "message"), BROKEN)
def test_a_broken_promise_of_a_watch_is_named(name: str, record: WatchRecord, message: str) -> None:
    """Each validator by itself finds the violation planted for it."""
    assert any(message in what for what in VALIDATORS[name](record, LOG))


def test_every_validator_has_a_planted_violation() -> None:
    """None of the nine validators stands untested."""
    assert {name for name, _, _ in BROKEN} == set(VALIDATORS)
    assert len(VALIDATORS) == 9


def test_a_value_before_that_was_compacted_may_be_absent() -> None:
    """``prev_kv`` may be missing below the compaction, but never wrong."""
    compacted = ChangeLog([replace(event, prev_kv=None) for event in LOG.events], compact_revision=5)
    absent = watched(response(A1), response(replace(A1_AGAIN, prev_kv=None), A2))
    wrong = watched(response(A1), response(replace(A1_AGAIN, prev_kv=Z.kv), A2))
    assert validate(absent, compacted) == []
    assert validate(wrong, compacted) != []
