"""Every option, with etcd's names and defaults where etcd has the option.

Three sources, later ones win: the defaults below, environment variables ``KVSTORE_<NAME>``
(upper case, as in ``KVSTORE_SNAPSHOT_COUNT``), and keyword arguments of ``kvstore.open``. (The command line adds
``--set NAME=VALUE`` to the environment.)

An option in seconds also goes by etcd's name, without the unit, and takes etcd's durations:
``backend_batch_interval="100ms"`` is ``backend_batch_interval_seconds=0.1``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, Self, TypedDict

from kvstore.errors import KVStoreError

ENV_PREFIX = "KVSTORE_"

MIB = 1 << 20
DEFAULT_QUOTA_BYTES = 2 << 30
DURABILITIES = ("always", "interval", "off")
COMPACTION_MODES = ("periodic", "revision")
LEASE_POLICIES = ("count_downtime", "pause", "renew")
NOSPACE_POLICIES = ("heals", "sticky")


class BadOption(KVStoreError, ValueError):
    """An option has a value outside its range."""


def unknown_option(given: str, known: Iterable[str]) -> BadOption:
    """For an option that there is not: names those that are spelled much like it."""
    from difflib import get_close_matches

    near = get_close_matches(given, known)
    return BadOption(f"unknown option {given!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))


class OpenOptions(TypedDict, total=False):
    """The keyword arguments of ``kvstore.open``: the fields of ``Options``, and etcd's names for those in seconds."""

    wal_dir: str | os.PathLike[str]
    archive_dir: str | os.PathLike[str]
    read_only: bool
    durability: Literal["always", "interval", "off"]
    sync_interval_seconds: float
    sync_interval: float | str
    wal_file_size: int
    wal_buffer_size: int
    max_wals: int
    snapshot_count: int
    snapshot_interval_seconds: float
    snapshot_interval: float | str
    snapshot_size: int
    max_snapshots: int
    snapshot_read_back: bool
    backend_batch_interval_seconds: float
    backend_batch_interval: float | str
    backend_batch_limit: int
    overlay_limit: int
    auto_compaction_mode: Literal["periodic", "revision"]
    auto_compaction_retention: str | int | float
    compaction_batch_limit: int
    compaction_sleep_interval_seconds: float
    compaction_sleep_interval: float | str
    auto_defragment_ratio: float
    auto_defragment_min: int
    quota_backend_bytes: int
    low_disk_bytes: int
    nospace_policy: Literal["heals", "sticky"]
    max_txn_ops: int
    max_request_bytes: int
    lease_min_ttl_seconds: float
    lease_min_ttl: float | str
    lease_restart_policy: Literal["count_downtime", "pause", "renew"]
    watch_buffer: int
    watch_progress_notify_interval_seconds: float
    watch_progress_notify_interval: float | str
    cluster_id: int
    member_id: int
    name: str
    metrics: bool
    background: bool
    clock: Callable[[], float] | None
    refresh_interval_seconds: float
    refresh_interval: float | str
    lock_timeout_seconds: float
    lock_timeout: float | str
    compaction_retention: str | int | float


class SharedOptions(OpenOptions, total=False):
    """The keyword arguments of ``kvstore.open(shared=True)``: those, and some of ``kvstore.connect``."""

    user: str
    password: str
    timeout_seconds: float


SHARED_ONLY = ("user", "password", "timeout_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a store is opened. Sizes in bytes, times in seconds."""

    backend: str = "lmdb"
    """Name of an installed backend: ``lmdb``, ``sqlite`` or ``memory``."""
    wal_dir: str = ""
    """Directory of the log; empty: ``wal`` inside the data directory."""
    archive_dir: str = ""
    """Released log segments are moved here instead of being deleted (for restore to any revision or time)."""
    read_only: bool = False
    """Read what is durable now, even while another process writes. Takes no lock and changes nothing."""
    refresh_interval_seconds: float = 0.0
    """A read-only handle moves to the newest durable revision this often, and its watches with it; 0: only when
    ``refresh`` is called."""
    lock_timeout_seconds: float = 0.0
    """How long opening waits for another process that has the store open, before it raises ``StoreLocked``."""

    durability: str = "always"
    """``always``: a write that has returned is on disk. DANGER below this line:
    ``interval``: synced every ``sync_interval_seconds``; a power cut loses up to that much (a killed process nothing).
    ``off``: synced when the operating system decides to; a power cut loses an unknown tail, in whole transactions."""
    sync_interval_seconds: float = 0.1
    """How often the log is synced with durability ``interval``."""

    wal_file_size: int = 64_000_000
    """A log segment is closed once it has grown past this."""
    wal_buffer_size: int = 32_000_000
    """The most bytes of writes that one group (one record, one sync) may carry."""
    max_wals: int = 5
    """Released segments are deleted once more than this many segments exist; 0: keep all."""

    snapshot_count: int = 100_000
    """An automatic snapshot after this many log entries, once the log has also outgrown the backend; 0: never."""
    snapshot_interval_seconds: float = 0.0
    """An automatic snapshot at least this often while there are writes; 0: off."""
    snapshot_size: int = 0
    """An automatic snapshot after this many bytes of log; 0: off."""
    max_snapshots: int = 5
    """Automatic snapshots kept; 0: keep all."""
    snapshot_read_back: bool = True
    """Whether a snapshot is read back from the disk and compared before it gets its name."""

    backend_batch_interval_seconds: float = 0.5
    """How long a write, already in the log, may wait in memory before a checkpoint moves it to the backend.
    (etcd: 0.1; here each commit syncs pages on the disk that holds the log, and larger commits touch fewer.)
    """
    backend_batch_limit: int = 10_000
    """A checkpoint starts at once when this many changes are waiting in memory."""
    overlay_limit: int = 64 * MIB
    """Writers wait for the checkpoint when this many bytes of changes are waiting in memory."""

    auto_compaction_mode: str = "periodic"
    """``periodic`` or ``revision``: what the retention counts."""
    auto_compaction_retention: str = "0"
    """``periodic``: hours (``1``) or a duration (``10m``); ``revision``: how many to keep; ``0``: off."""
    compaction_batch_limit: int = 20_000
    """Rows deleted in one backend commit (etcd: 1000; here a commit delays no reader and no writer)."""
    compaction_sleep_interval_seconds: float = 0.001
    """Pause between two such commits."""
    auto_defragment_ratio: float = 0.5
    """Defragment after a compaction when this share of the backend file is free; 0: off."""
    auto_defragment_min: int = 64 * MIB
    """... and at least this many bytes are."""

    quota_backend_bytes: int = 0
    """Live bytes (free pages do not count) above which writes are refused; 0: 2 GiB; negative: no quota."""
    low_disk_bytes: int = 64 * MIB
    """Writes are refused when the file system has less room than this; 0: off."""
    nospace_policy: str = "heals"
    """``heals``: writes are accepted again as soon as there is room; ``sticky``: once one was refused, what puts or
    grants is refused until the alarm ``NOSPACE`` is cleared by hand, also after a restart, as in etcd."""

    max_txn_ops: int = 128
    """The most operations in a transaction."""
    max_request_bytes: int = 1_572_864
    """The largest request, in bytes."""

    lease_min_ttl_seconds: float = 2.0
    """No key and no lease gets less time than this. (etcd's smallest; a cache of an embedded store may go below.)"""
    lease_restart_policy: str = "count_downtime"
    """``count_downtime``: time passes while the store is closed; ``pause``: leases keep the time they had left;
    ``renew``: each has its whole TTL again after an opening, as in etcd."""

    watch_buffer: int = 4 * MIB
    """Bytes of events buffered for one watch; a watch that falls further behind reads from the store."""
    watch_progress_notify_interval_seconds: float = 600.0
    """How often a watch that asked for it is told how far it is."""

    cluster_id: int = 0
    """Identity of a new store; 0: random. For an existing store it must match."""
    member_id: int = 0
    """The id of a new store's member; 0: made up."""
    name: str = "default"
    """The member's name."""

    metrics: bool = False
    """Measure calls and durations for ``Store.metrics`` (sizes and counts are always there)."""

    background: bool = True
    """Run checkpoints, expiry and other background work on the store's own threads.
    Off (tests): none of it runs until ``store.checkpoint()`` and the like are called."""
    clock: Callable[[], float] | None = None
    """Wall clock in seconds; None: ``time.time``, with ``time.monotonic`` for leases and intervals. Tests pass a fake
    one; its steps back, and steps of more than an hour, count as jumps during which no time has passed."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("durability", DURABILITIES),
            ("auto_compaction_mode", COMPACTION_MODES),
            ("lease_restart_policy", LEASE_POLICIES),
            ("nospace_policy", NOSPACE_POLICIES),
        ):
            if getattr(self, name) not in allowed:
                raise BadOption(
                    f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r:.80}"
                )
        for name, (least, most) in _BOUNDS.items():
            check_bounds(name, getattr(self, name), least, most)
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise BadOption(f"{name} must be greater than 0, not {getattr(self, name)!r}")
        if self.clock is not None and not callable(self.clock):
            raise BadOption(f"clock must be a function that returns seconds, not {self.clock!r:.80}")
        if len(self.name.encode(errors="surrogateescape")) > NAME_BYTES_MAX:
            raise BadOption(f"name must have at most {NAME_BYTES_MAX} bytes, not {self.name!r:.80}")
        for name in ("wal_dir", "archive_dir"):  # who opens the store again later finds the same places
            if folder := getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(folder))

    @property
    def quota_bytes(self) -> int:
        """The quota in force; 0: none."""
        if self.quota_backend_bytes < 0:
            return 0
        return self.quota_backend_bytes or DEFAULT_QUOTA_BYTES

    @classmethod
    def load(cls, overrides: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Self:
        """Defaults, then the environment, then ``overrides`` (a value of None is ignored)."""
        known = _defaults()
        chosen: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable.startswith(ENV_PREFIX) and variable.isupper():
                name = option_called(variable.removeprefix(ENV_PREFIX).lower())
                if name and name != "clock":
                    chosen[name] = _parse(variable, text, known[name])
        for given, value in overrides.items():
            name = option_called(given)
            if not name:
                raise unknown_option(given, known)
            if value is not None:
                chosen[name] = _converted(given, value, known[name])
        return cls(**chosen)

    def with_(self, **changes: Any) -> Self:
        """These options with some changed."""
        return replace(self, **changes)


@cache
def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(Options)}


_ALIASES = {"compaction_retention": "auto_compaction_retention"}
_IN_SECONDS = "_seconds"


def option_called(name: str) -> str:
    """The field that a name (its own, etcd's or an alias) stands for; empty if there is none."""
    name = _ALIASES.get(name, name)
    return next((known for known in (name, name + _IN_SECONDS) if known in _defaults()), "")


_BYTES_MAX = 1 << 60
_COUNT_MAX = 1 << 31
_SECONDS_MAX = 100 * 366 * 86400.0
_ID_MAX = (1 << 64) - 1
NAME_BYTES_MAX = 1024

_BOUNDS: dict[str, tuple[float, float]] = {
    "refresh_interval_seconds": (0, _SECONDS_MAX),
    "lock_timeout_seconds": (0, _SECONDS_MAX),
    "sync_interval_seconds": (0, _SECONDS_MAX),
    "wal_file_size": (1, 1 << 40),
    "wal_buffer_size": (1, 1 << 29),  # a log record holds twice that, its own overhead included
    "max_wals": (0, _COUNT_MAX),
    "snapshot_count": (0, 1 << 62),
    "snapshot_interval_seconds": (0, _SECONDS_MAX),
    "snapshot_size": (0, _BYTES_MAX),
    "max_snapshots": (0, _COUNT_MAX),
    "backend_batch_interval_seconds": (0, _SECONDS_MAX),
    "backend_batch_limit": (1, _COUNT_MAX),
    "overlay_limit": (1, 1 << 40),
    "compaction_batch_limit": (1, _COUNT_MAX),
    "compaction_sleep_interval_seconds": (0, _SECONDS_MAX),
    "auto_defragment_ratio": (0, 0.9999),
    "auto_defragment_min": (0, _BYTES_MAX),
    "quota_backend_bytes": (-_BYTES_MAX, _BYTES_MAX),
    "low_disk_bytes": (0, _BYTES_MAX),
    "max_txn_ops": (1, 1 << 24),
    "max_request_bytes": (1, 1 << 32),  # the log and the backend hold less: see mvcc/size.py
    "lease_min_ttl_seconds": (0, 9_000_000_000),
    "watch_buffer": (1, 1 << 40),
    "watch_progress_notify_interval_seconds": (0, _SECONDS_MAX),
    "cluster_id": (0, _ID_MAX),
    "member_id": (0, _ID_MAX),
}
"""(least, most) of every numeric option."""

_POSITIVE = (
    "backend_batch_interval_seconds",
    "sync_interval_seconds",
    "watch_progress_notify_interval_seconds",
)
"""Intervals that may be arbitrarily short, but not 0."""


def check_bounds(name: str, value: object, least: float, most: float) -> None:
    """Refuse what is not a number between ``least`` and ``most``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadOption(f"{name} must be a number, not {value!r:.80}")
    if not least <= value <= most:  # false for NaN too
        raise BadOption(f"{name} must be between {least} and {most}, not {value!r}")


def _converted(name: str, value: object, default: object) -> object:
    """A value given in code, converted to the type of the default; strings are parsed as in the environment."""
    if default is None:  # the clock
        return value
    if isinstance(value, str) and not isinstance(default, str):
        return _parse(name, value, default)
    if isinstance(default, str) and isinstance(value, os.PathLike | bytes):
        return os.fsdecode(value)
    if isinstance(default, bool) or isinstance(value, bool):
        suitable = isinstance(value, bool) and isinstance(default, bool)
    elif option_called(name) == "auto_compaction_retention":
        suitable, value = isinstance(value, int | float | str), str(value)
    else:
        suitable = isinstance(value, int | float if isinstance(default, float) else type(default))
    if not suitable:
        raise BadOption(f"{name} must be of type {type(default).__name__}, not {value!r:.80}")
    return value


def _parse(name: str, text: str, default: object) -> object:
    """A value parsed from text, converted to the type of the default."""
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        if isinstance(default, int):
            return int(text, 0)
        if isinstance(default, float):
            return parse_duration(text) if text[-1:].isalpha() else float(text)
        return text
    except (KeyError, ValueError):
        raise BadOption(f"{name}={text!r} is not a valid {type(default).__name__}") from None


_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h)", re.ASCII)


def parse_duration(text: str) -> float:
    """The seconds in a duration like ``90s`` or ``1h30m``."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadOption(f"{text!r} is not a duration like 10m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
