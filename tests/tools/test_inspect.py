"""``kvstore inspect``, ``import``, ``export`` and ``migrate`` from the command line, and what inspecting computes."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kvstore.tools import export_store, import_store, inspect_store, migrate
from kvstore.tools.command import ExitCode
from kvstore.tools.command import run as run_command
from kvstore.tools.inspection import page
from kvstore.tools.inspection.differences import between_stores, with_values
from kvstore.tools.inspection.survey import survey
from kvstore.tools.inspection.tree import DEPTH_MAX, KeyFacts, Tree, split_key

import kvstore
from kvstore.decoding.values import describe
from kvstore.wire import bytes_field, int_field, varint

BACKENDS = ("lmdb", "sqlite")


def fill(store: kvstore.Store) -> None:
    for number in range(20):
        store.put(b"/a/%d/%02d" % (number % 2, number), b"x" * number)
    store.put(b"/b", b"1")
    store.put(b"/b", b"22")
    store.put(b"/gone", b"333")
    store.delete(b"/gone")
    store.put(b"leased", b"v", lease=store.grant_lease(1000, 5).id)


class Done(NamedTuple):
    code: int
    out: bytes
    err: str


class CommandLine:
    """Runs commands in this process: starting one takes longer than its work."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], patch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._patch = patch

    def run(self, data_dir: Path, *arguments: str) -> Done:
        self._patch.setattr("sys.argv", ["kvstore", *arguments])
        self._patch.setenv("KVSTORE_DATA_DIR", str(data_dir))
        self._capture.readouterr()
        commands = (export_store, import_store, inspect_store, migrate)
        code = run_command(*(command.register for command in commands), prog_name="kvstore")
        out, err = self._capture.readouterr()
        return Done(code, out, err.decode())

    def inspect(self, place: Path, verb: str, *arguments: str) -> Done:
        return self.run(place.parent / "unused", "inspect", verb, str(place), *arguments)


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsysbinary, monkeypatch)


def json_of(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture(params=["lmdb directory", "sqlite directory", "snapshot", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path, cli: CommandLine) -> Path:
    """The same store as each kind of thing that can be looked into."""
    kind = request.param
    data_dir = tmp_path / "store"
    with kvstore.open(data_dir, "sqlite" if kind == "sqlite directory" else "lmdb") as store:
        fill(store)
        if kind == "snapshot":
            store.snapshot(tmp_path / "file.snap")
            return tmp_path / "file.snap"
    if kind == "etcd":
        assert cli.run(data_dir, "export", "etcd", str(tmp_path / "etcd.db")).code == 0
        return tmp_path / "etcd.db"
    return data_dir


def test_every_verb_answers_the_same_of_every_kind_of_store(place: Path, cli: CommandLine) -> None:
    """Keys, history, differences, sizes and tops of a store, its snapshot and its export are one."""
    assert json_of(cli.inspect(place, "meta", "--json"))["revision"] == 26
    assert json_of(cli.inspect(place, "meta", "--json"))["leases"][0]["granted_ttl"] == 1000
    found = json_of(cli.inspect(place, "stats", "--json"))
    assert (found["prefixes"]["keys"], found["prefixes"]["versions"]) == (22, 25)
    by_name = {base64.b64decode(child["prefix"]): child for child in found["prefixes"]["children"]}
    assert set(by_name) == {b"/", b"leased"}
    assert by_name[b"/"]["garbage_bytes"] == (2 + 1) + (5 + 3) + 5
    assert found["growth"][-1]["live_keys"] == 22
    assert found["growth"][-1]["revision"] == 26
    tops = json_of(cli.inspect(place, "top", "--json", "--count", "2"))
    assert base64.b64decode(tops["largest"][0]["key"]) == b"/a/1/19"
    assert {base64.b64decode(row["key"]) for row in tops["most changed"]} == {b"/b", b"/gone"}
    history = [json.loads(line) for line in cli.inspect(place, "history", "/gone", "--json").out.splitlines()]
    assert [(row["mod_revision"], row.get("version", 0)) for row in history] == [(24, 1), (25, 0)]
    changes = [json.loads(line) for line in cli.inspect(place, "diff", "22", "24", "--json").out.splitlines()]
    assert [base64.b64decode(row["key"]) for row in changes] == [b"/b", b"/gone"]
    assert cli.inspect(place, "get", "/b", "--raw").out == b"22"
    assert cli.inspect(place, "get", "/b", "--raw", "--rev", "22").out == b"1"
    listed = cli.inspect(place, "list", "--prefix", "/a/").out.decode().splitlines()
    assert listed[:3] == ["20\t330\t/", "20\t330\t  a/", "10\t160\t    0/"]


def test_inspecting_changes_nothing(place: Path, cli: CommandLine) -> None:
    """Not a byte of a file, and no new file beside it."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    for verb, arguments in (("stats", ()), ("get", ("/b",)), ("list", ()), ("meta", ())):
        assert cli.inspect(place, verb, *arguments).code == 0
    after = {path: path.read_bytes() for path in before}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"db-shm", "db-lock"}  # where readers of a live backend announce themselves


def test_a_page_is_written_whole(place: Path, tmp_path: Path, cli: CommandLine) -> None:
    """``--html`` makes one file that names the store's keys, and takes an old one's place."""
    target = tmp_path / "page.html"
    target.write_text("old")
    for verb in ("stats", "list", "top"):
        assert cli.inspect(place, verb, "--html", str(target)).code == 0
        assert "leased" in target.read_text()
        assert target.read_text().endswith("</html>\n")
    assert not target.with_name("page.html.part").exists()


def test_two_stores_are_compared(tmp_path: Path, cli: CommandLine) -> None:
    """Keys that only one has, and keys whose values differ, in order; revisions do not matter."""
    with kvstore.open(tmp_path / "one") as one, kvstore.open(tmp_path / "two", "sqlite") as two:
        for store, keys in ((one, (b"a", b"b", b"d")), (two, (b"0", b"d", b"b", b"e"))):
            for key in keys:
                store.put(key, key)
        two.put(b"b", b"other")
        found = [
            (key, before and before.value, after and after.value)
            for key, before, after in with_values(between_stores(one, two), one, two)
        ]
        assert found == [
            (b"0", None, b"0"),
            (b"a", b"a", None),
            (b"b", b"b", b"other"),
            (b"e", None, b"e"),
        ]
        assert list(between_stores(one, one)) == []
    done = cli.run(tmp_path, "inspect", "diff", str(tmp_path / "one"), str(tmp_path / "two"))
    assert [line.split("\t")[:2] for line in done.out.decode().splitlines()] == [
        ["+", "0"],
        ["-", "a"],
        ["~", "b"],
        ["+", "e"],
    ]


def test_failures_have_their_exit_codes(tmp_path: Path, cli: CommandLine) -> None:
    """Not a store, absent, damaged, no such key: one line on stderr, and which kind of failure."""
    with kvstore.open(tmp_path / "store") as store:
        store.put(b"k", b"v")
        store.snapshot(tmp_path / "file.snap")
    (tmp_path / "text").write_text("hello" * 1000)
    (tmp_path / "cut").write_bytes((tmp_path / "file.snap").read_bytes()[:-30])
    for path, key, code in (
        ("text", "k", ExitCode.CANNOT_OPEN),
        ("absent", "k", ExitCode.FAILED),
        ("cut", "k", ExitCode.DAMAGED),
        ("store", "nope", ExitCode.FAILED),
        ("store", "k", ExitCode.OK),
    ):
        done = cli.inspect(tmp_path / path, "get", key)
        assert done.code == code, (path, done.err)
        assert "Traceback" not in done.err


def test_a_packed_snapshot_has_to_be_unpacked_first(tmp_path: Path, cli: CommandLine) -> None:
    """It is not damaged, and the error says what helps."""
    packed = tmp_path / "snapshot.db.gz"
    packed.write_bytes(gzip.compress(bytes(range(256)) * 8))
    for verb in (("inspect", "stats"), ("inspect", "bbolt", "check"), ("import", "etcd")):
        done = cli.run(tmp_path / "new", *verb, str(packed))
        assert done.code == ExitCode.CANNOT_OPEN and "packed with gzip; unpack it first" in done.err, done


def test_import_export_and_migrate_from_the_command_line(tmp_path: Path, cli: CommandLine) -> None:
    """A store goes out as an etcd snapshot, in again, to another backend, and is the same."""
    with kvstore.open(tmp_path / "store") as store:
        fill(store)
        hashed, revision = store.hash_kv().hash, store.revision
    exported = json_of(cli.run(tmp_path / "store", "export", "etcd", str(tmp_path / "out.db"), "--json"))
    assert (exported["revision"], exported["counts"]["rows"]) == (revision, 25)
    arguments = ["import", "etcd", str(tmp_path / "out.db"), "--backend", "sqlite", "--json"]
    imported = json_of(cli.run(tmp_path / "again", *arguments))
    assert (imported["revision"], imported["counts"]["keys"], imported["backend"]) == (revision, 22, "sqlite")
    assert cli.run(tmp_path / "again", *arguments).code == ExitCode.CANNOT_OPEN  # nothing is imported over it
    moved = json_of(cli.run(tmp_path / "again", "migrate", "backend", "--to", "lmdb", "--json"))
    assert moved["hash"] == hashed
    planned = json_of(cli.run(tmp_path / "again", "migrate", "format", "--dry-run", "--json"))
    assert (planned["found"], planned["steps"]) == (1, [])
    with kvstore.open(tmp_path / "again", "lmdb") as store:
        assert (store.hash_kv().hash, store.revision) == (hashed, revision)


def test_an_export_of_a_snapshot(tmp_path: Path, cli: CommandLine) -> None:
    """``--from`` exports a snapshot file instead of a data directory."""
    with kvstore.open(tmp_path / "store") as store:
        fill(store)
        store.snapshot(tmp_path / "file.snap")
        hashed = store.hash_kv().hash
    done = cli.run(
        tmp_path / "none", "export", "etcd", str(tmp_path / "out.db"), "--from", str(tmp_path / "file.snap")
    )
    assert done.code == 0, done.err
    with kvstore.open_snapshot(tmp_path / "out.db", verify=True) as snapshot:
        assert snapshot.hash_kv().hash == hashed


def lease_object(seconds: int) -> bytes:
    """A Kubernetes Lease, renewed by a kubelet at a time."""
    time = bytes_field(4, int_field(1, seconds))
    entry = bytes_field(1, b"kubelet") + bytes_field(2, b"Update") + time
    meta = bytes_field(1, b"node-1") + b"\x8a\x01%b%b" % (varint(len(entry)), entry)
    body = bytes_field(1, meta) + bytes_field(2, bytes_field(1, b"node-1") + time)
    type_meta = bytes_field(1, b"coordination.k8s.io/v1") + bytes_field(2, b"Lease")
    return b"k8s\0" + bytes_field(1, type_meta) + bytes_field(2, body)


def test_history_names_time_writer_and_change(tmp_path: Path, cli: CommandLine) -> None:
    """Versions of an object do not read the same: the changed part is named, and shown by ``--content``."""
    with kvstore.open(tmp_path / "store") as store:
        store.put(b"lease", lease_object(1_000_000_000))
        store.put(b"lease", lease_object(1_000_000_060))
    lines = cli.inspect(tmp_path / "store", "history", "lease").out.decode().splitlines()
    assert lines[1].split("\t")[3:] == ["2001-09-09 01:47:40", "kubelet", "spec.renewTime"]
    shown = cli.inspect(tmp_path / "store", "history", "lease", "--content").out.decode()
    assert '-  renewTime: "2001-09-09T01:46:40Z"\n+  renewTime: "2001-09-09T01:47:40Z"' in shown
    got = cli.inspect(tmp_path / "store", "get", "lease").out.decode()
    assert "spec:\n  holderIdentity: node-1\n" in got
    managers = json_of(cli.inspect(tmp_path / "store", "top", "--json"))["managers"]
    assert [(row["name"], row["puts"]) for row in managers] == [("kubelet", 2)]
    assert b"last write\t2001-09-09 01:47:40" in cli.inspect(tmp_path / "store", "stats").out


def test_differences_in_four_forms(place: Path, cli: CommandLine) -> None:
    """By default with values, as keys, counted by prefix, and line by line; only one of them at a time."""
    assert cli.inspect(place, "diff", "22", "24", "--keys-only").out == b"~\t/b\n+\t/gone\n"
    summary = cli.inspect(place, "diff", "22", "24", "--summary", "--depth", "1").out
    assert summary == b"+1\t-0\t~1\t+9 bytes\t/\n"
    content = cli.inspect(place, "diff", "22", "24", "--content").out.decode().splitlines()
    assert content == ["~ /b", "  @@ -1 +1 @@", "  -1", "  +22", "+ /gone", "  @@ -0,0 +1 @@", "  +333"]
    backwards = cli.inspect(place, "diff", "24", "22", "--keys-only").out
    assert backwards == b"~\t/b\n-\t/gone\n"
    assert cli.inspect(place, "diff", "22", "24", "--content", "--summary").code == ExitCode.USAGE


def test_leases_and_users_are_listed(place: Path, cli: CommandLine) -> None:
    """A lease with its keys; no users, and that they do not count."""
    assert json_of(cli.inspect(place, "leases", "--json"))["id"] == "5"
    rows = cli.inspect(place, "leases", "--keys").out.decode().splitlines()
    assert (rows[0].split("\t")[:2], rows[1].split("\t")[4]) == (["5", "1000"], "leased")
    assert cli.inspect(place, "users").out == b"authentication is off\n"


def test_a_page_names_every_key_and_spreads_versions(tmp_path: Path) -> None:
    """Each key is there, also one without values; of many versions the page has some of every age, the newest too."""
    with kvstore.open(tmp_path / "store") as store:
        for number in range(1000):
            store.put(b"hot", b"%d" % number)
        for number in range(50):
            store.put(b"key-%02d" % number, b"v")
        text = "".join(page.render(store, "title", keys_max=9))
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert match is not None
    keys = {key["name"]: key for key in json.loads(match[1])["keys"]}
    assert len(keys) == 51
    shown = [version["revision"] for version in keys["hot"]["versions"]]
    assert (shown[0], shown[-1]) == (2, 1001)
    assert max(later - earlier for earlier, later in pairwise(shown)) <= 1000 // (page.VERSIONS_MAX // 2)
    assert keys["hot"]["more"] == 1000 - len(shown)
    assert 0 < sum(bool(key["versions"]) for key in keys.values()) <= 9


def test_a_sort_on_disk_changes_nothing(
    place: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pile of a few rows, so that all is sorted in temporary files, answers are the same."""
    verbs = (("stats", "--json"), ("list",), ("diff", "3", "26"), ("top",))
    whole = [cli.inspect(place, *verb).out for verb in verbs]
    monkeypatch.setattr("kvstore.row_sort.RUN_BYTES", 600)
    assert [cli.inspect(place, *verb).out for verb in verbs] == whole


def test_a_tree_with_too_many_prefixes_keeps_the_largest() -> None:
    """Small ones are folded away, and counted; sums above them stay whole."""
    tree = Tree(b"/", nodes_max=20)
    for number in range(200):
        facts = KeyFacts()
        facts.live_bytes = 1000 if number % 50 == 0 else 1
        tree.add(b"%03d" % number, facts)
    assert tree.root.keys == 200
    assert {b"000", b"050", b"100", b"150"} <= set(tree.root.children)
    assert len(tree.root.children) + tree.root.folded == 200


# --- values -------------------------------------------------------------------------------------


def pod(name: bytes, namespace: bytes) -> bytes:
    meta = bytes_field(1, name) + bytes_field(3, namespace)
    unknown = bytes_field(1, bytes_field(1, b"v1") + bytes_field(2, b"Pod")) + bytes_field(
        2, bytes_field(1, meta)
    )
    return b"k8s\0" + unknown


@pytest.mark.parametrize(
    ("value", "title"),
    [
        (pod(b"web-1", b"default"), "v1/Pod default/web-1"),
        (b'{"kind":"Lease","apiVersion":"v1","metadata":{"name":"n"}}', "v1/Lease n"),
        (b'{"kind":"Lease","apiVersion":"v1","metadata":3}', "json"),
        (b'{"a":1}', "json"),
        (b"[1, 2]", "json"),
        (b"{not json", "text"),
        (b"k8s:enc:aescbc:v1:key1:\xff\xff", "encrypted Kubernetes object aescbc"),
        (b"k8s\0", "Kubernetes object"),
        (b"k8s\0\xff\xff\xff", "Kubernetes object"),
        ("grüße".encode(), "text"),
        (b"\xff\xfe\x00", "bytes"),
        (b"", "empty"),
        (b"[" * 100_000, "text"),
    ],
)
def test_what_a_value_is(value: bytes, title: str) -> None:
    """Kubernetes objects by kind and name, JSON, text, bytes: as far as it is plain."""
    assert describe(value).title.strip() == title


def test_protobuf_of_an_unknown_type_is_shown_by_field_numbers() -> None:
    """Text, numbers, repeated fields and nested messages; also fields that a later Kubernetes added."""
    nested = bytes_field(1, b"inner") + int_field(2, 7)
    value = bytes_field(1, b"\xff\xfe") + bytes_field(2, nested) + int_field(3, 1) + int_field(3, 2)
    assert describe(value).text.splitlines() == [
        '"1": "<2 bytes: ff fe>"',
        '"2":',
        '  "1": inner',
        '  "2": 7',
        '"3":',
        "- 1",
        "- 2",
    ]
    body = bytes_field(1, bytes_field(1, b"web")) + bytes_field(9, bytes_field(1, b"new") + int_field(2, 1))
    type_meta = bytes_field(1, b"v1") + bytes_field(2, b"Pod")
    later = b"k8s\0" + bytes_field(1, type_meta) + bytes_field(2, body)
    assert describe(later).data["9"] == {"1": "new", "2": 1}


def test_no_value_makes_it_fail() -> None:
    """Any bytes are described, those that begin like an object too."""
    chance = random.Random(1)
    good = pod(b"name", b"space")
    for _ in range(3000):
        value = bytearray(
            chance.choice((good, b'{"kind": "Pod"}', b"k8s\0")) + chance.randbytes(chance.randrange(9))
        )
        for _ in range(chance.randrange(4)):
            value[chance.randrange(len(value))] = chance.randrange(256)
        assert isinstance(describe(bytes(value)).title, str)


# --- the walk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        (b"/a/b", [b"/", b"a/", b"b"]),
        (b"a", [b"a"]),
        (b"a/", [b"a/"]),
        (b"//", [b"/", b"/"]),
        (b"\0\xff", [b"\0\xff"]),
    ],
)
def test_a_key_is_split_where_the_separator_ends_a_part(key: bytes, parts: list[bytes]) -> None:
    """The parts together are the key."""
    assert split_key(key, b"/") == parts
    assert split_key(key, b"") == [key]


@pytest.mark.parametrize("compacted", [False, True])
def test_the_walk_counts_what_is_there(tmp_path: Path, compacted: bool) -> None:
    """Live bytes, garbage and growth are those of a count by hand, also above a compaction."""
    with kvstore.open(tmp_path / "store") as store:
        fill(store)
        if compacted:
            store.compact(15, physical=True)
        found = survey(store, count=1000)
        live = {kv.key: len(kv.key) + len(kv.value) for kv in store.scan(prefix=b"")}
        largest = found.tops["largest"].rows()
        assert {key: facts.live_bytes for key, facts in largest if facts.live_bytes} == live
        assert (found.root.keys, found.root.live_bytes) == (len(live), sum(live.values()))
        assert found.growth[-1].live_bytes == sum(live.values())
        assert found.growth[-1].kept_bytes == found.root.total_bytes
        assert [point.revision for point in found.growth] == sorted(point.revision for point in found.growth)
        assert found.root.garbage_bytes == 16


def test_keys_made_of_separators_do_not_make_a_bottomless_tree(tmp_path: Path) -> None:
    """The tree is cut at a depth, and every key is counted once."""
    with kvstore.open(tmp_path / "store") as store:
        store.put(b"/" * 30_000, b"v")
        node: Any = survey(store).root
    depth = 0
    while node.children:
        (node,) = node.children.values()
        depth += 1
        assert node.keys == 1
    assert depth == DEPTH_MAX


@pytest.mark.parametrize("numbers", [(2, -1), (2, 0), (-2, 1), (0, 1)])
def test_a_row_that_no_store_has_written_is_damage(
    tmp_path: Path, cli: CommandLine, numbers: tuple[int, int]
) -> None:
    """Its revision or version is less than 1: the verbs that count all versions say so, and whose key it is."""
    with kvstore.open(tmp_path / "data", "sqlite") as store:
        store.put(b"k", b"v")
        while store.checkpoint():
            pass
        row = bytes_field(1, b"k") + int_field(2, 2) + int_field(3, numbers[0]) + int_field(4, numbers[1])
        with store.engine.core.backend.write() as tx:
            tx.put_many("latest", [(b"k", row)])
    done = cli.inspect(tmp_path / "data", "stats")
    assert done.code == ExitCode.DAMAGED and "key b'k'" in done.err
