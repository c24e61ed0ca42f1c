"""Alarms that are raised and put out by request, and what is refused as long as they are on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import BadArgument, CorruptCluster, QuotaExceeded, Store
from kvstore.etcdpb.status import status_of
from kvstore.model import CORRUPT, NOSPACE, Alarm, AlarmRequest, AlarmResponse, LeaseKeepAliveRequest
from kvstore.testing.fake_clock import FakeClock
from tests.harness.watching import BACKENDS, open_store

MEMBER = 9
ON, OFF = (AlarmRequest(MEMBER, NOSPACE, on=on) for on in (True, False))
NO_SPACE = "etcdserver: mvcc: database space exceeded"


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Store]:
    with open_store(scratch, request.param, nospace_policy="sticky", low_disk_bytes=0) as store:
        yield store


def refused(call: Callable[[], object], error: type[kvstore.KVStoreError]) -> str:
    """What a client is told."""
    with pytest.raises(error) as caught:
        call()
    code, text = status_of(caught.value)
    return f"{code.value} {text}"


def test_alarms_are_raised_and_put_out_once(store: Store) -> None:
    """Again changes nothing and logs nothing; what was not on was not put out."""
    engine, index = store.engine, store.engine.state.index
    alarm = Alarm(MEMBER, NOSPACE)
    assert engine.ask(OFF) == AlarmResponse(1, ())
    assert engine.ask(ON) == engine.ask(ON) == AlarmResponse(1, (alarm,))
    assert store.alarms() == (alarm,) and engine.state.index == index + 1
    assert engine.ask(OFF) == AlarmResponse(1, (alarm,))
    assert engine.ask(OFF) == AlarmResponse(1, ())
    engine.raise_alarm(alarm)
    engine.raise_alarm(alarm)
    assert store.disarm(alarm) == (alarm,) and store.disarm(alarm) == ()
    with pytest.raises(BadArgument, match="NOSPACE, CORRUPT"):
        engine.raise_alarm(Alarm(MEMBER, "FIRE"))


def test_a_sticky_alarm_refuses_what_puts_or_grants(store: Store) -> None:
    """Though there is room; the rest works. As soon as it is put out, so do puts."""
    store.put(b"k", b"v")
    store.put(b"gone")
    lease = store.grant_lease(60).id
    store.engine.ask(ON)
    put = kvstore.ops.put(b"new")
    for call in (
        lambda: store.put(b"k"),
        lambda: store.put(b"k", ttl=60),
        lambda: store.put_nowait(b"k"),
        lambda: store.grant_lease(60),
        lambda: store.txn(success=[kvstore.ops.get(b"k")], failure=[put]),
        lambda: store.txn(success=[kvstore.ops.txn(success=[put])]),
    ):
        assert refused(call, QuotaExceeded) == f"8 {NO_SPACE}"
    assert store.get(b"k") is not None and store.range(b"k").count == 1
    assert store.txn(success=[kvstore.ops.get(b"k"), kvstore.ops.delete(b"gone")]).succeeded
    assert store.delete(b"k").deleted == 1
    assert store.keep_alive(lease).ttl == 60
    store.compact(store.revision)
    store.revoke_lease(lease)
    store.engine.ask(OFF)
    store.put(b"k")
    store.grant_lease(60)


def test_a_ticket_behind_the_alarm_is_refused(store: Store) -> None:
    """What was put down after it is planned after it."""
    told: list[object] = []
    with store.engine.writer.planning:
        tickets = [
            store.engine.ask_soon(request, told.extend)
            for request in (
                kvstore.ops.put(b"before"),
                ON,
                kvstore.ops.put(b"after"),
                OFF,
                kvstore.ops.put(b"last"),
            )
        ]
    for ticket in tickets:
        assert ticket is not None
        store.engine.writer.barrier()
    assert [isinstance(ticket.error, QuotaExceeded) for ticket in tickets if ticket] == [
        *(False, False, True),
        *(False, False),
    ]
    assert store.get(b"before") and store.get(b"last") and store.get(b"after") is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sticky_alarm_stays_until_it_is_put_out(tmp_path: Path, backend: str) -> None:
    """Raised by the quota, it stays though there is room, through a restart and a crash; with ``heals`` it goes."""
    options: dict[str, Any] = {
        "quota_backend_bytes": 200_000,
        "low_disk_bytes": 0,
        "nospace_policy": "sticky",
    }
    with open_store(tmp_path, backend, **options) as store:
        with pytest.raises(QuotaExceeded):
            store.put(b"k", b"v" * 300_000)
        (alarm,) = store.alarms()
        store.engine.room.tend()
        assert store.alarms() == (alarm,)
        with pytest.raises(QuotaExceeded) as refusal:
            store.put(b"k")
        assert "kvstore alarm disarm" in refusal.value.__notes__[0]
        shutil.copytree(tmp_path / "data", tmp_path / "crashed" / "data")
    for place in (tmp_path, tmp_path / "crashed"):
        with open_store(place, backend, **options) as store:
            store.engine.room.tend()
            with pytest.raises(QuotaExceeded):
                store.put(b"k")
            assert store.disarm(alarm) == (alarm,)
            store.put(b"k")
    with open_store(tmp_path, backend, **options) as store:
        assert store.alarms() == ()
        store.engine.raise_alarm(alarm)
    with open_store(tmp_path, backend, **{**options, "nospace_policy": "heals"}) as store:
        store.put(b"k")
        assert store.alarms() == (alarm,) and store.engine.member_id == alarm.member_id
        store.engine.room.tend()
        assert store.alarms() == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_corrupt_stops_all_changes_and_no_read(tmp_path: Path, backend: str) -> None:
    """Also after a restart; no lease expires meanwhile, and each can be kept alive. Then it is put out."""
    clock = FakeClock()
    with open_store(tmp_path, backend, clock=clock) as store:
        store.put(b"k", b"v", lease=store.grant_lease(60, 7).id)
        store.engine.raise_alarm(Alarm(MEMBER, CORRUPT))
    with open_store(tmp_path, backend, clock=clock) as store:
        for call in (
            lambda: store.put(b"k"),
            lambda: store.put(b"k", ttl=60),
            lambda: store.delete(b"k"),
            lambda: store.txn(success=[kvstore.ops.delete(b"k")]),
            lambda: store.grant_lease(60),
            lambda: store.revoke_lease(7),
            lambda: store.compact(2),
        ):
            assert refused(call, CorruptCluster) == "15 etcdserver: corrupt cluster"
        assert store.revision == 2
        assert store.get(b"k") is not None and store.range(b"k").count == 1
        assert store.txn(success=[kvstore.ops.get(b"k")]).succeeded
        assert store.engine.ask(LeaseKeepAliveRequest(7)).ttl == 60
        assert store.leases() == (7,) and store.health().reasons == ("alarm CORRUPT",)
        clock.advance(100)
        with pytest.raises(CorruptCluster):
            store.engine.leasing.expire()
        assert store.get(b"k") is not None
        store.disarm(Alarm(MEMBER, CORRUPT))
        assert store.engine.leasing.expire() == 1 and store.get(b"k") is None
        store.put(b"k")
