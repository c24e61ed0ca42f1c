"""Every number that bounds what a peer can make us do or hold, and the bucket that counts things per second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection is allowed. Going beyond is a connection error unless it says otherwise."""

    frame_bytes: int = 16_384
    """Largest payload of a frame that is taken (SETTINGS_MAX_FRAME_SIZE; RFC 9113 allows no less)."""
    window_bytes: int = 8 << 20
    """Bytes of DATA that the peer may have on its way, all streams together."""
    stream_window_bytes: int = (2 << 20) + (64 << 10)
    """The same for one stream. A request of the largest size that etcd takes fits without WINDOW_UPDATE."""

    header_block_bytes: int = 32 << 10
    """A header block as it arrives, compressed."""
    header_block_frames: int = 16
    """CONTINUATION frames of one header block."""
    header_list_bytes: int = 16 << 10
    """A header list once decoded, as RFC 9113 counts it: 32 bytes a field, names and values."""
    header_list_fields: int = 100
    header_table_bytes: int = 4_096
    """The decoder's dynamic table (SETTINGS_HEADER_TABLE_SIZE)."""

    concurrent_streams: int = 10_000
    """Requests at one time, counting those that were reset while their work goes on; more get REFUSED_STREAM."""
    resets_per_second: float = 100
    resets_burst: int = 1_000
    """Streams that the peer resets, has reset by its errors, or has refused, before they were answered."""
    control_frames_per_second: float = 200
    control_frames_burst: int = 200
    """SETTINGS, PRIORITY, empty DATA, unknown frames, frames for streams that are over: what brings us nothing."""
    window_updates_per_second: float = 10_000
    window_updates_burst: int = 10_000
    """WINDOW_UPDATE frames while no data waits for one."""

    ping_interval_seconds: float = 5.0
    """PINGs closer together than this are strikes; so are, without an open stream, those closer than the next."""
    ping_interval_idle_seconds: float = 7_200.0
    ping_strikes: int = 3
    """So many strikes without HEADERS or DATA sent in between end the connection: GOAWAY "too_many_pings"."""

    sent_frame_bytes: int = 64 << 10
    """Largest DATA frame that we send, whatever the peer would take."""
    turn_bytes: int = 64 << 10
    """What one stream may send before the next that waits for the connection's window has its turn."""
    remembered_streams: int = 1_000
    """Streams that we ended first: what is still on its way to them is dropped, not punished."""
    known_blocks: int = 256
    known_block_bytes: int = 1_024
    """Header blocks remembered by their bytes, while the dynamic table stays as it is; and their size."""


LIMITS = Limits()

STREAMS_MAX = (1 << 32) - 1
"""The largest number that SETTINGS_MAX_CONCURRENT_STREAMS can say."""


class Bucket:
    """So many things a second, and a burst of so many.

    The clock is read only when the bucket looks empty, and fills it then: after a silence two bursts may come at once.
    """

    __slots__ = ("_burst", "_filled_at", "_left", "_now", "_per_second")

    def __init__(self, per_second: float, burst: int, now: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._now = now
        self._left = float(burst)
        self._filled_at = now()

    def take(self, count: int = 1) -> bool:
        """False if there is none left."""
        self._left -= count
        if self._left < 0:
            now = self._now()
            refill = (now - self._filled_at) * self._per_second
            self._left = min(self._left + refill, self._burst - count)
            self._filled_at = now
        return self._left >= 0
