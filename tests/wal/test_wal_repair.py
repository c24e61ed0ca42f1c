"""``kvstore wal repair``: says what is wrong and what a cut would cost, and cuts only what it was allowed to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools import wal
from kvstore.tools.command import ExitCode

import kvstore
from kvstore import Corruption, Options, Store, layout
from kvstore.recovery import open_engine
from kvstore.testing.crashes import every_crash
from kvstore.testing.recording_disk import UnsyncedDisk
from kvstore.wal.inspect import scan_segment
from kvstore.wal.restart import begin_anew
from tests.harness.command_line import CommandLine, command_line

Repair = Callable[..., tuple[int, Any]]


def open_store(path: Path) -> Store:
    settings = Options(background=False, low_disk_bytes=0, wal_file_size=600, max_wals=0)
    return Store(open_engine(path, settings, UnsyncedDisk()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A killed store: the backend holds the first 5 of 20 entries, the log all of them, in several segments."""
    with open_store(tmp_path / "live") as store:
        for number in range(20):
            store.put(b"k%d" % number, b"v" * 40)
            if number == 4:
                store.checkpoint()
        return Path(shutil.copytree(tmp_path / "live", tmp_path / "data"))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return command_line(monkeypatch, capfd, wal.register)


@pytest.fixture
def repair(data: Path, cli: CommandLine) -> Repair:
    def run_here(*arguments: str) -> tuple[int, Any]:
        code, out, _ = cli("wal", "repair", "--data-dir", str(data), "--json", *arguments)
        return code, json.loads(out)

    return run_here


def batches(data: Path) -> list[tuple[Path, int, int]]:
    """(file, offset, last index) of every batch of the log."""
    return [
        (file.path, found.offset, found.batch.last_index)
        for file in layout.segments(data / "wal")
        for found in scan_segment(file.path)
        if found.batch is not None
    ]


def damage(path: Path, offset: int) -> None:
    """More than one flipped bit, which alone could be flipped back."""
    changed = bytearray(path.read_bytes())
    changed[offset] ^= 8
    changed[offset + 1] ^= 8
    path.write_bytes(changed)


def flip(path: Path, offset: int) -> None:
    changed = bytearray(path.read_bytes())
    changed[offset] ^= 8
    path.write_bytes(changed)


def contents(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "wal").iterdir()}


def test_a_sound_log_needs_no_repair(data: Path, repair: Repair) -> None:
    """Nothing is done, and the exit code is 0."""
    before = contents(data)
    code, said = repair()
    assert (code, said["action"], said["done"], said["last_good_index"]) == (
        ExitCode.OK,
        "nothing",
        False,
        20,
    )
    assert contents(data) == before


def test_a_dry_run_touches_nothing(data: Path, repair: Repair) -> None:
    """It names the place, the last good entry, what would be lost and which segments would be set aside."""
    path, offset, index = batches(data)[11]
    damage(path, offset + 40)
    before = contents(data)
    code, said = repair("--dry-run")
    assert (code, said["done"], said["action"]) == (ExitCode.DAMAGED, False, "cut at the damage")
    assert (said["path"], said["offset"]) == (str(path), offset)
    assert (said["last_good_index"], said["last_lost_index"], said["applied_index"]) == (index - 1, 20, 5)
    assert said["set_aside"] and contents(data) == before


def test_damage_is_not_cut_unless_asked_for(data: Path, repair: Repair) -> None:
    """Entries behind it were acknowledged: refused with exit code 4, nothing touched; opening refuses, too."""
    path, offset, _ = batches(data)[11]
    damage(path, offset + 40)
    before = contents(data)
    assert repair()[0] == ExitCode.DAMAGED
    assert contents(data) == before
    with pytest.raises(Corruption):
        open_store(data)


def test_cutting_to_the_last_good_entry_keeps_copies(data: Path, repair: Repair) -> None:
    """With --to-last-good the store opens with everything before the damage; what was cut is set aside."""
    path, offset, index = batches(data)[11]
    damage(path, offset + 40)
    before = contents(data)
    code, said = repair("--to-last-good")
    assert (code, said["done"]) == (ExitCode.OK, True)
    after = contents(data)
    assert after[path.name + ".broken"].rstrip(b"\0") == before[path.name].rstrip(b"\0")
    for name in map(Path, said["set_aside"]):
        assert after[name.name + ".broken"] == before[name.name] and name.name not in after
    with open_store(data) as store:
        assert {kv.key for kv in store.scan(prefix=b"")} == {b"k%d" % number for number in range(index - 1)}
        store.put(b"on", b"it goes")


def test_an_unfinished_write_is_cut_without_asking(data: Path, repair: Repair) -> None:
    """Nobody was told of it."""
    path, offset, _ = batches(data)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: offset + 30] + bytes(len(content) - offset - 30))
    code, said = repair()
    assert (code, said["done"], "not finished" in said["action"]) == (ExitCode.OK, True, True)
    assert repair()[1]["action"] == "nothing"
    with open_store(data) as store:
        assert store.get(b"k18") is not None and store.get(b"k19") is None


def test_damage_before_what_the_backend_holds_does_not_matter(data: Path, repair: Repair) -> None:
    """In a segment that is not read any more nothing needs to be done."""
    open_store(data).close()  # now the backend holds all 20
    path, offset, _ = batches(data)[2]
    damage(path, offset + 40)
    assert repair()[1]["action"] == "nothing"
    open_store(data).close()


@pytest.mark.parametrize("batch", (-1, -2, 0), ids=("the last record", "an earlier one", "the first of all"))
def test_a_log_that_proves_less_than_the_backend_begins_anew(data: Path, repair: Repair, batch: int) -> None:
    """A cut would leave a gap: all segments are set aside, and the next entry is the one after the backend's."""
    open_store(data).close()
    last = batches(data)[-1]
    damage(last[0], last[1] + 40)
    path, offset, _ = batches(data)[batch] if batch else batches(data)[0]
    damage(path, offset + 20)
    with pytest.raises(Corruption):
        open_store(data)
    before = contents(data)
    code, said = repair()
    assert (code, said["done"], said["last_lost_index"]) == (ExitCode.DAMAGED, False, 0)
    assert "new log" in said["action"] and contents(data) == before
    code, said = repair("--to-last-good")
    assert (code, said["done"]) == (ExitCode.OK, True)
    assert {
        name.removesuffix(".broken"): content for name, content in contents(data).items()
    }.items() >= before.items()
    with open_store(data) as store:
        assert store.count(prefix=b"k") == 20
        store.put(b"on", b"it goes")
    with open_store(data) as store:
        assert store.get(b"on") is not None and store.revision == 22
    assert kvstore.verify(data).findings == ()


def test_a_crash_while_the_log_begins_anew(scratch: Path) -> None:
    """Whatever call it ends in: refused as before, or open with all that the backend holds."""
    with open_store(scratch / "start") as store:
        for number in range(12):
            store.put(b"k%d" % number, b"v" * 40)
        ids = store.engine.cluster_id, store.engine.member_id
    path, offset, _ = batches(scratch / "start")[-1]
    damage(path, offset + 40)

    def workload(disk: Any, root: Path, acknowledge: Any) -> None:
        begin_anew(disk, root / "wal", 12, *ids)
        acknowledge("anew")

    crashes = 0
    for crash in every_crash(scratch, workload, start=scratch / "start"):
        crashes += 1
        try:
            with open_store(crash.directory) as store:
                assert store.count(prefix=b"k") == 12
        except Corruption:
            assert not crash.acknowledged, crash
    assert crashes > 10


def test_what_it_says_to_people(data: Path, cli: CommandLine) -> None:
    """Loudly, and in whole sentences, what is lost."""
    path, offset, _ = batches(data)[11]
    damage(path, offset + 40)
    code, out, _ = cli("wal", "repair", "--data-dir", str(data))
    assert code == ExitCode.DAMAGED
    assert f"at byte {offset}" in out and "--to-last-good" in out and "LOST if that is done" in out
    code, out, _ = cli("wal", "repair", "--data-dir", str(data), "--to-last-good")
    assert code == ExitCode.OK and "LOST: entries" in out


def test_flipped_bits_are_flipped_back(data: Path, cli: CommandLine, repair: Repair) -> None:
    """One bit each in four records and a head: no need to give anything up, and nothing is lost."""
    before = contents(data)
    found = batches(data)
    for number, place in enumerate((0, 30, 31, 8, 12)):
        path, offset, _ = found[6 + 3 * number]
        flip(path, offset + place)
    flip(layout.segments(data / "wal")[-1].path, 30)
    assert repair("--dry-run")[1]["action"] == "flip a bit back"
    with pytest.raises(Corruption, match="kvstore wal repair flips it back, and nothing is lost"):
        open_store(data)
    code, out, _ = cli("wal", "repair", "--data-dir", str(data))
    assert code == ExitCode.OK and out.count("flipped back; nothing was lost") == 6
    assert "needs no repair" in out
    assert contents(data).items() >= before.items()
    with open_store(data) as store:
        assert store.count(prefix=b"k") == 20


def test_bits_are_flipped_back_before_anything_is_given_up(data: Path, repair: Repair) -> None:
    """A flipped bit, and worse damage behind it: the first is mended, the second reported with what it would cost."""
    found = batches(data)
    flip(found[9][0], found[9][1] + 30)
    damage(found[14][0], found[14][1] + 40)
    code, said = repair()
    assert (code, said["action"], said["done"]) == (ExitCode.DAMAGED, "cut at the damage", False)
    assert said["mended"] == [{"path": str(found[9][0]), "offset": found[9][1] + 30, "bit": 3}]
    assert said["last_good_index"] == found[14][2] - 1
