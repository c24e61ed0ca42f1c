"""Salvage of damaged bbolt files, against what is known to have been written: nothing wrong is ever called sure."""

import json
import lzma
import random
import tracemalloc
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from kvstore.migrations.etcd.bbolt_loose import LooseFile
from kvstore.migrations.etcd.bbolt_page import HEADER, LEAF
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.salvage import read_database

import kvstore
from kvstore.errors import NotAStore, WrongStore
from kvstore.foreign import find_foreign
from kvstore.keyvalue import decode_row
from kvstore.salvage import Level, Salvaged, salvage
from kvstore.salvage.evidence import Evidence, Fact
from kvstore.salvage.judging import Judgment, judge
from kvstore.verification import verify
from tests import PROJECT
from tests.etcd.file_damage import OF_PAGES, PAGE, WITHIN, Damage

CHURNED = PROJECT / "tests" / "fixtures" / "samples" / "churned"


@dataclass(frozen=True)
class Truth:
    """The snapshot, an earlier one of the same etcd, and every change that was ever made."""

    data: bytes
    earlier: bytes
    changes: dict[tuple[int, int], tuple[bytes, bytes | None]]
    now: dict[bytes, bytes]


@cache
def truth() -> Truth:
    writes = json.loads(lzma.decompress((CHURNED / "writes.json.xz").read_bytes()))
    changes: dict[tuple[int, int], tuple[bytes, bytes | None]] = {}
    now: dict[bytes, bytes] = {}
    for main, sub, key, value in writes:
        changes[main, sub] = key.encode(), None if value is None else value.encode()
        if value is None:
            now.pop(key.encode(), None)
        else:
            now[key.encode()] = value.encode()
    data, earlier = (
        lzma.decompress((CHURNED / f"{name}.db.xz").read_bytes()) for name in ("snapshot", "earlier")
    )
    return Truth(data, earlier, changes, now)


def value_of(key_value: bytes | None) -> bytes | None:
    return None if key_value is None else decode_row(key_value)[4]


def kept(found: Judgment) -> list[Fact]:
    return [fact for facts in found.by_key.values() for fact in facts]


def is_true(fact: Fact, known: Truth) -> bool:
    return known.changes.get(fact.revision) == (fact.key, value_of(fact.key_value))


def check_claims(evidence: Evidence, found: Judgment, known: Truth, *, believed_from: Level) -> None:
    """Facts of that level and above are true; keys that cannot be older are as they were at the end."""
    for fact in kept(found):
        assert fact.level < believed_from or is_true(fact, known), fact[:2]
    for fact in found.live():
        if fact.level >= believed_from and not found.may_be_older(fact):
            assert known.now.get(fact.key) == value_of(fact.key_value), fact[:2]
    if not found.missing and not evidence.unread and believed_from <= Level.CONSISTENT:
        assert {fact.key: value_of(fact.key_value) for fact in found.live()} == known.now


def has_rows(data: bytes, page: int) -> bool:
    """Whether a page is a leaf of the bucket of keys, of the tree or an old one."""
    return (
        data[page * PAGE + 8] == 2 and data[page * PAGE + 10] > 3 and b"/app/" in data[page * PAGE :][:PAGE]
    )


def damaged(tmp_path: Path, damage: Damage, seed: int) -> tuple[bytes, Evidence, Judgment]:
    known = truth()
    data = damage(known.data, known.earlier, random.Random(f"{damage.__name__} {seed}"))
    path = tmp_path / "damaged.db"
    path.write_bytes(data)
    evidence = read_database(path)
    return data, evidence, judge(evidence)


def check_page_damage(tmp_path: Path, damage: Damage, seed: int) -> None:
    """Everything that is kept is true (of values on overflow pages, which have no header, that is not claimed), and
    something is kept where a tenth of the leaves is whole."""
    known = truth()
    data, evidence, found = damaged(tmp_path, damage, seed)
    check_claims(evidence, found, known, believed_from=Level.CHECKSUM)
    wrong = [fact for fact in kept(found) if not is_true(fact, known)]
    assert all(len(fact.key_value or b"") > PAGE for fact in wrong)
    if not wrong:
        check_claims(evidence, found, known, believed_from=Level.ALONE)
    leaves = [page for page in range(2, len(known.data) // PAGE) if has_rows(known.data, page)]
    whole = [page for page in leaves if data[page * PAGE :][:PAGE] == known.data[page * PAGE :][:PAGE]]
    if 10 * len(whole) >= len(leaves):
        assert any(found.live())


def check_inner_damage(tmp_path: Path, damage: Damage, seed: int) -> None:
    """Nothing wrong has a checksum; and only values that were hit are wrong at all."""
    _, evidence, found = damaged(tmp_path, damage, seed)
    check_claims(evidence, found, truth(), believed_from=Level.CHECKSUM)
    wrong = [fact for fact in kept(found) if not is_true(fact, truth())]
    assert len(wrong) <= 64


SEEDS = range(30)
SOAK_SEEDS = range(2000)


@pytest.mark.parametrize("damage", OF_PAGES)
def test_what_is_left_of_lost_pages_is_true(tmp_path: Path, damage: Damage) -> None:
    """Cut, erased, swapped, stale, overwritten pages and wrong metas: nothing wrong is salvaged at any level."""
    for seed in SEEDS:
        check_page_damage(tmp_path, damage, seed)


@pytest.mark.parametrize("damage", WITHIN)
def test_damage_inside_of_values_is_never_called_sure(tmp_path: Path, damage: Damage) -> None:
    """A flipped bit of a value cannot be seen without a checksum: so no such value is called sure."""
    for seed in SEEDS:
        check_inner_damage(tmp_path, damage, seed)


@pytest.mark.soak
@pytest.mark.parametrize("damage", [*OF_PAGES, *WITHIN])
def test_thousands_of_damages(tmp_path: Path, damage: Damage) -> None:
    """The same for many more."""
    check = check_page_damage if damage in OF_PAGES else check_inner_damage
    for seed in SOAK_SEEDS:
        check(tmp_path, damage, seed)


# --- whole salvages -----------------------------------------------------------------------


def content(data_dir: Path) -> dict[bytes, bytes]:
    with kvstore.open(data_dir, read_only=True) as store:
        return {kv.key: kv.value for kv in store.scan(prefix=b"")}


def salvaged(tmp_path: Path, data: bytes) -> Salvaged:
    (tmp_path / "damaged.db").write_bytes(data)
    return salvage(tmp_path / "damaged.db", tmp_path / "new")


def test_an_intact_snapshot_is_sure_and_whole(tmp_path: Path) -> None:
    """Its SHA-256 covers everything: all keys, their history, and etcd's HashKV."""
    found = salvaged(tmp_path, truth().data)
    assert found.is_complete and not found.warnings
    assert content(tmp_path / "new") == truth().now
    assert all(found.sure(key) for key in truth().now)
    with EtcdFile(tmp_path / "damaged.db") as file:
        assert found.hash_kv == file.hash_kv().hash
    assert verify(tmp_path / "new", deep=True).ok


def test_a_cut_snapshot_becomes_a_sound_store(tmp_path: Path) -> None:
    """Cut to 55 %, the root is gone: what is left is true, said to be alone, and the new store passes verification."""
    found = salvaged(tmp_path, truth().data[: len(truth().data) * 55 // 100])
    assert not found.is_complete
    assert any("NO HASH WAS CHECKED" in warning for warning in found.warnings)
    kept_keys = content(tmp_path / "new")
    assert len(kept_keys) > 100 and set(found.levels) == set(kept_keys)
    assert not any(found.sure(key) for key in kept_keys)
    assert verify(tmp_path / "new", deep=True).ok


@pytest.mark.parametrize("unit_bytes", [PAGE, 512, 1])
def test_a_snapshot_that_has_lost_its_beginning_is_known_by_its_pages(
    tmp_path: Path, unit_bytes: int
) -> None:
    """Wherever it is cut, in whole pages or not: what its other pages hold is found, and nothing wrong."""
    known, path = truth(), tmp_path / "damaged.db"
    for tenths in (1, 4, 8):
        lost = len(known.data) * tenths // 10 // unit_bytes * unit_bytes + unit_bytes % PAGE
        path.write_bytes(known.data[lost:])
        evidence = read_database(path)
        found = judge(evidence)
        check_claims(evidence, found, known, believed_from=Level.CHECKSUM)
        assert all(is_true(fact, known) or len(fact.key_value or b"") > PAGE for fact in kept(found))
        leaves = [
            page for page in range(-(-lost // PAGE), len(known.data) // PAGE) if has_rows(known.data, page)
        ]
        assert len({fact.place for fact in evidence.facts}) >= len(leaves) > 0
        assert any("lost its beginning" in line for line in evidence.unread)


def test_a_file_has_not_lost_more_than_files_can_have(tmp_path: Path) -> None:
    """Two pages that agree on a place far below its beginning only look like pages."""
    path = tmp_path / "hostile.db"
    pages = [HEADER.pack((1 << 39) + number, LEAF, 0, 0).ljust(PAGE, b"\0") for number in range(4)]
    path.write_bytes(b"".join(pages))
    with LooseFile(path) as file:
        assert file.pages == 4
        assert file.first_page == 0


def test_what_stands_before_a_snapshot_is_passed_over(tmp_path: Path) -> None:
    """The header of an answer that was saved with it, say: the snapshot after it is whole, and its hash holds."""
    found = salvaged(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n" + truth().data)
    assert found.is_complete and content(tmp_path / "new") == truth().now
    assert all(map(found.sure, truth().now))


def test_values_stay_in_the_file_until_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Salvage of a snapshot, and the hash of what was made of it, have few values in memory at a time."""
    monkeypatch.setattr("kvstore.row_sort.RUN_BYTES", 1 << 20)
    values = {b"k%03d" % number: b"%03d" % number * (20 << 10) for number in range(400)}
    with kvstore.open(tmp_path / "store", durability="off") as store:
        store.put_many(values.items())
        store.compact(store.revision)
        find_foreign("etcd").export_store(store, tmp_path / "snapshot.db")
    tracemalloc.start()
    try:
        salvage(tmp_path / "snapshot.db", tmp_path / "new")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert content(tmp_path / "new") == values
    assert peak_bytes < sum(map(len, values.values())) / 2


def test_a_wrong_hash_is_said_loudly(tmp_path: Path) -> None:
    """A flipped bit in a value leaves the tree as it is; the trailer does not match: nothing is sure, nor complete."""
    data = bytearray(truth().data)
    data[data.rindex(b" at 1501")] ^= 1
    found = salvaged(tmp_path, bytes(data))
    assert any("does NOT match" in warning for warning in found.warnings)
    assert not any(found.sure(key) for key in found.levels)
    assert not found.is_complete and any("SHA-256" in line for line in found.unread)


def test_a_target_that_exists_and_a_file_of_nothing_are_refused(tmp_path: Path) -> None:
    """Nothing is made, and nothing that is there is touched."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").touch()
    with pytest.raises(WrongStore):
        salvaged(tmp_path, truth().data)
    (tmp_path / "garbage").write_bytes(random.Random(1).randbytes(1 << 16))
    with pytest.raises(NotAStore):
        salvage(tmp_path / "garbage", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- logs ---------------------------------------------------------------------------------


def log_directory(tmp_path: Path, log: bytes, database: bytes = b"") -> Path:
    """A data directory of an etcd with this log, zeros at its end included."""
    wal = tmp_path / "etcd" / "member" / "wal"
    wal.mkdir(parents=True)
    with open(wal / "0000000000000000-0000000000000000.wal", "wb") as file:
        file.write(log)
        file.truncate(64_000_000)
    if database:
        (tmp_path / "etcd" / "member" / "snap").mkdir()
        (tmp_path / "etcd" / "member" / "snap" / "db").write_bytes(database)
    return tmp_path / "etcd"


@cache
def log() -> bytes:
    return lzma.decompress((CHURNED / "log.wal.xz").read_bytes()).rstrip(b"\0") + bytes(8)


def test_a_log_alone_makes_the_whole_store(tmp_path: Path) -> None:
    """It begins with the first entry and every checksum holds: all keys are sure."""
    found = salvage(log_directory(tmp_path, log()), tmp_path / "new")
    assert content(tmp_path / "new") == truth().now
    assert all(found.sure(key) for key in truth().now)


def test_entries_after_a_gap_are_not_applied(tmp_path: Path) -> None:
    """A bit is flipped at a place in the log: the state before it is salvaged, and every key may be older."""
    for part in (0.3, 0.6, 0.9):
        data = bytearray(log())
        data[int(len(data) * part)] ^= 4
        place = tmp_path / str(part)
        found = salvage(log_directory(place, bytes(data)), place / "new")
        assert not found.is_complete and found.may_be_older == len(found.levels)
        for key, value in content(place / "new").items():
            assert (key, value) in truth().changes.values()


def test_the_log_after_an_intact_database_is_applied(tmp_path: Path) -> None:
    """An earlier database and the log that goes on: the newest state, what the log wrote being sure."""
    found = salvage(log_directory(tmp_path, log(), truth().earlier[:-32]), tmp_path / "new")
    assert content(tmp_path / "new") == truth().now
    assert found.revision == 1501 and found.keys[Level.CHECKSUM] > 0


def damaged_database() -> bytes:
    """An earlier database, two pages of which are zeros."""
    data = bytearray(truth().earlier[:-32])
    data[20 * PAGE : 22 * PAGE] = bytes(2 * PAGE)
    return bytes(data)


def test_a_log_is_not_applied_to_a_damaged_database(tmp_path: Path) -> None:
    """What its entries did depends on keys that may be missing."""
    with_gap = bytearray(log())
    with_gap[len(with_gap) // 10] ^= 4
    found = salvage(log_directory(tmp_path, bytes(with_gap), damaged_database()), tmp_path / "new")
    assert any("not applied" in line for line in found.unread)
    assert found.may_be_older == len(found.levels) > 0


def test_a_damaged_database_is_not_needed_beside_a_whole_log(tmp_path: Path) -> None:
    """A log that begins with the first entry makes everything, and all of it is sure."""
    found = salvage(log_directory(tmp_path, log(), damaged_database()), tmp_path / "new")
    assert content(tmp_path / "new") == truth().now and "not needed" in found.kind
    assert found.is_complete and all(found.sure(key) for key in truth().now)
