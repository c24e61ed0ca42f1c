"""Python and C give the same bytes, answers and errors, whatever they are given."""

from __future__ import annotations

import copy
import operator
import os
import pickle
from functools import partial
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import implementation
from kvstore.keyvalue import KeyValues
from tests.native import arguments
from tests.native.both import in_c, in_python, module, needs_native, outcome, told

pytestmark = needs_native
EXAMPLES = int(os.environ.get("KVSTORE_FUZZ_ROUNDS", "300")) // 10
NAMES = sorted(module.names()) if module is not None else []


def test_every_function_in_c_has_its_python_function_and_its_arguments() -> None:
    """None goes untested."""
    assert set(NAMES) == set(arguments.SOUND)
    assert set(NAMES) == {name for name in implementation.references if not name[0].isupper()}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_what_a_function_is_for_comes_out_the_same(name: str, data: st.DataObject) -> None:
    """Sound bytes and damaged ones: the same answer, or the same error."""
    given_ = data.draw(arguments.SOUND[name])
    assert outcome(in_c(name), given_) == outcome(in_python(name), given_)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_what_a_function_is_not_for_comes_out_the_same(name: str, data: st.DataObject) -> None:
    """Subclasses, bytearrays, views, numbers of more than 64 bits, too few arguments, too many."""
    given_ = data.draw(arguments.strange(arguments.SOUND[name]))
    assert outcome(in_c(name), given_) == outcome(in_python(name), given_)


@settings(max_examples=EXAMPLES)
@given(data=arguments.TEXTS, value=arguments.CRCS)
def test_every_way_of_the_checksum_is_that_of_the_package(data: bytes, value: int) -> None:
    """With the processor's instruction, and with a table."""
    assert module.crc32c_with("chosen", data, value) == crc32c(data, value)
    assert module.crc32c_with("table", data, value) == crc32c(data, value)


# --- the class ---------------------------------------------------------------------------------

FIELDS = ("key", "value", "create_revision", "mod_revision", "version", "lease")


def python_class() -> Any:
    return implementation.references["KeyValue"]


def c_class() -> Any:
    asked = (in_python(name) for name in ("encode_key_value", "decode_row", "split_row"))
    return module.key_value_class(*asked, lambda kv: python_class().__repr__(kv))


KINDS = [pytest.param(python_class, id="python"), pytest.param(c_class, id="native")]


def looks(kind: Any, row: Any) -> list[Any]:
    """What can be seen of the object over a row."""
    kv = kind.from_row(row)
    seen = [outcome(partial(getattr, kv, name)) for name in FIELDS]
    seen += [outcome(partial(show, kv)) for show in (repr, hash, kind.to_protobuf)]
    return [*seen, outcome(lambda: kind.decoded(row).row), told(kv.row), kv.__reduce__()[1]]


@settings(max_examples=EXAMPLES)
@given(row=arguments.ANY_ROWS)
def test_the_class_shows_the_same_of_any_row(row: bytes) -> None:
    """Fields, how it is shown, its hash, its message; or the same error."""
    mine, theirs = looks(c_class(), row), looks(python_class(), row)
    assert mine == theirs


@settings(max_examples=EXAMPLES)
@given(row=arguments.STRANGE)
def test_the_class_shows_the_same_of_any_object(row: Any) -> None:
    """A row that is no bytes object at all."""
    if isinstance(row, memoryview):
        row = bytearray(row)
    for name in FIELDS:
        mine, theirs = (
            outcome(partial(getattr, kind().from_row(row), name)) for kind in (c_class, python_class)
        )
        assert mine == theirs


@settings(max_examples=EXAMPLES)
@given(one=arguments.ANY_ROWS, other=arguments.ANY_ROWS)
def test_the_class_compares_in_the_same_way(one: bytes, other: bytes) -> None:
    """Equal rows, equal fields in other rows, damaged rows."""

    def compared(kind: Any) -> list[Any]:
        pairs = [(one, other), (one, one), (one, in_python("make_row")(one, 5))]
        made = [(kind.from_row(left), kind.from_row(right)) for left, right in pairs]
        return [outcome(partial(how, *pair)) for pair in made for how in (operator.eq, operator.ne)]

    assert compared(c_class()) == compared(python_class())


@settings(max_examples=EXAMPLES)
@given(fields=st.tuples(arguments.TEXTS, arguments.TEXTS, *[arguments.ANY_INT64] * 4))
def test_the_class_is_made_of_the_same_fields(fields: tuple[Any, ...]) -> None:
    """In order, and by name."""
    mine, theirs = c_class()(*fields), python_class()(*fields)
    assert mine.row == theirs.row
    assert c_class()(**dict(zip(FIELDS, fields, strict=True))) == mine


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_cannot_be_changed(kind: Any) -> None:
    """Neither set nor deleted, nor extended."""
    kv = kind()(b"k", b"v", 2, 3, 1)
    for name in (*FIELDS, "row", "other"):
        with pytest.raises(AttributeError, match=f"KeyValue is immutable: {name}"):
            setattr(kv, name, 1)
        with pytest.raises(AttributeError, match=f"KeyValue is immutable: {name}"):
            delattr(kv, name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_is_a_class_like_any_other(kind: Any) -> None:
    """Subclasses, copies, comparison with something else, an object that was never initialized."""
    made = kind()(b"k", b"v", 2, 3, 1)
    assert made != b"k" and made != 3
    with pytest.raises(TypeError):
        made < made  # noqa: B015
    with pytest.raises(AttributeError):
        kind().__new__(kind()).key  # noqa: B018
    with pytest.raises(TypeError):
        kind()(1, 2, 3, 4, 5, 6, 7)
    sub = type("Sub", (kind(),), {})(b"k", b"v", 2, 3, 1)
    assert isinstance(sub, kind()) and sub == made and hash(sub) == hash(made)
    assert list(kind().from_rows([made.row] * 2)) == [made, made]
    assert (kind().__name__, kind().__module__) == ("KeyValue", "kvstore.keyvalue")


def test_the_class_in_use_can_be_copied_and_pickled() -> None:
    """Whichever it is."""
    from kvstore import KeyValue

    made = KeyValue(b"k", b"v", 2, 3, 1)
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert again == made and type(again) is KeyValue
    assert list(KeyValues([made.row])) == [made]
