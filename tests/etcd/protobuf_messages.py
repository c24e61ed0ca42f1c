"""Random protobuf messages of any class, and the descriptors that a program of Go's carries."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from hypothesis import strategies as st

INTS = {1: (-(2**31), 2**31 - 1), 2: (-(2**63), 2**63 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1)}
"""By C++ type: int32, int64, uint32, uint64."""
BOOL, ENUM, STRING, MESSAGE = 7, 8, 9, 10
GZIP = b"\x1f\x8b\x08"
LARGEST_DESCRIPTOR = 1 << 17


def messages(message_class: Any, depth: int = 3) -> st.SearchStrategy[Any]:
    """Messages with any of the fields set; ``depth`` levels of them."""
    return fields_of(message_class.DESCRIPTOR, depth).map(lambda fields: message_class(**fields))


def fields_of(descriptor: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields = {
        field.name: values(field, depth)
        for field in descriptor.fields
        if depth > 1 or field.message_type is None
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda drawn: one_of_each_oneof(descriptor, drawn))


def one_of_each_oneof(descriptor: Any, drawn: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    oneofs = set()
    for name, value in drawn.items():
        oneof = descriptor.fields_by_name[name].containing_oneof
        if oneof is None or oneof.name not in oneofs:
            kept[name] = value
            oneofs.add(oneof.name if oneof else None)
    return kept


def values(field: Any, depth: int) -> st.SearchStrategy[Any]:
    one = scalars(field) if field.message_type is None else fields_of(field.message_type, depth - 1)
    return st.lists(one, max_size=2) if is_repeated(field) else one


def is_repeated(field: Any) -> bool:
    """``is_repeated`` came when ``label`` was on its way out."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.cpp_type in INTS:
        return st.integers(*INTS[field.cpp_type]) | st.just(0)
    if field.cpp_type == BOOL:
        return st.booleans()
    if field.cpp_type == ENUM:
        return st.sampled_from([*field.enum_type.values_by_number, 99])
    return st.binary(max_size=4) if field.type == field.TYPE_BYTES else st.text(max_size=4)


def embedded_descriptors(program: Path) -> Iterator[FileDescriptorProto]:
    """The .proto files that a program was made from: generated Go code holds them, compressed."""
    data, at = program.read_bytes(), -1
    while (at := data.find(GZIP, at + 1)) >= 0:
        stream = zlib.decompressobj(wbits=31)
        try:
            file = FileDescriptorProto.FromString(stream.decompress(data[at : at + LARGEST_DESCRIPTOR]))
        except (zlib.error, DecodeError):
            continue
        if stream.eof and file.name.endswith(".proto"):
            yield file
