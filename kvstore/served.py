"""A store on the network, as its user sees it: the interface of what serves one and connects to one.

An entry of the group ``kvstore.network`` has it. Ours (``etcd``) speaks etcd's API v3; nothing here knows how.

    serve          from a thread of its own
    serve_async    on the loop that is running
    connect        an engine that asks a server
    share          an engine that serves the store of a directory, or asks the process that does
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, TypedDict

from kvstore import plugins

if TYPE_CHECKING:
    from kvstore.aio import AsyncStore
    from kvstore.options import Options
    from kvstore.protocol import Engine
    from kvstore.store import Store

AnyStore: TypeAlias = "Store | AsyncStore"

GRACE_SECONDS = 5.0
"""How long calls under way may take to end, unless the caller says otherwise."""


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of ``kvstore.connect``: docs/remote.md says what each does."""

    user: str
    password: str
    ca: str
    cert: str
    key: str
    server_name: str
    timeout_seconds: float
    dial_timeout_seconds: float
    keepalive_seconds: float
    auto_sync_seconds: float
    max_message_bytes: int
    max_txn_ops: int
    max_request_bytes: int
    watch_buffer: int
    prefer: Literal["any", "leader"]
    serializable: bool


class ServeOptions(TypedDict, total=False):
    """The keyword arguments of ``kvstore.serve``: docs/serving.md says what each does, under the name of a flag."""

    etcd_version: Literal["3.4", "3.5", "3.6"]
    advertised_urls: tuple[str, ...]
    peer_urls: tuple[str, ...]
    progress_interval_seconds: float
    request_timeout_seconds: float
    max_concurrent_streams: int
    keepalive_min_time_seconds: float
    keepalive_interval_seconds: float
    keepalive_timeout_seconds: float
    has_gateway: bool
    cors: tuple[str, ...]
    has_ui: bool
    ui_writes: bool
    host_whitelist: tuple[str, ...]
    auth_token: str
    auth_token_ttl_seconds: int
    bcrypt_cost: int
    metrics: Literal["basic", "extensive"]
    warning_apply_seconds: float
    warning_unary_request_seconds: float
    cert_file: str
    key_file: str
    trusted_ca_file: str
    client_cert_auth: bool
    crl_file: str
    allowed_hostnames: tuple[str, ...]
    cipher_suites: tuple[str, ...]
    min_version: Literal["TLS1.2", "TLS1.3"]
    max_version: Literal["", "TLS1.2", "TLS1.3"]


class Server(Protocol):
    """A store that is being served, until ``stop`` or the end of a ``with`` block. The store stays open."""

    endpoints: tuple[str, ...]
    """Where clients connect to, each as ``http://127.0.0.1:2379``, with the port that was really taken."""

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Accept nothing new; let calls under way end, for up to that long; close every connection. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class AsyncServer(Protocol):
    """The same on a running loop: ``async with``, or ``await stop()``."""

    endpoints: tuple[str, ...]
    """Where clients connect to."""

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """As ``Server.stop``."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Network(Protocol):
    """Serves stores, and asks servers."""

    def serve(self, store: AnyStore, urls: str | Sequence[str], **options: Any) -> Server: ...

    async def serve_async(
        self, store: AnyStore, urls: str | Sequence[str], **options: Any
    ) -> AsyncServer: ...

    def connect(self, url: str, **options: Any) -> Engine: ...

    def share(
        self,
        data_dir: str | os.PathLike[str],
        options: Options,
        asking: dict[str, Any],
        check: Callable[[], None],
    ) -> Engine: ...


def find_network(name: str = "etcd") -> Network:
    """What speaks that protocol; raises ``OpenError`` with a list of what is installed."""
    network: Network = plugins.find(plugins.NETWORK, name)()
    return network
