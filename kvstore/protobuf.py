"""Classes of protobuf messages, made at run time from a table of text.

    package mvccpb
    KeyValue: key=1 bytes, create_revision=2 int64, ...
    Event: type=1 EventType, kv=2 KeyValue, prev_kv=3 KeyValue
    enum Event.EventType: PUT, DELETE
    package etcdserverpb
    RequestOp oneof request: request_range=1 RangeRequest?, request_put=2 PutRequest?

A field is ``name=number type``: a scalar, a message or an enum, with ``*`` if it is repeated, with ``?`` if it is a
member of the message's oneof. The values of an enum count from 0. An indented line continues the one before.

The classes have a descriptor pool of their own: a program that loads another library's modules of the same messages
gets no clash, and there is no generated code that a version of protobuf could refuse. Every message is proto3: an
absent number reads as 0, an unknown enum value as its number; sub-messages and members of a oneof know whether
they are set.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_SCALARS = {
    kind: FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    for kind in ("bytes", "string", "bool", "int32", "int64", "uint32", "uint64")
}
_LABELS = {"*": FieldDescriptorProto.LABEL_REPEATED}


class Messages:
    """The messages of a table.

    ``strings_are_bytes``: declare ``string`` fields as ``bytes``. Go did not check their encoding for years, so a
    decoder that does would refuse good files.
    """

    def __init__(self, table: str, *, strings_are_bytes: bool = False) -> None:
        self._pool = DescriptorPool()
        self._scalars = _SCALARS | ({"string": _SCALARS["bytes"]} if strings_are_bytes else {})
        earlier: list[str] = []
        for part in re.split(r"^package ", table, flags=re.MULTILINE)[1:]:
            package, _newline, lines = part.partition("\n")
            name = f"kvstore/{package}.proto"
            file = FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=earlier)
            for line in lines.replace("\n    ", " ").splitlines():
                if line:
                    self._add(file, line)
            self._pool.AddSerializedFile(file.SerializeToString())
            earlier.append(name)

    def package(self, name: str) -> Package:
        return Package(self._pool, name)

    def enum(self, name: str) -> tuple[str, ...]:
        """The names of an enum's values, by number."""
        return tuple(value.name for value in self._pool.FindEnumTypeByName(name).values)

    def _add(self, file: FileDescriptorProto, line: str) -> None:
        head, _colon, body = line.partition(":")
        parts = list(filter(None, map(str.strip, body.split(","))))
        if head.startswith("enum "):
            _add_enum(file, head.removeprefix("enum "), parts)
            return
        name, _oneof, oneof = head.partition(" oneof ")
        message = file.message_type.add(name=name)
        if oneof:
            message.oneof_decl.add(name=oneof)
        for part in parts:
            self._add_field(message, part)

    def _add_field(self, message: DescriptorProto, text: str) -> None:
        spec, kind = text.split()
        name, number = spec.split("=")
        kind, mark = kind.rstrip("*?"), kind[-1]
        field = message.field.add(name=name, number=int(number))
        field.label = _LABELS.get(mark, FieldDescriptorProto.LABEL_OPTIONAL)
        if kind in self._scalars:
            field.type = self._scalars[kind]
        else:
            field.type_name = kind
        if mark == "?":
            field.oneof_index = 0
        elif (kind, mark) == ("uint64", "*"):
            field.options.packed = False  # raftpb, which alone has such lists, is proto2


def _add_enum(file: FileDescriptorProto, name: str, values: list[str]) -> None:
    """``Message.Enum`` is nested in its message."""
    outer, _dot, name = name.rpartition(".")
    place = next((message for message in file.message_type if message.name == outer), file)
    enum = place.enum_type.add(name=name)
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)


class Package:
    """The classes of one package's messages, as attributes; each is made on first use."""

    def __init__(self, pool: DescriptorPool, name: str) -> None:
        self._pool = pool
        self._name = name

    def __getattr__(
        self, name: str
    ) -> Any:  # a class made at run time, and so its fields are known only to the table
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            descriptor = self._pool.FindMessageTypeByName(f"{self._name}.{name}")
        except KeyError:
            raise AttributeError(f"{self._name} has no message {name}") from None
        found = self.__dict__[name] = GetMessageClass(descriptor)
        return found
