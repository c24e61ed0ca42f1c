"""``kvstore wal dump`` on an etcd data directory: what etcd's own dump tool shows."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import pytest
from kvstore.tools.command import new_app
from kvstore.tools.full import typer_of
from kvstore.tools.wal import register
from typer.testing import CliRunner

from kvstore.errors import Corruption, NotAStore
from kvstore.foreign import find_foreign
from tests.etcd.etcd_samples import untar


@pytest.fixture
def data_dir(samples: Path, tmp_path: Path) -> Path:
    return untar(samples / "tiny_datadir" / "datadir.tar.xz", tmp_path)


def test_every_entry_is_shown_with_its_term_and_index_as_etcds_own_tool_does(
    samples: Path, data_dir: Path
) -> None:
    """Terms, indexes and kinds are those of ``etcd-dump-logs``."""
    with lzma.open(samples / "tiny_datadir" / "etcd-dump-logs.txt.xz", "rt") as file:
        theirs = re.findall(r"^\s+(\d+)\s+(\d+)\s+(conf|norm)", file.read(), re.MULTILINE)
    assert theirs
    ours = [record for record in find_foreign("etcd").dump_log(data_dir) if record.kind == "entry"]
    shown = [
        (
            str(record.detail["term"]),
            str(record.detail["index"]),
            "conf" if record.detail["entry"].startswith("conf") else "norm",
        )
        for record in ours
    ]
    assert shown[-len(theirs) :] == theirs


def test_the_command_shows_text_and_json(data_dir: Path) -> None:
    """The verb recognises the directory by itself; requests are decoded."""
    made = new_app("test")
    register(made)
    app = typer_of(made)
    text = CliRunner().invoke(app, ["wal", "dump", "--data-dir", str(data_dir)]).stdout
    assert "metadata" in text
    assert "put {" in text
    lines = (
        CliRunner().invoke(app, ["wal", "dump", "--json", "--data-dir", str(data_dir)]).stdout.splitlines()
    )
    kinds = {json.loads(line)["type"] for line in lines}
    assert {"crc", "metadata", "entry", "state", "snapshot"} <= kinds


def test_damage_is_named_with_its_place(data_dir: Path) -> None:
    """Records before the damage are shown, then comes the typed error."""
    segment = sorted((data_dir / "member" / "wal").glob("*.wal"))[0]
    records = list(find_foreign("etcd").dump_log(data_dir))
    middle = records[len(records) // 2]
    content = bytearray(segment.read_bytes())
    content[middle.offset + middle.size_bytes - 9] ^= 0x10
    segment.write_bytes(content)
    seen = []
    with pytest.raises(Corruption) as damage:
        for record in find_foreign("etcd").dump_log(data_dir):
            seen.append(record.offset)
    assert damage.value.offset == middle.offset
    assert seen == [record.offset for record in records[: len(records) // 2]]


def test_a_directory_without_a_log_is_not_a_store(tmp_path: Path) -> None:
    """An etcd layout without segments is refused by name."""
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "wal").mkdir()
    with pytest.raises(NotAStore):
        list(find_foreign("etcd").dump_log(tmp_path))
