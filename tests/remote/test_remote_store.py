"""``kvstore.connect``: the methods of ``Store`` and ``AsyncStore`` on a store that somebody else serves."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.network.http2.frames import CANCEL
from kvstore.network.remote.past import tells_progress
from kvstore.recipes.namespace import Namespace
from tests.harness.alarm import Alarm
from tests.remote.scripted import ScriptedServer, silent


def test_a_transaction_nested_deeper_than_protobuf_decodes(tmp_path: Path) -> None:
    """An answer is taken apart level by level."""
    with (
        kvstore.open(tmp_path / "s", backend="memory") as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
        kvstore.connect(server.endpoints[0]) as remote,
    ):
        deep = kvstore.ops.txn(success=[kvstore.ops.put(b"deep", b"v")])
        for _ in range(20):
            deep = kvstore.ops.txn(success=[deep])
        answer: Any = remote.txn(success=[deep])
        for _ in range(21):
            answer = answer.responses[0]
        assert answer.responses[0].revision == remote.revision


def test_the_past_of_a_key_page_by_page(remote: kvstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long past takes several watches, each where the last ended."""
    monkeypatch.setattr("kvstore.network.remote.past.PAGE_BYTES", 100)
    first = remote.put(b"hp", b"v" * 60).revision
    for _ in range(9):
        remote.put(b"hp", b"v" * 60)
    assert [kv.version for kv in remote.history(b"hp", since=first)] == list(range(1, 11))


def test_snapshot(remote: kvstore.Store, tmp_path: Path) -> None:
    """What the server streams is a whole file, checked; a name that stands there is taken over."""
    remote.put(b"sn", b"v")
    told: list[tuple[int, int]] = []
    info = remote.snapshot(tmp_path / "s.db", progress=lambda done, total: told.append((done, total)))
    assert info.path == tmp_path / "s.db"
    assert told[-1][0] == told[-1][1] == info.size_bytes
    with kvstore.open_snapshot(info.path, verify=True) as opened:
        found = opened.get(b"sn")
        assert found is not None
        assert found.value == b"v"
    assert remote.snapshot(tmp_path / "s.db").revision == info.revision
    assert os.listdir(tmp_path / ".") == ["s.db"] or not list(tmp_path.glob("*.tmp"))
    with pytest.raises(kvstore.BadArgument, match="path"):
        remote.snapshot()


def test_upkeep(remote: kvstore.Store) -> None:
    """Defragmenting every member, hashes, alarms, status, health."""
    done = remote.defragment()
    assert done.before_bytes >= 0
    assert remote.hash_kv().hash_revision == remote.revision
    assert remote.alarms() == ()
    status = remote.status()
    assert (status.revision, status.phase) == (remote.revision, "open")
    assert status.cluster_id == f"{remote._engine.cluster_id:016x}" != "0" * 16
    assert remote.health().healthy
    assert remote.compact(remote.revision, physical=True).revision == remote.revision


def test_what_only_a_local_store_can(remote: kvstore.Store) -> None:
    """One error, which says what to do instead."""
    with pytest.raises(kvstore.Unsupported, match="call put, from as many threads"):
        remote.put_nowait(b"k")
    with pytest.raises(kvstore.Unsupported, match="a server makes its own"):
        remote.checkpoint()
    with pytest.raises(kvstore.Unsupported, match=r"kvstore\.open"):
        remote.compaction_estimate(1)
    with pytest.raises(kvstore.Unsupported, match="status"):
        remote.defragment_estimate()
    with pytest.raises(kvstore.Unsupported, match="without progress"):
        remote.compact(1, progress=lambda *_: None)
    with pytest.raises(kvstore.Unsupported):
        remote.engine  # noqa: B018


def test_serializable_reads(url: str) -> None:
    """An option of the connection; writes and what is newest are not concerned."""
    with kvstore.connect(url, serializable=True) as remote:
        revision = remote.put(b"se", b"v").revision
        found = remote.get(b"se")
        assert found is not None
        assert found.mod_revision == revision == remote.revision
        assert remote.count(b"se") == 1


# --- tasks ----------------------------------------------------------------------------------------


def test_tasks(url: str) -> None:
    """The same calls from tasks: many at a time, lazily, and through a view."""

    async def run() -> None:
        async with kvstore.connect_async(url) as remote:
            await asyncio.gather(*[remote.put(b"ta/%02d" % number, b"v") for number in range(50)])
            assert await remote.count(prefix=b"ta/") == 50
            assert [kv.key async for kv in remote.scan(prefix=b"ta/", page_rows=20)] == [
                b"ta/%02d" % n for n in range(50)
            ]
            revision = (await remote.range(b"ta/00")).revision
            assert (await remote.delete(prefix=b"ta/")).deleted == 50
            view = remote.at(revision)
            assert await view.count(prefix=b"ta/") == 50
            first = await view.get(b"ta/00")
            assert first is not None
            assert [kv.version async for kv in remote.history(b"ta/00", since=first.mod_revision)] == [1, 0]
            assert len([change async for change in remote.diff(revision, prefix=b"ta/")]) == 50
            assert (await remote.txn(success=[kvstore.ops.put(b"ta", b"v")])).succeeded
            await remote.put(b"ta", b"v", ttl=60)
            found = await remote.get(b"ta")
            assert found is not None
            assert found.lease in await remote.leases()
            assert (await remote.keep_alive(found.lease)).ttl == 60
            await remote.revoke_lease(found.lease)
            assert (await remote.health()).healthy
            assert await remote.alarms() == ()
            with pytest.raises(kvstore.EmptyKey):
                await remote.get(b"")
            with pytest.raises(kvstore.LeaseNotFound):
                await remote.revoke_lease(12345)

    asyncio.run(run())


def test_no_thread_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tasks wait at once, and the loop's executor is not asked."""

    async def run() -> None:
        with ScriptedServer() as server:
            async with kvstore.connect_async(server.url) as remote:
                monkeypatch.setattr("kvstore.twins.in_thread", None)
                server.script("Range", *[silent] * 100)
                waiting = [asyncio.create_task(remote.get(b"k")) for _ in range(100)]
                while server.count("Range") < 101:
                    await asyncio.sleep(0.01)
                assert await remote.get(b"k") is None
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_a_canceled_task_resets_its_call() -> None:
    """The server need not go on; the store does."""

    async def run() -> None:
        with ScriptedServer() as server:
            async with kvstore.connect_async(server.url) as remote:
                server.script("Put", silent)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await remote.put(b"k", b"v")
                assert await remote.put(b"k", b"v")
                while not server.resets:
                    await asyncio.sleep(0.01)
            assert server.resets == [CANCEL]

    asyncio.run(run())


def test_tasks_of_several_loops(url: str) -> None:
    """A store belongs to no loop."""
    remote = asyncio.run(_opened(url))
    assert asyncio.run(_put(remote, b"lo")) < asyncio.run(_put(remote, b"lo"))
    asyncio.run(remote.close())


async def _opened(url: str) -> kvstore.AsyncStore:
    return await kvstore.connect_async(url)


async def _put(store: kvstore.AsyncStore, key: bytes) -> int:
    return (await store.put(key, b"v")).revision


# --- the handle -------------------------------------------------------------------------------------


class Late(Exception):
    """Raised by a signal handler."""


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """It raises ``Late``."""
    with Alarm(Late) as alarm:
        yield alarm


def test_an_interrupted_wait_leaves_the_store_usable(alarm: Alarm) -> None:
    """Ctrl-C, or a time limit: the call is given up, on the server, too."""
    with ScriptedServer() as server, kvstore.connect(server.url) as remote:
        server.script("Put", silent)
        with pytest.raises(Late), alarm.within(0.1):
            remote.put(b"k", b"v")
        assert remote.put(b"k", b"v")
        deadline = time.monotonic() + 20
        while server.resets != [CANCEL]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_interruptions_at_any_moment(tmp_path: Path, alarm: Alarm) -> None:
    """Signals that come all the time: no call hangs afterwards."""
    with (
        kvstore.open(tmp_path / "s", backend="memory") as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
        kvstore.connect(server.endpoints[0]) as remote,
    ):
        interrupted = 0
        for number in range(200):
            try:
                with alarm.within(0.0001 + number * 0.000005):
                    for _ in range(3):
                        remote.get(b"k")
            except Late:
                interrupted += 1
        assert interrupted
        assert remote.put(b"k", b"v")


def test_a_closed_store_refuses(url: str) -> None:
    """Closing is idempotent, and ends calls that wait."""
    remote = kvstore.connect(url)
    remote.close()
    remote.close()
    with pytest.raises(kvstore.StoreClosed):
        remote.get(b"k")
    with pytest.raises(kvstore.StoreClosed):
        remote.scan(prefix=b"")


def test_closing_ends_what_is_under_way() -> None:
    """A task that waits gets the error of a closed store."""

    async def run() -> None:
        with ScriptedServer() as server:
            remote = await kvstore.connect_async(server.url)
            server.script("Put", silent)
            waiting = asyncio.create_task(remote.put(b"k", b"v"))
            while not server.count("Put"):
                await asyncio.sleep(0.01)
            await remote.close()
            with pytest.raises(kvstore.StoreClosed):
                await waiting

    asyncio.run(run())


def test_a_forked_child_refuses(url: str) -> None:
    """The connection is the parent's. It goes on there."""
    with kvstore.connect(url) as remote:
        child = os.fork()
        if not child:
            try:
                remote.get(b"k")
            except kvstore.ForkedStore:
                os._exit(0)
            except BaseException:
                os._exit(2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert remote.put(b"fo", b"v")


def test_a_unix_socket(tmp_path: Path) -> None:
    """Another process of the same machine needs no port."""
    socket = tmp_path / "kv.sock"
    with (
        kvstore.open(tmp_path / "s", backend="memory") as store,
        kvstore.serve(store, f"unix://{socket}"),
        kvstore.connect(f"unix://{socket}") as remote,
    ):
        revision = remote.put(b"k", b"v").revision
        found = store.get(b"k")
        assert found is not None
        assert found.mod_revision == revision
        assert repr(remote) == f"<kvstore.Store unix://{socket}>"
        assert remote.defragment()


def test_a_server_that_comes_back(tmp_path: Path) -> None:
    """A client waits for it, within the time of a call, and goes on."""
    with kvstore.open(tmp_path / "s", backend="memory") as store:
        with kvstore.serve(store, f"unix://{tmp_path}/kv.sock"):
            remote = kvstore.connect(f"unix://{tmp_path}/kv.sock", timeout_seconds=20)
            remote.put(b"k", b"v")
        with remote, kvstore.serve(store, f"unix://{tmp_path}/kv.sock"):
            assert remote.get(b"k") is not None


def test_which_servers_tell_progress_in_time() -> None:
    """The versions of etcd whose answer to a request for progress says that all before it was sent."""
    assert not any(map(tells_progress, ("3.4.23", "3.5.7", "3.3.27", "unknown")))
    assert all(map(tells_progress, ("3.4.25", "3.5.8", "3.5.30", "3.6.0", "3.6.0-rc.1", "4.0.0")))


def test_a_server_with_smaller_limits_gets_smaller_transactions(tmp_path: Path) -> None:
    """What is refused for its size is halved; a single request that is refused names the server's flag."""
    items = {b"k%02d" % number: b"v" * 300 for number in range(40)}
    with (
        kvstore.open(tmp_path / "store", max_txn_ops=7, max_request_bytes=1000) as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
        kvstore.connect(server.endpoints[0]) as client,
    ):
        done = client.put_many(items)
        assert {kv.key: kv.value for kv in client.scan(prefix=b"k")} == items
        assert (done.puts, done.revision) == (
            40,
            store.revision,
        ) and done.revisions == store.revision - 1 > 40 / 7
        with pytest.raises(kvstore.TooManyOps, match="--max-txn-ops"):
            client.txn(success=[kvstore.ops.put(key) for key in list(items)[:8]])
        with pytest.raises(kvstore.RequestTooLarge, match="--max-request-bytes"):
            client.put_many({b"large": b"v" * 1200})


def test_a_server_with_larger_limits_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    """``connect`` is told of them: one transaction for all, in a namespace too. Untold, it refuses before it writes."""
    limits: Any = {"max_txn_ops": 500, "max_request_bytes": 3_000_000}
    with (
        kvstore.open(tmp_path / "store", **limits) as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
        kvstore.connect(server.endpoints[0], **limits) as client,
        kvstore.connect(server.endpoints[0]) as untold,
    ):
        items = {b"k%03d" % number: b"v" for number in range(500)}
        assert client.put_many(items).revisions == 1
        assert Namespace(client, b"n/").put_many(items).revisions == 1
        assert untold.put_many(items).revisions == 4
        large = {b"large": b"v" * 2_000_000}
        assert client.put_many(large).revisions == 1
        with pytest.raises(kvstore.RequestTooLarge, match="larger max_request_bytes"):
            untold.put_many(large)
        assert untold.put(b"large", large[b"large"]).revision == store.revision


def test_a_connection_that_is_full_of_watches_says_so(tmp_path: Path) -> None:
    """No call is told that no server can be reached; with one stream less all go on. Who asks for progress has one."""
    with (
        kvstore.open(tmp_path / "store") as store,
        kvstore.serve(store, "http://127.0.0.1:0", max_concurrent_streams=3) as server,
        kvstore.connect(server.endpoints[0], timeout_seconds=2) as client,
    ):
        watches = [client.watch(b"k", start_revision=1) for _ in range(3)]
        for watch in watches:
            watch.request_progress()
        with pytest.raises(kvstore.Unavailable, match=r"3 calls and streams.*its --max-concurrent-streams"):
            for _ in range(100):  # until the last watch has moved
                client.get(b"k")
        watches.pop().close()
        store.put(b"k", b"v")
        assert [watch.get(10).kv.value for watch in watches] == [b"v", b"v"]
        for watch in watches:
            watch.close()
