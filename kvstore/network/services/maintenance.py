"""Maintenance: status, alarms, hashes, defragmentation; ``snapshot_stream`` has the snapshot.

Answers have the server's whole header, but these: of Defragment, MoveLeader and Snapshot it is absent, and of Alarm
before 3.5.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from kvstore.errors import Code, Compacted
from kvstore.etcdpb.messages import MESSAGES
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.requests import from_message
from kvstore.model import Alarm, AlarmRequest
from kvstore.network.call import Call, Failed, Kind, decoded, methods
from kvstore.network.dialect import V3_5, V3_6
from kvstore.network.endpoint import Endpoint
from kvstore.network.members import refused
from kvstore.network.snapshot_stream import snapshot

SERVICE = "etcdserverpb.Maintenance"
_ALARMS = MESSAGES.enum("etcdserverpb.AlarmType")

# --- status --------------------------------------------------------------------------------------


def status(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.StatusRequest, message)
    endpoint.in_thread(call, partial(_status, endpoint))


def _status(endpoint: Endpoint) -> bytes:
    engine, dialect = endpoint.engine, endpoint.dialect
    found, alarms = engine.status(), engine.alarms()
    response = pb.StatusResponse(
        version=dialect.version,
        dbSize=found.size_bytes,
        leader=engine.member_id,
        raftIndex=found.last_index,
        raftTerm=endpoint.raft_term,
        raftAppliedIndex=found.last_index,
        errors=[*(f"memberID:{alarm.member_id} alarm:{alarm.alarm} " for alarm in alarms), *found.errors],
        dbSizeInUse=found.in_use_bytes,
        isLearner=found.replica is not None,
    )
    if dialect >= V3_6:
        response.storageVersion = dialect.cluster_version
        response.dbSizeQuota = found.quota_bytes
        response.downgradeInfo.SetInParent()
    return _answer(endpoint, response)


def _answer(endpoint: Endpoint, response: Any) -> bytes:
    encoded: bytes = response.SerializeToString()
    return endpoint.header.at(endpoint.engine.revision) + encoded


# --- alarms --------------------------------------------------------------------------------------


def alarm(endpoint: Endpoint, call: Call, message: bytes) -> None:
    request = decoded(pb.AlarmRequest, message)
    change: AlarmRequest | None = from_message(request)
    raised = endpoint.engine.alarms()
    if change is None:
        wanted = [each for each in raised if request.alarm in (0, _ALARMS.index(each.alarm))]
        _answer_alarms(endpoint, call, wanted if request.action == pb.AlarmRequest.GET else [])
        return
    if endpoint.users_are_on:
        endpoint.users.check(call, change, "ALARM_CHANGE")
    meant = Alarm(change.member_id, change.alarm)
    if (meant in raised) == change.on:
        _answer_alarms(endpoint, call, [meant] if change.on else [])
    else:
        endpoint.ask_for(endpoint.guarded(call, change), partial(_alarm_changed, endpoint, call, meant))


def _alarm_changed(
    endpoint: Endpoint, call: Call, changed: Alarm, _response: Any, error: BaseException | None
) -> None:
    if error is None:
        _answer_alarms(endpoint, call, [changed])
    else:
        endpoint.fail(call, error)


def _answer_alarms(endpoint: Endpoint, call: Call, alarms: list[Alarm]) -> None:
    response = pb.AlarmResponse(
        alarms=[{"memberID": each.member_id, "alarm": _ALARMS.index(each.alarm)} for each in alarms]
    )
    has_header = endpoint.dialect >= V3_5
    call.answer(_answer(endpoint, response) if has_header else response.SerializeToString())


# --- hashes, upkeep ------------------------------------------------------------------------------


def hash_(endpoint: Endpoint, call: Call, message: bytes) -> None:
    """That of all keys: etcd's is one of its file's pages, which says nothing about any other member's either."""
    decoded(pb.HashRequest, message)

    def work() -> bytes:
        found = endpoint.engine.hash_kv()
        return endpoint.header.at(found.revision) + _encoded(pb.HashResponse(hash=found.hash))

    endpoint.in_thread(call, work, slow=True)


def hash_kv(endpoint: Endpoint, call: Call, message: bytes) -> None:
    revision = decoded(pb.HashKVRequest, message).revision
    endpoint.in_thread(call, partial(_hash_kv, endpoint, revision), slow=True)


def _hash_kv(endpoint: Endpoint, revision: int) -> bytes:
    engine, dialect = endpoint.engine, endpoint.dialect
    if dialect < V3_5 and 0 < revision <= engine.compact_revision:
        raise Compacted(engine.compact_revision)
    found = engine.hash_kv(revision)
    response = pb.HashKVResponse(hash=found.hash, compact_revision=found.compact_revision)
    if dialect >= V3_6:
        response.hash_revision = found.hash_revision
    return endpoint.header.at(found.revision) + _encoded(response)


def _encoded(response: Any) -> bytes:
    encoded: bytes = response.SerializeToString()
    return encoded


def defragment(endpoint: Endpoint, call: Call, message: bytes) -> None:
    decoded(pb.DefragmentRequest, message)

    def work() -> bytes:
        endpoint.engine.defragment()
        return b""

    endpoint.in_thread(call, work, slow=True)


def move_leader(endpoint: Endpoint, call: Call, message: bytes) -> None:
    """There is one that can lead."""
    if decoded(pb.MoveLeaderRequest, message).targetID != endpoint.engine.member_id:
        raise refused("bad leader transferee")
    call.answer(b"")


# --- downgrade -----------------------------------------------------------------------------------

_VERSION = re.compile(r"([0-9]+)\.([0-9]+)(\.[0-9]+([-+].*)?)?")


def downgrade(endpoint: Endpoint, call: Call, message: bytes) -> None:
    """Whether there could be one. There is none to carry out: the option ``--etcd-version`` is all it takes.

    Since 3.6 etcd finds nothing wrong with cancelling none, and says of its version only which release it is.
    """
    request = decoded(pb.DowngradeRequest, message)
    dialect = endpoint.dialect
    if dialect < V3_5:
        raise Failed(Code.UNIMPLEMENTED, f"unknown method Downgrade for service {SERVICE}")
    said = pb.DowngradeResponse(version=dialect.cluster_version if dialect < V3_6 else f"3.{dialect.minor}")
    if request.action == pb.DowngradeRequest.CANCEL:
        if dialect < V3_6:
            raise refused("no inflight downgrade job")
        call.answer(_answer(endpoint, said))
        return
    version = _VERSION.fullmatch(request.version)
    if version is None:
        raise refused("wrong downgrade target version format")
    is_next_lower = (int(version[1]), int(version[2])) == (3, dialect.minor - 1)
    if request.action != pb.DowngradeRequest.VALIDATE or not is_next_lower:
        raise refused("invalid downgrade target version")
    call.answer(_answer(endpoint, said))


METHODS = [
    *methods(
        SERVICE,
        pb,
        Alarm=alarm,
        Status=status,
        Defragment=defragment,
        Hash=hash_,
        HashKV=hash_kv,
        MoveLeader=move_leader,
        Downgrade=downgrade,
    ),
    *methods(SERVICE, pb, Kind.SERVER_STREAM, Snapshot=snapshot),
]
