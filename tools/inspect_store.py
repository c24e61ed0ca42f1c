"""``kvstore inspect``: look into any store without changing a byte of it.

PATH is a data directory or a snapshot of ours, or those of an etcd:

    meta      what it is and holds            history   every kept version of a key
    list      its keys, as a tree by prefix   diff      between two revisions, or two stores
    get       one key, and what its value is  stats     sizes by prefix, garbage, growth
    leases    with their keys                 top       largest and most changed keys, and who wrote most
    users     and roles, with permissions

Each takes time in proportion to the size of the store. Memory is bounded: what has to be sorted is sorted in a
temporary file (in TMPDIR), about 120 bytes for each version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

from kvstore.decoding.kubernetes import last_writer
from kvstore.decoding.values import describe
from kvstore.errors import KeyNotFound
from kvstore.etcdpb.json import base64_text
from kvstore.files import Disk, OSDisk
from kvstore.keyvalue import KeyValue
from kvstore.snapshot.hash_state import worst
from kvstore.snapshot.manifest import Member
from kvstore.store import Store

from .app import App, Argument, Context, Option
from .bbolt import register as register_bbolt
from .command import (
    Settings,
    argument_bytes,
    etcdctl_style_of,
    new_app,
    readable,
    warn,
    write_bytes,
    write_json,
    write_line,
    write_table,
)
from .inspection.access import Access, access_of
from .inspection.by_key import live_versions
from .inspection.changed import in_short, line_by_line
from .inspection.differences import (
    Change,
    Difference,
    between_revisions,
    between_stores,
    by_prefix,
    with_values,
)
from .inspection.sources import hash_of, kind_of, open_path
from .inspection.survey import GrowthPoint, Survey, Visit, Written, survey
from .inspection.tree import KeyFacts, Line, Prefix, Tree, listed
from .progress import progress_bar
from .usage import UsageError

PathArgument = Annotated[Path, Argument(metavar="PATH", help="A data directory or a snapshot file.")]
SeparatorOption = Annotated[str, Option(help="The character that separates the parts of a key.")]
HtmlOption = Annotated[
    Path | None,
    Option("--html", metavar="FILE", help="Write an HTML page that can be browsed offline."),
]


PIECES_AT_ONCE = 10_000
"""Of an HTML page, to a write."""


def register(app: App) -> None:
    group = new_app("Look into a store, a snapshot, or etcd's files.")
    for name, command in (
        ("meta", meta),
        ("list", list_keys),
        ("get", get),
        ("history", history),
        ("diff", diff),
        ("stats", stats),
        ("top", top),
        ("leases", leases),
        ("users", users),
    ):
        group.command(name)(command)
    register_bbolt(group)
    app.add_group(group, "inspect")


# --- opening and answering -----------------------------------------------------------------


def _open(path: Path, settings: Settings) -> Store:
    """Open a path, and say at once, beside the answer, if no hash vouches for its bytes."""
    store = open_path(path, settings)
    state = hash_of(path)
    if state is not None:
        settings.hash_check = worst(settings.hash_check, state)
        if state.caution:
            warn(f"{path}: {state.caution}")
    return store


def _write_json(settings: Settings, facts: dict[str, Any]) -> None:
    """With the state of the hash of what the answer rests on."""
    state = settings.hash_check
    write_json(facts if state is None else facts | {"hash_check": state.value})


# --- what it is ------------------------------------------------------------------------


def meta(ctx: Context, path: PathArgument) -> None:
    """Show what the store is, and what it holds besides keys."""
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        facts: dict[str, Any] = {
            "path": str(path),
            "kind": kind_of(store),
            **_hash_facts(settings),
            "revision": store.revision,
            "compact_revision": store.compact_revision,
            "cluster_id": f"{store.engine.cluster_id:016x}",
            "member_id": f"{store.engine.member_id:016x}",
            "bytes": store.engine.backend.size_bytes(),
            "index": store.engine.state.index,
            "leases": [
                {"id": _lease_id(lease), "ttl": left.ttl, "granted_ttl": left.granted_ttl}
                for lease in store.leases()
                for left in (store.lease_time_to_live(lease),)
            ],
            "alarms": [f"{alarm.alarm} (member {alarm.member_id:x})" for alarm in store.alarms()],
            "members": [f"{member.id:x} {member.name}" for member in _members(store)],
        }
        if settings.json:
            _write_json(settings, facts)
            return
        facts["leases"] = f"{len(facts['leases'])}"
        write_table(("", ""), [(name, _plain(value)) for name, value in facts.items()])


def _hash_facts(settings: Settings) -> dict[str, str]:
    state = settings.hash_check
    return (
        {}
        if state is None
        else {"hash_check": state.value if settings.json else state.caution or state.value}
    )


def _lease_id(lease: int) -> str:
    return f"{lease & (1 << 64) - 1:x}"


def _members(store: Store) -> Iterable[Member]:
    """The members of an etcd cluster, as its files name them; a store of ours is its own only member."""
    if hasattr(store, "members"):
        return cast("Iterable[Member]", store.members)
    return [Member(store.engine.member_id, store.status().name)]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def leases(
    ctx: Context,
    path: PathArgument,
    keys: Annotated[bool, Option("--keys", help="Show the attached keys.")] = False,
) -> None:
    """List leases: id, granted TTL, time left, and how many keys are attached.

    The time left is that of a server that would start now: an etcd file holds no deadlines.
    """
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        found = [(lease, store.lease_time_to_live(lease, keys=True)) for lease in store.leases()]
        if settings.json:
            for lease, left in found:
                attached = [base64_text(key) for key in sorted(left.keys)]
                _write_json(
                    settings,
                    {
                        "id": _lease_id(lease),
                        "granted_ttl": left.granted_ttl,
                        "ttl": left.ttl,
                        "keys": attached,
                    },
                )
            return
        rows = []
        for lease, left in found:
            rows.append((_lease_id(lease), str(left.granted_ttl), str(left.ttl), str(len(left.keys)), ""))
            rows += [("", "", "", "", readable(key, 200)) for key in sorted(left.keys) if keys]
        write_table(("lease", "granted TTL", "TTL", "keys", "key"), rows)


def users(ctx: Context, path: PathArgument) -> None:
    """Show users with their roles, and roles with their permissions. Never passwords."""
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        found = access_of(store.engine.state.carried)
    if settings.json:
        _write_json(settings, found.as_json())
        return
    write_line(f"authentication is {'on' if found.enabled else 'off'}")
    write_table(("", "name", "roles or permissions"), _access_rows(found))


def _access_rows(found: Access) -> Iterator[tuple[str, str, str]]:
    for user, roles in found.users.items():
        yield "user", readable(user), ", ".join(map(readable, roles))
    for role, permissions in found.roles.items():
        for permission in permissions or ("",):
            yield "role", readable(role), permission


# --- keys ------------------------------------------------------------------------------


def list_keys(
    ctx: Context,
    path: PathArgument,
    prefix: Annotated[str, Option(help="Only keys that begin with this prefix.")] = "",
    rev: Annotated[int, Option(help="Read as of this revision; 0: the newest.")] = 0,
    depth: Annotated[int, Option(help="Parts of the key to show; 0: all.")] = 0,
    separator: SeparatorOption = "/",
    html: HtmlOption = None,
) -> None:
    """List keys as a tree by prefix, with counts and sizes."""
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        if html is not None:
            _write_page(settings, store, path, html, separator)
            return
        live = live_versions(store, prefix=argument_bytes(prefix), revision=rev)
        if settings.json:
            tree = Tree(argument_bytes(separator), depth, nodes_max=1 << 60)
            for version in live:
                facts = KeyFacts()
                facts.add(version, store.revision)
                tree.add(version.key, facts)
            _write_json(settings, _tree_json(tree.root))
            return
        keys = ((version.key, version.size_bytes) for version in live)
        write_table(("keys", "bytes", "key"), map(_line, listed(keys, argument_bytes(separator), depth)))


def _line(line: Line) -> tuple[str, str, str]:
    return str(line.keys), str(line.size_bytes), "  " * line.level + readable(line.name, 100)


def _tree_json(node: Prefix) -> dict[str, Any]:
    return {
        "prefix": base64_text(node.name),
        "keys": node.keys,
        "deleted_keys": node.deleted_keys,
        "live_bytes": node.live_bytes,
        "garbage_bytes": node.garbage_bytes,
        "written_bytes": node.written_bytes,
        "versions": node.versions,
        "left_out": node.folded,
        "children": [_tree_json(child) for child in node.children.values()],
    }


def get(
    ctx: Context,
    path: PathArgument,
    key: Annotated[str, Argument()],
    rev: Annotated[int, Option(help="Read as of this revision; 0: the newest.")] = 0,
    raw: Annotated[bool, Option("--raw", help="Print only the bytes of the value.")] = False,
) -> None:
    """Show one key: its revisions, and its value decoded where possible."""
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        kv = store.get(argument_bytes(key), revision=rev)
        if kv is None:
            raise KeyNotFound(f"no key {readable(argument_bytes(key))} at revision {rev or store.revision}")
        if raw:
            write_bytes(kv.value)
            return
        if settings.json:
            _write_json(settings, etcdctl_style_of(store).key_value(kv) | {"kind": describe(kv.value).title})
            return
        write_line(readable(kv.key, 1000))
        write_line(
            f"created at {kv.create_revision}, modified at {kv.mod_revision}, version {kv.version}, "
            f"{len(kv.value)} bytes" + (f", lease {_lease_id(kv.lease)}" if kv.lease else "")
        )
        described = describe(kv.value)
        write_line(described.title)
        write_line(described.text)


def history(
    ctx: Context,
    path: PathArgument,
    key: Annotated[str, Argument()],
    content: Annotated[bool, Option("--content", help="Show what each version changed, by lines.")] = False,
) -> None:
    """Show every kept version of a key, oldest first: who wrote it, and what it changed.

    Time and writer are those that a Kubernetes object names in its managed fields.
    """
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        versions = store.history(argument_bytes(key))
        if settings.json:
            style = etcdctl_style_of(store)
            for kv in versions:
                _write_json(settings, style.key_value(kv))
            return
        if content:
            _write_history_content(versions)
            return
        write_table(("revision", "version", "bytes", "time", "writer", "value"), _history_rows(versions))


def _history_rows(versions: Iterable[KeyValue]) -> Iterator[tuple[str, ...]]:
    before: bytes | None = None
    for kv in versions:
        writer, seconds = last_writer(kv.value)
        shown = _value(kv)
        if kv.version and before is not None and describe(kv.value).data is not None:
            shown = in_short(before, kv.value)
        numbers = (str(kv.mod_revision), str(kv.version), str(len(kv.value)))
        yield (*numbers, _time(seconds), readable(writer), shown)
        before = kv.value if kv.version else None


def _write_history_content(versions: Iterable[KeyValue]) -> None:
    before: bytes | None = None
    for kv in versions:
        writer, seconds = last_writer(kv.value)
        told = " ".join(part for part in (_time(seconds), readable(writer)) if part)
        write_line(f"=== revision {kv.mod_revision}, version {kv.version}{' ' + told if told else ''}")
        value = kv.value if kv.version else None
        for line in line_by_line(before, value):
            write_line(line)
        before = value


def _time(seconds: int) -> str:
    """In UTC; empty if there is none."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds > 0 else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _value(kv: KeyValue | None) -> str:
    if kv is None:
        return ""
    if not kv.version:
        return "(deleted)"
    described = describe(kv.value)
    return readable(kv.value) if described.kind in ("text", "bytes", "empty") else described.title


# --- differences -----------------------------------------------------------------------


def diff(
    ctx: Context,
    path: PathArgument,
    older: Annotated[str, Argument(metavar="OLDER|OTHER", help="A revision, or the path of another store.")],
    newer: Annotated[int, Argument(help="A revision; 0: the newest.")] = 0,
    prefix: Annotated[str, Option(help="Only keys that begin with this prefix.")] = "",
    summary: Annotated[bool, Option("--summary", help="Count by prefix.")] = False,
    keys_only: Annotated[bool, Option("--keys-only", help="Show keys and sizes only.")] = False,
    content: Annotated[bool, Option("--content", help="Show what changed, by lines.")] = False,
    depth: Annotated[int, Option(help="Parts of the key that make a prefix.")] = 3,
    separator: SeparatorOption = "/",
) -> None:
    """Show the keys that differ between two revisions or two stores: + added, - deleted, ~ changed."""
    settings = Settings.of(ctx)
    if summary + keys_only + content > 1:
        raise UsageError("choose one of --summary, --keys-only and --content")
    wanted = argument_bytes(prefix)
    with _open(path, settings) as store:
        if older.isdecimal():
            one = other = store
            found = between_revisions(store, int(older), newer, wanted)
        else:
            if newer:
                raise UsageError("two stores are compared as they are, not at a revision")
            one, other = store, _open(Path(older), settings)
            found = between_stores(one, other, wanted)
        with other:
            if summary:
                _write_diff_summary(settings, found, argument_bytes(separator), depth)
            elif keys_only:
                _write_diff_keys(settings, found)
            else:
                _write_diff(settings, store, with_values(found, one, other), content)


def _write_diff_summary(
    settings: Settings, found: Iterable[Difference], separator: bytes, depth: int
) -> None:
    for row in by_prefix(found, separator, max(depth, 1)):
        numbers = {
            "added": row.added,
            "deleted": row.deleted,
            "changed": row.changed,
            "bytes_before": row.bytes_before,
            "bytes_after": row.bytes_after,
        }
        if settings.json:
            _write_json(settings, {"prefix": base64_text(row.prefix), **numbers})
        else:
            grown = row.bytes_after - row.bytes_before
            counts = f"+{row.added}\t-{row.deleted}\t~{row.changed}\t{grown:+} bytes"
            write_line(f"{counts}\t{readable(row.prefix, 200)}")


def _write_diff_keys(settings: Settings, found: Iterable[Difference]) -> None:
    for key, before, after in found:
        sizes = before and before.value_bytes, after and after.value_bytes
        if settings.json:
            _write_json(
                settings, {"key": base64_text(key), "bytes_before": sizes[0], "bytes_after": sizes[1]}
            )
        else:
            write_line(f"{_sign(before, after)}\t{readable(key, 1000)}")


def _write_diff(settings: Settings, store: Store, changes: Iterable[Change], content: bool) -> None:
    if settings.json:
        style = etcdctl_style_of(store)
        for key, before, after in changes:
            sides = {"before": before, "after": after}
            found = {name: style.key_value(kv) for name, kv in sides.items() if kv is not None}
            _write_json(settings, {"key": base64_text(key), **found})
        return
    if content:
        for key, before, after in changes:
            write_line(f"{_sign(before, after)} {readable(key, 1000)}")
            for line in line_by_line(_bytes_of(before), _bytes_of(after)):
                write_line(f"  {line}")
        return
    write_table(("", "key", "before", "after"), map(_diff_row, changes))


def _bytes_of(kv: KeyValue | None) -> bytes | None:
    return None if kv is None else kv.value


def _diff_row(change: Change) -> tuple[str, str, str, str]:
    key, before, after = change
    shown = _value(after)
    if before is not None and after is not None and describe(after.value).data is not None:
        shown = in_short(before.value, after.value)
    return _sign(before, after), readable(key), _value(before), shown


def _sign(before: object, after: object) -> str:
    return "+" if before is None else "-" if after is None else "~"


# --- sizes -----------------------------------------------------------------------------


def stats(
    ctx: Context,
    path: PathArgument,
    depth: Annotated[int, Option(help="Parts of the key to count by.")] = 3,
    separator: SeparatorOption = "/",
    growth: Annotated[bool, Option("--growth", help="Show growth over revisions, and times.")] = False,
    html: HtmlOption = None,
) -> None:
    """Show sizes, counts and versions by prefix, the share of garbage, and growth over revisions."""
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        if html is not None:
            _write_page(settings, store, path, html, separator)
            return
        found = _survey(store, path, separator, depth)
    if settings.json:
        _write_json(settings, _stats_json(found))
        return
    write_table(("", ""), [*_hash_facts(settings).items(), *_stats_rows(found)])
    rows = (
        (node.keys, node.versions, node.live_bytes, node.garbage_bytes, name)
        for name, node in _flat(found.root)
    )
    write_table(
        ("keys", "versions", "live bytes", "garbage bytes", "prefix"),
        ((*map(str, numbers), name) for *numbers, name in rows),
    )
    if growth:
        write_table(
            ("revision", "time", "live keys", "live bytes", "kept bytes", "puts", "deletes", "written bytes"),
            map(_growth_row, found.growth),
        )


def _survey(
    store: Store, path: Path, separator: str, depth: int, count: int = 10, visit: Visit | None = None
) -> Survey:
    with progress_bar(f"walking {path.name}", "revisions") as progress:
        wanted = argument_bytes(separator)
        return survey(store, separator=wanted, depth=depth, count=count, visit=visit, progress=progress)


def _stats_rows(found: Survey) -> list[tuple[str, str]]:
    root = found.root
    newest = _time(found.growth[-1].seconds)
    return [
        ("revision", str(found.revision)),
        ("compact revision", str(found.compact_revision)),
        ("live keys", str(root.keys)),
        ("deleted keys", str(root.deleted_keys)),
        ("kept versions", str(root.versions)),
        ("live bytes", str(root.live_bytes)),
        ("garbage bytes", str(root.garbage_bytes)),
        ("garbage share", f"{found.garbage_share:.1%}"),
        *([("last write", newest)] if newest else []),
    ]


def _growth_row(point: GrowthPoint) -> tuple[str, ...]:
    numbers = (point.live_keys, point.live_bytes, point.kept_bytes)
    written = (point.puts, point.deletes, point.written_bytes)
    return (str(point.revision), _time(point.seconds), *map(str, numbers), *map(str, written))


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
    if node.folded:
        yield "  " * level + f"({node.folded} smaller ones)", Prefix(b"")


def top(
    ctx: Context,
    path: PathArgument,
    count: Annotated[int, Option(help="How many to show of each.")] = 10,
    depth: Annotated[int, Option(help="Parts of the key that make a prefix.")] = 4,
    html: HtmlOption = None,
) -> None:
    """Show the largest keys, the most changed ones, those with the largest history, and who wrote most.

    Writers are prefixes, Kubernetes field managers, leases and stretches of revisions.
    """
    settings = Settings.of(ctx)
    with _open(path, settings) as store:
        if html is not None:
            _write_page(settings, store, path, html, "/")
            return
        found = _survey(store, path, "/", depth, count)
    lists = {name: top.rows() for name, top in found.tops.items()}
    writers = _writers(found, count)
    if settings.json:
        keys = {name: [_facts_json(*row) for row in rows] for name, rows in lists.items()}
        _write_json(
            settings, keys | {name: [_written_json(*row) for row in rows] for name, rows in writers.items()}
        )
        return
    for name, rows in lists.items():
        write_table(
            ("", "changes", "live bytes", "past bytes", "written bytes", "key"),
            ((name, *_facts_row(facts), readable(key)) for key, facts in rows),
        )
    for name, written in writers.items():
        write_table(
            ("", "puts", "bytes", name),
            ((name, str(each.puts), str(each.size_bytes), who) for who, each in written),
        )


def _writers(found: Survey, count: int) -> dict[str, list[tuple[str, Written]]]:
    """Who wrote most, by kind of writer."""
    prefixes = [
        (readable(node.name, 200), Written(node.versions, node.written_bytes))
        for node in _inner(found.root)
        if node.written_bytes
    ]
    times = [
        (
            f"up to revision {point.revision} {_time(point.seconds)}".strip(),
            Written(point.puts, point.written_bytes),
        )
        for point in found.growth
        if point.puts
    ]
    by_bytes = {
        name: sorted(rows, key=lambda row: -row[1].size_bytes)[:count]
        for name, rows in (("prefixes", prefixes), ("times", times))
    }
    named = {"managers": found.managers, "leases": found.leases}
    return by_bytes | {
        name: [
            (readable(who.encode("utf-8", "replace"), 200), each) for who, each in list(rows.items())[:count]
        ]
        for name, rows in named.items()
    }


def _inner(node: Prefix) -> Iterator[Prefix]:
    """The prefixes with more than one below them."""
    if node.name and len(node.children) + node.folded > 1:
        yield node
    for child in node.children.values():
        yield from _inner(child)


def _facts_row(facts: KeyFacts) -> tuple[str, str, str, str]:
    return str(facts.changes), str(facts.live_bytes), str(facts.garbage_bytes), str(facts.written_bytes)


def _facts_json(key: bytes, facts: KeyFacts) -> dict[str, Any]:
    return {
        "key": base64_text(key),
        "changes": facts.changes,
        "live_bytes": facts.live_bytes,
        "garbage_bytes": facts.garbage_bytes,
        "written_bytes": facts.written_bytes,
        "version": facts.version,
        "mod_revision": facts.revision,
    }


def _written_json(name: str, written: Written) -> dict[str, Any]:
    return {"name": name, "puts": written.puts, "bytes": written.size_bytes}


def _write_page(settings: Settings, store: Store, path: Path, target: Path, separator: str) -> None:
    from .inspection.page import render

    with progress_bar(f"walking {path.name}", "revisions") as progress:
        caution = settings.hash_check.caution if settings.hash_check is not None else ""
        wanted = argument_bytes(separator)
        pieces = render(store, str(path), separator=wanted, caution=caution, progress=progress)
        size_bytes = _write_whole(OSDisk(), target, pieces)
    write_line(f"{target}: {size_bytes} bytes")


def _write_whole(disk: Disk, target: Path, pieces: Iterator[str]) -> int:
    """Write a file under a temporary name and rename it once it is complete. Returns its size."""
    part = target.with_name(target.name + ".part")
    disk.remove(part)
    file, size_bytes = disk.create(part), 0
    try:
        while data := "".join(islice(pieces, PIECES_AT_ONCE)).encode():
            file.pwrite(data, size_bytes)
            size_bytes += len(data)
    except BaseException:
        disk.remove(part)
        raise
    finally:
        file.close()
    disk.rename(part, target)
    return size_bytes
