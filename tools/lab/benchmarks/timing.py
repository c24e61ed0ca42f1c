"""Rates and percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .contest import Sample


def rate(seconds: float, work: Callable[[], int]) -> Sample:
    """Call ``work`` (which returns how many operations it did) until the time is up. Returns operations per second.

    Details: this process's CPU time per operation.
    """
    done = 0
    cpu = time.process_time()
    begin = now = time.perf_counter()
    end = begin + seconds
    while now < end:
        done += work()
        now = time.perf_counter()
    return per_second(done, now - begin, time.process_time() - cpu)


def per_second(done: int, seconds: float, cpu_seconds: float) -> Sample:
    return Sample(done / seconds, {"cpu_us_per_op": cpu_seconds / max(done, 1) * 1e6})


def latencies(seconds: float, work: Callable[[], object]) -> list[float]:
    """How long each call of ``work`` took, in seconds; calls it for ``seconds``."""
    took = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        work()
        after = time.perf_counter()
        took.append(after - now)
        now = after
    return took


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def percentile_sample(took: Sequence[float], percent: float) -> Sample:
    """A percentile in milliseconds; the others as details."""
    ms = [seconds * 1000 for seconds in took]
    details = {
        "p50_ms": percentile(ms, 50),
        "p99_ms": percentile(ms, 99),
        "max_ms": max(ms),
        "ops": float(len(ms)),
    }
    return Sample(percentile(ms, percent), details)
