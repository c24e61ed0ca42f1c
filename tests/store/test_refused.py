"""What is not the store that was asked for, and options that make no sense, are refused, and nothing is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import kvstore
from kvstore import (
    BadOption,
    Corruption,
    NotAStore,
    OpenError,
    TooNew,
    WrongStore,
)
from kvstore.backend import find_backend
from kvstore.mvcc.schema import FORMAT_VERSION, META, META_FORMAT, TABLES, pack_u64
from kvstore.verification import heal
from tests.store.folders import PERSISTENT, contents

# --- what is not the store that was asked for -----------------------------------------------------


def test_another_backend_is_named(scratch: Path) -> None:
    """WrongStore says which backend the store is on, whichever is asked for."""
    for made in PERSISTENT:
        kvstore.open(scratch / made, made).close()
        for asked in PERSISTENT:
            if asked != made:
                with pytest.raises(WrongStore, match=made):
                    kvstore.open(scratch / made, asked)
        kvstore.open(scratch / made, made).close()


def test_an_unknown_backend_is_refused_with_the_list(scratch: Path) -> None:
    """The error names what is installed, and leaves nothing behind."""
    with pytest.raises(OpenError, match="lmdb, memory, sqlite"):
        kvstore.open(scratch / "data", "bolt")


def test_a_foreign_directory_is_left_alone(scratch: Path) -> None:
    """A directory with other files in it, and a file, are NotAStore; not a byte of them changes."""
    (scratch / "photos").mkdir()
    (scratch / "photos" / "cat.jpg").write_bytes(b"meow")
    (scratch / "file").write_bytes(b"text")
    for name in ("photos", "file"):
        with pytest.raises(NotAStore):
            kvstore.open(scratch / name)
    assert contents(scratch) == {"photos/cat.jpg": b"meow", "file": b"text"}
    with pytest.raises((NotAStore, FileNotFoundError)):
        kvstore.open(scratch / "absent", read_only=True)
    assert not (scratch / "absent").exists()


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_newer_format_is_not_touched(scratch: Path, backend: str) -> None:
    """TooNew, and the files are as they were. Above all it is not healed, as if it were damaged."""
    kvstore.open(scratch / "data", backend).close()
    opened = find_backend(backend).open(scratch / "data" / "snap" / "db", TABLES)
    with opened.write() as tx:
        tx.put_many(META, [(META_FORMAT, pack_u64(FORMAT_VERSION + 1))])
    opened.sync()
    opened.close()
    before = contents(scratch)
    with pytest.raises(TooNew):
        kvstore.open(scratch / "data", backend)
    assert contents(scratch) == before
    report = kvstore.verify(scratch / "data")
    assert "newer version" in " ".join(report.notes) and "--heal" not in " ".join(report.notes)
    with pytest.raises(TooNew):
        heal(scratch / "data")
    assert {name: data for name, data in contents(scratch).items() if data} == before


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_backend_without_its_log_is_corruption(scratch: Path, backend: str) -> None:
    """Where the log is gone, opening says so, instead of beginning a new one."""
    with kvstore.open(scratch / "data", backend) as store:
        store.put(b"k")
    shutil.rmtree(scratch / "data" / "wal")
    with pytest.raises(Corruption, match="log"):
        kvstore.open(scratch / "data", backend)


@pytest.mark.parametrize("backend", PERSISTENT)
def test_a_log_without_its_backend_is_enough(scratch: Path, backend: str) -> None:
    """A complete log rebuilds the backend, the past included."""
    with kvstore.open(scratch / "data", backend) as store:
        for number in range(20):
            store.put(b"k%d" % (number % 3), b"%d" % number)
        expected = store.hash_kv()
    for path in (scratch / "data" / "snap").iterdir():
        path.unlink()
    with kvstore.open(scratch / "data", backend) as store:
        assert store.hash_kv() == expected
        kv = store.get(b"k0", revision=2)
        assert kv is not None
        assert kv.value == b"0"


@pytest.mark.parametrize("backend", PERSISTENT)
def test_the_log_of_another_store_is_refused(scratch: Path, backend: str) -> None:
    """A log folder of another cluster is WrongStore, and neither store is changed."""
    for name in ("one", "two"):
        with kvstore.open(scratch / name, backend) as store:
            store.put(b"k", name.encode())
    shutil.rmtree(scratch / "one" / "wal")
    shutil.copytree(scratch / "two" / "wal", scratch / "one" / "wal")
    before = contents(scratch)
    with pytest.raises(WrongStore):
        kvstore.open(scratch / "one", backend)
    assert contents(scratch) == before


@pytest.mark.parametrize("folder", ["wal", "snap"])
def test_symbolic_links_inside_are_not_followed(scratch: Path, folder: str) -> None:
    """A folder of the store that is a link to elsewhere is refused; nothing is written there."""
    (scratch / "elsewhere").mkdir()
    (scratch / "data").mkdir()
    (scratch / "data" / folder).symlink_to(scratch / "elsewhere")
    with pytest.raises(NotAStore, match="symbolic link"):
        kvstore.open(scratch / "data")
    assert list((scratch / "elsewhere").iterdir()) == []


def test_files_are_for_their_owner_alone(scratch: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with kvstore.open(scratch / "data") as store:
            store.put(b"k")
            store.snapshot()
    finally:
        os.umask(before)
    for path in [scratch / "data", *(scratch / "data").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


# --- options -------------------------------------------------------------------------------------


def test_options_come_from_the_environment(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVSTORE_<NAME> sets an option; an argument of open goes before it."""
    monkeypatch.setenv("KVSTORE_BACKEND", "sqlite")
    monkeypatch.setenv("KVSTORE_MAX_TXN_OPS", "2")
    monkeypatch.setenv("KVSTORE_WAL_DIR", str(scratch / "log"))
    with kvstore.open(scratch / "data", max_wals=7) as store:
        assert store.engine.backend.name == "sqlite"
        assert (store.engine.options.max_txn_ops, store.engine.options.max_wals) == (2, 7)
        assert list((scratch / "log").glob("*.wal"))
    with kvstore.open(scratch / "other", "memory", wal_dir="", max_txn_ops=3) as store:
        assert (store.engine.backend.name, store.engine.options.max_txn_ops) == ("memory", 3)


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "sometimes"},
        {"wal_file_size": 0},
        {"max_wals": -1},
        {"no_such_option": 1},
        {"auto_defragment_ratio": 1.0},
        {"lease_restart_policy": "forget"},
    ],
    ids=str,
)
def test_a_bad_option_is_refused_before_anything_is_touched(scratch: Path, options: dict[str, Any]) -> None:
    """BadOption names the option."""
    with pytest.raises(BadOption, match=next(iter(options))):
        kvstore.open(scratch / "data", **options)
    assert not (scratch / "data").exists()


def test_a_bad_environment_variable_is_named(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one whose text is no value of its option."""
    monkeypatch.setenv("KVSTORE_MAX_WALS", "many")
    with pytest.raises(BadOption, match="KVSTORE_MAX_WALS"):
        kvstore.open(scratch / "data")


BAD_ARGUMENTS: list[Callable[[Any], Any]] = [
    lambda store: store.put("text"),
    lambda store: store.put(b"k", "text"),
    lambda store: store.put(b"k", lease="1"),
    lambda store: store.grant_lease("10"),
    lambda store: store.grant_lease(10, "1"),
    lambda store: store.grant_lease(10, 1 << 64),
    lambda store: store.compact("2"),
    lambda store: store.compact(1.5),
    lambda store: store.txn(success=[kvstore.ops.get(b"k", revision=cast(Any, "2"))]),
    lambda store: store.txn(success=[kvstore.ops.put(b"k"), kvstore.ops.get(b"l", limit=cast(Any, "2"))]),
    lambda store: store.txn(success=["put"]),
    lambda store: store.txn(compare=[kvstore.version(b"k") == "1"]),
    lambda store: store.txn(compare=[kvstore.version(b"k") > 1.5]),
    lambda store: store.txn(compare=[kvstore.value(b"k") > 1]),
]


@pytest.mark.parametrize("number", range(len(BAD_ARGUMENTS)))
def test_an_argument_of_the_wrong_type_harms_nothing(scratch: Path, number: int) -> None:
    """The caller's mistake is a TypeError (or an error of ours), and the store goes on."""
    with kvstore.open(scratch / "data", "memory") as store:
        store.put(b"k")
        with pytest.raises((TypeError, kvstore.RequestError)):
            BAD_ARGUMENTS[number](store)
        assert store.put(b"k").revision == 3
