"""Header blocks: the examples of RFC 7541, its rules, and the `hpack` package as a second opinion."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.network.http2 import huffman
from kvstore.network.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from kvstore.network.http2.hpack import Decoder, encode
from kvstore.network.http2.limits import LIMITS, Limits
from tests.network.http2.peers import REQUEST, decoded

GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
GET_2 = [*GET, ("cache-control", "no-cache")]
GET_3 = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]
DATE, LATER, PLACE = (
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", "https://www.example.com"),
)
PRIVATE = ("cache-control", "private")
COOKIE = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
ANSWER = [(":status", "302"), PRIVATE, DATE, PLACE]
ANSWER_2 = [(":status", "307"), PRIVATE, DATE, PLACE]
ANSWER_3 = [(":status", "200"), PRIVATE, LATER, PLACE, ("content-encoding", "gzip"), COOKIE]

APPENDIX_C = {
    "C.2.1 literal with indexing": (
        4096,
        [
            (
                "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
                [("custom-key", "custom-header")],
            )
        ],
        [("custom-key", "custom-header")],
    ),
    "C.2.2 literal without indexing": (
        4096,
        [("040c2f73616d706c652f70617468", [(":path", "/sample/path")])],
        [],
    ),
    "C.2.3 literal never indexed": (
        4096,
        [("100870617373776f726406736563726574", [("password", "secret")])],
        [],
    ),
    "C.2.4 indexed": (4096, [("82", [(":method", "GET")])], []),
    "C.3 requests": (
        4096,
        [
            ("828684410f7777772e6578616d706c652e636f6d", GET),
            ("828684be58086e6f2d6361636865", GET_2),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", GET_3),
        ],
        [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
    ),
    "C.4 requests with Huffman": (
        4096,
        [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", GET),
            ("828684be5886a8eb10649cbf", GET_2),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", GET_3),
        ],
        [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
    ),
    "C.5 responses": (
        256,
        [
            (
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
                "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                ANSWER,
            ),
            ("4803333037c1c0bf", ANSWER_2),
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d"
                "4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b20766572"
                "73696f6e3d31",
                ANSWER_3,
            ),
        ],
        [COOKIE, ("content-encoding", "gzip"), LATER],
    ),
    "C.6 responses with Huffman": (
        256,
        [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b"
                "97c8e9ae82ae43d3",
                ANSWER,
            ),
            ("4883640effc1c0bf", ANSWER_2),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdf"
                "cd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                ANSWER_3,
            ),
        ],
        [COOKIE, ("content-encoding", "gzip"), LATER],
    ),
}


def raw(pairs: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in pairs]


def refused(block: bytes, limits: Limits = LIMITS) -> int:
    """The code with which a block is refused."""
    with pytest.raises(ConnectionFault) as caught:
        Decoder(limits).decode(block)
    return caught.value.code


@pytest.mark.parametrize("name", APPENDIX_C)
def test_the_examples_of_appendix_c_are_decoded(name: str) -> None:
    """Every example gives its list, and leaves the table that the RFC shows, no entry more."""
    table_bytes, blocks, table = APPENDIX_C[name]
    decoder = Decoder(Limits(header_table_bytes=table_bytes))
    for block, expected in blocks:
        assert decoder.decode(bytes.fromhex(block)).headers == raw(expected)
    indices = bytes(0x80 | 62 + place for place in range(len(table)))
    assert decoder.decode(indices).headers == raw(table)
    with pytest.raises(ConnectionFault):
        decoder.decode(bytes([0x80 | 62 + len(table)]))


BROKEN = {
    "2.3.3 index 0": "80",
    "2.3.3 index beyond the tables": "be",
    "2.3.3 index far beyond the tables": "ffffff7f",
    "2.3.3 name's index beyond the tables": "7f8001",
    "4.2 size above the limit": "3fe21f",
    "4.2 size after a field": "8220",
    "5.1 number without end": "ff80808080808001",
    "5.1 number cut": "ff",
    "5.1 length cut": "007f",
    "5.2 name cut": "400a63",
    "5.2 value missing": "4001 63".replace(" ", ""),
    "5.2 value cut": "0c056162",
    "5.2 padding of eight ones": "0485ffffffffff",
    "5.2 padding not of ones": "048118",
    "5.2 padding with zeros": "04821800",
    "5.2 EOS inside": "0485ffffffffff",
    "6.2 literal of nothing": "40",
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_rfc_7541_forbids_is_a_compression_error(rule: str) -> None:
    """Each malformed block is refused with the one code that the RFC has for it."""
    assert refused(bytes.fromhex(BROKEN[rule])) == COMPRESSION_ERROR


def test_a_smaller_table_forgets_and_may_grow_again() -> None:
    """4.3: a new size evicts at once; size 0 empties the table; more than one change may come first."""
    decoder = Decoder()
    decoder.decode(bytes.fromhex("400161016240016301 64".replace(" ", "")))
    assert decoder.decode(b"\xbe\xbf").headers == [(b"c", b"d"), (b"a", b"b")]
    assert decoder.decode(b"\x20\x3f\xe1\x1f\x82").headers == [(b":method", b"GET")]
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_a_field_larger_than_the_table_empties_it() -> None:
    """4.4: it is no error; the field is delivered, and is not in the table."""
    decoder = Decoder(Limits(header_table_bytes=64))
    decoder.decode(bytes.fromhex("4001610162"))
    name = b"n" * 60
    assert decoder.decode(b"\x40\x3c" + name + b"\x00").headers == [(name, b"")]
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_a_known_block_is_read_anew_after_the_table_changed() -> None:
    """The same bytes mean something else once an entry has come in, so what was remembered is forgotten."""
    decoder = Decoder()
    decoder.decode(bytes.fromhex("4001610162"))
    first = decoder.decode(b"\xbe")
    assert decoder.decode(b"\xbe") is first
    assert first.headers == [(b"a", b"b")]
    decoder.decode(bytes.fromhex("4001630164"))
    assert decoder.decode(b"\xbe").headers == [(b"c", b"d")]


def test_known_blocks_are_few_and_small() -> None:
    """Blocks that change nothing are remembered up to a number, and only short ones."""
    decoder = Decoder(Limits(known_blocks=4, known_block_bytes=40))
    first = decoder.decode(encode([(b"a", b"0")]))
    assert decoder.decode(encode([(b"a", b"0")])) is first
    for number in range(1, 5):
        decoder.decode(encode([(b"a", b"%d" % number)]))
    assert decoder.decode(encode([(b"a", b"0")])) is not first
    long = encode([(b"a", b"x" * 50)])
    assert decoder.decode(long) is not decoder.decode(long)


@pytest.mark.parametrize("fields", [100, 101])
def test_a_list_of_too_many_fields_ends_the_connection(fields: int) -> None:
    """One more than the limit is refused, the limit itself is not."""
    block = b"\x82" * fields
    if fields <= LIMITS.header_list_fields:
        assert len(Decoder().decode(block).headers) == fields
    else:
        assert refused(block) == ENHANCE_YOUR_CALM


def test_a_bomb_is_not_decoded_to_its_end() -> None:
    """One large entry named again and again: refused at the list's limit, wherever the block would have gone wrong."""
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    decoder = Decoder()
    decoder.decode(entry)
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\xbe" * 20 + b"\x80")
    assert caught.value.code == ENHANCE_YOUR_CALM


# --- what we send -----------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        b":status",
        b":path",
        b":authority",
        b"content-type",
        b"grpc-status",
        b"x-y",
        b"te",
        b"cookie",
        b"z" * 200,
    ]
) | st.binary(max_size=12).map(lambda name: name.lower())
VALUES = st.sampled_from([b"200", b"/", b"", b"application/grpc", b"gzip, deflate"]) | st.binary(max_size=300)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@given(LISTS)
def test_what_we_encode_is_what_others_read(headers: list[tuple[bytes, bytes]]) -> None:
    """The `hpack` package and our own decoder read the same list; the block changes no table."""
    block = encode(headers)
    assert decoded(block) == headers
    decoder = Decoder()
    assert decoder.decode(block).headers == headers
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_pieces_of_a_list_may_be_encoded_apart() -> None:
    """A block made of two is the block of both lists, so that constants are encoded once."""
    assert encode(REQUEST[:2]) + encode(REQUEST[2:]) == encode(REQUEST)


def test_a_secret_is_marked_as_never_indexed() -> None:
    """Of a list only the named fields are."""
    block = encode([(b"authorization", b"t"), (b"via", b"v")], secret=frozenset((b"authorization",)))
    first, second = hpack.Decoder().decode(block, raw=True)
    assert isinstance(first, hpack.NeverIndexedHeaderTuple)
    assert not isinstance(second, hpack.NeverIndexedHeaderTuple)


# --- what we read -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.tuples(LISTS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=8))
def test_what_others_encode_is_what_we_read(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    """Lists encoded by `hpack` one after the other, with and without Huffman, its table changing in size."""
    encoder, decoder = hpack.Encoder(), Decoder()
    for headers, with_huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(headers, huffman=with_huffman)).headers == headers


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(b"\x82\xbe\xbf\x40\x00\x01\x84a\x20\x3f\xe1\x1f")).map(bytes)
)
def test_any_bytes_are_judged_as_others_judge_them(data: bytes) -> None:
    """Random blocks give the list that `hpack` gives, or an error where it gives one."""
    reader = hpack.Decoder(max_header_list_size=1 << 20)
    try:
        expected = [
            (bytes(name), bytes(value)) for name, value in reader.decode(b"\x40\x01a\x01b" + data, raw=True)
        ]
    except hpack.HPACKError:
        assert refused(b"\x40\x01a\x01b" + data) == COMPRESSION_ERROR
        return
    assert Decoder(Limits(header_list_bytes=1 << 20)).decode(b"\x40\x01a\x01b" + data).headers == expected


@given(st.binary(max_size=200))
def test_every_string_survives_huffman(text: bytes) -> None:
    """What `hpack` encodes we decode."""
    from hpack.huffman import HuffmanEncoder
    from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    assert huffman.decode(encoder.encode(text)) == text


@given(st.binary(max_size=30))
def test_bytes_that_are_no_huffman_string_are_refused_as_others_refuse_them(data: bytes) -> None:
    """The same text, or an error on both sides."""
    from hpack.huffman_table import decode_huffman

    try:
        expected = decode_huffman(data)
    except hpack.HPACKDecodingError:
        with pytest.raises(huffman.HuffmanError):
            huffman.decode(data)
        return
    assert huffman.decode(data) == expected
