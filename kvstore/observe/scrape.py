"""A page of metrics in Prometheus' text format, as far as a look at one needs it: sums and quantiles."""

from __future__ import annotations

import re
from collections import defaultdict

_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)')
_LE = re.compile(r'(?:^|,)le="([^"]+)"')


class Scrape:
    """The samples of a page, by name. What is no sample is passed over."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for line in text.splitlines():
            if (found := _SAMPLE.match(line)) is not None:
                try:
                    self._samples[found[1]].append((found[2] or "", float(found[3])))
                except ValueError:
                    continue

    def sum(self, name: str) -> float | None:
        """Of all samples of that name; None if there is none."""
        found = self._samples.get(name)
        return None if found is None else sum(value for _, value in found)

    def quantile(self, share: float, name: str) -> float | None:
        """The upper bound below which that share of a histogram's observations lies; None if there are none."""
        buckets: dict[float, float] = defaultdict(float)
        for labels, value in self._samples.get(f"{name}_bucket", ()):
            if (bound := _LE.search(labels)) is not None:
                buckets[float(bound[1])] += value
        total = max(buckets.values(), default=0)
        if not total:
            return None
        return next(bound for bound, count in sorted(buckets.items()) if count >= share * total)
