r"""Transactions as text, the way ``etcdctl txn`` reads them.

    mod("key") > "0"                   compares: all must hold (none: they hold)
    value("lock") != "held"
                                       an empty line
    put key "a value"                  ops if they hold
    get key --limit=1
                                       an empty line
    get other --prefix                 ops if they do not
    del key

    compare   TARGET("KEY") OP "OPERAND"
              TARGET: version (ver), create (c), mod (m), value (val), lease (operand in hexadecimal)
              OP: =  !=  <  >
    put       KEY VALUE  --prev-kv --lease=HEX --ignore-value --ignore-lease
    get       KEY [END]  --prefix --from-key --rev=N --limit=N --order=O --sort-by=T --keys-only --count-only
    del       KEY [END]  --prefix --from-key --prev-kv

A word is bare, in '…' (as it is), or in "…" with the escapes \n \r \t \a \b \f \v \\ \" \' \ooo \xhh \uhhhh.
A word -- ends the options of a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kvstore.model import Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest
from kvstore.model import TxnRequest as Txn

from .requests import key_and_end, lease_id, sort_order, sort_target
from .usage import UsageError

T = TypeVar("T")


class BadTxn(UsageError):
    """A line that is neither a compare nor an op."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


def parse_txn(text: bytes) -> Txn:
    """The transaction that the text describes. Raises ``BadTxn``."""
    sections: list[list[tuple[int, bytes]]] = [[], [], []]
    at = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            at += 1
        elif at < len(sections):
            sections[at].append((number, line.strip()))
        else:
            raise BadTxn(number, "there is nothing after the ops for failure")
    return Txn(
        tuple(_parse_lines(parse_compare, sections[0])),
        tuple(_parse_lines(parse_op, sections[1])),
        tuple(_parse_lines(parse_op, sections[2])),
    )


def _parse_lines(parse: Callable[[bytes], T], lines: Iterable[tuple[int, bytes]]) -> Iterator[T]:
    for number, line in lines:
        try:
            yield parse(line)
        except UsageError as problem:
            raise BadTxn(number, str(problem)) from None


# --- words -----------------------------------------------------------------------------

_QUOTED = rb"""("(?:[^"\\]|\\.)*"|'[^']*'|%s)"""
_WORD = re.compile(rb"\s*" + _QUOTED % rb"""[^\s"'][^\s]*""" + rb"(?=\s|$)")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_NAMED = dict(zip(b"nrtabfv\\\"'", b"\n\r\t\a\b\f\v\\\"'", strict=True))


def split_words(line: bytes) -> list[bytes]:
    """The words of a line, without their quotes. Raises ``UsageError``."""
    words, at = [], 0
    while line[at:].strip():
        match = _WORD.match(line, at)
        if match is None:
            raise UsageError(f"a quote that is not closed, or not followed by a space: {_show(line[at:])}")
        words.append(_unquote(match[1]))
        at = match.end()
    return words


def _unquote(word: bytes) -> bytes:
    if word[:1] == b"'":
        return word[1:-1]
    return _ESCAPE.sub(_unescape, word[1:-1]) if word[:1] == b'"' else word


def _unescape(match: re.Match[bytes]) -> bytes:
    in_hex, in_octal, unicode, named = match.groups()
    if in_hex is not None:
        return bytes((int(in_hex, 16),))
    if in_octal is not None:
        return bytes((int(in_octal, 8),))
    if unicode is not None:
        return chr(int(unicode, 16)).encode("utf-8", "surrogatepass")
    if named[0] in _NAMED:
        return bytes((_NAMED[named[0]],))
    raise UsageError(f"unknown escape {_show(match[0])}")


def _show(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


# --- compares --------------------------------------------------------------------------

_COMPARE = re.compile(
    rb"(\w+)\s*\(\s*" + _QUOTED % rb"""[^\s"')]+""" + rb"\s*\)\s*(\S+)\s+" + _QUOTED % rb"""[^\s"']\S*"""
)
_TARGETS = {
    **dict.fromkeys(("ver", "version"), CompareTarget.VERSION),
    **dict.fromkeys(("c", "create"), CompareTarget.CREATE),
    **dict.fromkeys(("m", "mod"), CompareTarget.MOD),
    **dict.fromkeys(("val", "value"), CompareTarget.VALUE),
    "lease": CompareTarget.LEASE,
}
_RESULTS = {
    "=": CompareResult.EQUAL,
    "!=": CompareResult.NOT_EQUAL,
    "<": CompareResult.LESS,
    ">": CompareResult.GREATER,
}


def parse_compare(line: bytes) -> Compare:
    """``mod("key") > "0"``. Raises ``UsageError``."""
    match = _COMPARE.fullmatch(line)
    if match is None:
        raise UsageError(f'not a compare like mod("key") > "0": {_show(line)}')
    name, sign = _show(match[1]), _show(match[3])
    if name not in _TARGETS:
        raise UsageError(f"unknown target {name!r}: version, create, mod, value or lease")
    if sign not in _RESULTS:
        raise UsageError(f"unknown comparison {sign!r}: one of {' '.join(_RESULTS)}")
    target = _TARGETS[name]
    return Compare(_unquote(match[2]), target, _RESULTS[sign], _operand(target, _unquote(match[4])))


def _operand(target: CompareTarget, word: bytes) -> int | bytes:
    if target == CompareTarget.VALUE:
        return word
    return lease_id(_show(word)) if target == CompareTarget.LEASE else _number(word)


def _number(word: bytes) -> int:
    if not re.fullmatch(rb"[+-]?\d{1,19}", word) or not -(1 << 63) <= int(word) < 1 << 63:
        raise UsageError(f"not a number of 64 bits: {_show(word)!r}")
    return int(word)


# --- ops -------------------------------------------------------------------------------


class _Words:
    """The words of an op after its verb: the options that are taken from it, and the rest."""

    def __init__(self, words: list[bytes]) -> None:
        self._options: dict[str, bytes | None] = {}
        self._rest: list[bytes] = []
        for at, word in enumerate(words):
            if word == b"--":
                self._rest += words[at + 1 :]
                break
            if word.startswith(b"--"):
                name, equals, value = word[2:].partition(b"=")
                self._options[_show(name)] = value if equals else None
            else:
                self._rest.append(word)

    def flag(self, name: str) -> bool:
        value = self._options.pop(name, b"false")
        if value not in (None, b"true", b"false"):
            raise UsageError(f"--{name} takes no value")
        return value != b"false"

    def value(self, name: str) -> str:
        """The value of an option; empty if it is not given."""
        value = self._options.pop(name, b"")
        if value is None:
            raise UsageError(f"--{name} needs a value: --{name}=...")
        return _show(value)

    def number(self, name: str) -> int:
        return _number((self.value(name) or "0").encode())

    def rest(self, count_min: int, count_max: int, usage: str) -> list[bytes]:
        if self._options:
            raise UsageError(f"unknown option --{min(self._options)}; {usage}")
        if not count_min <= len(self._rest) <= count_max:
            raise UsageError(f"needs {usage}")
        return self._rest

    def key_and_end(self, usage: str) -> tuple[bytes, bytes]:
        prefix, from_key = self.flag("prefix"), self.flag("from-key")
        words = self.rest(1, 2, usage)
        return key_and_end(words[0], words[1] if len(words) > 1 else None, prefix=prefix, from_key=from_key)


def parse_op(line: bytes) -> PutRequest | RangeRequest | DeleteRangeRequest:
    """``put key value``, ``get key`` or ``del key``. Raises ``UsageError``."""
    verb, *words = split_words(line)
    parse = _VERBS.get(_show(verb))
    if parse is None:
        raise UsageError(f"unknown op {_show(verb)!r}: put, get or del")
    return parse(_Words(words))


def _put(words: _Words) -> PutRequest:
    lease = lease_id(words.value("lease") or "0")
    prev_kv, ignore_value, ignore_lease = (
        words.flag("prev-kv"),
        words.flag("ignore-value"),
        words.flag("ignore-lease"),
    )
    key, *value = words.rest(1 if ignore_value else 2, 2, "put KEY VALUE")
    return PutRequest(key, value[0] if value else b"", lease, prev_kv, ignore_value, ignore_lease)


def _get(words: _Words) -> RangeRequest:
    rev, limit = words.number("rev"), words.number("limit")
    order, sort_by = words.value("order"), words.value("sort-by")
    keys_only, count_only = words.flag("keys-only"), words.flag("count-only")
    key, end = words.key_and_end("get KEY [END]")
    return RangeRequest(
        key,
        end,
        limit,
        rev,
        sort_order(order, sort_by),
        sort_target(sort_by),
        keys_only,
        count_only,
    )


def _del(words: _Words) -> DeleteRangeRequest:
    prev_kv = words.flag("prev-kv")
    return DeleteRangeRequest(*words.key_and_end("del KEY [END]"), prev_kv)


_VERBS: dict[str, Callable[[_Words], PutRequest | RangeRequest | DeleteRangeRequest]] = {
    "put": _put,
    "get": _get,
    "del": _del,
}
