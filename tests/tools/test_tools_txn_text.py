r"""Transactions as text: every form is understood, every other is refused with its line."""

from __future__ import annotations

import pytest
from kvstore.tools.txn_text import BadTxn, parse_compare, parse_op, parse_txn, split_words
from kvstore.tools.usage import UsageError

from kvstore.model import FROM_KEY, Compare, RangeRequest, SortOrder, SortTarget
from kvstore.ops import create_revision, delete, get, lease, mod_revision, put, txn, value, version


def test_three_sections_are_divided_by_empty_lines() -> None:
    """Compares, an empty line, ops for success, an empty line, ops for failure."""
    text = b'mod("a") > "0"\nvalue("b") = "x"\n\nput a 1\nget a\n\ndel a\n'
    assert parse_txn(text) == txn(
        [mod_revision(b"a") > 0, value(b"b") == b"x"], [put(b"a", b"1"), get(b"a")], [delete(b"a")]
    )


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n", b"\n\n\n\n", b"  \n\t\n"])
def test_sections_may_be_empty(text: bytes) -> None:
    """No compare holds always; no op does nothing."""
    assert parse_txn(text) == txn()


@pytest.mark.parametrize(
    ("line", "compare"),
    [
        (b'version("k") = "1"', version(b"k") == 1),
        (b'ver("k") != "1"', version(b"k") != 1),
        (b'create("k") < "7"', create_revision(b"k") < 7),
        (b'c("k") > "7"', create_revision(b"k") > 7),
        (b'm("k") > "-1"', mod_revision(b"k") > -1),
        (b'val("k") = ""', value(b"k") == b""),
        (b'value("a ) b") = "x y"', value(b"a ) b") == b"x y"),
        (b'lease("k") = "2a"', lease(b"k") == 42),
        (b'lease("k") = "ffffffffffffffff"', lease(b"k") == -1),
        (b"mod(k) > 0", mod_revision(b"k") > 0),
        (b'  mod ( "k" )  >  "0"', mod_revision(b"k") > 0),
    ],
)
def test_compares(line: bytes, compare: Compare) -> None:
    """Every target and result, in etcdctl's long and short names."""
    assert parse_compare(line.strip()) == compare


@pytest.mark.parametrize(
    ("line", "op"),
    [
        (b"put k v", put(b"k", b"v")),
        (b'put "a key" \'a "value"\'', put(b"a key", b'a "value"')),
        (b'put k ""', put(b"k", b"")),
        (b"put --lease=2a k v --prev-kv", put(b"k", b"v", lease=42, prev_kv=True)),
        (b"put k --ignore-value", put(b"k", ignore_value=True)),
        (b"put -- --k --v", put(b"--k", b"--v")),
        (b"get k", get(b"k")),
        (b"get a b", get(b"a", range_end=b"b")),
        (b"get k/ --prefix", get(prefix=b"k/")),
        (b'get "" --prefix', get(prefix=b"")),
        (b'get "" --from-key', get(FROM_KEY, range_end=FROM_KEY)),
        (b"get k --from-key --limit=3 --rev=9", RangeRequest(b"k", FROM_KEY, 3, 9)),
        (
            b"get k --order=descend --sort-by=MODIFY --keys-only",
            RangeRequest(b"k", b"", 0, 0, SortOrder.DESCEND, SortTarget.MOD, True),
        ),
        (b"del k --prev-kv=true", delete(b"k", prev_kv=True)),
        (b"del k --prefix", delete(prefix=b"k")),
    ],
)
def test_ops(line: bytes, op: object) -> None:
    """Every op with its options."""
    assert parse_op(line) == op


def test_words_are_any_bytes() -> None:
    """Bare, verbatim and escaped words give the bytes they say."""
    line = rb"""bare 'as is \x41' "\x00\xff\"\\\n\t\101\u00e9" """ + b"\xff"
    assert split_words(line) == [b"bare", rb"as is \x41", b'\0\xff"\\\n\tA\xc3\xa9', b"\xff"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"put a 1", 1),  # an op where a compare should be
        (b"mod(a", 1),
        (b'mod("a") >= "1"', 1),
        (b'mod("a") > "x"', 1),
        (b'mod("a") > "99999999999999999999"', 1),
        (b'frob("a") > "1"', 1),
        (b'lease("a") = "xyz"', 1),
        (b"\nfrob a", 2),
        (b"\nput", 2),
        (b"\nput a", 2),
        (b"\nput a b c", 2),
        (b"\nput a b --nope", 2),
        (b"\nput a b --lease", 2),
        (b"\nput a b --lease=1ffffffffffffffff", 2),
        (b"\nput a b --prev-kv=7", 2),
        (b'\nput a "b', 2),
        (b'\nput a "b"c', 2),
        (b'\nput a "\\q"', 2),
        (b"\nget a --prefix --from-key", 2),
        (b"\nget a b --prefix", 2),
        (b"\nget a --limit=x", 2),
        (b"\nget a --sort-by=x", 2),
        (b"\nput a 1\n\ndel", 4),
        (b"\n\n\nput a 1", 4),
    ],
)
def test_anything_else_is_refused_with_its_line(text: bytes, line: int) -> None:
    """A typed error that says which line is wrong."""
    with pytest.raises(BadTxn, match=f"^line {line}: ") as error:
        parse_txn(text)
    assert error.value.line == line
    assert isinstance(error.value, UsageError)
