"""Bytes of any kind into every function in C: they come out as an answer or as a typed error, and nothing leaks.

``make sanitize`` runs this with the address sanitizer and the undefined behaviour sanitizer, many times longer
(``KVSTORE_FUZZ_ROUNDS``).
"""

from __future__ import annotations

import os
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from kvstore import wire
from kvstore.errors import Corruption
from kvstore.etcdpb.requests import TXN_KINDS
from kvstore.model import Compare, CompareTarget, PutRequest, RangeRequest
from kvstore.mvcc.validate import PLAIN_KINDS
from kvstore.network.http2.frames import frame
from kvstore.wal import format as wal_format
from kvstore.wire import WireError
from tests.native.both import in_c, in_python, module, needs_native

pytestmark = needs_native

ROUNDS = int(os.environ.get("KVSTORE_FUZZ_ROUNDS", "300"))
LEAK_ROUNDS = 1_000
LEAKED_BYTES_MAX = 12_000
"""Less than an object for each round."""
COUNTED_NONE = [None] if sys.version_info < (3, 12) else []
"""From 3.12 on nothing counts on None's references: some code leaves them out, and what was built before counts on."""
REFUSALS = (WireError, wal_format.BadFrame, Corruption, ValueError, DecodeError)

KEY, VALUE = b"ke\0y", b"v" * 200
ROW = in_python("encode_key_value")(KEY, 2, 300, 4, VALUE, 0)
LEASED = in_python("make_row")(in_python("encode_key_value")(KEY, 2, 300, 4, b"", 7), 9)
DATA = in_python("encode_batch")(5, 1000, [ROW, b"", LEASED])
FRAME = wal_format.encode_frame(7, 64, wal_format.BATCH, 99, 64, DATA)
ENTRY = in_python("plain_put")(301, KEY, VALUE, ROW)[1]
CHANGE, DELETED = (3, 0, KEY, ROW), (4, 1, b"other", None)

Arguments = tuple[Any, ...]

ANSWER = frame(1, 4, 1, b"block") + frame(0, 0, 1, VALUE) + frame(1, 5, 1, b"trailers")
WHOLE = frame(1, 4, 1, b"block") + frame(0, 1, 1, b"\0\0\0\0\1m")
PUT_MESSAGE = (
    wire.bytes_field(1, KEY) + wire.bytes_field(2, VALUE) + wire.int_field(3, 7) + wire.int_field(4, 1)
)
COMPARE_MESSAGE = wire.int_field(2, 2) + wire.bytes_field(3, KEY) + wire.int_field(6, 300)
TXN_MESSAGE = (
    wire.bytes_field(1, COMPARE_MESSAGE)
    + wire.bytes_field(2, wire.bytes_field(2, PUT_MESSAGE))
    + wire.bytes_field(3, wire.bytes_field(1, wire.bytes_field(1, KEY)))
)

ANSWER_MESSAGE = wire.bytes_field(1, wire.int_field(1, 77) + wire.int_field(3, 300)) + wire.bytes_field(
    2, ROW
)

SOUND: dict[str, Callable[[], Arguments]] = {
    "put_fields": lambda: (PUT_MESSAGE,),
    "txn_request": lambda: (TXN_MESSAGE, TXN_KINDS),
    "whole_request": lambda: (WHOLE, 0, 16_384),
    "whole_answer": lambda: (ANSWER, 0, 16_384),
    "request_frames": lambda: (1, b"block", VALUE),
    "answer_frames": lambda: (1, b"head", VALUE, b"trailers"),
    "lone_message": lambda: (b"\0\0\0\0\1m", 100),
    "framed": lambda: (VALUE,),
    "header_field": lambda: (b"ids", 300, b"term"),
    "lone_key": lambda: (wire.bytes_field(1, KEY),),
    "found_row": lambda: (b"head", ROW),
    "get_message": lambda: (KEY,),
    "put_message": lambda: (PutRequest(KEY, VALUE),),
    "put_answer": lambda: (ANSWER_MESSAGE,),
    "range_answer": lambda: (ANSWER_MESSAGE + wire.int_field(4, 1),),
    "encode_key_value": lambda: (KEY, 2, 3, 4, VALUE, -1),
    "make_row": lambda: (ROW, 300),
    **dict.fromkeys(
        (
            "split_row",
            "decode_row",
            "row_numbers",
            "row_lease",
            "row_mod_revision",
            "row_place",
            "row_revision",
        ),
        lambda: (LEASED,),
    ),
    "row_revisions": lambda: ([ROW, None, LEASED],),
    "row_keys": lambda: ([ROW, LEASED],),
    "encode_lone": lambda: (7, 64, 99, 64, 5, 1000, ROW),
    "encode_batch": lambda: (5, 1000, [ROW, b"", LEASED]),
    "frame_fields": lambda: (FRAME, 0, 64, len(FRAME), 7),
    "batch_fields": lambda: (DATA,),
    "plain_put": lambda: (301, KEY, VALUE, ROW),
    "lone_puts": lambda: (
        301,
        [PutRequest(KEY, VALUE), PutRequest(b"b"), PutRequest(b"b")],
        [ROW, None, None],
    ),
    "plain_puts": lambda: (301, [PutRequest(KEY, VALUE), PutRequest(b"b")], [ROW, None]),
    "plain_ops_bytes": lambda: ((PutRequest(KEY, VALUE), PutRequest(b"b")), PutRequest),
    "plain_parts_bytes": lambda: (
        (Compare(KEY, CompareTarget.MOD, 0, 300), Compare(KEY, CompareTarget.VALUE, 0, VALUE)),
        ((PutRequest(KEY, VALUE),), (RangeRequest(KEY), PutRequest(b"b"))),
        PLAIN_KINDS,
    ),
    "add_changes": lambda: ({KEY: CHANGE}, {}, [KEY], [CHANGE], [CHANGE, DELETED]),
    "newest_rows": lambda: (({KEY: CHANGE}, {}), [KEY, b"other"], {}),
    "lone_put_of": lambda: (ENTRY,),
    "table_rows": lambda: ([CHANGE, DELETED], {KEY: ROW, b"other": ROW}, [], []),
}
NAMES = sorted(SOUND)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, overwritten; sometimes nothing that was there."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(40))
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        end = min(at + chance.randrange(5), len(made))
        made[at:end] = chance.choice(
            [
                b"",
                chance.randbytes(end - at),
                bytes(made[at:end]) * 2,
                b"\xff" * chance.randrange(12),
                b"\x80\0",
            ]
        )
    return bytes(made)


def spoiled(value: Any, chance: random.Random) -> Any:
    """The same with bytes mutated and numbers replaced, at any depth, each with some chance."""
    if isinstance(value, bytes):
        return mutated(value, chance) if chance.random() < 0.7 else value
    if isinstance(value, bool) or value is None or isinstance(value, type):
        return value
    if isinstance(value, int):
        return chance.choice([value, value, 0, -1, chance.getrandbits(8), chance.getrandbits(63), 1 << 64])
    if isinstance(value, (Compare, PutRequest, RangeRequest)):
        return type(value)(*(spoiled(each, chance) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(spoiled(each, chance) for each in value)
    return dict(value)


def calls(name: str, chance: random.Random) -> Iterator[Arguments]:
    for _ in range(ROUNDS):
        yield tuple(spoiled(each, chance) for each in SOUND[name]())


def test_every_function_is_fuzzed() -> None:
    """None is left out."""
    assert set(module.names()) == set(SOUND)


@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_end_as_an_answer_or_a_typed_error(name: str) -> None:
    """And never in a crash. An error that says nothing of the bytes is about the numbers, and what Python says too."""
    function, chance = in_c(name), random.Random(name)
    for arguments in calls(name, chance):
        try:
            function(*arguments)
        except REFUSALS:
            pass
        except Exception as error:
            with pytest.raises(type(error)):
                in_python(name)(*arguments)


def test_any_row_in_the_class_ends_as_an_answer_or_a_typed_error() -> None:
    """Every field of a row of any bytes."""
    from kvstore import KeyValue

    chance = random.Random(1)
    for _ in range(ROUNDS):
        kv = KeyValue.from_row(mutated(chance.choice([ROW, LEASED]), chance))
        for ask in (
            lambda kv: kv.key,
            lambda kv: kv.value,
            lambda kv: kv.lease,
            repr,
            hash,
            KeyValue.to_protobuf,
        ):
            try:
                ask(kv)
            except REFUSALS:
                pass


def grown_bytes(run: Callable[[], None]) -> int:
    """The memory that the run leaves behind: each time, so the least of some times."""
    grown = []
    tracemalloc.start()
    for _ in range(3):
        before = tracemalloc.get_traced_memory()[0]
        run()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    return min(grown)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_keeps_nothing_and_drops_nothing(name: str) -> None:
    """Called often, it leaves no objects behind, and its arguments with the references they had."""
    function = in_c(name)
    given = SOUND[name]()
    spoilt = [tuple(spoiled(each, random.Random(f"{name} {seed}")) for each in given) for seed in range(5)]

    def run(rounds: int) -> None:
        for _ in range(rounds):
            function(*SOUND[name]())
        for _ in range(rounds // 20):
            for arguments in spoilt:
                try:
                    function(*arguments)
                except Exception:
                    pass
            for each in spoilt:  # what the functions have put into them
                for part in each:
                    if isinstance(part, (list, dict)) and len(part) > 5:
                        part.clear()

    watched = [KEY, VALUE, ROW, LEASED, DATA, FRAME, ENTRY, CHANGE, DELETED, PutRequest, *COUNTED_NONE]
    run(100)
    references = [sys.getrefcount(each) for each in watched]
    assert grown_bytes(partial(run, LEAK_ROUNDS)) < LEAKED_BYTES_MAX
    changes = [
        now - then for now, then in zip([sys.getrefcount(each) for each in watched], references, strict=True)
    ]
    assert max(map(abs, changes)) < LEAK_ROUNDS


def test_the_class_keeps_nothing_and_drops_nothing() -> None:
    """Objects made, read, compared, shown and refused."""
    from kvstore import KeyValue

    row = bytes(ROW)

    def run(rounds: int) -> None:
        for _ in range(rounds):
            one, other = KeyValue.from_row(row), KeyValue.decoded(row)
            assert one == other and one.key == KEY and one.value == VALUE and one.version == 4
            assert KeyValue(one.key, one.value).lease == 0
            for bad in (b"\xff", None):
                try:
                    KeyValue.from_row(bad).key  # type: ignore[arg-type]  # noqa: B018
                except Exception:
                    pass
            list(KeyValue.from_rows([row, row]))
            repr(one), hash(one), one.to_protobuf(), one.__reduce__()

    run(50)
    references = sys.getrefcount(row), sys.getrefcount(KeyValue)
    assert grown_bytes(partial(run, 500)) < LEAKED_BYTES_MAX
    assert abs(sys.getrefcount(row) - references[0]) < 10
    assert abs(sys.getrefcount(KeyValue) - references[1]) < 10
