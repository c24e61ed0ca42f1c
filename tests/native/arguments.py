"""Arguments for each function that C has as well: sound ones, damaged ones, and ones of another kind."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import strategies as st

from kvstore import wire
from kvstore.etcdpb.requests import TXN_KINDS
from kvstore.model import Compare, CompareTarget, PutRequest, RangeRequest
from kvstore.mvcc.validate import PLAIN_KINDS
from kvstore.network.http2.frames import frame as http2_frame
from kvstore.wal import format as wal_format
from tests.native.both import in_python


class Bytes(bytes):
    """Bytes that might behave otherwise."""


class Int(int):
    """The same of an int."""


Arguments = st.SearchStrategy[tuple[Any, ...]]

NUMBERS = st.one_of(
    st.integers(0, 300),
    st.sampled_from([0, 1, 127, 128, (1 << 14) - 1, 1 << 14, 1 << 31, 1 << 32, (1 << 63) - 1]),
    st.integers(0, (1 << 63) - 1),
)
ANY_NUMBERS = st.one_of(NUMBERS, st.integers(-(1 << 64), 1 << 65))
TEXTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"\0", b"k", b"\0\xff\0", b"v" * 127, b"v" * 128, b"v" * 20_000]),
)
KEYS = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\0", b"k", b"a\0b"]))
CRCS = st.integers(0, (1 << 32) - 1)

STRANGE = st.one_of(
    ANY_NUMBERS,
    TEXTS,
    st.sampled_from(
        [
            None,
            True,
            1.5,
            "text",
            (),
            [],
            {},
            [None],
            b"",
            bytearray(b"k"),
            Bytes(b"k"),
            Int(3),
            object,
            1 << 200,
        ]
    ),
    TEXTS.map(memoryview),  # type: ignore[arg-type]
    TEXTS.map(bytearray),
    TEXTS.map(Bytes),
    st.lists(TEXTS, max_size=2),
)


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """Rows as they are stored."""
    numbers = draw(st.tuples(NUMBERS, NUMBERS, NUMBERS))
    row = in_python("encode_key_value")(draw(KEYS), *numbers, draw(TEXTS), draw(st.just(0) | ANY_INT64))
    sub = draw(st.sampled_from([0, 0, 1, 200, 70_000]))
    made: bytes = in_python("make_row")(row, sub)
    return made


ANY_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def damaged(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were sound, with some of them changed, left out, doubled or added."""
    data = bytearray(draw(sound))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(at + draw(st.integers(0, 4)), len(data))
        data[at:end] = draw(
            st.one_of(st.binary(max_size=6), st.just(bytes(data[at:end]) * 2), st.just(b"\xff" * 11))
        )
    return bytes(data)


ROWS = rows()
ANY_ROWS = st.one_of(ROWS, damaged(ROWS), st.binary(max_size=30))
ENTRIES = st.lists(TEXTS, min_size=1, max_size=4)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, int, int, int, int]:
    """A buffer with a frame in it, and how to find it."""
    seed, offset, crc, synced = draw(CRCS), draw(NUMBERS), draw(CRCS), draw(NUMBERS)
    kind = draw(st.sampled_from([wal_format.CRC, wal_format.BATCH, wal_format.METADATA, 9, 200]))
    data = None if kind == wal_format.CRC else draw(TEXTS)
    frame = wal_format.encode_frame(seed, offset, kind, crc, synced, data)
    size = len(frame)
    frame = draw(st.one_of(st.just(frame), damaged(st.just(frame))))
    before, after = draw(st.binary(max_size=9)), draw(st.binary(max_size=9))
    return (
        before + frame + after,
        len(before),
        offset,
        draw(st.sampled_from([size, len(frame), size + 1])),
        seed,
    )


BATCHES = st.builds(in_python("encode_batch"), NUMBERS, NUMBERS, ENTRIES)
PLACES = (CRCS, NUMBERS, CRCS, NUMBERS)

OPTIONS = st.sampled_from([0, 0, 0, False, 7])


@st.composite
def puts(draw: st.DrawFn) -> PutRequest:
    """Mostly plain ones."""
    key, value = draw(KEYS), draw(TEXTS)
    return PutRequest(key, value, *(draw(st.tuples(*[OPTIONS] * 4)) if draw(st.booleans()) else ()))


STRANGE_FIELDS: list[Any] = [
    None,
    True,
    1.5,
    "text",
    b"",
    b"end",
    (),
    bytearray(b"k"),
    Bytes(b"k"),
    Int(3),
    1 << 70,
]


@st.composite
def compares(draw: st.DrawFn) -> Compare:
    """Mostly plain ones."""
    target = draw(
        st.sampled_from([0, 1, 2, 3, 4, CompareTarget.MOD, CompareTarget.VALUE, True, 5, -1, 1 << 70])
    )
    operand: Any = draw(TEXTS if target == CompareTarget.VALUE else NUMBERS)
    plain = Compare(draw(KEYS), target, draw(st.integers(0, 3)), operand)
    if draw(st.integers(0, 3)):
        return plain
    field, value = draw(st.sampled_from(Compare._fields)), draw(st.sampled_from(STRANGE_FIELDS))
    return plain._replace(**{field: value})


def ranges() -> st.SearchStrategy[RangeRequest]:
    return st.builds(RangeRequest, KEYS, st.sampled_from([b"", b"", b"end"]), st.sampled_from([0, 0, 0.0, 3]))


BRANCHES = st.lists(st.one_of(puts(), puts(), ranges()), max_size=4).map(tuple)

OLDS = st.one_of(st.none(), ROWS, ANY_ROWS)


@st.composite
def puts_over(draw: st.DrawFn) -> tuple[int, list[PutRequest], list[bytes | None]]:
    ops = draw(st.lists(puts(), max_size=5))
    olds = draw(st.lists(st.one_of(st.none(), PLAIN_ROWS, OLDS), min_size=len(ops), max_size=len(ops)))
    return draw(NUMBERS), ops, olds


PLAIN_ROWS = st.builds(
    lambda *fields: in_python("encode_key_value")(*fields, 0), KEYS, NUMBERS, NUMBERS, NUMBERS, TEXTS
)
FEW_KEYS = st.sampled_from([b"a", b"b", b"a\0b", b"\0", b""])
CHANGES = st.tuples(NUMBERS, NUMBERS, FEW_KEYS, st.one_of(st.none(), TEXTS))
SOME_CHANGES = st.lists(CHANGES, max_size=6)
GENERATION = (
    st.dictionaries(FEW_KEYS, CHANGES, max_size=3),
    st.dictionaries(FEW_KEYS, SOME_CHANGES, max_size=3),
    st.lists(FEW_KEYS, max_size=3),
    SOME_CHANGES,
)
LONE_PUTS = st.builds(
    lambda *given: in_python("plain_put")(*given)[1], NUMBERS, KEYS, TEXTS, st.one_of(st.none(), PLAIN_ROWS)
)


@st.composite
def for_tables(draw: st.DrawFn) -> tuple[Any, ...]:
    """Changes, and the rows before them: of all keys, or nearly all."""
    now: dict[bytes, bytes | None] = dict.fromkeys([b"a", b"b", b"a\0b", b"\0", b""], b"row")
    now.update(draw(st.dictionaries(FEW_KEYS, st.one_of(st.none(), TEXTS))))
    if draw(st.integers(0, 5)) == 0:
        del now[b"b"]
    return draw(SOME_CHANGES), now, [], []


IDS = st.one_of(st.integers(1, 9), st.sampled_from([0, 1 << 31, (1 << 32) - 1]))
"""Of streams; the large ones have a bit that is reserved."""
KEY_MESSAGES = KEYS.map(partial(wire.bytes_field, 1))
MESSAGES_OF_GRPC = TEXTS.map(lambda message: b"\0" + len(message).to_bytes(4, "big") + message)


@st.composite
def whole_requests(
    draw: st.DrawFn, usual: tuple[tuple[int, int], ...] = ((1, 4), (0, 1))
) -> tuple[bytes, int, int]:
    """Frames, mostly those of a request; where they begin; and the longest payload."""
    stream_id = draw(IDS)
    heads = [(kind, flags, stream_id) for kind, flags in usual]
    if draw(st.booleans()):
        heads[draw(st.integers(0, len(heads) - 1))] = draw(
            st.tuples(st.integers(0, 9), st.integers(0, 9), IDS)
        )
    made = b"".join(http2_frame(*head, draw(TEXTS)) for head in heads)
    made = draw(st.one_of(st.just(made), damaged(st.just(made))))
    before, after = draw(st.binary(max_size=9)), draw(st.binary(max_size=9))
    return before + made + after, len(before), draw(st.sampled_from([16_384, 0, 40, 127, 1 << 24]))


def whole_answers() -> st.SearchStrategy[tuple[bytes, int, int]]:
    return whole_requests(((1, 4), (0, 0), (1, 5)))


@st.composite
def put_messages(draw: st.DrawFn) -> bytes:
    """Puts as clients send them: often plain, with fields in any order, now and then twice or unknown."""
    parts = [wire.bytes_field(1, draw(TEXTS)), wire.bytes_field(2, draw(TEXTS))]
    if draw(st.booleans()):
        numbers = st.one_of(st.integers(0, 3), ANY_INT64)
        parts += draw(st.lists(st.builds(wire.int_field, st.integers(1, 8), numbers), max_size=4))
        parts = draw(st.permutations(parts))
    return b"".join(parts)


@st.composite
def compare_messages(draw: st.DrawFn) -> bytes:
    numbers = st.one_of(st.integers(-1, 6), ANY_INT64)
    parts = [
        wire.int_field(1, draw(st.integers(0, 4))),
        wire.int_field(2, draw(st.integers(0, 5))),
        wire.bytes_field(3, draw(TEXTS)),
    ]
    parts += draw(st.lists(st.builds(wire.int_field, st.integers(4, 8), numbers), max_size=2))
    parts += draw(st.lists(st.just(wire.bytes_field(7, b"value")), max_size=1))
    parts += draw(st.lists(st.sampled_from([b"\x82\x04\x03end", b"\x82\x04\x00"]), max_size=1))
    return b"".join(parts)


RANGE_MESSAGES = st.one_of(
    TEXTS.map(partial(wire.bytes_field, 1)),
    st.builds(
        lambda key, number, value: wire.bytes_field(1, key) + wire.int_field(number, value),
        TEXTS,
        st.integers(2, 13),
        st.integers(0, 3),
    ),
)
OP_MESSAGES = st.one_of(
    put_messages().map(partial(wire.bytes_field, 2)),
    RANGE_MESSAGES.map(partial(wire.bytes_field, 1)),
    st.sampled_from([b"", wire.bytes_field(3, wire.bytes_field(1, b"k")), wire.bytes_field(4, b"")]),
)
TXN_MESSAGES = st.lists(
    st.one_of(
        compare_messages().map(partial(wire.bytes_field, 1)),
        OP_MESSAGES.map(partial(wire.bytes_field, 2)),
        OP_MESSAGES.map(partial(wire.bytes_field, 3)),
    ),
    max_size=4,
).map(b"".join)


@st.composite
def answer_messages(draw: st.DrawFn) -> bytes:
    """Answers to a client: a header, rows, numbers; often usual, with fields in any order, now and then unknown."""
    header = b"".join(wire.int_field(number, draw(ANY_INT64)) for number in range(1, 5))
    if draw(st.booleans()):
        header += wire.int_field(draw(st.integers(1, 6)), draw(ANY_INT64))
    parts = [
        wire.bytes_field(1, header),
        *(wire.bytes_field(2, row) for row in draw(st.lists(TEXTS, max_size=3))),
    ]
    if draw(st.booleans()):
        parts += draw(st.lists(st.builds(wire.int_field, st.integers(1, 5), ANY_INT64), max_size=3))
        parts = draw(st.permutations(parts))
    return b"".join(parts)


SOUND: dict[str, Arguments] = {
    "put_fields": st.tuples(st.one_of(put_messages(), damaged(put_messages()))),
    "txn_request": st.tuples(st.one_of(TXN_MESSAGES, damaged(TXN_MESSAGES)), st.just(TXN_KINDS)),
    "whole_request": whole_requests(),
    "whole_answer": whole_answers(),
    "request_frames": st.tuples(IDS, TEXTS, TEXTS),
    "answer_frames": st.tuples(IDS, TEXTS, TEXTS, TEXTS),
    "lone_message": st.tuples(
        st.one_of(MESSAGES_OF_GRPC, damaged(MESSAGES_OF_GRPC)), st.sampled_from([1 << 20, 0, 127, 1 << 40])
    ),
    "framed": st.tuples(TEXTS),
    "header_field": st.tuples(TEXTS, ANY_INT64, TEXTS),
    "lone_key": st.tuples(st.one_of(KEY_MESSAGES, damaged(KEY_MESSAGES))),
    "found_row": st.tuples(TEXTS, ANY_ROWS),
    "get_message": st.tuples(TEXTS),
    "put_message": st.tuples(
        st.builds(
            PutRequest,
            TEXTS,
            TEXTS,
            st.sampled_from([0, 7, -1, 1 << 63]),
            *[st.sampled_from([False, False, True, 0])] * 3,
        )
    ),
    "put_answer": st.tuples(st.one_of(answer_messages(), damaged(answer_messages()))),
    "range_answer": st.tuples(st.one_of(answer_messages(), damaged(answer_messages()))),
    "encode_key_value": st.tuples(TEXTS, ANY_INT64, ANY_INT64, ANY_INT64, TEXTS, ANY_INT64),
    "make_row": st.tuples(ROWS, st.one_of(st.integers(0, 300), ANY_INT64)),
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
        st.tuples(ANY_ROWS),
    ),
    "row_revisions": st.tuples(st.lists(st.one_of(ANY_ROWS, st.none()), max_size=4)),
    "row_keys": st.tuples(st.lists(ANY_ROWS, max_size=4)),
    "plain_put": st.tuples(NUMBERS, KEYS, TEXTS, st.one_of(PLAIN_ROWS, OLDS)),
    "plain_puts": puts_over(),
    "lone_puts": puts_over(),
    "plain_ops_bytes": st.tuples(st.lists(puts(), max_size=5).map(tuple), st.just(PutRequest)),
    "plain_parts_bytes": st.tuples(
        st.lists(compares(), max_size=3).map(tuple), st.tuples(BRANCHES, BRANCHES), st.just(PLAIN_KINDS)
    ),
    "add_changes": st.tuples(*GENERATION, st.one_of(SOME_CHANGES, SOME_CHANGES.map(tuple))),
    "newest_rows": st.tuples(
        st.lists(GENERATION[0], max_size=3).map(tuple),
        st.lists(FEW_KEYS, max_size=4),
        st.dictionaries(FEW_KEYS, TEXTS, max_size=2),
    ),
    "lone_put_of": st.tuples(st.one_of(LONE_PUTS, damaged(LONE_PUTS), st.binary(max_size=20))),
    "table_rows": for_tables(),
    "encode_lone": st.tuples(*PLACES, ANY_NUMBERS, ANY_NUMBERS, TEXTS),
    "encode_batch": st.tuples(ANY_NUMBERS, ANY_NUMBERS, ENTRIES),
    "frame_fields": frames(),
    "batch_fields": st.tuples(st.one_of(BATCHES, damaged(BATCHES), st.binary(max_size=30))),
}
"""By name: what the function is there for, and bytes that are damaged."""


@st.composite
def strange(draw: st.DrawFn, sound: Arguments) -> tuple[Any, ...]:
    """Arguments of which some are of another kind, or missing, or too many."""
    arguments = list(draw(sound))
    for _ in range(draw(st.integers(1, 2))):
        arguments[draw(st.integers(0, len(arguments) - 1))] = draw(STRANGE)
    if draw(st.integers(0, 9)) == 0:
        arguments = arguments[:-1] if draw(st.booleans()) else [*arguments, draw(STRANGE)]
    return tuple(arguments)
