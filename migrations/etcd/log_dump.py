"""An etcd log in readable form: every record with its place, decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from kvstore.errors import Corruption
from kvstore.foreign import LogRecord

from . import messages
from .wal_content import LogEntry, iter_records
from .wal_read import WalRecord

_KINDS: dict[int, tuple[str, Callable[[bytes], Any] | None]] = {
    1: ("metadata", messages.Metadata.FromString),
    2: ("entry", None),
    3: ("state", messages.HardState.FromString),
    4: ("crc", None),
    5: ("snapshot", messages.WalSnapshot.FromString),
}


def dump_log(wal_dir: Path) -> Iterator[LogRecord]:
    """Every record. Raises ``Corruption`` at the first damaged one, after those before it."""
    for record in iter_records(wal_dir):
        kind, decode = _KINDS.get(record.type, (f"type {record.type}", None))
        if record.type == 2:
            yield _entry(record)
        elif decode is None:
            yield _place(record, kind, f"{record.crc:08x}", {"crc": record.crc})
        else:
            message = _decoded(decode, record)
            yield _place(record, kind, _text(message), _fields(message))


def _entry(record: WalRecord) -> LogRecord:
    found = _decoded(messages.Entry.FromString, record)
    type_name = messages.enum_name("EntryType", found.Type)
    entry = LogEntry(found.Index, found.Term, type_name, found.Data, record.path, record.offset)
    request = entry.request()
    about = f"term {entry.term} index {entry.index} {entry.kind}"
    detail: dict[str, Any] = {"term": entry.term, "index": entry.index, "entry": entry.kind}
    if request is None:
        return _place(record, "entry", about, detail)
    return _place(record, "entry", f"{about} {_text(request)}", {**detail, "request": _fields(request)})


def _decoded(decode: Callable[[bytes], Any], record: WalRecord) -> Any:
    try:
        return decode(record.data)
    except DecodeError:
        raise Corruption("the record holds no message of its type", record.path, record.offset) from None


def _place(record: WalRecord, kind: str, text: str, detail: dict[str, Any]) -> LogRecord:
    return LogRecord(record.path, record.offset, record.end - record.offset, kind, text, detail)


def _text(message: Any) -> str:
    return str(text_format.MessageToString(message, as_one_line=True))


def _fields(message: Any) -> dict[str, Any]:
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))
