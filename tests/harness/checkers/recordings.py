"""Histories of other systems, as text, and the sequential models they are held against.

A register, from logs of Jepsen tests of etcd. `:info` is an unknown outcome, a failed
compare-and-set has found another value, a failed read has seen nothing at all:

    INFO  jepsen.util - 4   :invoke :cas    [1 4]
    INFO  jepsen.util - 4   :ok     :cas    [1 4]

A map of strings, of which each key is a problem by itself:

    {:process 0, :type :invoke, :f :append, :key "2", :value "x 0 1 y"}
    {:process 0, :type :ok, :f :append, :key "2", :value "x 0 1 y"}
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from .linearizability import IMPOSSIBLE, UNKNOWN, Impossible, Operation, Unknown

# --- a register -------------------------------------------------------------------------


class Read(NamedTuple):
    """Answered with the value."""


class Write(NamedTuple):
    """Answered with None."""

    value: int


class CompareAndSet(NamedTuple):
    """Answered with whether ``old`` was found."""

    old: int
    new: int


RegisterRequest = Read | Write | CompareAndSet
RegisterAnswer = int | bool | None


@dataclass(frozen=True, slots=True)
class Register:
    """One value, None at first."""

    initial: int | None = None

    def step(
        self, state: int | None, request: RegisterRequest, answer: RegisterAnswer | Unknown
    ) -> int | Impossible | None:
        match request:
            case Read():
                return state if answer in (UNKNOWN, state) else IMPOSSIBLE
            case Write(value):
                return value
            case CompareAndSet(old, new):
                found = state == old
                if answer not in (UNKNOWN, found):
                    return IMPOSSIBLE
                return new if found else state


_JEPSEN = re.compile(r"INFO\s+jepsen\.util - (\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.+)")


def _register_request(kind: str, value: str) -> RegisterRequest:
    if kind == "read":
        return Read()
    if kind == "write":
        return Write(int(value))
    old, new = value.strip("[]").split()
    return CompareAndSet(int(old), int(new))


def _register_answer(kind: str, outcome: str, value: str) -> RegisterAnswer:
    if kind == "read":
        return None if value == "nil" else int(value)
    return outcome == "ok" if kind == "cas" else None


def read_jepsen(lines: Iterable[str]) -> Iterator[Operation[RegisterRequest, RegisterAnswer]]:
    """The operations of a Jepsen log; lines are ticks of its clock. Raises ValueError on other lines."""
    begun: dict[str, tuple[RegisterRequest, int]] = {}
    for tick, line in enumerate(lines):
        found = _JEPSEN.fullmatch(line.strip())
        if not found:
            raise ValueError(f"line {tick + 1} is no Jepsen operation: {line!r}")
        process, outcome, kind, value = found.groups()
        if outcome == "invoke":
            begun[process] = _register_request(kind, value), tick
            continue
        request, called = begun.pop(process)
        if outcome == "info":
            yield Operation(request, UNKNOWN, called, inf, process)
        elif not (outcome == "fail" and kind == "read"):
            yield Operation(request, _register_answer(kind, outcome, value), called, tick, process)
    for process, (request, called) in begun.items():
        yield Operation(request, UNKNOWN, called, inf, process)


# --- a map of strings -------------------------------------------------------------------


class MapRequest(NamedTuple):
    """``get`` is answered with the text, the others with None."""

    kind: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Text:
    """The text under one key, empty at first."""

    initial: str = ""

    def step(self, state: str, request: MapRequest, answer: str | Unknown | None) -> str | Impossible:
        if request.kind == "get":
            return state if answer in (UNKNOWN, state) else IMPOSSIBLE
        return request.value if request.kind == "put" else state + request.value


_MAP = re.compile(
    r'\{:process (\d+), :type :(invoke|ok), :f :(get|put|append), :key "(.*)", :value (nil|"(.*)")\}'
)


def read_map(lines: Iterable[str]) -> Iterator[Operation[MapRequest, str | None]]:
    """The operations of a map's history; lines are ticks of its clock. Raises ValueError on other lines."""
    begun: dict[str, tuple[MapRequest, int]] = {}
    for tick, line in enumerate(lines):
        found = _MAP.fullmatch(line.strip())
        if not found:
            raise ValueError(f"line {tick + 1} is no operation of a map: {line!r}")
        process, outcome, kind, key, _, text = found.groups()
        if outcome == "invoke":
            begun[process] = MapRequest(kind, key, text or ""), tick
            continue
        request, called = begun.pop(process)
        yield Operation(request, (text or "") if kind == "get" else None, called, tick, process)
    for process, (request, called) in begun.items():
        yield Operation(request, UNKNOWN, called, inf, process)
