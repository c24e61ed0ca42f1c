"""The Huffman code of RFC 7541, appendix B, as a machine that takes a byte at a time.

The code is canonical: written down are the symbols of each length, in order, and the codes follow. A state is a node
inside the tree, so there are 256. A step from a state by a byte leads to a state, with the characters that were
completed on the way. There are 65,536 steps; each is worked out when it is first taken.
"""

from __future__ import annotations

_SYMBOLS = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    23: b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf"
    b"\xc5\xe7\xef",
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
    b"\x7f\xdc\xf9",
    30: b"\n\r\x16",
}
"""The symbols by the length of their codes in bits. The one code that is left, thirty ones, is EOS."""

_EOS = -257
"""Leaves are the complements of their symbols; this one has none."""


class HuffmanError(Exception):
    """What is no Huffman string: EOS inside, or an end that is not up to seven ones."""


def _tree() -> list[list[int]]:
    """Each node's two children: a node's number, or the complement of a symbol."""
    nodes = [[0, 0]]
    code = length = 0
    leaves = [(bits, ~symbol) for bits, symbols in _SYMBOLS.items() for symbol in symbols] + [(30, _EOS)]
    for bits, leaf in leaves:
        code <<= bits - length
        length = bits
        node = 0
        for shift in range(bits - 1, 0, -1):
            side = code >> shift & 1
            if not nodes[node][side]:
                nodes.append([0, 0])
                nodes[node][side] = len(nodes) - 1
            node = nodes[node][side]
        nodes[node][code & 1] = leaf
        code += 1
    return nodes


class _Steps(dict[int, tuple[int, bytes]]):
    """(state << 8 | byte) -> (next state << 8, characters)."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes = _tree()
        self.ends = frozenset(self._padding())

    def _padding(self) -> list[int]:
        """The states where a string may end: at most seven ones after its last character."""
        nodes = [0]
        for _ in range(7):
            nodes.append(self._nodes[nodes[-1]][1])
        return [node << 8 for node in nodes]

    def __missing__(self, key: int) -> tuple[int, bytes]:
        node, characters = key >> 8, bytearray()
        for shift in range(7, -1, -1):
            node = self._nodes[node][key >> shift & 1]
            if node == _EOS:
                raise HuffmanError
            if node < 0:
                characters.append(~node)
                node = 0
        self[key] = step = (node << 8, bytes(characters))
        return step


_STEPS = _Steps()


def decode(data: bytes) -> bytes:
    """The characters. Raises HuffmanError."""
    steps = _STEPS
    state = 0
    text = []
    for byte in data:
        state, characters = steps[state | byte]
        text.append(characters)
    if state not in steps.ends:
        raise HuffmanError
    return b"".join(text)
