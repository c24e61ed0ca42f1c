"""A store behind a server that has users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.store import Store
from tests.network.wire import Wire
from tests.remote.watched import Elsewhere, address_of

PASSWORD = "correct horse"
BOB = {"user": "bob", "password": PASSWORD}


class Guarded:
    """A store behind a server that can be started anew, and then knows no token of those before."""

    def __init__(self, path: Path) -> None:
        self.store: Store = kvstore.open(path / "store", "memory", background=False)
        self._serving = self._serve("http://127.0.0.1:0")
        self._url = self._serving.endpoints[0]
        self.elsewhere = Elsewhere(address_of(self._url))

    def _serve(self, url: str) -> Any:
        return kvstore.serve(self.store, url, bcrypt_cost=4)

    def restart(self) -> None:
        self._serving.stop(0)
        self._serving = self._serve(self._url)

    def forget_tokens(self) -> None:
        """Of everybody, while connections stay."""
        self._serving._serving._server.endpoint.users.tokens.forget()

    def ask(self, wire: Wire, method: str, **fields: Any) -> None:
        message = getattr(pb, f"Auth{method}Request")(**fields).SerializeToString()
        wire.call(f"/etcdserverpb.Auth/{method}", message)

    def enable_users(self) -> None:
        """root may do everything; bob reads and writes ``[a, c)``."""
        with Wire(*address_of(self._url)) as wire:
            self.ask(wire, "RoleAdd", name="some")
            perm = {"permType": "READWRITE", "key": b"a", "range_end": b"c"}
            self.ask(wire, "RoleGrantPermission", name="some", perm=perm)
            for name, role in (("root", "root"), ("bob", "some")):
                self.ask(wire, "UserAdd", name=name, password=PASSWORD)
                self.ask(wire, "UserGrantRole", user=name, role=role)
            wire.call("/etcdserverpb.Auth/AuthEnable", b"")

    def close(self) -> None:
        self.elsewhere.close()
        self._serving.stop(0)
        self.store.close()
