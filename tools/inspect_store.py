"""``kvstore inspect``: look into any store without changing a byte of it.

PATH is a data directory or a snapshot of ours, or those of an etcd:

    meta      what it is and holds            history   every kept version of a key
    list      its keys, as a tree by prefix   diff      between two revisions, or two stores
    get       one key, and what its value is  stats     sizes by prefix, garbage, growth
                                              top       largest and most changed keys
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from kvstore.errors import KeyNotFound
from kvstore.etcdpb.json import base64_text
from kvstore.files import OSDisk
from kvstore.keyvalue import KeyValue
from kvstore.snapshot.manifest import Member
from kvstore.store import Reader, Store

from .bbolt import register as register_bbolt
from .command import (
    Settings,
    argument_bytes,
    etcdctl_style_of,
    new_app,
    readable,
    write_bytes,
    write_json,
    write_line,
    write_table,
)
from .inspection.sources import kind_of, open_path
from .inspection.survey import KeyFacts, Prefix, Survey, add_to_tree, survey
from .inspection.values import describe
from .progress import progress_bar
from .usage import UsageError

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A data directory or a snapshot file.")]
SeparatorOption = Annotated[str, typer.Option(help="The character that separates the parts of a key.")]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write an HTML page that can be browsed offline."),
]


def register(app: typer.Typer) -> None:
    group = new_app("Look into a store, a snapshot, or etcd's files.")
    for name, command in (
        ("meta", meta),
        ("list", list_keys),
        ("get", get),
        ("history", history),
        ("diff", diff),
        ("stats", stats),
        ("top", top),
    ):
        group.command(name)(command)
    register_bbolt(group)
    app.add_typer(group, name="inspect")


# --- what it is ------------------------------------------------------------------------


def meta(ctx: typer.Context, path: PathArgument) -> None:
    """Show what the store is, and what it holds besides keys."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        facts: dict[str, Any] = {
            "path": str(path),
            "kind": kind_of(store),
            "revision": store.revision,
            "compact_revision": store.compact_revision,
            "cluster_id": f"{store.engine.cluster_id:016x}",
            "member_id": f"{store.engine.member_id:016x}",
            "bytes": store.engine.backend.size_bytes(),
            "index": store.engine.state.index,
            "leases": [
                {"id": f"{lease & (1 << 64) - 1:x}", "ttl": left.ttl, "granted_ttl": left.granted_ttl}
                for lease in store.leases()
                for left in (store.lease_time_to_live(lease),)
            ],
            "alarms": [f"{alarm.alarm} (member {alarm.member_id:x})" for alarm in store.alarms()],
            "members": [f"{member.id:x} {member.name}" for member in _members(store)],
        }
        if settings.json:
            write_json(facts)
            return
        facts["leases"] = f"{len(facts['leases'])}"
        write_table(("", ""), [(name, _plain(value)) for name, value in facts.items()])


def _members(store: Store) -> Iterable[Member]:
    """The members of an etcd cluster, as its files name them; a store of ours is its own only member."""
    if hasattr(store, "members"):
        return cast("Iterable[Member]", store.members)
    return [Member(store.engine.member_id, store.status().name)]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- keys ------------------------------------------------------------------------------


def list_keys(
    ctx: typer.Context,
    path: PathArgument,
    prefix: Annotated[str, typer.Option(help="Only keys that begin with this prefix.")] = "",
    rev: Annotated[int, typer.Option(help="Read as of this revision; 0: the newest.")] = 0,
    depth: Annotated[int, typer.Option(help="Parts of the key to show; 0: all.")] = 0,
    separator: SeparatorOption = "/",
    html: HtmlOption = None,
) -> None:
    """List keys as a tree by prefix, with counts and sizes."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        if html is not None:
            _write_page(store, path, html, separator)
            return
        root = Prefix(b"")
        for kv in store.scan(prefix=argument_bytes(prefix), revision=rev):
            facts = KeyFacts()
            facts.live_bytes, facts.changes = len(kv.key) + len(kv.value), 1
            add_to_tree(root, kv.key, facts, argument_bytes(separator), depth)
        if settings.json:
            write_json(_tree_json(root))
        else:
            write_table(("keys", "bytes", "key"), _tree_rows(root, 0))


def _tree_rows(node: Prefix, level: int) -> Iterator[tuple[str, str, str]]:
    for name, child in node.children.items():
        yield str(child.keys), str(child.live_bytes), "  " * level + readable(name, 100)
        yield from _tree_rows(child, level + 1)


def _tree_json(node: Prefix) -> dict[str, Any]:
    return {
        "prefix": base64_text(node.name),
        "keys": node.keys,
        "live_bytes": node.live_bytes,
        "garbage_bytes": node.garbage_bytes,
        "versions": node.versions,
        "children": [_tree_json(child) for child in node.children.values()],
    }


def get(
    ctx: typer.Context,
    path: PathArgument,
    key: Annotated[str, typer.Argument()],
    rev: Annotated[int, typer.Option(help="Read as of this revision; 0: the newest.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Print only the bytes of the value.")] = False,
) -> None:
    """Show one key: its revisions, and its value decoded where possible."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        kv = store.get(argument_bytes(key), revision=rev)
        if kv is None:
            raise KeyNotFound(f"no key {readable(argument_bytes(key))} at revision {rev or store.revision}")
        if raw:
            write_bytes(kv.value)
            return
        if settings.json:
            write_json(etcdctl_style_of(store).key_value(kv) | {"kind": describe(kv.value).title})
            return
        write_line(readable(kv.key, 1000))
        write_line(
            f"created at {kv.create_revision}, modified at {kv.mod_revision}, version {kv.version}, "
            f"{len(kv.value)} bytes" + (f", lease {kv.lease & (1 << 64) - 1:x}" if kv.lease else "")
        )
        described = describe(kv.value)
        write_line(described.title)
        write_line(described.text)


def history(ctx: typer.Context, path: PathArgument, key: Annotated[str, typer.Argument()]) -> None:
    """Show every kept version of a key, oldest first."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        versions = store.history(argument_bytes(key))
        if settings.json:
            style = etcdctl_style_of(store)
            for kv in versions:
                write_json(style.key_value(kv))
            return
        rows = ((str(kv.mod_revision), str(kv.version), str(len(kv.value)), _value(kv)) for kv in versions)
        write_table(("revision", "version", "bytes", "value"), rows)


def _value(kv: KeyValue | None) -> str:
    if kv is None:
        return ""
    if not kv.version:
        return "(deleted)"
    described = describe(kv.value)
    return readable(kv.value) if described.kind in ("text", "bytes", "empty") else described.title


# --- differences -----------------------------------------------------------------------

Difference = tuple[bytes, KeyValue | None, KeyValue | None]


def diff(
    ctx: typer.Context,
    path: PathArgument,
    older: Annotated[
        str, typer.Argument(metavar="OLDER|OTHER", help="A revision, or the path of another store.")
    ],
    newer: Annotated[int, typer.Argument(help="A revision; 0: the newest.")] = 0,
    prefix: Annotated[str, typer.Option(help="Only keys that begin with this prefix.")] = "",
) -> None:
    """Show the keys that differ between two revisions or two stores: + added, - deleted, ~ changed."""
    settings = Settings.of(ctx)
    wanted = argument_bytes(prefix)
    with open_path(path, settings) as store:
        if older.isdecimal():
            changes = store.diff(int(older), newer, prefix=wanted)
            _write_diff(settings, store, ((change.key, change.before, change.after) for change in changes))
            return
        if newer:
            raise UsageError("two stores are compared as they are, not at a revision")
        with open_path(Path(older), settings) as other:
            _write_diff(settings, store, stores_differ(store, other, wanted))


def stores_differ(one: Reader, other: Reader, prefix: bytes = b"") -> Iterator[Difference]:
    """Keys whose values differ, ascending. Both stores are read once, side by side."""
    rows = heapq.merge(
        ((kv.key, 0, kv) for kv in one.scan(prefix=prefix)),
        ((kv.key, 1, kv) for kv in other.scan(prefix=prefix)),
        key=lambda row: row[:2],
    )
    waiting: KeyValue | None = None
    for key, side, kv in rows:
        if waiting is not None and waiting.key == key:
            if waiting.value != kv.value:
                yield key, waiting, kv
            waiting = None
            continue
        if waiting is not None:
            yield waiting.key, waiting, None
            waiting = None
        if side == 0:
            waiting = kv
        else:
            yield key, None, kv
    if waiting is not None:
        yield waiting.key, waiting, None


def _write_diff(settings: Settings, store: Store, changes: Iterable[Difference]) -> None:
    if settings.json:
        style = etcdctl_style_of(store)
        for key, before, after in changes:
            sides = {"before": before, "after": after}
            found = {name: style.key_value(kv) for name, kv in sides.items() if kv is not None}
            write_json({"key": base64_text(key), **found})
        return
    rows = (
        (
            "+" if before is None else "-" if after is None else "~",
            readable(key),
            _value(before),
            _value(after),
        )
        for key, before, after in changes
    )
    write_table(("", "key", "before", "after"), rows)


# --- sizes -----------------------------------------------------------------------------


def stats(
    ctx: typer.Context,
    path: PathArgument,
    depth: Annotated[int, typer.Option(help="Parts of the key to count by.")] = 2,
    separator: SeparatorOption = "/",
    html: HtmlOption = None,
) -> None:
    """Show sizes, counts and versions by prefix, the share of garbage, and growth over revisions."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        if html is not None:
            _write_page(store, path, html, separator)
            return
        found = _survey(store, path, separator, depth)
    if settings.json:
        write_json(_stats_json(found))
        return
    write_table(("", ""), _stats_rows(found))
    rows = (
        (node.keys, node.versions, node.live_bytes, node.garbage_bytes, name)
        for name, node in _flat(found.root)
    )
    write_table(
        ("keys", "versions", "live bytes", "garbage bytes", "prefix"),
        ((*map(str, numbers), name) for *numbers, name in rows),
    )


def _survey(store: Store, path: Path, separator: str, depth: int = 0) -> Survey:
    with progress_bar(f"walking {path.name}", "revisions") as progress:
        return survey(store, separator=argument_bytes(separator), depth=depth, progress=progress)


def _stats_rows(found: Survey) -> list[tuple[str, str]]:
    root = found.root
    return [
        ("revision", str(found.revision)),
        ("compact revision", str(found.compact_revision)),
        ("live keys", str(root.keys)),
        ("kept versions", str(root.versions)),
        ("live bytes", str(root.live_bytes)),
        ("garbage bytes", str(root.garbage_bytes)),
        ("garbage share", f"{found.garbage_share:.1%}"),
    ]


def _stats_json(found: Survey) -> dict[str, Any]:
    return {
        "revision": found.revision,
        "compact_revision": found.compact_revision,
        "garbage_share": round(found.garbage_share, 4),
        "prefixes": _tree_json(found.root),
        "growth": [point._asdict() for point in found.growth],
    }


def _flat(node: Prefix, level: int = 0) -> Iterator[tuple[str, Prefix]]:
    for name, child in sorted(node.children.items(), key=lambda item: -item[1].total_bytes):
        yield "  " * level + readable(name), child
        yield from _flat(child, level + 1)


def top(
    ctx: typer.Context,
    path: PathArgument,
    count: Annotated[int, typer.Option(help="How many to show of each.")] = 10,
    html: HtmlOption = None,
) -> None:
    """Show the largest keys, the most changed ones, and those with the largest history."""
    settings = Settings.of(ctx)
    with open_path(path, settings) as store:
        if html is not None:
            _write_page(store, path, html, "/")
            return
        found = _survey(store, path, "/", 1)
    lists = {
        "largest": found.largest(count),
        "most changed": found.hottest(count),
        "largest past": found.wasteful(count),
    }
    if settings.json:
        write_json({name: [_facts_json(*row) for row in rows] for name, rows in lists.items()})
        return
    for name, rows in lists.items():
        write_table(
            ("", "changes", "live bytes", "past bytes", "key"),
            (
                (name, str(facts.changes), str(facts.live_bytes), str(facts.garbage_bytes), readable(key))
                for key, facts in rows
            ),
        )


def _facts_json(key: bytes, facts: KeyFacts) -> dict[str, Any]:
    return {
        "key": base64_text(key),
        "changes": facts.changes,
        "live_bytes": facts.live_bytes,
        "garbage_bytes": facts.garbage_bytes,
        "version": facts.version,
        "mod_revision": facts.revision,
    }


def _write_page(store: Store, path: Path, target: Path, separator: str) -> None:
    """Write a file under a temporary name and rename it once it is complete."""
    from .inspection.page import render

    page = render(store, _survey(store, path, separator), str(path)).encode()
    disk = OSDisk()
    part = target.with_name(target.name + ".part")
    disk.remove(part)
    file = disk.create(part)
    try:
        file.pwrite(page, 0)
    finally:
        file.close()
    disk.rename(part, target)
    write_line(f"{target}: {len(page)} bytes")
