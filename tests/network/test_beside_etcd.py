"""The same conversations with our endpoint and with a real etcd, answer by answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.etcdpb.json import from_json
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.etcdpb.messages import v3electionpb, v3lockpb
from kvstore.network.dialect import DIALECTS
from kvstore.network.endpoint import Settings
from tests.etcd import etcd_servers as real
from tests.network.etcd_gateway import Gateway
from tests.network.fake_call import Client, FakeCall, Refused

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)

MAINTENANCE, CLUSTER = "/etcdserverpb.Maintenance/", "/etcdserverpb.Cluster/"
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
SETTINGS = Settings(dialect=DIALECTS[real.RELEASE], advertised_urls=("http://127.0.0.1:2379",))


@contextmanager
def served(store: kvstore.Store) -> Iterator[str]:
    """The store as an etcd of the release that is on PATH; where."""
    with kvstore.serve(store, "http://127.0.0.1:0", etcd_version=real.RELEASE) as server:
        (url,) = server.endpoints
        yield url


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[real.Server]:
    """A real one that nobody has asked anything that changes it."""
    with real.etcd(tmp_path / "etcd", tmp_path / "log") as server:
        yield server


# --- etcdctl -------------------------------------------------------------------------------------


class Commands:
    """etcdctl at one server; what it prints, with the names of this server's own made neutral."""

    def __init__(self, url: str) -> None:
        self._url = url
        (member,) = self.json("member", "list")["members"]
        self.own = member["ID"]
        (self._peer_url,) = member["peerURLs"]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit code, output and error."""
        if arguments[0] == "member":
            self._etcdctl(*real.SETTLING)
        words = [self._known(word) for word in arguments]
        ran = self._etcdctl(*words)
        error = ran.stderr.decode().strip().splitlines()
        said = [line for line in error if not line.startswith("{")]
        return ran.returncode, self._neutral(ran.stdout.decode()), self._neutral("\n".join(said))

    def json(self, *arguments: str) -> Any:
        return json.loads(self._etcdctl(*arguments, "-w", "json").stdout)

    def _etcdctl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        patience = ("--command-timeout", f"{real.PATIENCE_SECONDS}s")
        command = ["etcdctl", "--endpoints", self._url, *patience, *arguments]
        return subprocess.run(command, env=real.ENVIRONMENT, capture_output=True, timeout=120, check=False)

    def _known(self, word: str) -> str:
        """``OWN``, ``LEARNER`` and ``PEER`` are this server's."""
        if "LEARNER" in word:
            members = self.json("member", "list")["members"]
            (learner,) = [member["ID"] for member in members if member["ID"] != self.own]
            word = word.replace("LEARNER", f"{learner:x}")
        return word.replace("OWN", f"{self.own:x}").replace("PEER", self._peer_url)

    def _neutral(self, text: str) -> str:
        text = text.replace(self._peer_url, "PEER").replace(self._url, "URL")
        text = text.replace(f"{self.own:x}", "OWN").replace(str(self.own), "OWN")
        text = re.sub(r"took = \S+|took [\d.]+\S*", "TOOK", text)
        text = re.sub(r" +", " ", re.sub(r"\b[0-9a-f]{10,16}\b", "ID", text))
        text = re.sub(r'(?<=CLUSTER=").*(?=")', lambda found: ",".join(sorted(found[0].split(","))), text)
        return "\n".join(sorted(text.splitlines()))  # members go by their ids, which are drawn


COMMANDS = [
    "put a 1",
    "put a 2",
    "endpoint health",
    "endpoint hashkv",
    "endpoint hashkv --rev=2",
    "endpoint hashkv --rev=99",
    "member list",
    "member add two --peer-urls=garbage --learner",
    "member add two --peer-urls=PEER --learner",
    "member add two --peer-urls=http://127.0.0.1:1 --learner",
    "member list",
    "member add three --peer-urls=http://127.0.0.1:3 --learner",
    "member promote LEARNER",
    "member promote OWN",
    "member update OWN --peer-urls=http://127.0.0.1:1",
    "member update 77 --peer-urls=http://127.0.0.1:5",
    "member remove LEARNER",
    "member remove 77",
    "member remove OWN",
    "member update OWN --peer-urls=PEER",
    "alarm list",
    "alarm disarm",
    "defrag",
    "move-leader OWN",
    "move-leader 77",
    "compaction 2",
    "endpoint hashkv --rev=2",
    "endpoint hashkv",
    "lock l true",
    "lock l --ttl 20 false",
]


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_etcdctl_prints_the_same(fresh: real.Server, tmp_path: Path, backend: str) -> None:
    """Of every command: exit code, output, error."""
    with kvstore.open(tmp_path / "store", backend=backend) as store, served(store) as url:
        ours, theirs = Commands(url), Commands(fresh.endpoint)
        for command in COMMANDS:
            assert ours.run(*command.split()) == theirs.run(*command.split()), command


ALARMED = [
    "alarm list",
    "put a 2",
    "get a",
    "del a",
    "lease grant 10",
    "endpoint health",
    "defrag",
    "alarm disarm",
    "alarm list",
    "put a 3",
    "endpoint health",
]


@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_etcdctl_finds_the_same_refused_under_an_alarm(
    fresh: real.Server, tmp_path: Path, alarm: str
) -> None:
    """From when it is raised until it is put out, and nothing after that."""
    with kvstore.open(tmp_path / "store", nospace_policy="sticky") as store, served(store) as url:
        said = []
        for commands, gateway in [(Commands(each), Gateway(each)) for each in (url, fresh.endpoint)]:
            said.append([commands.run("put", "a", "1")])
            raised = pb.AlarmRequest(action="ACTIVATE", memberID=commands.own, alarm=alarm)
            gateway.ask(MAINTENANCE + "Alarm", raised)
            said[-1] += [commands.run(*command.split()) for command in ALARMED]
    for ours, theirs, command in zip(*said, ["", *ALARMED], strict=True):
        assert ours == theirs, command


def test_etcdctl_shows_the_same_status(fresh: real.Server, tmp_path: Path) -> None:
    """The same fields in JSON; those that name no size and no index have the same values."""
    with kvstore.open(tmp_path / "store") as store, served(store) as url:
        both = []
        for commands in (Commands(url), Commands(fresh.endpoint)):
            commands.run("put", "a", "1")
            (status,) = commands.json("endpoint", "status")
            shown = status["Status"]
            assert shown.pop("leader") == shown["header"].pop("member_id") == commands.own
            both.append(shown)
        ours, theirs = both
        assert ours.keys() == theirs.keys()
        assert ours["raftTerm"] == theirs["raftTerm"]
        assert ours["header"]["revision"] == theirs["header"]["revision"]


def test_etcdctl_campaigns_the_same(fresh: real.Server, tmp_path: Path) -> None:
    """Whoever is elected says so, until it is told to stop; who listens hears of it."""
    with kvstore.open(tmp_path / "store") as store, served(store) as url:
        ours, theirs = _elected(url), _elected(fresh.endpoint)
    assert ours == theirs


def _elected(url: str) -> list[Any]:
    said: list[Any] = []
    command = ["etcdctl", "--endpoints", url, "elect"]
    start = partial(subprocess.Popen, env=real.ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    with start([*command, "e", "me"]) as candidate:
        key = _line(candidate)
        with start([*command, "e", "you"]) as other, start([*command, "--listen", "e"]) as listener:
            said += [_line(listener) == key, _line(listener), _line(candidate)]
            candidate.send_signal(signal.SIGINT)
            said += [candidate.wait(60), _line(other)[:2], _line(listener)[:2], _line(listener), _line(other)]
            other.send_signal(signal.SIGINT)
            said.append(other.wait(60))
            listener.send_signal(signal.SIGINT)
            said.append(listener.wait(60))
    return said


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_real_etcd_goes_on_from_a_snapshot(tmp_path: Path, backend: str) -> None:
    """Saved with etcdctl from our endpoint, restored with etcdctl, served by etcd: every revision is there."""
    with kvstore.open(tmp_path / "store", backend=backend) as store:
        lease = store.grant_lease(1000, 5).id
        for number in range(300):
            store.put(b"k%d" % (number % 40), os.urandom(1000), lease=lease if number % 7 == 0 else 0)
        store.delete(b"k1")
        store.compact(100)
        with served(store) as url:
            saved = tmp_path / "saved"
            real.etcdctl("--endpoints", url, "snapshot", "save", str(saved))
        revision, kept_hash = store.revision, store.hash_kv().hash
    real.restore(saved, tmp_path / "etcd", "m", "http://127.0.0.1:2380")
    with real.etcd(tmp_path / "etcd", tmp_path / "log", "--name", "m") as server:
        assert server.hash_kv(0)["hash"] == kept_hash
        assert server.ctl("get", "anything")["header"]["revision"] == revision
        assert server.ctl("lease", "list")["leases"] == [{"id": 5}]
        server.ctl("put", "more", "1")


# --- services ------------------------------------------------------------------------------------


class Side:
    """One of two servers that are asked the same. What they say is noted, without the names of their own."""

    def __init__(self, peer: Client | Gateway) -> None:
        self.peer = peer
        self.said: list[Any] = []
        (member,) = peer.ask(CLUSTER + "MemberList").members
        self.own = member.ID
        self.peer_url = member.peerURLs[0]

    def ask(self, path: str, request: Any = None) -> Any:
        try:
            answer = self.peer.ask(path, request)
        except Refused as error:
            self.said.append((path, int(error.code), error.text))
            return None
        self.note(answer)
        return answer

    def note(self, answer: Any) -> None:
        if hasattr(answer, "members"):  # they go by their ids, which are drawn
            answer.members.sort(key=lambda member: self.own != member.ID)
        self.said.append(self._neutral(answer))

    def _neutral(self, answer: Any) -> str:
        text = str(answer)
        text = text.replace(self.peer_url, "PEER").replace(str(self.own), "OWN")
        text = re.sub(r"(cluster_id|hash): \d+", r"\1", text)
        return re.sub(r"(clientURLs: ).*|\d{15,}", r"\1", text)


def members(side: Side) -> None:
    """Everything that membership refuses, and what it does not."""

    def ask(method: str, **fields: Any) -> Any:
        return side.ask(CLUSTER + method, getattr(pb, method + "Request")(**fields))

    ask("MemberPromote", ID=77)
    ask("MemberPromote", ID=side.own)
    ask("MemberRemove", ID=side.own)
    ask("MemberRemove", ID=77)
    ask("MemberAdd", isLearner=True)
    ask("MemberAdd", isLearner=True, peerURLs=["garbage"])
    ask("MemberAdd", isLearner=True, peerURLs=[side.peer_url])
    learner = ask(
        "MemberAdd", isLearner=True, peerURLs=["http://127.0.0.1:2", "http://127.0.0.1:1"]
    ).member.ID
    ask("MemberAdd", isLearner=True, peerURLs=["http://127.0.0.1:3"])
    ask("MemberAdd", isLearner=True, peerURLs=["http://127.0.0.1:1"])
    ask("MemberPromote", ID=learner)
    ask("MemberUpdate", ID=learner, peerURLs=[side.peer_url])
    ask("MemberUpdate", ID=77, peerURLs=["http://127.0.0.1:5"])
    ask("MemberUpdate", ID=side.own, peerURLs=["http://127.0.0.1:7"])
    ask("MemberUpdate", ID=side.own, peerURLs=[side.peer_url])
    ask("MemberRemove", ID=learner)
    ask("MemberRemove", ID=learner)
    ask("MemberPromote", ID=learner)


def maintenance(side: Side) -> None:
    """Alarms and the leader's moves."""

    def ask(method: str, **fields: Any) -> Any:
        return side.ask(MAINTENANCE + method, getattr(pb, method + "Request")(**fields))

    for change in ("ACTIVATE", "ACTIVATE", "GET", "DEACTIVATE", "DEACTIVATE", "GET"):
        ask("Alarm", action=change, memberID=5, alarm="CORRUPT")
        ask("Alarm")
    ask("Alarm", action="ACTIVATE", memberID=side.own, alarm="NOSPACE")
    ask("Alarm", alarm="CORRUPT")
    ask("Alarm", alarm="NOSPACE")
    ask("Alarm", action="DEACTIVATE", memberID=side.own, alarm="NOSPACE")
    ask("MoveLeader", targetID=0)
    ask("MoveLeader", targetID=77)
    ask("MoveLeader", targetID=side.own)
    ask("Defragment")


def locks(side: Side) -> None:
    """As far as nobody waits."""
    leases = [
        side.ask("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=100, ID=id)).ID for id in (55, 56)
    ]
    side.ask(LOCK + "Lock", v3lockpb.LockRequest(name=b"l", lease=57))
    side.ask(LOCK + "Lock", v3lockpb.LockRequest(name=b"l", lease=-5))
    for name in (b"l", b"l", b"m", b"", b"\xff"):
        for lease in leases[: 1 if name in (b"l", b"") else 2][-1:]:
            side.ask(LOCK + "Lock", v3lockpb.LockRequest(name=name, lease=lease))
    for key in (b"l/37", b"l/37", b"", b"m/38"):
        side.ask(LOCK + "Unlock", v3lockpb.UnlockRequest(key=key))
    side.ask("/etcdserverpb.KV/Range", pb.RangeRequest(key=b"\0", range_end=b"\0"))


def elections(side: Side) -> None:
    """As far as nobody waits."""

    def ask(method: str, **fields: Any) -> Any:
        return side.ask(ELECTION + method, getattr(v3electionpb, method + "Request")(**fields))

    side.ask("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=100, ID=65))
    ask("Leader", name=b"e")
    ask("Campaign", name=b"e", lease=66, value=b"v")
    ask("Campaign", name=b"e", lease=65, value=b"v")
    ask("Campaign", name=b"e", lease=65, value=b"v")
    leader = ask("Campaign", name=b"e", lease=65, value=b"w").leader
    ask("Leader", name=b"e")
    ask("Leader", name=b"f")
    ask("Proclaim")
    ask("Proclaim", leader=leader, value=b"x")
    ask("Proclaim", leader={"name": b"e", "key": b"e/41", "rev": 1, "lease": 65}, value=b"y")
    ask("Proclaim", leader={"name": b"e", "key": b"e/41", "rev": leader.rev, "lease": 99}, value=b"y")
    ask("Leader", name=b"e")
    ask("Resign")
    ask("Resign", leader={"name": b"e", "key": b"e/41", "rev": 1, "lease": 65})
    ask("Resign", leader=leader)
    ask("Resign", leader=leader)
    ask("Proclaim", leader=leader, value=b"x")
    ask("Leader", name=b"e")


@pytest.mark.parametrize("conversation", [members, maintenance, locks, elections])
def test_services_answer_the_same(
    fresh: real.Server, store: kvstore.Store, conversation: Callable[[Side], None]
) -> None:
    """Every answer and every refusal, codes and texts included."""
    with Client(store.engine, SETTINGS) as client:
        ours, theirs = Side(client), Side(Gateway(fresh.endpoint))
        for side in (ours, theirs):
            conversation(side)
        assert ours.said == theirs.said


Wait = Callable[[], Any]
"""Waits for an answer, and returns it."""


def waiting(side: Side, begin: Callable[[str, Any], Wait], observe: Callable[[Any], list[Wait]]) -> None:
    """A lock and an election with two who want them, and somebody who looks on."""
    for lease in (0x37, 0x38):
        side.ask("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=100, ID=lease))

    def begin_behind(path: str, request: Any) -> Wait:
        wait = begin(path, request)
        key = pb.RangeRequest(key=request.name + b"/38")
        while not side.peer.ask("/etcdserverpb.KV/Range", key).count:
            time.sleep(0.01)
        return wait

    lock = side.ask(LOCK + "Lock", v3lockpb.LockRequest(name=b"l", lease=0x37))
    second = begin_behind(LOCK + "Lock", v3lockpb.LockRequest(name=b"l", lease=0x38))
    side.ask(LOCK + "Unlock", v3lockpb.UnlockRequest(key=lock.key))
    side.note(second())
    first = v3electionpb.CampaignRequest(name=b"e", lease=0x37, value=b"v")
    leader = side.ask(ELECTION + "Campaign", first).leader
    leaders = observe(v3electionpb.LeaderRequest(name=b"e"))
    side.note(leaders.pop(0)())
    request = v3electionpb.CampaignRequest(name=b"e", lease=0x38, value=b"w")
    second = begin_behind(ELECTION + "Campaign", request)
    side.ask(ELECTION + "Proclaim", v3electionpb.ProclaimRequest(leader=leader, value=b"x"))
    side.note(leaders.pop(0)())
    side.ask(ELECTION + "Resign", v3electionpb.ResignRequest(leader=leader))
    side.note(second())
    side.note(leaders.pop(0)())


def test_who_waits_is_answered_the_same(fresh: real.Server, store: kvstore.Store) -> None:
    """Each answer, and what the observer sees."""
    with Client(store.engine, SETTINGS) as client:
        ours = Side(client)

        def begin(path: str, request: Any) -> Wait:
            call = client.begin(path, request)
            return lambda: answer_of(call, 0)

        def answer_of(call: FakeCall, number: int) -> Any:
            client.until(lambda: len(call.answers) > number)
            return call.answers[number]

        def observe(request: Any) -> list[Wait]:
            call = client.begin(ELECTION + "Observe", request)
            return [partial(answer_of, call, number) for number in range(3)]

        waiting(ours, begin, observe)
    theirs = Side(gateway := Gateway(fresh.endpoint))
    with ThreadPoolExecutor() as threads, ExitStack() as streams:

        def observe_there(request: Any) -> list[Wait]:
            stream = streams.enter_context(gateway.open(ELECTION + "Observe", request))

            def next_one() -> Any:
                return from_json(v3electionpb.LeaderResponse, json.loads(stream.readline())["result"])

            return [next_one] * 3

        waiting(
            theirs, lambda path, request: threads.submit(gateway.ask, path, request).result, observe_there
        )
    assert ours.said == theirs.said
