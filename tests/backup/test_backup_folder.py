"""A folder as target: each object is there whole or not at all, whenever the power goes; and the command."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import backup
from kvstore.backup.errors import NoSuchObject, TargetFailed
from kvstore.backup.targets import Folder, open_target
from kvstore.files import Disk
from kvstore.options import BadOption
from kvstore.testing.crashes import every_crash, every_failure
from tests.backup.places import content, expected, write
from tests.harness.command_line import run


def puts(disk: Disk, root: Path, acknowledge: Callable[[Any], None]) -> None:
    """Three objects, of which one replaces another."""
    target = Folder(root / "to", disk)
    for name, data in (("a/one", b"1" * 700), ("a/b/two", b"2"), ("a/one", b"3" * 900)):
        target.put(name, data)
        acknowledge((name, data))


def check(directory: Path, acknowledged: list[Any], where: str) -> None:
    there = Folder(directory / "to")
    newest = dict(acknowledged)
    for name in there.list():
        assert (name, there.get(name)) in [("a/one", b"1" * 700), ("a/b/two", b"2"), ("a/one", b"3" * 900)], (
            where
        )
    for name, data in newest.items():
        assert there.get(name) in (data, b"3" * 900), where


def test_a_power_cut_at_any_call_leaves_whole_objects(scratch: Path) -> None:
    """What was acknowledged is there, and nothing is there in part."""
    for crash in every_crash(scratch, puts):
        check(crash.directory, crash.acknowledged, str(crash))


def test_a_failing_disk_is_a_failure_of_the_target(scratch: Path) -> None:
    """The follower tries it again; nothing is there in part."""

    def bearing(disk: Disk, root: Path, acknowledge: Callable[[Any], None]) -> None:
        try:
            puts(disk, root, acknowledge)
        except TargetFailed:
            return

    for crash in every_failure(scratch, bearing, 28, chances=1):
        check(crash.directory, crash.acknowledged, str(crash))


def test_names_that_are_not_there(tmp_path: Path) -> None:
    """A missing object is told from a failure, and deleting one is no error."""
    target = open_target(tmp_path / "none")
    assert target.list() == []
    with pytest.raises(NoSuchObject):
        target.get("a")
    target.delete("a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetFailed):
        open_target(tmp_path / "file").put("a", b"")


def test_a_url_that_leads_nowhere_is_refused() -> None:
    """Before anything is read or written."""
    for url in ("", "file://host/path"):
        with pytest.raises(BadOption):
            open_target(url)
    with pytest.raises((kvstore.MissingDependency, BadOption)):
        open_target("nosuchscheme://bucket/path")


def test_the_command_follows_shows_restores_verifies_and_prunes(tmp_path: Path, project: Path) -> None:
    """With a key, by way of the environment; and with what it refuses. The example of a timer verifies."""
    data, to, key = tmp_path / "data", str(tmp_path / "to"), tmp_path / "key"
    key.write_text("ab" * 32 + "\n")
    with kvstore.open(data, backend="sqlite") as store:
        write(store, 20)
    given: dict[str, Any] = {"KVSTORE_BACKUP_KEY_FILE": str(key)}
    none = run(data, "backup", "status", to, "--max-lag", "1h", **given)
    assert none.code == 1 and none.out.endswith(b"there is no complete backup there\n")
    assert run(data, "backup", "follow", "--once", "--to", to, **given).code == 0
    with kvstore.open(data, backend="sqlite") as store:
        write(store, 20)
    done = run(data, "backup", "follow", "--once", "--to", to, "--keep", "2d", "--json", **given)
    assert json.loads(done.out)["revision"] == 41
    shown = json.loads(run(data, "backup", "status", to, "--json", "--max-lag", "1h", **given).out)
    assert shown["revision"] == 41
    assert [each["revisions"] for each in shown["generations"]] == ["21-41"]
    assert run(data, "backup", "status", to).code == 3, "without the key"
    made = run(tmp_path / "made", "backup", "restore", to, "--to-revision", "30", **given)
    assert (made.code, content(tmp_path / "made", backend="sqlite")) == (0, expected(30))
    refused = run(tmp_path / "more", "backup", "restore", to, "--to-time", "2001-01-01", **given)
    assert refused.code == 3
    assert "the nearest that can be had" in refused.err and "(--to-time 20" in refused.err
    unverified = run(data, "backup", "status", to, "--max-unverified", "1h", **given)
    assert unverified.code == 1 and b"never verified" in unverified.out
    unit = (project / "examples" / "serve" / "kvstore-backup-verify.service").read_text()
    (command,) = re.findall(r"^ExecStart=/usr/bin/kvstore (.*)$", unit, re.M)
    here = {"s3://bucket/jobs": to, "/var/tmp": str(tmp_path)}
    assert run(data, *[here.get(word, word) for word in command.split()], **given).code == 0
    verified = run(data, "backup", "status", to, "--max-unverified", "1h", **given)
    assert verified.code == 0 and b"up to revision 41" in verified.out
    assert run(data, "backup", "prune", to, "--keep", "1h", **given).out == b""
    name = next(path for path in Path(to).rglob("*") if path.parent.name == "log")
    os.truncate(name, 100)
    assert run(data, "backup", "verify", to, **given).code == 4
    damaged = run(data, "backup", "status", to, **given)
    assert damaged.code == 1 and b"DAMAGED" in damaged.out
    assert len(backup.status(to, key=bytes.fromhex("ab" * 32)).generations) == 1
