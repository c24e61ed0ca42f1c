"""Snapshots and data directories of real servers, held against what those servers said of them."""

import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest
from kvstore.migrations.etcd.bbolt_check import check
from kvstore.migrations.etcd.bbolt_read import BboltFile
from kvstore.migrations.etcd.data_dir import EtcdDataDir
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.wal_content import iter_records, read_wal, repair_wal
from kvstore.migrations.etcd.wal_read import segment_name

from kvstore.errors import Compacted, Corruption, FutureRevision, KVStoreError, NotAStore
from tests.etcd import etcd_samples
from tests.etcd.etcd_samples import Replayed, dump_hash, dump_row, event, text, truth, unxz

SNAPSHOTS = ("tiny", "tiny-3.5.30")


def hold_against_truth(file: EtcdFile, said: dict[str, Any]) -> None:
    """Everything that a truth file says of a store, asked of the file."""
    assert file.revision == said["revision"]
    assert max(file.compact_revision, 0) == max(said["compact_revision"], 0)
    for revision, dump in said["dumps"].items():
        rows = [dump_row(row) for row in file.live(int(revision))]
        assert len(rows) == dump["count"]
        assert dump_hash(rows) == dump["sha256"]
        assert rows == dump.get("kvs", rows)
    assert [event(row) for row in file.rows(said["history_from"])] == said["history"]
    for revision, answer in said["hashkv"].items():
        hold_hash_against_truth(file, int(revision), answer, said["made_by"].startswith("etcd Version: 3.4"))
    leases = [
        {"id": each.id, "granted_ttl": each.granted_ttl_seconds, "keys": sorted(map(text, each.keys))}
        for each in file.leases()
    ]
    for lease in said["leases"]:
        lease["keys"] = sorted(lease["keys"])
    assert leases == sorted(said["leases"], key=lambda lease: lease["id"])
    members = [
        {
            "ID": member.id,
            "name": member.name,
            "peerURLs": list(member.peer_urls),
            "clientURLs": list(member.client_urls),
        }
        for member in file.members()
    ]
    assert members == said["members"]
    assert len(file.users()) == len(said["users"])
    assert len(file.roles()) == len(said["roles"])
    assert len(file.alarms()) == len(said["alarms"])


def hold_hash_against_truth(file: EtcdFile, revision: int, answer: dict[str, Any], is_3_4: bool) -> None:
    if answer.get("refused"):
        with pytest.raises((Compacted, FutureRevision)):
            file.hash_kv(revision, before_3_4_34=is_3_4)
    else:
        found = file.hash_kv(revision, before_3_4_34=is_3_4)
        assert (found.hash, found.compact_revision) == (answer["hash"], answer["compact_revision"])
        assert file.hash_kv(revision).hash == answer["hash"]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_says_what_its_server_said(samples: Path, name: str) -> None:
    """Dumps at revisions, history, HashKV, leases and members of a snapshot are the server's."""
    folder = samples / name
    said = truth(folder)
    with EtcdFile(folder / "snapshot.db") as file:
        hold_against_truth(file, said)
        status = file.status()
        assert {key: status[key] for key in said["snapshot_status"]} == said["snapshot_status"]
        assert file.cluster_version == said["made_by"].split()[2].rpartition(".")[0] + ".0"
        assert file.file.verify_hash()
        assert list(check(file.file)) == []


def test_a_3_5_snapshot_names_its_term_and_voters(samples: Path) -> None:
    """Term and configuration are in files of 3.5, and absent from those of 3.4."""
    with (
        EtcdFile(samples / "tiny-3.5.30" / "snapshot.db") as new,
        EtcdFile(samples / "tiny" / "snapshot.db") as old,
    ):
        assert (new.term, new.conf_state) == (2, {"voters": [16759649454169608971], "auto_leave": False})
        assert (old.term, old.conf_state) == (0, {})
        assert (new.consistent_index, old.consistent_index) == (16, 13)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_get_and_history_agree_with_the_dumps(samples: Path, name: str) -> None:
    """A key looked up at a revision is the row of the dump there; its history is all its events."""
    folder = samples / name
    said = truth(folder)
    with EtcdFile(folder / "snapshot.db") as file:
        keys = {row.key for row in file.rows()}
        for revision, dump in said["dumps"].items():
            found = [file.get(key, int(revision)) for key in sorted(keys)]
            assert [dump_row(row) for row in found if row] == dump["kvs"]
        for key in keys:
            events = [each for each in said["history"] if each[1] == text(key)]
            assert [event(row) for row in file.history(key)] == events
        assert file.get(b"no such key") is None
        assert file.history(b"no such key") == []


def test_a_data_directory_is_database_and_log(samples: Path, tmp_path: Path) -> None:
    """What the database lacks stands in the log: both together are what the server served."""
    folder = samples / "tiny_datadir"
    said = truth(folder)
    with EtcdDataDir(etcd_samples.untar(folder / "datadir.tar.xz", tmp_path)) as data_dir:
        assert data_dir.is_alone
        assert data_dir.cluster_id == said["status"]["header"]["cluster_id"]
        assert data_dir.node_id == said["status"]["header"]["member_id"]
        assert data_dir.commit_index >= said["status"]["raftAppliedIndex"]
        assert served(data_dir).dump() == said["dumps"][str(said["revision"])]["kvs"]
        assert data_dir.file is not None
        if data_dir.file.revision == said["revision"]:
            hold_against_truth(data_dir.file, said)


def served(data_dir: EtcdDataDir) -> Replayed:
    """What a server serves that starts from the directory."""
    file = data_dir.file
    store = Replayed(file.live(), file.revision) if file else Replayed()
    for entry in data_dir.pending():
        if entry.type == "EntryNormal" and entry.data and entry.kind != "v2":
            store.apply(entry.request())
    return store


# --- damage ---------------------------------------------------------------------------------

SILENT_LOSS = ("wal/bitflip-length-field", "wal/zeroed-record-middle")
"""Where etcd starts, having lost what it had acknowledged."""


@pytest.fixture
def damaged(samples: Path) -> Path:
    return samples / "damaged"


def variants(kind: str) -> list[str]:
    """Names are spelt here, so that a missing sample is seen."""
    return {
        "db": [
            f"db/{name}"
            for name in "bitflip-both-metas bitflip-in-a-value bitflip-meta0 bitflip-meta1 empty "
            "truncated-half zeroed-page".split()
        ],
        "snapshot": [
            f"snapshot/{name}"
            for name in "bitflip-in-a-value bitflip-in-the-hash empty good truncated without-hash".split()
        ],
        "wal": [
            f"wal/{name}"
            for name in "bitflip-crc-field bitflip-last bitflip-length-field bitflip-middle "
            "cut-at-record-boundary cut-exactly-after-last duplicated-record empty-file good record-removed "
            "torn-cut-file torn-cut-in-length-field torn-state-record torn-zeros-from-sector "
            "torn-zeros-midrecord trailing-garbage zeroed-record-middle".split()
        ],
    }[kind]


def test_no_variant_is_left_out(damaged: Path) -> None:
    """Every damaged file of the samples is tested below."""
    assert sorted(truth(damaged)["variants"]) == sorted(
        variants("db") + variants("snapshot") + variants("wal")
    )


def damaged_wal(damaged: Path, said: dict[str, Any], into: Path) -> Path:
    into.mkdir()
    unxz(damaged / said["file"], into / segment_name(0, 0))
    return into


def replay(wal_dir: Path, as_etcd: bool) -> Replayed:
    store = Replayed()
    for entry in read_wal(wal_dir, as_etcd=as_etcd).entries:
        if entry.type == "EntryNormal" and entry.data and entry.kind != "v2":
            store.apply(entry.request())
    return store


@pytest.mark.parametrize("variant", variants("wal"))
def test_as_etcd_a_damaged_log_is_read_as_etcd_read_it(damaged: Path, tmp_path: Path, variant: str) -> None:
    """Told to do as etcd, the reader serves what etcd served and refuses what etcd refused."""
    said = truth(damaged)["variants"][variant]
    wal_dir = damaged_wal(damaged, said, tmp_path / "wal")
    if said["starts"]:
        store = replay(wal_dir, as_etcd=True)
        assert (store.revision, store.dump()) == (said["revision"], said["kvs"])
    else:
        with pytest.raises(Corruption) as refused:
            read_wal(wal_dir, as_etcd=True)
        assert refused.value.path == str(wal_dir / segment_name(0, 0))


@pytest.mark.parametrize("variant", variants("wal"))
def test_a_damaged_log_is_refused_where_it_lost_something(
    damaged: Path, tmp_path: Path, variant: str
) -> None:
    """By default logs are refused, with their place, where etcd refuses or silently loses records."""
    said = truth(damaged)["variants"][variant]
    wal_dir = damaged_wal(damaged, said, tmp_path / "wal")
    if said["starts"] and variant not in SILENT_LOSS:
        assert replay(wal_dir, as_etcd=False).dump() == said["kvs"]
    else:
        with pytest.raises(Corruption) as refused:
            read_wal(wal_dir)
        assert refused.value.path == str(wal_dir / segment_name(0, 0))
        assert refused.value.offset >= 0
    if variant in SILENT_LOSS:
        assert refused.value.offset == truth(damaged)["wal"]["entry_40"][0]


@pytest.mark.parametrize("variant", variants("wal"))
def test_a_torn_log_is_repaired_in_a_copy(damaged: Path, tmp_path: Path, variant: str) -> None:
    """What etcd repairs is repaired in a copy that reads cleanly; the original keeps every byte."""
    said = truth(damaged)["variants"][variant]
    wal_dir = damaged_wal(damaged, said, tmp_path / "wal")
    before = (wal_dir / segment_name(0, 0)).read_bytes()
    if said["starts"]:
        end = repair_wal(wal_dir, tmp_path / "copy", as_etcd=variant in SILENT_LOSS)
        assert replay(tmp_path / "copy", as_etcd=False).dump() == said["kvs"]
        assert (tmp_path / "copy" / segment_name(0, 0)).stat().st_size == end.offset
        assert read_wal(tmp_path / "copy").end.torn == ""
    elif variant != "wal/empty-file":
        with pytest.raises(Corruption):
            repair_wal(wal_dir, tmp_path / "copy", as_etcd=True)
        assert not (tmp_path / "copy").exists()
    assert (wal_dir / segment_name(0, 0)).read_bytes() == before


def test_records_stand_where_they_were_written(damaged: Path, tmp_path: Path) -> None:
    """Offset, type and end of each record of the good log are as noted when it was made."""
    said = truth(damaged)
    wal_dir = damaged_wal(damaged, said["variants"]["wal/good"], tmp_path / "wal")
    found = [[record.offset, record.type, record.end] for record in iter_records(wal_dir)]
    assert found == [[offset, kind, end] for offset, kind, _size, end in said["wal"]["records"]]


@pytest.mark.parametrize("variant", variants("db"))
def test_a_damaged_database_is_read_as_etcd_read_it(damaged: Path, tmp_path: Path, variant: str) -> None:
    """Where etcd starts with a damaged database the same keys are served; where not, a typed error."""
    said = truth(damaged)["variants"][variant]
    data_dir = etcd_samples.untar(damaged / "good-datadir.tar.xz", tmp_path)
    unxz(damaged / said["file"], data_dir / "member" / "snap" / "db")
    if said["starts"]:
        with EtcdDataDir(data_dir) as found:
            store = served(found)
            assert (store.revision, store.dump()) == (said["revision"], said["kvs"])
    else:
        with pytest.raises(Corruption) as refused:
            EtcdDataDir(data_dir)
        assert refused.value.path == str(data_dir / "member" / "snap" / "db")


@pytest.mark.parametrize("variant", variants("snapshot"))
def test_a_damaged_snapshot_is_judged_as_etcd_judged_it(damaged: Path, tmp_path: Path, variant: str) -> None:
    """Status and hash check of a snapshot say what etcd's said; no trailer is told from a wrong one."""
    said = truth(damaged)["variants"][variant]
    path = unxz(damaged / said["file"], tmp_path / "snapshot.db")
    if "error" in said["status"]:
        with pytest.raises((Corruption, NotAStore)):
            EtcdFile(path)
        return
    with EtcdFile(path) as file:
        status = file.status()
        assert {key: status[key] for key in said["status"]} == said["status"]
        if "sha256" in str(said["restore"]["said"]):
            with pytest.raises(Corruption):
                file.file.verify_hash()
        else:
            assert file.file.verify_hash() == (said["restore"]["rc"] == 0)


def test_a_log_that_ends_before_its_database_is_told(damaged: Path, tmp_path: Path) -> None:
    """A log cut far before the database's index: the database counts, as for etcd, and what is missing is said."""
    data_dir = etcd_samples.untar(damaged / "good-datadir.tar.xz", tmp_path)
    records = truth(damaged)["wal"]["records"]
    path = data_dir / "member" / "wal" / segment_name(0, 0)
    path.write_bytes(path.read_bytes()[: records[50][0]])
    with EtcdDataDir(data_dir) as found:
        assert found.pending() == []
        assert found.wal.last_index < found.consistent_index
        assert [f"database holds {found.consistent_index}" in note for note in found.notes] == [True]


def test_what_is_no_etcd_is_told_apart(tmp_path: Path, samples: Path) -> None:
    """A directory, a text, a bbolt file of others and an empty directory are "not ours"."""
    (tmp_path / "text").write_text("hello " * 1000)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "text", tmp_path / "empty"):
        with pytest.raises(NotAStore):
            BboltFile(path)
    with pytest.raises(NotAStore):
        EtcdDataDir(tmp_path / "empty")
    with pytest.raises(NotAStore):
        read_wal(tmp_path / "empty")


def test_a_database_that_a_server_holds_is_not_read(samples: Path, tmp_path: Path) -> None:
    """A file under etcd's exclusive lock is refused as locked, retryable."""
    import fcntl

    path = Path(shutil.copy(samples / "tiny" / "snapshot.db", tmp_path))
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(KVStoreError) as refused:
            EtcdFile(path)
    assert refused.value.retryable
    with EtcdFile(path) as file:
        assert file.revision > 1


def test_samples_are_what_they_claim(damaged: Path) -> None:
    """The packed samples unpack to the sizes that etcd's preallocation gives."""
    assert len(lzma.decompress((damaged / "wal-good.wal.xz").read_bytes())) == 64_000_000
