"""``RemoteEngine``: the engine of a store elsewhere, and its asynchronous half.

Store       ──> RemoteEngine   each call waits for its answer
AsyncStore  ──> Awaiting       each call returns an awaitable; the task that awaits it holds no thread (awaiting)
                    both ──> Asking ──> Client
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

from kvstore.backend import Progress
from kvstore.errors import KVStoreError, PermissionDenied
from kvstore.files import disk_full_is_typed
from kvstore.model import WatchRequest
from kvstore.network.remote import methods
from kvstore.network.remote.asking import Asking, Job, Look, Steps, Uncertain, as_it_is
from kvstore.network.remote.awaiting import Awaiting
from kvstore.network.remote.calls import Call
from kvstore.network.remote.client import Client
from kvstore.network.remote.members import defragment, listed
from kvstore.network.remote.options import ClientOptions, parse_target
from kvstore.network.remote.snapshots import take
from kvstore.network.remote.watches import RemoteWatchStream
from kvstore.shelter import run_with_progress
from kvstore.snapshot.reader import SnapshotInfo
from kvstore.upkeep.defragment import Defragmented
from kvstore.watch.iterators import Watch


class RemoteEngine(Asking):
    """A store elsewhere. Thread-safe. Made by ``kvstore.connect``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.awaiting = Awaiting(client)
        """The same calls, for tasks."""

    # --- how calls are made -------------------------------------------------------------

    def _ask(self, call: Call) -> Any:
        return call.make(self._client.ask(call))

    def _run(self, steps: Steps) -> Any:
        answer: Any = None
        error: KVStoreError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = self._do(step)
            except KVStoreError as failed:
                error = failed

    def _do(self, step: Call | Look | Job) -> Any:
        if isinstance(step, Call):
            return self._ask(step)
        return self._look(step.call) if isinstance(step, Look) else self._client.run(step.begin)

    def _look(self, call: Call) -> Uncertain:
        try:
            return Uncertain(call.make(self._client.ask(call)), None, call.is_uncertain)
        except KVStoreError as error:
            return Uncertain(None, error, call.is_uncertain)

    def _pages(self, steps: Generator[Any, Any, None]) -> Iterator[Any]:
        answer: Any = None
        error: KVStoreError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration:
                return
            answer = error = None
            if isinstance(step, list):
                yield from step
                continue
            try:
                answer = self._do(step)
            except KVStoreError as failed:
                error = failed

    def meet(self) -> None:
        """Wait until a server has answered. Raises why there is none."""
        try:
            self._ask(self._newest())
        except PermissionDenied:
            pass  # it has answered

    # --- what it is -------------------------------------------------------------------

    @property
    def cluster_id(self) -> int:
        return self._client.cluster_id

    @property
    def member_id(self) -> int:
        return self._client.member_id

    @property
    def options(self) -> ClientOptions:
        return self._client.options

    @property
    def where(self) -> str:
        return str(self._client.target)

    @property
    def revision(self) -> int:
        """The newest durable revision: a call, which asks the whole cluster."""
        revision: int = self._ask(self._newest()).revision
        return revision

    @property
    def compact_revision(self) -> int:
        found: int = self._run(self._compact_revision())
        return found

    # --- work on servers --------------------------------------------------------------

    def snapshot(self, path: str | os.PathLike[str] | None, progress: Progress | None) -> SnapshotInfo:
        """Write what the server streams to ``path``, checked. It is an etcd snapshot, whoever serves it."""
        with disk_full_is_typed():
            return run_with_progress(lambda tell: take(self._client, path, tell), progress)

    def defragment(self, progress: Progress | None = None) -> Defragmented:
        """Defragment each member of the cluster, the leader last. Each answers nothing meanwhile."""
        answer = self._ask(Call(self._client, methods.MEMBER_LIST, b"", as_it_is))
        wanted = listed(answer, self._client.endpoints.addresses)
        found: Defragmented = self._client.run(lambda: defragment(self._client, wanted, progress))
        return found

    # --- watches ----------------------------------------------------------------------

    def watch(self, request: WatchRequest) -> Watch:
        return Watch(self.watch_stream(), request)

    def watch_stream(self) -> RemoteWatchStream:
        self._client.check()
        return RemoteWatchStream(self._client.watches)

    def check_readable(self) -> None:
        self._client.check()

    def close(self) -> None:
        self._client.close()


def connect(url: str, options: dict[str, Any]) -> RemoteEngine:
    """The engine of the store at a URL, once a server of it has answered.

    Raises ``BadArgument``, ``BadOption``, ``Unavailable``, ``Unauthenticated``.
    """
    client = Client(parse_target(url), ClientOptions.load(options))
    try:
        engine = RemoteEngine(client)
        engine.meet()
    except BaseException:
        client.close()
        raise
    return engine
