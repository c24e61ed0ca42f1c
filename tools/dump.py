"""``kvstore dump`` and ``kvstore load``: keys and values as lines of JSON, for other programs and for the eye.

    {"key":"config/theme","value":"dark","create_revision":3,"mod_revision":9,"version":4}
    {"key_base64":"AP8=","value_base64":"/w==", ...}        where bytes are no text
    "lease":"694d8ab3c1f2a307"                              if the key has one

A dump is of one revision. It carries the newest versions only: a copy with the past is a snapshot. ``load`` writes the
keys and values of such lines, in transactions of up to 128; revisions are new ones, and leases are left out.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from kvstore import ops
from kvstore.keyvalue import KeyValue
from kvstore.model import Compare, PutRequest
from kvstore.store import Store

from .app import App, Context, Option
from .command import Settings, argument_bytes, write_json, write_line
from .usage import UsageError

OPS_A_TRANSACTION = 128
BYTES_A_TRANSACTION = 512 << 10


def register(app: App) -> None:
    app.command("dump")(dump)
    app.command("load")(load)


def dump(
    ctx: Context,
    prefix: Annotated[str, Option(help="Only keys that begin with this prefix.")] = "",
    rev: Annotated[int, Option(help="As of this revision; 0: the newest.")] = 0,
) -> None:
    """Write keys and values as lines of JSON.

    Example: kvstore dump --prefix config/ | jq -r '.key + "=" + .value'
    """
    settings = Settings.of(ctx)
    with settings.open(read_only=True) as store:
        source = store.at(rev) if rev else store
        for kv in source.scan(prefix=argument_bytes(prefix)):
            write_json(as_json(kv))


def load(
    ctx: Context,
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Write keys that exist, too. Without it they are left and counted."),
    ] = False,
) -> None:
    """Write the keys of such lines from stdin.

    Example: kvstore dump --endpoint etcd://old | kvstore load --data-dir new
    """
    settings = Settings.of(ctx)
    written = kept = 0
    with settings.open() as store:
        for puts in _grouped(_parsed(sys.stdin.buffer)):
            done = len(puts) if overwrite else 0
            if overwrite:
                store.txn(success=puts)
            else:
                done = sum(_put_new(store, puts))
            written += done
            kept += len(puts) - done
    if settings.json:
        write_json({"written": written, "left": kept})
    else:
        left = f", left {kept:,} that exist (--overwrite writes them)" if kept else ""
        write_line(f"wrote {written:,} keys{left}")


def _put_new(store: Store, puts: list[PutRequest]) -> list[bool]:
    """Write those whose keys do not exist: all of them in one transaction, if that is so of all."""
    if store.txn(compare=[_is_new(put) for put in puts], success=puts).succeeded:
        return [True] * len(puts)
    return [store.txn(compare=[_is_new(put)], success=[put]).succeeded for put in puts]


def _is_new(put: PutRequest) -> Compare:
    return ops.create_revision(put.key) == 0


def as_json(kv: KeyValue) -> dict[str, Any]:
    """One line, as a value."""
    facts: dict[str, Any] = {**_as_text("key", kv.key), **_as_text("value", kv.value)}
    facts |= {"create_revision": kv.create_revision, "mod_revision": kv.mod_revision, "version": kv.version}
    return facts | ({"lease": f"{kv.lease & (1 << 64) - 1:016x}"} if kv.lease else {})


def _as_text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _parsed(lines: Iterable[bytes]) -> Iterator[PutRequest]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
                yield PutRequest(_bytes_of("key", value), _bytes_of("value", value))
            except (ValueError, TypeError, KeyError, binascii.Error) as error:
                raise UsageError(f"line {number} is not one that dump writes: {error}") from error


def _bytes_of(name: str, value: Any) -> bytes:
    if not isinstance(value, dict) or not (name in value) ^ (f"{name}_base64" in value):
        raise ValueError(f"it needs {name!r} or {name + '_base64'!r}")
    if name in value:
        return str.encode(value[name])
    return base64.b64decode(value[f"{name}_base64"], validate=True)


def _grouped(puts: Iterator[PutRequest]) -> Iterator[list[PutRequest]]:
    """As many as go into one transaction. A key that comes again begins another one."""
    group: dict[bytes, PutRequest] = {}
    size_bytes = 0
    for put in itertools.chain(puts, [None]):
        cost_bytes = len(put.key) + len(put.value) if put is not None else 0
        is_full = len(group) == OPS_A_TRANSACTION or (group and size_bytes + cost_bytes > BYTES_A_TRANSACTION)
        if group and (put is None or is_full or put.key in group):
            yield list(group.values())
            group, size_bytes = {}, 0
        if put is not None:
            group[put.key] = put
            size_bytes += cost_bytes
