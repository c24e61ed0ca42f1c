r"""``kvstore wal dump``: the records of the write-ahead log, without opening the store. (``repair``: wal_repair.py)

    <data-dir>/wal/…-0000000000000001.wal
    0        crc       24 bytes
    24       metadata  56 bytes    cluster 5a…, member 1f…, first index 1
    80       batch     48 bytes    2026-01-31 12:00:00.000
               1       revision 2  put k = v

An etcd data directory is shown in the same way (raft entries and the requests in them).

Every frame is shown, even after a damaged place; damage ends the command with its exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from kvstore import layout
from kvstore.errors import NotAStore
from kvstore.etcdpb.json import base64_text
from kvstore.foreign import ForeignStores, recognize_foreign
from kvstore.keyvalue import KeyValue
from kvstore.layout import DataDir
from kvstore.mvcc import effects
from kvstore.wal.inspect import Found, scan_segment
from kvstore.wire import WireError, fields, signed

from .app import App, Context, Exit, Option
from .command import ExitCode, Settings, new_app, readable, write_json, write_line
from .wal_repair import repair

_NAMES = {
    effects.REVISION: "revision",
    effects.PUT: "put",
    effects.DELETE: "delete",
    effects.GRANT: "grant",
    effects.REVOKE: "revoke",
    effects.ATTACH: "attach",
    effects.DETACH: "detach",
    effects.RENEW: "renew",
    effects.COMPACT: "compact",
    effects.ALARM: "alarm",
    effects.ROW: "row",
}


def register(app: App) -> None:
    wal = new_app("Look at the write-ahead log and repair it.")
    wal.command("dump")(dump)
    wal.command("repair")(repair)
    app.add_group(wal, "wal")


def dump(
    ctx: Context,
    after_index: Annotated[int, Option(help="Only entries after this index.")] = 0,
    frames_only: Annotated[bool, Option("--frames-only", help="Leave out the entries.")] = False,
) -> None:
    """Print every record of the log, oldest first."""
    settings = Settings.of(ctx)
    foreign = recognize_foreign(settings.directory)
    if foreign is not None:
        _dump_foreign(foreign, settings)
        return
    wal_dir = DataDir.at(settings.directory, settings.load_options().wal_dir or None).wal
    segments = layout.segments(wal_dir)
    if not segments:
        raise NotAStore(f"{wal_dir} holds no log", wal_dir)
    show = _write_json if settings.json else _write_text
    damaged = False
    for segment in segments:
        if not settings.json:
            write_line(str(segment.path))
        for found in scan_segment(segment.path):
            damaged |= bool(found.problem)
            if found.batch is None or found.batch.last_index > after_index:
                show(str(segment.path), found, after_index, frames_only)
    if damaged:
        raise Exit(ExitCode.DAMAGED)


def _dump_foreign(foreign: ForeignStores, settings: Settings) -> None:
    """The log of another program's store, up to the first damage."""
    path = None
    for record in foreign.dump_log(settings.directory):
        if settings.json:
            place = {"file": str(record.path), "offset": record.offset, "size": record.size_bytes}
            write_json({**place, "type": record.kind, **record.detail})
            continue
        if record.path != path:
            path = record.path
            write_line(str(path))
        write_line(f"{record.offset:<8} {record.kind:9} {record.size_bytes} bytes  {record.text}".rstrip())


def _write_text(path: str, found: Found, after_index: int, frames_only: bool) -> None:
    about = ""
    if found.metadata is not None:
        ids = f"cluster {found.metadata.cluster_id:016x}, member {found.metadata.member_id:016x}"
        about = f"{ids}, first index {found.metadata.first_index}"
    elif found.batch is not None:
        about = _time(found.batch.time_ms)
    problem = f"  DAMAGED: {found.problem}" if found.problem else ""
    write_line(f"{found.offset:<8} {found.kind:9} {found.size_bytes} bytes  {about}{problem}".rstrip())
    if not frames_only:
        for index, entry in _entries(found, after_index):
            write_line(f"  {index:>8}  {'; '.join(_effect_text(*effect) for effect in _effects(entry))}")


def _write_json(path: str, found: Found, after_index: int, frames_only: bool) -> None:
    record: dict[str, Any] = {"file": path, "offset": found.offset, "size": found.size_bytes}
    record |= {"type": found.kind, "crc": found.crc} if found.kind else {}
    if found.metadata is not None:
        record |= {
            "cluster_id": found.metadata.cluster_id,
            "member_id": found.metadata.member_id,
            "first_index": found.metadata.first_index,
        }
    if found.batch is not None:
        record |= {"first_index": found.batch.first_index, "time_ms": found.batch.time_ms}
        if not frames_only:
            record["entries"] = [
                {"index": index, "effects": [_effect_json(*effect) for effect in _effects(entry)]}
                for index, entry in _entries(found, after_index)
            ]
    write_json(record | ({"problem": found.problem} if found.problem else {}))


def _time(time_ms: int) -> str:
    try:
        time = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
    return f"{time:%Y-%m-%d %H:%M:%S}.{time_ms % 1000:03d}"


# --- effects ---------------------------------------------------------------------------


def _entries(found: Found, after_index: int) -> Iterator[tuple[int, bytes]]:
    if found.batch is not None:
        for index, entry in enumerate(found.batch.entries, found.batch.first_index):
            if index > after_index:
                yield index, entry


def _effects(entry: bytes) -> list[tuple[str, int | bytes]]:
    """(name, value) of each effect of a log entry (``kvstore/mvcc/effects.py``)."""
    try:
        return [(_NAMES.get(number, str(number)), value) for number, value in fields(entry)]
    except WireError as error:
        return [(f"unreadable: {error}", b"")]


_FIELDS = {
    "grant": {1: "lease", 2: "ttl_seconds", 3: "deadline_ms"},
    "renew": {1: "lease", 3: "deadline_ms"},
    "attach": {1: "lease", 2: "key"},
    "detach": {1: "lease", 2: "key"},
    "alarm": {1: "on", 2: "member_id", 3: "name"},
    "row": {1: "name", 2: "value"},
}
_IN_HEX = ("lease", "member_id")


def _effect_text(name: str, value: int | bytes) -> str:
    parts = {label: part for label, part in _parts(name, value, readable).items() if part}
    words = [name, parts.pop("key", ""), f"= {parts.pop('value')}" if "value" in parts else ""]
    words += [part if label == name else f"{label} {part}" for label, part in parts.items()]
    return " ".join(word for word in words if word)


def _effect_json(name: str, value: int | bytes) -> dict[str, str]:
    return {"effect": name, **_parts(name, value, base64_text)}


def _parts(name: str, value: int | bytes, text: Callable[[bytes], str]) -> dict[str, str]:
    """The fields of an effect, by label."""
    if isinstance(value, int):
        return {name: f"{value:x}" if name == "revoke" else str(value - 1 if name == "compact" else value)}
    try:
        if name == "put":
            kv = KeyValue.from_row(value)
            lease = _hex(kv.lease) if kv.lease else ""
            return {"key": text(kv.key), "value": text(kv.value), "version": str(kv.version), "lease": lease}
        if name in _FIELDS:
            return {
                _FIELDS[name].get(number, str(number)): part for number, part in _fields(name, value, text)
            }
    except WireError as error:
        return {"unreadable": str(error)}
    return {"key": text(value)}


def _fields(name: str, message: bytes, text: Callable[[bytes], str]) -> Iterator[tuple[int, str]]:
    for number, part in fields(message):
        if isinstance(part, bytes):
            yield number, text(part)
        else:
            yield number, _hex(part) if _FIELDS[name].get(number) in _IN_HEX else str(signed(part))


def _hex(number: int) -> str:
    return f"{number & (1 << 64) - 1:x}"
