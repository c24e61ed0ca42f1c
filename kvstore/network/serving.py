"""Putting a store on the network, and taking it off again: on a loop that runs, or from a thread of its own.

    bind sockets -> Endpoint (services, threads) -> Server (connections) -> ready
    stop:  Server.drain -> sockets and their files are gone -> the store stays open, for whoever opened it

What listens is bound first: the endpoint then knows where it can be reached.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Self

from kvstore.aio import AsyncStore
from kvstore.engine import LocalEngine
from kvstore.errors import Unsupported
from kvstore.files import Disk, OSDisk
from kvstore.network.addresses import Listener, listener, parse_urls, reachable
from kvstore.network.dialect import DIALECTS
from kvstore.network.endpoint import Endpoint, Settings
from kvstore.network.event_loop import check_a_loop_can_start, new_event_loop
from kvstore.network.server import Server
from kvstore.network.sockets import Bound, bind_all
from kvstore.network.tls import TLS, TLSSettings
from kvstore.options import BadOption, Options, unknown_option
from kvstore.protocol import EmbeddedEngine, Engine
from kvstore.served import GRACE_SECONDS, AnyStore, ServeOptions
from kvstore.shelter import start
from kvstore.store import Store


class Serving:
    """A store on the network, from ``begin`` to ``stop``."""

    def __init__(self, server: Server, bound: Sequence[Bound], disk: Disk) -> None:
        self.endpoints = tuple(each.url for each in bound)
        self._server = server
        self._bound = bound
        self._disk = disk

    @classmethod
    async def begin(
        cls,
        engine: EmbeddedEngine,
        listeners: Sequence[Listener],
        settings: Settings,
        tls: TLSSettings,
        *,
        reuse_port: bool = False,
        disk: Disk | None = None,
    ) -> Self:
        """Serve on the running loop. Raises ``BadOption`` for files of TLS and tokens, ``OSError`` for addresses."""
        disk = disk or OSDisk()
        secure = TLS(tls) if any(each.is_tls for each in listeners) else None
        bound = bind_all(listeners, disk, reuse_port=reuse_port)
        if not settings.advertised_urls:
            settings = replace(settings, advertised_urls=tuple(reachable(each.url) for each in bound))
        loop = asyncio.get_running_loop()
        try:
            raft_term = await loop.run_in_executor(None, engine.begin_term)
            server = Server(Endpoint(engine, loop, settings, raft_term))
        except BaseException:
            for each in bound:
                each.withdraw(disk)
                each.close(disk)
            raise
        serving = cls(server, bound, disk)
        try:
            for each in bound:
                await server.listen(each, secure)
            server.endpoint.start()
        except BaseException:
            await serving.stop(0.0)
            raise
        return serving

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Accept nothing new; let calls under way end, for so long; close every connection. Idempotent."""
        for each in self._bound:
            each.withdraw(self._disk)
        await self._server.drain(grace_seconds)
        for each in self._bound:
            each.close(self._disk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


class ThreadedServing:
    """The same on a loop and a thread of its own."""

    def __init__(self, engine: EmbeddedEngine, *how: Any) -> None:
        check_a_loop_can_start()
        self._loop = new_event_loop()
        self._begun: Future[Serving] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(engine, *how), name="kvstore-serve-loop", daemon=True
        )
        start(self._thread)
        self._serving = self._begun.result()
        self.endpoints = self._serving.endpoints

    def _run(self, engine: EmbeddedEngine, *how: Any) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._begun.set_result(self._loop.run_until_complete(Serving.begin(engine, *how)))
        except BaseException as error:
            self._begun.set_exception(error)
        else:
            self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Accept nothing new; let calls under way end, for so long; close every connection. Idempotent."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._stop(grace_seconds), self._loop)
        self._thread.join()

    async def _stop(self, grace_seconds: float) -> None:
        try:
            await self._serving.stop(grace_seconds)
        finally:
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class EtcdNetwork:
    """The entry ``etcd`` of the group ``kvstore.network``."""

    def serve(self, store: AnyStore, urls: str | Sequence[str], **options: Any) -> ThreadedServing:
        return ThreadedServing(*_how(store, urls, options))

    async def serve_async(self, store: AnyStore, urls: str | Sequence[str], **options: Any) -> Serving:
        return await Serving.begin(*_how(store, urls, options))

    def connect(self, url: str, **options: Any) -> Engine:
        from kvstore.network.remote.engine import connect

        return connect(url, options)

    def share(
        self,
        data_dir: str | os.PathLike[str],
        options: Options,
        asking: dict[str, Any],
        check: Callable[[], None],
    ) -> Engine:
        from kvstore.network.shared import share

        return share(data_dir, options, asking, check, _serve_its_user)


def _serve_its_user(engine: LocalEngine, path: str) -> ThreadedServing:
    """Serve a store on a socket that only this user may connect to."""
    url = f"unix://{path}"
    settings = Settings(
        name=engine.options.name, max_request_bytes=engine.options.max_request_bytes, advertised_urls=(url,)
    )
    return ThreadedServing(engine, [Listener(url, "unix", path=path, mode=0o600)], settings, TLSSettings())


def _how(
    store: AnyStore, urls: str | Sequence[str], options: dict[str, Any]
) -> tuple[EmbeddedEngine, list[Listener], Settings, TLSSettings]:
    """What ``Serving.begin`` takes. Raises ``BadOption``, ``Unsupported``."""
    if not isinstance(store, Store | AsyncStore):
        raise TypeError(f"store must be an open kvstore.Store or AsyncStore, not {store!r:.80}")
    engine = store.engine
    if not isinstance(engine, LocalEngine):
        raise Unsupported(f"{engine.where}: only a store that is open for writing can be served")
    text = urls if isinstance(urls, str) else ",".join(_texts("urls", urls))
    listeners = [listener(url) for url in parse_urls(text)]
    if not listeners:
        raise BadOption("where is the store to be served? give a URL such as http://127.0.0.1:0")
    version = options.pop("etcd_version", "3.5")
    if version not in DIALECTS:
        raise BadOption(f"etcd_version must be one of {', '.join(DIALECTS)}, not {version!r:.80}")
    tls = TLSSettings(**_taken(options, TLSSettings, without=("auto", "auto_years")))
    settings = Settings(
        dialect=DIALECTS[version],
        name=engine.options.name,
        max_request_bytes=engine.options.max_request_bytes,
        **_taken(options, Settings, without=("dialect", "name", "max_request_bytes")),
    )
    if options:
        raise unknown_option(min(options), ServeOptions.__annotations__)
    if any(each.is_tls for each in listeners) and not tls.is_complete:
        raise BadOption("a URL with https or unixs needs cert_file and key_file")
    return engine, listeners, settings, tls


def _texts(name: str, given: Sequence[str]) -> Sequence[str]:
    if not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise TypeError(f"{name} must be a str, or a list of them, not {given!r:.80}")
    return given


def _taken(options: dict[str, Any], owner: Any, without: tuple[str, ...]) -> dict[str, Any]:
    """The options that are fields of ``owner``, taken out; ``None`` is not given."""
    names = [field.name for field in fields(owner) if field.name not in without and field.name in options]
    return {name: value for name in names if (value := options.pop(name)) is not None}
