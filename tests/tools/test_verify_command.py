"""``kvstore verify``: what it prints, its exit codes, and ``--heal``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kvstore.tools import verify
from kvstore.tools.command import ExitCode

from kvstore.backend import find_backend
from kvstore.keyvalue import decode_row, encode_key_value
from kvstore.mvcc.schema import LATEST, TABLES
from tests.harness.command_line import CommandLine, command_line
from tests.proof.flips import open_store


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return command_line(monkeypatch, capfd, verify.register)


@pytest.fixture(params=("lmdb", "sqlite"))
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store whose backend has one wrong value."""
    with open_store(tmp_path / "s", request.param) as store:
        for number in range(20):
            store.put(b"k%d" % (number % 4), b"value %d" % number)
    backend = find_backend(request.param).open(tmp_path / "s" / "snap" / "db", TABLES)
    with backend.write() as tx:
        row = tx.get(LATEST, b"k1")
        assert row is not None
        key, created, modified, version, _, lease = decode_row(row)
        tx.put_many(LATEST, [(b"k1", encode_key_value(key, created, modified, version, b"VALUE", lease))])
    backend.close()
    return tmp_path / "s"


def test_what_it_prints(data: Path, cli: CommandLine) -> None:
    """Findings, the first revision that differs, notes, and what was looked at."""
    code, out, _ = cli("verify", "--data-dir", str(data))
    assert code == ExitCode.OK and out.startswith("in order: ") and "4 latest" in out
    code, out, _ = cli("verify", "--deep", "--data-dir", str(data))
    assert code == ExitCode.DAMAGED
    assert "DAMAGED  backend, table latest, key b'k1', revision 19: " in out
    assert "the backend differs from revision 19 on" in out and "note     " in out
    code, out, _ = cli("verify", "--deep", "--json", "--data-dir", str(data))
    facts = json.loads(out)
    assert code == ExitCode.DAMAGED and facts["first_divergent_revision"] == 19 and not facts["ok"]
    assert facts["findings"][0]["table"] == "latest" and facts["counts"]["latest"] == 4


def test_healing(data: Path, cli: CommandLine) -> None:
    """The damage is said, then the store verified anew: exit code 0, and the value is back."""
    code, out, _ = cli("verify", "--deep", "--heal", "--data-dir", str(data))
    assert code == ExitCode.OK
    assert "DAMAGED  backend" in out and "db.broken" in out and "in order: " in out
    assert (data / "snap" / "db.broken").exists()
    with open_store(
        data, "lmdb" if b"SQLite" not in (data / "snap" / "db").read_bytes()[:16] else "sqlite"
    ) as store:
        kv = store.get(b"k1")
        assert kv is not None and kv.value == b"value 17"
    code, out, _ = cli("verify", "--heal", "--data-dir", str(data))
    assert code == ExitCode.OK and "rebuilt" not in out


def test_a_snapshot_file(data: Path, cli: CommandLine, tmp_path: Path) -> None:
    """Given as an argument; a damaged one ends with exit code 4; ``--deep`` makes no sense there."""
    backend = "sqlite" if (data / "snap" / "db").read_bytes().startswith(b"SQLite") else "lmdb"
    with open_store(data, backend) as store:
        path = store.snapshot(tmp_path / "backup").path
    assert cli("verify", str(path))[0] == ExitCode.OK
    assert cli("verify", "--deep", str(path))[0] == ExitCode.USAGE
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = cli("verify", str(path))
    assert code == ExitCode.DAMAGED and str(path) in out


def test_what_is_no_store(cli: CommandLine, tmp_path: Path) -> None:
    """Exit code 3, and nothing on stdout."""
    code, out, err = cli("verify", "--data-dir", str(tmp_path))
    assert code == ExitCode.CANNOT_OPEN and not out and "not a store" in err


def test_what_is_another_programs_is_told_with_what_reads_it(tmp_path: Path, cli: CommandLine) -> None:
    """A data directory of etcd: not a store of ours, and no damage."""
    (tmp_path / "member" / "snap").mkdir(parents=True)
    code, _, err = cli("verify", str(tmp_path))
    assert (
        code == ExitCode.CANNOT_OPEN and "store of etcd" in err and f"kvstore inspect list {tmp_path}" in err
    )
