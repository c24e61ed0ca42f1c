"""What mypy must accept inside: whatever a store asks is an ``Engine``. Never run: the linters read it."""

from __future__ import annotations

from kvstore import Store
from kvstore.engine import LocalEngine
from kvstore.network.remote.engine import RemoteEngine
from kvstore.protocol import Engine


def engines(local: LocalEngine, remote: RemoteEngine) -> tuple[Store, ...]:
    """Whatever a store asks is an ``Engine``, wherever its content is kept."""
    each: tuple[Engine, ...] = (local, remote)
    return tuple(map(Store, each))
