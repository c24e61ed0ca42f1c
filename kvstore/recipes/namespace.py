"""A namespace: the keys of a store that begin with a prefix, as a store of its own in which nobody sees the prefix.

    Namespace(store, b"app/").put(b"k", b"v")   -->   store.put(b"app/k", b"v")

It is a ``Store`` over an engine that knows the way in and out (``prefixed``), so recipes and other namespaces work on
it. As etcd's clientv3/namespace.

What it does not promise: protection. It is a view, not a wall: who has the store has all of it. And what belongs to
the whole store stays so: revisions (they grow with writes elsewhere), compaction, leases (only their keys in this
namespace are shown), alarms, status. Closing a namespace closes nothing. Snapshots, defragmentation and whatever else
only a store on this machine can do are called on the store itself.
"""

from __future__ import annotations

from kvstore.aio import AsyncStore
from kvstore.arguments import check_bytes
from kvstore.errors import BadArgument
from kvstore.recipes.prefixed import PrefixedEngine
from kvstore.store import Store


class Namespace(Store):
    """``Namespace(store, b"app/")``: has the methods of ``Store``."""

    def __init__(self, store: Store, prefix: bytes) -> None:
        check_bytes("prefix", prefix)
        if not isinstance(store, Store):
            raise TypeError(f"store must be a kvstore.Store, not {store!r:.80}")
        if not prefix:
            raise BadArgument("prefix must not be empty: that is the store itself")
        super().__init__(PrefixedEngine(store._engine, prefix))

    def __del__(self) -> None:
        """There is nothing to close."""

    def __repr__(self) -> str:
        return f"<kvstore.recipes.Namespace {self._engine.where}>"


class AsyncNamespace(AsyncStore):
    """``AsyncNamespace(store, b"app/")``: has the methods of ``AsyncStore``."""

    def __init__(self, store: AsyncStore, prefix: bytes) -> None:
        if not isinstance(store, AsyncStore):
            raise TypeError(f"store must be a kvstore.AsyncStore, not {store!r:.80}")
        self._twin = Namespace(store._twin, prefix)
        self._answers = None

    def __repr__(self) -> str:
        return repr(self._twin).replace("Namespace", "AsyncNamespace")
