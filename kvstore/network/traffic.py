"""Calls and bytes, counted while they come and go (monitor.py shows them).

    counts = traffic.of(method.path, version)     once for calls alike, then plain numbers:
    counts.started += 1
    counts.took(message)                          a message of the client
    counts.gave(message)                          one to it
    counts.ended(code)
    counts.total.started                          what there was

``version`` is what a client says of itself in ``client-api-version``. Calls over JSON count like those over gRPC, as
etcd counts them; bytes are those of messages. All of it is written on the endpoint's loop, and read from any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from kvstore.errors import Code
from kvstore.network import limits

DURATION_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""As gRPC's own metrics for Go divide them."""


class Total(NamedTuple):
    """How many calls and messages there were."""

    started: int
    received: int
    sent: int
    handled: dict[Code, int]
    """Calls that have ended, by code."""


class Counts:
    """What became of calls of one method by clients of one version."""

    __slots__ = (
        "_whole",
        "durations",
        "handled",
        "received",
        "received_bytes",
        "seconds",
        "sent",
        "sent_bytes",
        "started",
    )

    def __init__(self) -> None:
        self._whole = 0
        """Calls that ``served`` has counted, which the next numbers leave out: ``total`` has both."""
        self.started = 0
        self.received = 0
        self.received_bytes = 0
        self.sent = 0
        self.sent_bytes = 0
        self.handled: dict[Code, int] = {}
        self.durations = [0] * (len(DURATION_BOUNDS_SECONDS) + 1)
        """How many took no longer than each bound; the last: longer than all."""
        self.seconds = 0.0
        """All of these together."""

    def took(self, message: bytes) -> None:
        self.received += 1
        self.received_bytes += len(message)

    def gave(self, message: bytes) -> None:
        self.sent += 1
        self.sent_bytes += len(message)

    def answered(self, message: bytes) -> None:
        """The only one to it, and the good end."""
        self.sent += 1
        self.sent_bytes += len(message)
        self.handled[Code.OK] = self.handled.get(Code.OK, 0) + 1

    def ended(self, code: Code) -> None:
        self.handled[code] = self.handled.get(code, 0) + 1

    def served(self, message: bytes, answer: bytes) -> None:
        """A call with one message each way, from its beginning to its good end."""
        self._whole += 1
        self.received_bytes += len(message)
        self.sent_bytes += len(answer)

    @property
    def total(self) -> Total:
        """Of all calls, those among them that were counted at one go."""
        whole = self._whole
        handled = self.handled.copy()
        if whole:
            handled[Code.OK] = handled.get(Code.OK, 0) + whole
        return Total(self.started + whole, self.received + whole, self.sent + whole, handled)

    def timed(self, seconds: float) -> None:
        """How long a call took, where that is wanted."""
        self.durations[bisect_left(DURATION_BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Traffic:
    """What one endpoint has been asked."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counts] = {}
        """By path of the method and version of the client."""
        self.events = 0
        """Sent to those who watch."""
        self.healthy = 0
        """How often ``/health`` said so."""
        self.unhealthy = 0
        self._versions: set[str] = set()

    def of(self, path: str, version: str | None = None) -> Counts:
        """Of calls of the method of that path, by clients of that version."""
        key = (path, version or "unknown")
        found = self.counts.get(key)
        if found is None:
            key = (path, self._shown(key[1]))
            found = self.counts.setdefault(key, Counts())
        return found

    def _shown(self, version: str) -> str:
        """Clients may say anything: what makes no label, or one too many, is not kept."""
        if version not in self._versions:
            is_label = version.isprintable() and len(version) <= limits.CLIENT_VERSION_CHARACTERS
            if not is_label or len(self._versions) >= limits.CLIENT_VERSIONS:
                return "other"
            self._versions.add(version)
        return version

    def count_health(self, is_well: bool) -> None:
        """``/health`` was asked."""
        if is_well:
            self.healthy += 1
        else:
            self.unhealthy += 1
