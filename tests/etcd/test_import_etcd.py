"""etcd's files opened in place and moved in, held against what their servers said of them."""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd import rows
from kvstore.migrations.etcd.beside_keys import carried_bucket
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.tools import inspect_store

import kvstore
from kvstore.foreign import recognize_foreign
from kvstore.mvcc.schema import META
from kvstore.verification.run import verify
from tests.etcd import etcd_samples
from tests.etcd import etcd_servers as real
from tests.etcd.etcd_recorder import HAS_ETCD, fresh_etcd, record
from tests.etcd.etcd_samples import dump_hash, text, truth
from tests.etcd.imports import ETCD, events, import_etcd
from tests.etcd.random_requests import Requests
from tests.harness.command_line import CommandLine, command_line

BACKENDS = ("lmdb", "sqlite")
SNAPSHOTS = ("tiny", "tiny-3.5.30")
SAMPLES = (*SNAPSHOTS, "tiny_datadir")
needs_etcd = pytest.mark.skipif(
    not (HAS_ETCD and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return command_line(monkeypatch, capfd, inspect_store.register)


def source_of(folder: Path, into: Path) -> Path:
    if (folder / "snapshot.db").exists():
        return folder / "snapshot.db"
    return etcd_samples.untar(folder / "datadir.tar.xz", into)


def dump(store: kvstore.Store, revision: int = 0) -> list[list[Any]]:
    return [
        [text(kv.key), text(kv.value), kv.create_revision, kv.mod_revision, kv.version, kv.lease]
        for kv in store.scan(prefix=b"", revision=revision)
    ]


def hold_against_truth(store: kvstore.Store, said: dict[str, Any]) -> None:
    """Revisions, dumps, history, HashKV, leases and identity are what the server said."""
    assert store.revision == said["revision"]
    assert max(store.compact_revision, 0) == max(said["compact_revision"], 0)
    for revision, expected in said["dumps"].items():
        found = dump(store, int(revision))
        assert (len(found), dump_hash(found)) == (expected["count"], expected["sha256"])
        for kv in list(store.scan(prefix=b"", revision=int(revision)))[:20]:
            assert store.get(kv.key, revision=int(revision)) == kv
    for revision, answer in said["hashkv"].items():
        if not answer.get("refused"):
            found_hash = store.hash_kv(int(revision))
            assert (found_hash.hash, found_hash.compact_revision) == (
                answer["hash"],
                answer["compact_revision"],
            )
    assert events(store, said["history_from"]) == said["history"]
    assert sorted(store.leases()) == sorted(lease["id"] for lease in said["leases"])
    for lease in said["leases"]:
        left = store.lease_time_to_live(lease["id"], keys=True)
        assert left.granted_ttl == lease["granted_ttl"]
        assert sorted(map(text, left.keys)) == sorted(lease["keys"])
        assert 0 < left.ttl <= lease["granted_ttl"]
    header = said["status"]["header"]
    assert (store.engine.cluster_id, store.engine.member_id) == (header["cluster_id"], header["member_id"])
    assert len(store.alarms()) == len(said["alarms"])
    assert len(carried(store, rows.AUTH_USERS)) == len(said["users"])
    assert len(carried(store, rows.AUTH_ROLES)) == len(said["roles"])
    assert [rows.decode_member(value).name for _, value in carried(store, rows.MEMBERS)] == [
        member["name"] for member in said["members"]
    ]


def carried(store: kvstore.Store, bucket: bytes) -> list[tuple[bytes, bytes]]:
    with store.engine.backend.read() as tx:
        return carried_bucket(bucket, tx.scan(META))


# --- the samples --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_an_etcd_file_opens_as_a_store(samples: Path, tmp_path: Path, name: str) -> None:
    """A snapshot, and a data directory with its log, answer in place as their server did."""
    source = source_of(samples / name, tmp_path)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    found = recognize_foreign(source)
    assert found is not None and found.name == "etcd"
    with found.open(source) as store:
        hold_against_truth(store, truth(samples / name))
        with pytest.raises(kvstore.errors.ReadOnly):
            store.put(b"k", b"v")
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SAMPLES)
def test_an_import_is_the_store_that_etcd_had(samples: Path, tmp_path: Path, name: str, backend: str) -> None:
    """Each sample moves in whole, and the store goes on from there."""
    said = truth(samples / name)
    imported = import_etcd(source_of(samples / name, tmp_path), tmp_path / "store", backend)
    assert (imported.revision, imported.backend) == (said["revision"], backend)
    for _ in range(2):  # as it was made, and opened again
        with kvstore.open(tmp_path / "store", backend) as store:
            hold_against_truth(store, said)
    assert verify(tmp_path / "store").findings == ()
    with kvstore.open(tmp_path / "store", backend) as store:
        assert store.put(b"new", b"value").revision == said["revision"] + 1
        assert store.compact(store.revision, physical=True)
        assert store.get(b"new")
    assert not list(tmp_path.glob("*.restoring"))


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_open_snapshot_and_restore_take_etcds_files_too(samples: Path, tmp_path: Path, name: str) -> None:
    """``open_snapshot`` (verified) and ``restore`` know an etcd snapshot when they see one."""
    said = truth(samples / name)
    path = samples / name / "snapshot.db"
    with kvstore.open_snapshot(path, verify=True) as snapshot:
        hold_against_truth(snapshot, said)
        assert snapshot.info.backend == "etcd"
        assert (snapshot.info.keys, snapshot.info.leases) == (snapshot.count(prefix=b""), len(said["leases"]))
        assert list(snapshot.diff(2, 4)) == list(snapshot.diff(2, 4, prefix=b""))


# --- refusals -----------------------------------------------------------------------------------


def test_nothing_is_imported_over_anything(samples: Path, tmp_path: Path) -> None:
    """A directory that is not empty is refused, and left alone."""
    target = tmp_path / "store"
    target.mkdir()
    (target / "file").write_text("precious")
    with pytest.raises(kvstore.WrongStore):
        import_etcd(samples / "tiny" / "snapshot.db", target)
    assert (target / "file").read_text() == "precious"


def test_what_is_not_etcds_is_told_apart(tmp_path: Path) -> None:
    """Another file, an empty one, a directory of something else: ``NotAStore``; nothing is left behind."""
    (tmp_path / "text").write_text("not a database" * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("text", "empty", "folder"):
        assert recognize_foreign(tmp_path / name) is None
        with pytest.raises(kvstore.NotAStore):
            import_etcd(tmp_path / name, tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        import_etcd(tmp_path / "absent", tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "folder", "text"]


def variants(samples: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = truth(samples / "damaged")["variants"]
    return found


REFUSED_THOUGH_ETCD_STARTS = {
    "wal/bitflip-length-field": "etcd loses the half of its log behind the damage",
    "wal/zeroed-record-middle": "the same",
}
"""Acknowledged writes would be gone without a word; see docs/coming-from-etcd.md."""


def damaged_data_dir(samples: Path, variant: str, into: Path) -> Path:
    """The good data directory, with the variant's file in its place."""
    folder = samples / "damaged"
    source = etcd_samples.untar(folder / "good-datadir.tar.xz", into)
    packed = folder / variants(samples)[variant]["file"]
    if variant.startswith("db/"):
        target = source / "member" / "snap" / "db"
    else:
        (target,) = (source / "member" / "wal").glob("*.wal")
    etcd_samples.unxz(packed, target)
    return source


DATA_DIR_VARIANTS = (
    "db/bitflip-both-metas db/bitflip-in-a-value db/bitflip-meta0 db/bitflip-meta1 db/empty db/truncated-half "
    "db/zeroed-page wal/bitflip-crc-field wal/bitflip-last wal/bitflip-length-field wal/bitflip-middle "
    "wal/cut-at-record-boundary wal/cut-exactly-after-last wal/duplicated-record wal/empty-file wal/good "
    "wal/record-removed wal/torn-cut-file wal/torn-cut-in-length-field wal/torn-state-record "
    "wal/torn-zeros-from-sector wal/torn-zeros-midrecord wal/trailing-garbage wal/zeroed-record-middle"
).split()
SNAPSHOT_VARIANTS = "bitflip-in-a-value bitflip-in-the-hash empty good truncated without-hash".split()


def test_every_damaged_sample_is_tried(samples: Path) -> None:
    """No variant of the samples is left out below."""
    tried = {*DATA_DIR_VARIANTS, *(f"snapshot/{name}" for name in SNAPSHOT_VARIANTS)}
    assert set(variants(samples)) == tried


@pytest.mark.parametrize("variant", DATA_DIR_VARIANTS)
def test_a_damaged_data_directory_is_imported_or_refused_as_etcd_does(
    samples: Path, tmp_path: Path, variant: str
) -> None:
    """What etcd starts from moves in with the rows that etcd served; what it refuses is refused with a place."""
    said = variants(samples)[variant]
    source = damaged_data_dir(samples, variant, tmp_path)
    if said["starts"] and variant not in REFUSED_THOUGH_ETCD_STARTS:
        try:
            import_etcd(source, tmp_path / "store")
        except kvstore.Corruption as error:
            assert variant == "db/zeroed-page"  # etcd starts, and stops when the page is first read
            assert error.offset >= 0
            return
        with kvstore.open(tmp_path / "store") as store:
            assert store.revision == said["revision"]
            assert dump_hash(dump(store)) == said["sha256"]
        return
    with pytest.raises((kvstore.Corruption, kvstore.NotAStore)) as refusal:
        import_etcd(source, tmp_path / "store")
    assert str(source) in str(refusal.value)
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob("*.restoring"))


@pytest.mark.parametrize("variant", SNAPSHOT_VARIANTS)
def test_a_damaged_snapshot_is_imported_or_refused_as_etcd_does(
    samples: Path, tmp_path: Path, variant: str
) -> None:
    """As ``snapshot restore`` decides, with and without its hash check."""
    said = variants(samples)[f"snapshot/{variant}"]
    packed = samples / "damaged" / said["file"]
    path = etcd_samples.unxz(packed, tmp_path / "snapshot.db")
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    for option, skip in (("restore", False), ("restore--skip-hash-check", True)):
        target = tmp_path / option
        if said[option]["rc"] == 0:
            assert import_etcd(path, target, skip_hash_check=skip).revision == 62
        else:
            with pytest.raises((kvstore.Corruption, kvstore.NotAStore)):
                import_etcd(path, target, skip_hash_check=skip)
            assert not target.exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_members_of_a_restored_cluster_are_its_own(
    tmp_path: Path, fixtures: Path, backend: str, cli: CommandLine
) -> None:
    """3.4's restore leaves the old cluster's rows in the database; the server goes by the raft snapshot."""
    folder = fixtures / "etcd-3.4.23"
    said = json.loads((folder / "restored.json").read_text())
    source = etcd_samples.untar(folder / "restored.tar.xz", tmp_path)
    with EtcdFile(source / "member" / "snap" / "db") as file:
        assert len(file.members()) == 2
    done = import_etcd(source, tmp_path / "moved", backend)
    assert (done.counts["members"], done.revision) == (1, said["revision"])
    assert f"{done.member_id:x} new" == said["members"][0]
    with kvstore.open(tmp_path / "moved", backend) as store:
        ETCD.export_store(store, tmp_path / "out.db")
        assert store.hash_kv().hash == said["hash"]
    for place in (source, tmp_path / "out.db", tmp_path / "moved"):
        code, out, _ = cli("--json", "inspect", "meta", str(place))
        assert code == 0 and json.loads(out)["members"] == said["members"]


# --- a real etcd's log ----------------------------------------------------------------------------


@needs_etcd
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_etcds_directory_moves_in(tmp_path: Path, seed: int) -> None:
    """Random requests, refused ones among them, then SIGKILL: database and log together are what etcd served.

    And the log alone is, too: with an emptied database everything is decided again from the first entry.
    """
    with fresh_etcd(tmp_path) as address:
        asked = Requests(seed)
        for exchange in record(address, islice(asked, 400)):
            header = exchange.get("response", {}).get("header", {})
            asked.revision = header.get("revision", asked.revision)
        server = real.Server(address)
        answer = server.ctl("get", "", "--prefix")
        newest = answer["header"]["revision"]
        served = server.dump(newest)
        compacted = server.hash_kv(newest).get("compact_revision", -1)
        hashes = {each: server.hash_kv(each)["hash"] for each in range(max(compacted + 1, 1), newest + 1, 7)}
        leases = sorted(lease["id"] for lease in server.ctl("lease", "list").get("leases", []))
    import_etcd(tmp_path / "etcd", tmp_path / "ours")
    emptied = tmp_path / "etcd" / "member" / "snap" / "db"
    with ETCD.open(tmp_path / "etcd") as in_place, kvstore.open(tmp_path / "ours") as moved:
        assert dump(in_place) == dump(moved) == served
        for store in (in_place, moved):
            assert (store.revision, store.compact_revision) == (newest, compacted)
            assert {each: store.hash_kv(each).hash for each in hashes} == hashes
            assert sorted(store.leases()) == leases
    emptied.write_bytes(b"")
    import_etcd(tmp_path / "etcd", tmp_path / "from the log", "sqlite")
    with kvstore.open(tmp_path / "from the log", "sqlite") as store:
        assert dump(store) == served
        assert {each: store.hash_kv(each).hash for each in hashes} == hashes
        assert sorted(store.leases()) == leases
        assert [rows.decode_member(value).name for _, value in carried(store, rows.MEMBERS)] == ["default"]


@needs_etcd
def test_users_come_along_and_what_they_were_refused_does_not(tmp_path: Path) -> None:
    """With authentication on, a logged request without permission has no effect here either; users are kept as data."""
    with fresh_etcd(tmp_path) as address:
        server = real.Server(address)

        def as_user(user: str, *arguments: str) -> bool:
            patience = ["--command-timeout", f"{real.PATIENCE_SECONDS}s"]
            command = ["etcdctl", "--endpoints", address, "--user", f"{user}:pw", *patience, *arguments]
            return (
                subprocess.run(command, env=real.ENVIRONMENT, capture_output=True, check=False).returncode
                == 0
            )

        server.ctl("user", "add", "root:pw")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("user", "add", "ann:pw")
        server.ctl("role", "add", "writer")
        server.ctl("role", "grant-permission", "writer", "readwrite", "ann/", "--prefix")
        server.ctl("user", "grant-role", "ann", "writer")
        server.ctl("auth", "enable")
        assert as_user("ann", "put", "ann/1", "allowed")
        assert not as_user("ann", "put", "root/1", "refused")
        assert not as_user("ann", "del", "", "--prefix")
        assert as_user("root", "put", "root/2", "allowed")
        assert as_user("root", "role", "revoke-permission", "writer", "ann/", "--prefix")
        assert not as_user("ann", "put", "ann/2", "refused by now")
        time.sleep(0.2)
    for label in ("as it is", "from the log"):
        if label == "from the log":
            (tmp_path / "etcd" / "member" / "snap" / "db").write_bytes(b"")
        imported = import_etcd(tmp_path / "etcd", tmp_path / label)
        assert (imported.counts["users"], imported.counts["roles"]) == (2, 1)
        with kvstore.open(tmp_path / label) as store:
            assert [kv.key for kv in store.scan(prefix=b"")] == [b"ann/1", b"root/2"]
            assert store.revision == 3
            roles = dict(carried(store, rows.AUTH_ROLES))
            assert rows.decode_role(roles[b"writer"]).permissions == ()


@needs_etcd
def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A running etcd's directory is ``StoreLocked``: half of it is in that process's memory."""
    with fresh_etcd(tmp_path), pytest.raises(kvstore.StoreLocked):
        import_etcd(tmp_path / "etcd", tmp_path / "store")
