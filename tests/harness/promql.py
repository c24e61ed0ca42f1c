"""PromQL over a few scrapes: as much of it as rules and dashboards of etcd and of ours need.

    series = Series()
    series.scrape(0, page, job="etcd", instance="a")
    series.scrape(30, later_page, job="etcd", instance="a")
    evaluate("rate(x_total[1m])", series, at=30)      {labels: value}, or a number

``promql_parser`` makes the tree; what its nodes mean is here. Where Prometheus extrapolates to the ends of a range
(``rate``, ``increase``), the first and the last sample within it are taken as they are.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Samples = list[tuple[float, float]]
"""(time in seconds, value), ascending."""

LOOKBACK_SECONDS = 300
NAME = "__name__"


class Series:
    """What a Prometheus has scraped."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[Labels, Samples]] = defaultdict(lambda: defaultdict(list))
        """By name."""
        self.types: dict[str, str] = {}
        """Of the metric of that name of a sample: counter, gauge, histogram."""

    def scrape(self, at: float, page: str, **target: str) -> None:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                self.types[sample.name] = family.type
                self.add(at, sample.name, sample.value, {**sample.labels, **target})

    def add(self, at: float, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.samples[name][frozenset({**labels, NAME: name}.items())].append((at, value))

    def changed(self, values: Mapping[str, float]) -> Series:
        """The same, with other values in the last samples of metrics of these names."""
        found = Series()
        found.types = self.types
        found.samples.update(self.samples)
        for name, value in values.items():
            before = self.samples[name].items()
            found.samples[name] = {labels: [*each[:-1], (each[-1][0], value)] for labels, each in before}
        return found

    def select(self, selector: Any) -> dict[Labels, Samples]:
        """What a selector, which has a name, selects."""
        tests = [_test(matcher) for matcher in selector.matchers.matchers]
        found = {}
        for labels, samples in self.samples.get(selector.name, {}).items():
            known = dict(labels)
            if all(passes(known.get(name, "")) for name, passes in tests):
                found[labels] = samples
        return found


def _test(matcher: Any) -> tuple[str, Callable[[str], bool]]:
    kind, wanted = str(matcher.op).removeprefix("MatchOp."), matcher.value
    tests: dict[str, Callable[[str], bool]] = {
        "Equal": lambda value: value == wanted,
        "NotEqual": lambda value: value != wanted,
        "Re": lambda value: re.fullmatch(wanted, value) is not None,
        "NotRe": lambda value: re.fullmatch(wanted, value) is None,
    }
    return matcher.name, tests[kind]


def selectors(expression: str) -> list[tuple[Any, str]]:
    """(selector, the function over its range; empty for none) of an expression."""
    found: list[tuple[Any, str]] = []

    def walk(node: Any, function: str = "") -> None:
        if isinstance(node, promql.VectorSelector):
            found.append((node, function))
        elif isinstance(node, promql.MatrixSelector):
            found.append((node.vector_selector, function))
        elif isinstance(node, promql.Call):
            for argument in node.args:
                walk(argument, node.func.name if isinstance(argument, promql.MatrixSelector) else "")
        else:
            for name in ("expr", "lhs", "rhs"):
                if (inner := getattr(node, name, None)) is not None:
                    walk(inner)

    walk(promql.parse(expression))
    return found


def evaluate(expression: str, series: Series, at: float) -> Any:
    """Raises ``KeyError`` for what is not understood here, ``ValueError`` for what is no PromQL."""
    return _value(promql.parse(expression), series, at)


def _value(node: Any, series: Series, at: float) -> Any:
    match node:
        case promql.NumberLiteral():
            return node.val
        case promql.ParenExpr():
            return _value(node.expr, series, at)
        case promql.VectorSelector():
            found = series.select(node).items()
            return {
                labels: value
                for labels, samples in found
                if (value := _last(samples, at - LOOKBACK_SECONDS, at)) is not None
            }
        case promql.AggregateExpr():
            return _aggregate(str(node.op), _value(node.expr, series, at), node.modifier)
        case promql.BinaryExpr():
            return _binary(node, _value(node.lhs, series, at), _value(node.rhs, series, at))
        case promql.Call():
            return _call(node, series, at)
    raise KeyError(type(node).__name__)


def _last(samples: Samples, after: float, until: float) -> float | None:
    return next((value for time, value in reversed(samples) if after < time <= until), None)


# --- functions ------------------------------------------------------------------------------


def _increase(samples: Samples) -> float:
    """With resets: a counter that falls has begun anew."""
    values = [value for _, value in samples]
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def _predicted(samples: Samples, at: float, ahead_seconds: float) -> float:
    """Least squares, from the time of evaluation on."""
    times = [time - at for time, _ in samples]
    values = [value for _, value in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - middle) ** 2 for time in times)
    slope = sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    return mean + slope * (ahead_seconds - middle)


OVER_RANGES: dict[str, tuple[int, Callable[..., float]]] = {
    "rate": (2, lambda samples, at: _increase(samples) / (samples[-1][0] - samples[0][0])),
    "increase": (2, lambda samples, at: _increase(samples)),
    "changes": (
        1,
        lambda samples, at: sum(a[1] != b[1] for a, b in pairwise(samples)),
    ),
    "last_over_time": (1, lambda samples, at: samples[-1][1]),
    "predict_linear": (2, _predicted),
}
"""Of each series: how many samples it takes, and what becomes of them."""


def _call(node: Any, series: Series, at: float) -> Any:
    name, arguments = node.func.name, node.args
    if name in OVER_RANGES:
        least, function = OVER_RANGES[name]
        more = [_value(argument, series, at) for argument in arguments[1:]]
        ranges = _ranges(arguments[0], series, at)
        keeps = name == "last_over_time"
        return {
            labels if keeps else _without(labels, {NAME}): function(samples, at, *more)
            for labels, samples in ranges.items()
            if len(samples) >= least
        }
    if name == "histogram_quantile":
        return _quantiles(_value(arguments[0], series, at), _value(arguments[1], series, at))
    if name == "absent":
        return {} if _value(arguments[0], series, at) else {frozenset(): 1.0}
    if name == "time":
        return at
    raise KeyError(name)


def _ranges(node: Any, series: Series, at: float) -> dict[Labels, Samples]:
    after = at - node.range.total_seconds()
    if isinstance(node, promql.SubqueryExpr):
        found: dict[Labels, Samples] = defaultdict(list)
        assert node.step is not None, "a subquery without a step"
        step = node.step.total_seconds()
        for number in range(math.floor(after / step) + 1, math.floor(at / step) + 1):
            for labels, value in _value(node.expr, series, number * step).items():
                found[labels].append((number * step, value))
        return found
    whole = series.select(node.vector_selector).items()
    return {labels: [each for each in samples if after < each[0] <= at] for labels, samples in whole}


def _quantiles(share: float, buckets: Vector) -> Vector:
    """By linear interpolation within the bucket, as Prometheus does it."""
    histograms: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in buckets.items():
        histograms[_without(labels, {NAME, "le"})].append((float(dict(labels)["le"]), value))
    return {labels: _quantile(share, sorted(bounds)) for labels, bounds in histograms.items()}


def _quantile(share: float, bounds: list[tuple[float, float]]) -> float:
    assert bounds[-1][0] == math.inf, "a histogram without a last bucket"
    rank = share * bounds[-1][1]
    if not bounds[-1][1]:
        return math.nan
    number = next(at for at, (_, count) in enumerate(bounds) if count >= rank)
    if number == len(bounds) - 1:
        return bounds[-2][0]
    low, below = (0.0, 0.0) if number == 0 else bounds[number - 1]
    bound, count = bounds[number]
    return low + (bound - low) * (rank - below) / (count - below)


# --- aggregations and operators -------------------------------------------------------------

AGGREGATES: dict[str, Callable[[Iterable[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "count": lambda values: float(len(list(values))),
}
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda one, other: one / other if other else math.copysign(math.inf, one) if one else math.nan,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def _without(labels: Labels, names: Iterable[str]) -> Labels:
    dropped = set(names)
    return frozenset(pair for pair in labels if pair[0] not in dropped)


def _only(labels: Labels, names: Iterable[str]) -> Labels:
    kept = set(names)
    return frozenset(pair for pair in labels if pair[0] in kept)


def _aggregate(name: str, vector: Vector, modifier: Any) -> Vector:
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        if modifier is None:
            groups[frozenset()].append(value)
        elif str(modifier.type).endswith("By"):
            groups[_only(labels, modifier.labels)].append(value)
        else:
            groups[_without(labels, {NAME, *modifier.labels})].append(value)
    return {labels: AGGREGATES[name](values) for labels, values in groups.items()}


def _binary(node: Any, left: Any, right: Any) -> Any:
    name = str(node.op).strip()
    if name in ("and", "or", "unless"):
        return _sets(name, left, right, node.modifier)
    if name in ARITHMETIC:
        return _each(left, right, node.modifier, ARITHMETIC[name], keep=False)
    holds = COMPARISONS[name]
    if node.modifier is not None and node.modifier.return_bool:
        return _each(left, right, node.modifier, lambda one, other: float(holds(one, other)), keep=False)
    return _each(left, right, node.modifier, lambda one, other: one if holds(one, other) else None, keep=True)


def _key(labels: Labels, modifier: Any) -> Labels:
    matching = modifier.matching if modifier is not None else None
    if matching is None:
        return _without(labels, {NAME})
    if str(matching.type).endswith("Include"):
        return _only(labels, matching.labels)
    return _without(labels, {NAME, *matching.labels})


def _each(
    left: Any, right: Any, modifier: Any, made: Callable[[float, float], float | None], *, keep: bool
) -> Any:
    """One to one; ``keep``: the name of the left side stays (a comparison filters)."""
    if not isinstance(left, dict) and not isinstance(right, dict):
        return made(left, right)
    if not isinstance(left, dict):
        pairs = [(labels, left, value) for labels, value in right.items()]
    elif not isinstance(right, dict):
        pairs = [(labels, value, right) for labels, value in left.items()]
    else:
        others = {_key(labels, modifier): value for labels, value in right.items()}
        assert len(others) == len(right), "several on the right side match"
        pairs = [
            (labels, value, others[key])
            for labels, value in left.items()
            if (key := _key(labels, modifier)) in others
        ]
    found = {
        labels if keep else _without(labels, {NAME}): value
        for labels, one, other in pairs
        if (value := made(one, other)) is not None
    }
    return found


def _sets(name: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    mine, others = (
        {_key(labels, modifier) for labels in left},
        {_key(labels, modifier) for labels in right},
    )
    if name == "or":
        more = {labels: value for labels, value in right.items() if _key(labels, modifier) not in mine}
        return {**left, **more}
    return {
        labels: value
        for labels, value in left.items()
        if (_key(labels, modifier) in others) == (name == "and")
    }
