"""docs/troubles.md, as a new user would follow it: every command is run, and says what the page says it does.

A block is commands, after "$ ", each with lines that its output has, in this order, among others. A line of the page is
the beginning of a line of the output, blanks apart.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from kvstore.tools.lab.kubernetes_like import write_snapshot

import kvstore
from tests.etcd.etcd_samples import untar, unxz
from tests.etcd.etcd_servers import etcd
from tests.harness.command_line import run

DAMAGED = "tests/fixtures/samples/damaged"


class Step(NamedTuple):
    command: str
    shown: list[str]


def steps(project: Path, chapter: str) -> Iterator[Step]:
    """The commands of a chapter, with what the page shows of their output."""
    page = (project / "docs" / "troubles.md").read_text()
    (text,) = [part for part in page.split("\n## ") if part.startswith(chapter)]
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield Step(command.split("  #")[0], shown)


def follow(step: Step, replaced: dict[str, str] | None = None) -> None:
    """Run a command in this folder; kvstore's inside this process."""
    command = step.command
    for old, new in (replaced or {}).items():
        command = command.replace(old, new)
    words, source, target = shlex.split(command), "", ""
    if len(words) > 2 and words[-2] in ("<", ">"):
        *words, sign, name = words
        source, target = (name, "") if sign == "<" else ("", name)
    if words[0] == "kvstore":
        done = run(Path("none"), *words[1:], stdin=Path(source).read_bytes() if source else b"")
        code, output, errors = done.code, done.out, done.err
    else:
        if shutil.which(words[0]) is None:
            pytest.skip(f"no {words[0]} on PATH")
        ended = subprocess.run(
            words, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}, check=False
        )
        code, output, errors = ended.returncode, ended.stdout, ended.stderr.decode()
    if target:
        Path(target).write_bytes(output)
    is_report = words[1:2] in (["doctor"], ["salvage"]) or words[1:3] == ["inspect", "bbolt"]
    assert code == 0 or is_report, f"{command}: {errors}"
    lines = iter([" ".join(line.split()) for line in (output.decode() + errors).splitlines()])
    for wanted in step.shown:
        expected = " ".join(wanted.split())
        assert any(line.startswith(expected) or f": {expected}" in line for line in lines), (
            f"{command} does not say {expected!r}:\n{output.decode()}{errors}"
        )


def test_an_etcd_that_is_full(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, filled beyond its quota: afterwards it takes writes again."""
    if shutil.which("etcd") is None:
        pytest.skip("no etcd on PATH")
    monkeypatch.chdir(tmp_path)
    with etcd(tmp_path / "etcd", tmp_path / "log", "--quota-backend-bytes", "2000000") as server:
        with kvstore.connect(server.endpoint) as client, pytest.raises(kvstore.QuotaExceeded):
            for number in range(1000):
                client.put(b"k%d" % (number % 10), bytes(20_000))
        for step in steps(project, "My etcd is full"):
            with kvstore.connect(server.endpoint) as client:
                replaced = {
                    "http://127.0.0.1:2379": server.endpoint,
                    "compact 150": f"compact {client.revision}",
                }
            follow(step, replaced)
        with kvstore.connect(server.endpoint) as client:
            assert client.get(b"it") is not None and client.status().size_bytes < 1_000_000


def test_an_etcd_that_does_not_start(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real directory with both meta pages of its database damaged, and a snapshot that was cut."""
    monkeypatch.chdir(tmp_path)
    samples = project / DAMAGED
    shutil.move(untar(samples / "good-datadir.tar.xz", tmp_path / "unpacked"), tmp_path / "etcd-data")
    unxz(samples / "db-bitflip-both-metas.db.xz", tmp_path / "etcd-data" / "member" / "snap" / "db")
    unxz(samples / "snapshot-truncated.db.xz", tmp_path / "cut.db")
    for step in steps(project, "My etcd does not start"):
        follow(step)


def test_who_changed_an_object(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot like that of a Kubernetes cluster."""
    monkeypatch.chdir(tmp_path)
    write_snapshot(tmp_path / "cluster.db", 0.5)
    for step in steps(project, "Who changed this object"):
        follow(step)


def test_a_restore_to_a_moment_before_the_mistake(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment is the one before the keys were deleted."""
    monkeypatch.chdir(tmp_path)
    moment = ""
    for step in steps(project, "Restore to five minutes ago"):
        if " del " in step.command:
            moment = datetime.now(UTC).isoformat()
            time.sleep(0.005)  # the log's times are in milliseconds
        follow(step, {"$FIVE_MINUTES_AGO": moment})
