"""The commonest complaints in this field, each judged from plain numbers, wherever they come from.

    sync       the disk is too slow to sync           watchers   too many of them, or too slow ones
    quota      writes are, or will be, refused        leases     they pile up, or have no keys
    space      it is not given back                   readers    a read transaction was left open
    map        the file outgrows what can be mapped   clock      it was set back, or two disagree
    held by    somebody else has the store open       version    the store is newer than this program

Files tell of all but the watchers (``doctor.diagnose``), a server of all but the map, the lock and the version
(``doctor.diagnose_served``). What a threshold is for stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kvstore.observe.facts import Fact, Level

SLOW_SYNC_SECONDS = 0.02
"""99th percentile. A write waits for one sync; etcd's own advice for heartbeats is 10 ms, spinning disks take 20."""
FAST_SYNC_SECONDS = 0.00002
"""A disk that syncs faster than this keeps nothing."""
NEAR_QUOTA = 0.8
HAS_ROOM = 0.95
"""Below this share of the quota nothing refuses writes but the alarm itself (or a disk that is full)."""
MANY_WATCHERS = 10_000
"""Each takes some 10 microseconds of every change that it sees."""
MANY_SLOW_WATCHERS = 100
MANY_LEASES = 10_000
"""Each is kept in memory and renewed with a write of its own."""
MANY_IDLE_LEASES = 100
CLOCK_SLACK_MS = 1000
FAR_BEHIND_COMMITS = 20
"""Ten seconds of a store that is being written: no read of ours takes so long."""


def sync(median_seconds: float, slow_seconds: float) -> Fact:
    """Of the log's syncs: the median (NaN: not known), and the 99th percentile."""
    median = f"{median_seconds * 1000:.2f} ms median, " if median_seconds == median_seconds else ""
    value = f"{median}{slow_seconds * 1000:.2f} ms 99th percentile"
    if median_seconds < FAST_SYNC_SECONDS:
        return Fact("sync", value, Level.WARNING, "implausibly fast: something here does not sync at all")
    if slow_seconds > SLOW_SYNC_SECONDS:
        advice = (
            "every write waits for one sync: move the log to a faster disk (wal_dir), away from other programs' "
            "writes, or group writes (transactions, put_many, several threads)"
        )
        return Fact("sync", value, Level.ADVICE, advice)
    return Fact("sync", value)


def quota(in_use_bytes: int, quota_bytes: int, alarms: Collection[str], *, counts_file: bool = False) -> Fact:
    """``quota_bytes`` 0: none is known. ``alarms``: the names of those that are raised.

    ``counts_file``: free pages count, too, as in an etcd.
    """
    value = f"{in_use_bytes:,} of {quota_bytes:,} bytes" if quota_bytes else "none known here"
    ways = "compact old revisions, delete keys, or raise it (quota_backend_bytes)"
    if counts_file:
        ways = (
            "compact old revisions, delete keys (and then defragment: an etcd's quota counts free pages, too), or "
            "raise it (quota-backend-bytes)"
        )
    if "NOSPACE" in alarms and in_use_bytes < quota_bytes * HAS_ROOM:
        advice = (
            "alarm NOSPACE is still raised, and there is room: a server goes on refusing writes that cost room until "
            "`kvstore alarm disarm`; a program's own store takes them, and clears the alarm within a second, or when "
            "it is closed"
        )
        return Fact("quota", value, Level.WARNING, advice)
    if "NOSPACE" in alarms:
        advice = f"alarm NOSPACE: writes that cost room are refused; {ways}, then `kvstore alarm disarm`"
        return Fact("quota", value, Level.WARNING, advice)
    if quota_bytes and in_use_bytes > quota_bytes * NEAR_QUOTA:
        share = f"{in_use_bytes / quota_bytes:.0%} of the quota are in use"
        return Fact("quota", value, Level.WARNING, f"{share}; at 100 % writes are refused: {ways}")
    return Fact("quota", value)


def space(size_bytes: int, in_use_bytes: int, least_bytes: int) -> Fact:
    """Files below ``least_bytes`` are not worth a word."""
    value = f"{size_bytes:,} bytes, {in_use_bytes:,} in use"
    if size_bytes > 2 * in_use_bytes and size_bytes > least_bytes:
        free = f"{size_bytes - in_use_bytes:,} bytes are free pages"
        advice = f"{free}, kept for later writes: `kvstore defragment` gives them back to the file system"
        return Fact("space", value, Level.ADVICE, advice)
    return Fact("space", value)


def map_(size_bytes: int, mapped_bytes: int) -> Fact:
    """Of a file, and of the span of addresses that a process has for it (0: it is not mapped)."""
    if not mapped_bytes:
        return Fact("map", "the file is not mapped")
    value = f"{size_bytes:,} of {mapped_bytes:,} bytes"
    if size_bytes > mapped_bytes // 2:
        advice = (
            "the file has half filled its map, and the process got no larger one: lift its limit of addresses "
            "(`ulimit -v unlimited`, LimitAS=) and reopen the store, or compact and defragment it"
        )
        return Fact("map", value, Level.WARNING, advice)
    return Fact("map", value)


def watchers(count: int, slow: int) -> Fact:
    """``slow``: those that read the past because they cannot follow."""
    value = f"{count:,}, {slow:,} of them slow"
    if slow > MANY_SLOW_WATCHERS:
        advice = (
            "slow ones read the past from the backend again and again: find the clients that do not read their "
            "events, or resume from far back; let them list, then watch from there"
        )
        return Fact("watchers", value, Level.WARNING, advice)
    if count > MANY_WATCHERS:
        advice = (
            "every change is compared with all, and sent to each that sees it: share watches among consumers"
        )
        return Fact("watchers", value, Level.ADVICE, advice)
    return Fact("watchers", value)


def leases(count: int, idle: int) -> Fact:
    """``idle``: those to which no key is attached."""
    value = f"{count:,}, {idle:,} of them without keys"
    if idle > MANY_IDLE_LEASES and idle > count // 2:
        advice = (
            "clients grant leases that they do not use, or grant one for each write: grant one, attach many keys, "
            "revoke it at the end; `kvstore lease list` shows them, `lease revoke` ends one"
        )
        return Fact("leases", value, Level.WARNING, advice)
    if count > MANY_LEASES:
        advice = (
            "each is renewed with a write of its own: let keys of one client share a lease, with a longer TTL"
        )
        return Fact("leases", value, Level.ADVICE, advice)
    return Fact("leases", value)


def readers(behind: Sequence[tuple[str, int]], open_: int, is_stopped: bool) -> Fact:
    """(who, commits behind) of those whose view stays open; ``open_``: how many processes have the file open."""
    if not behind:
        others = "1 other process has" if open_ == 1 else f"{open_} other processes have"
        return Fact("readers", f"{others} the file open")
    found = ", ".join(f"{who}, {commits:,} commits behind" if commits else who for who, commits in behind)
    advice = (
        "a read transaction is left open, and pages that it may see are not reused: the file grows. "
        "Let that process go on or end it (is it stopped, or writing to a pipe that nobody reads?)"
    )
    is_bad = is_stopped or any(commits >= FAR_BEHIND_COMMITS for _, commits in behind)
    return Fact("readers", found, Level.WARNING if is_bad else Level.ADVICE, advice)


def clock(ahead_ms: int, back_ms: int) -> Fact:
    """How far the store's newest time is ahead of now, and the largest step back between two writes in the log."""
    if ahead_ms > CLOCK_SLACK_MS:
        advice = (
            "the clock was set back: leases live that much longer, and a restore to a time cannot tell twice the same "
            "hour apart; let NTP slew it instead of stepping"
        )
        value = f"{ahead_ms / 1000:.0f} s behind the store's last checkpoint"
        return Fact("clock", value, Level.WARNING, advice)
    if back_ms > CLOCK_SLACK_MS:
        advice = (
            "the clock was set back while the store was written: name revisions, not times, when you restore"
        )
        return Fact("clock", f"went back by {back_ms / 1000:.0f} s between two writes", Level.ADVICE, advice)
    return Fact("clock", "not behind the store's last checkpoint")


def clocks(apart_seconds: float) -> Fact:
    """How far a server's clock is ahead of ours, with the time that an answer takes."""
    if abs(apart_seconds) > 5:
        which = "ahead of" if apart_seconds > 0 else "behind"
        advice = "times of backups and logs do not agree: have both machines follow one source of time (NTP)"
        return Fact("clock", f"{abs(apart_seconds):.0f} s {which} ours", Level.WARNING, advice)
    return Fact("clock", "as ours")


def held_by(who: str, is_stopped: bool) -> Fact:
    """``who`` holds the lock; empty: nobody."""
    if not who:
        return Fact("held by", "nobody")
    if is_stopped:
        advice = "that process is stopped, and the store with it: continue it (kill -CONT), or end it"
        return Fact("held by", who, Level.WARNING, advice)
    advice = (
        "one process at a time writes: others read (read_only), share it (shared), or ask it (--endpoint)"
    )
    return Fact("held by", who, Level.OK, advice)


def version(error: str) -> Fact:
    """``error``: why the store is too new for this program."""
    advice = "a newer kvstore wrote it, and this one leaves it alone: install that version (or newer) again"
    return Fact("version", error, Level.WARNING, advice)
