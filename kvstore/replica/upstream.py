"""What a replica follows: the interface of an endpoint (``endpoint``) and of a backup (``shelf``).

fetch, build     a store from scratch: the slow part first, beside a store that may still be served
begin            go on after what an engine has
take             what comes next, as requests for ``ReplicaEngine.replicate``
look             how far the source is: what a replica has to have, to be complete as of a moment
tend             what no stream tells: leases, compaction
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from kvstore.errors import KVStoreError
from kvstore.files import Disk
from kvstore.model import Request
from kvstore.replica.engine import ReplicaEngine
from kvstore.snapshot.restore import NewStore, Restored


class Behind(KVStoreError):
    """The source no longer has what comes after the replica's newest revision."""


class Seen(NamedTuple):
    """With everything up to ``revision``, a replica is complete as of a moment."""

    revision: int
    at_ms: int


class Costly(NamedTuple):
    """A request, and the room that it takes, roughly."""

    request: Request
    cost_bytes: int


class Upstream(Protocol):
    """A source. Every call may raise ``KVStoreError``; then it is closed, and another one is made."""

    follows_entries: bool
    """Whether entries of its log are taken over under their own numbers, so that nothing else may be written."""

    def identify(self) -> int:
        """Its cluster id."""

    def fetch(self, folder: Path) -> None:
        """Write what a store is built from into an empty folder."""

    def build(self, folder: Path, data_dir: Path, new: NewStore, disk: Disk) -> Restored: ...

    def begin(self, engine: ReplicaEngine) -> None:
        """Raises ``Behind``, ``WrongStore``."""

    def take(self, timeout_seconds: float) -> list[Costly]:
        """Whole revisions, in order; none came in time: an empty list. Raises ``Behind``, ``WrongStore``."""

    def look(self) -> Seen | None:
        """None: more has come than was taken."""

    def tend(self, engine: ReplicaEngine) -> list[Costly]: ...

    def close(self) -> None: ...
