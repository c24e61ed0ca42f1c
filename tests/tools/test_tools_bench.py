"""The benchmark command: a tiny run of every row, and what it reports. Nothing here depends on how fast anything is."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.command import ExitCode, run
from kvstore.tools.lab import instructions
from kvstore.tools.lab.bench import register
from kvstore.tools.lab.benchmarks import contest as contest_module
from kvstore.tools.lab.benchmarks import page, rows_life
from kvstore.tools.lab.benchmarks.catalogue import ROWS
from kvstore.tools.lab.benchmarks.contest import Contest, Sample, Settings, hold, row
from kvstore.tools.lab.benchmarks.etcd_load import EventCounter, MessageCounter, revision_of, update_message
from kvstore.tools.lab.benchmarks.http2 import grpc_message, prepared
from kvstore.tools.lab.benchmarks.machine import _ours
from kvstore.tools.lab.benchmarks.place import Place
from kvstore.tools.lab.benchmarks.rows_life import _paced
from kvstore.tools.lab.benchmarks.server import RANGE

from kvstore.etcdpb.messages import etcdserverpb as pb

TINY = ["--pairs", "1", "--scale", "0.001", "--seconds", "0.05"]


def _bench(*arguments: str) -> int:
    """The command's exit code. What a run measures does not matter here: nothing is started five times to take the
    median, and no sync of the whole machine, with what all other tests have written, goes before each turn.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        patch.setattr(rows_life, "STARTS", 1)
        patch.setattr("sys.argv", ["bench", *arguments])
        return run(register)


def _run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """A tiny run; its JSON."""
    file = tmp_path / "result.json"
    assert _bench("--dir", str(tmp_path), "--json-file", str(file), *TINY, *arguments) == 0
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.parametrize("name", list(ROWS))
def test_every_row_works_and_reports_completely(name: str, tmp_path: Path) -> None:
    """Each row measures everybody who takes part in every round, and says why others do not."""
    one_of_them = ["--backend", "lmdb"] if name.startswith("wire-") and name != "wire-put-1" else []
    (found,) = _run(tmp_path, "--only", name, *one_of_them)["rows"]
    assert found["name"] == name and not found["error"] and found["what"]
    taking_part = {contestant["name"] for contestant in found["contestants"]}
    assert any(who.startswith("kvstore/") for who in taking_part | set(found["skipped"]))
    for contestant in found["contestants"]:
        assert len(contestant["values"]) == 1
        assert min(contestant["values"]) <= contestant["median"] <= max(contestant["values"])
    for goal in found["goals"]:
        assert {goal["subject"], goal["reference"] or goal["subject"]} <= taking_part
        assert goal["lowest"] <= goal["highest"] and isinstance(goal["met"], bool)
        assert (goal["at_least"] is None) != (goal["at_most"] is None)
    assert all(found["skipped"].values()), "a reason is given"


def test_the_report_says_where_and_how_it_was_measured(tmp_path: Path) -> None:
    """The JSON names the machine, the versions, the file system, the cost of a sync, and the sizes of the run."""
    found = _run(tmp_path, "--only", "memory", "--backend", "lmdb")
    machine = found["machine"]
    assert {"date", "cpu", "cores", "kernel", "python", "file_system", "fdatasync_us", "versions"} <= set(
        machine
    )
    assert machine["versions"]["kvstore-mvcc"] and machine["fdatasync_us"]["p50"] > 0
    assert found["settings"]["pairs"] == 1 and found["settings"]["backends"] == ["lmdb"]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """The directory of a run is removed at its end."""
    _run(tmp_path, "--only", "memory", "--backend", "lmdb")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_slow_disk_is_simulated_where_that_is_possible(tmp_path: Path) -> None:
    """With a delay in every sync, whoever syncs by itself is skipped with that reason, and no put is faster."""
    (found,) = _run(tmp_path, "--only", "put-1", "--sync-delay-ms", "20")["rows"]
    rates = {contestant["name"]: contestant["median"] for contestant in found["contestants"]}
    assert set(rates) == {"kvstore/lmdb", "kvstore/sqlite", "raw pwrite+fdatasync"}
    assert all(rate <= 50 for rate in rates.values())
    assert found["skipped"]["lmdb"] == "its syncs cannot be slowed"


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    """``--plot`` writes a PNG, where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / "result.png"
    _run(tmp_path, "--only", "checkpoint-p99", "--backend", "lmdb", "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_page_is_written_with_a_picture_for_each_area(tmp_path: Path) -> None:
    """``--page`` writes where it was measured, on which build of Python and of ours, a line for each
    contestant and goal, and an SVG of each area, small enough to keep."""
    pytest.importorskip("matplotlib")
    _run(
        tmp_path,
        "--only",
        "checkpoint-p99",
        "--only",
        "watch-delay",
        "--backend",
        "lmdb",
        "--page",
        str(tmp_path),
    )
    text = (tmp_path / f"{page.NAME}.md").read_text()
    assert "PGO" in text and f"kvstore at {_ours()}" in text and "fdatasync p50" in text
    assert "**`checkpoint-p99`**" in text and "| kvstore/lmdb, without |" in text and "≤ 1.3x" in text
    pictures = {path.name: path.read_text() for path in (tmp_path / page.NAME).iterdir()}
    assert set(pictures) == {"open.svg", "watch.svg"} and all(
        f"{page.NAME}/{name}" in text for name in pictures
    )
    assert all("<svg" in picture and len(picture) < 60_000 for picture in pictures.values())


def test_paced_work_is_called_as_often_as_the_pace_says() -> None:
    """So many calls in the time, at least five, and one before the clock runs."""
    calls = list[None]()
    assert _paced(500, 0.02, lambda: calls.append(None)).value >= 0
    assert len(calls) == 1 + 10
    calls.clear()
    _paced(500, 0.002, lambda: calls.append(None))
    assert len(calls) == 1 + 5


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A row that does not exist ends the command with one line and the exit code for usage."""
    assert _bench("--only", "put-2") == ExitCode.USAGE
    assert "no row 'put-2'" in capsys.readouterr().err


def test_list_names_every_row_and_says_what_it_measures(capfd: pytest.CaptureFixture[str]) -> None:
    """``--list`` prints one line for each row, without measuring anything."""
    assert _bench("--list") == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(ROWS)
    assert all(len(line.split("\t")[2]) > 40 for line in lines)


def test_the_documentation_knows_every_row(project: Path) -> None:
    """docs/benchmarks.md has a line for each row."""
    text = (project / "docs" / "benchmarks.md").read_text()
    assert [name for name in ROWS if f"| `{name}` " not in text] == []


def _scripted(values: dict[str, list[float]], **goal: Any) -> Contest:
    """A contest whose contestants measure given values; the first is compared with the second."""
    order: list[str] = []

    def prepare(contest: Contest) -> None:
        """Scripted."""
        for name, samples in values.items():
            left = iter(samples)

            def measure(name: str = name, left: Iterator[float] = left) -> Sample:
                order.append(name)
                return Sample(next(left))

            contest.add(name, measure)
        subject, reference = values
        contest.goal(subject, reference, **goal)

    row("scripted", "scripted", "things")(prepare)
    try:
        with Place() as place:
            outcome = hold(ROWS["scripted"], Settings(pairs=3), place)
    finally:
        del ROWS["scripted"]
    assert not outcome.error
    assert order == [*values] * 3
    return outcome.contest


def test_a_goal_is_a_ratio_of_medians_with_the_spread_of_the_rounds() -> None:
    """Contestants take turns; the ratio is of medians, its spread that of the ratios within a round."""
    (verdict,) = _scripted({"a": [10, 40, 20], "b": [10, 10, 5]}, at_least=2).verdicts()
    assert (verdict.ratio, verdict.lowest, verdict.highest, verdict.met) == (2, 1, 4, True)


def test_a_goal_that_is_missed_is_called_missed() -> None:
    """A ratio above an upper bound misses it, and one below a lower bound too."""
    values = {"a": [10.0, 40.0, 20.0], "b": [10.0, 10.0, 5.0]}
    assert not _scripted(values, at_most=1.9).verdicts()[0].met
    assert not _scripted(values, at_least=2.1).verdicts()[0].met


def test_a_goal_may_be_about_a_detail() -> None:
    """A goal that names a detail of the samples compares that, and says so in the report; others go by the value."""
    contest = Contest(Settings(), Place.__new__(Place))
    for name, costs in (("a", [30.0, 10.0, 20.0]), ("b", [40.0, 40.0, 50.0])):
        contest.add(name, lambda: Sample(1))
        contest.contestants[name].samples += [Sample(7, {"cost": cost}) for cost in costs]
    contest.goal("a", "b", at_most=0.6, of="cost")
    contest.goal("a", at_most=15, of="cost")
    contest.goal("a", "b", at_least=1)
    relative, absolute, plain = contest.verdicts()
    assert (relative.ratio, relative.lowest, relative.highest, relative.met) == (0.5, 0.25, 0.75, True)
    assert (absolute.ratio, absolute.met) == (20, False)
    assert (plain.ratio, plain.goal.of) == (1, "")


def test_a_row_that_fails_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    """An exception in a measurement is that row's error."""

    def prepare(contest: Contest) -> None:
        """Fails."""
        contest.add("kvstore/lmdb", lambda: 1 / 0)  # type: ignore[arg-type, return-value]

    row("failing", "failing", "things")(prepare)
    try:
        assert _bench("--only", "failing", *TINY) == ExitCode.FAILED
    finally:
        del ROWS["failing"]


def test_the_load_generator_counts_events_whatever_the_pieces() -> None:
    """Events in watch responses are counted, however the network cut the messages."""
    from kvstore.wire import bytes_field, int_field

    event = bytes_field(11, bytes_field(2, b"\x0a\x01k" + bytes(300)))
    created = bytes_field(1, int_field(3, 7)) + int_field(3, 1)
    messages = [created, event * 3, bytes_field(1, b"") + event]
    stream = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    for size in (1, 7, 300, len(stream)):
        counter = EventCounter()
        for start in range(0, len(stream), size):
            counter.feed(stream[start : start + size])
        assert counter.created and counter.events == 4


def test_prepared_calls_differ_by_their_stream_alone() -> None:
    """A message larger than a frame goes out in several, each with the stream's number; the last ends the stream."""
    message = bytes(range(256)) * 100
    call = prepared(RANGE, message)
    found, at = [], 0
    sent = (5).to_bytes(4, "big").join(call.pieces)
    while at < len(sent):
        size_bytes, kind, flags = int.from_bytes(sent[at : at + 3], "big"), sent[at + 3], sent[at + 4]
        assert sent[at + 5 : at + 9] == b"\0\0\0\5"
        found.append((kind, flags, sent[at + 9 : at + 9 + size_bytes]))
        at += 9 + size_bytes
    (headers, first, second) = found
    assert headers == (1, 4, RANGE)
    assert first[:2] == (0, 0) and second[:2] == (0, 1)
    assert first[2] + second[2] == grpc_message(message) and call.window_bytes == len(message) + 5


def test_the_load_generator_reads_the_revision_of_an_answer() -> None:
    """The revision stands in the header, among numbers of any size; after it, whether a transaction has succeeded."""
    header = pb.ResponseHeader(cluster_id=(1 << 64) - 1, member_id=3, revision=1_234_567, raft_term=2)
    for succeeded in (True, False):
        answer = pb.TxnResponse(header=header, succeeded=succeeded).SerializeToString()
        assert revision_of(grpc_message(answer)) == (1_234_567, succeeded)
    assert revision_of(grpc_message(pb.PutResponse(header=header).SerializeToString()))[0] == 1_234_567


def test_the_load_generator_updates_as_kube_apiserver_does() -> None:
    """An update compares the mod revision, puts on success, and reads the key otherwise."""
    found = pb.TxnRequest.FromString(update_message(b"k", b"v", 7))
    assert (found.compare[0].key, found.compare[0].mod_revision) == (b"k", 7)
    assert found.compare[0].target == pb.Compare.MOD and found.compare[0].result == pb.Compare.EQUAL
    assert (found.success[0].request_put.key, found.success[0].request_put.value) == (b"k", b"v")
    assert found.failure[0].request_range.key == b"k"


@pytest.mark.parametrize("size", [1, 4, 9, 1000])
def test_the_load_generator_counts_messages_whatever_the_pieces(size: int) -> None:
    """Messages of a stream are counted once they are whole."""
    stream = b"".join(grpc_message(bytes(length)) for length in (0, 3, 300))
    counter = MessageCounter()
    for start in range(0, len(stream) - 1, size):
        counter.feed(stream[start : min(start + size, len(stream) - 1)])
    assert counter.messages == 2
    counter.feed(stream[-1:])
    assert counter.messages == 3


@pytest.mark.parametrize(("implementation", "bound"), [("python", 2), ("native", 4)])
def test_a_goal_may_have_another_bound_with_the_native_core(
    monkeypatch: pytest.MonkeyPatch, implementation: str, bound: float
) -> None:
    """Which one applies is decided by what runs."""
    monkeypatch.setattr(contest_module, "IMPLEMENTATION", implementation)
    assert contest_module.reachable(2, 4) == bound


FAKE_VALGRIND = """#!/bin/sh
for each in "$@"; do case $each in --callgrind-out-file=*) echo "totals: 5000000" >"${each#*=}.1";; esac; done
"""


def test_instructions_are_counted_again_into_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``--keep`` left there has the same names, and an earlier run may have counted more operations."""
    valgrind = tmp_path / "bin" / "valgrind"
    valgrind.parent.mkdir()
    valgrind.write_text(FAKE_VALGRIND)
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(valgrind.parent), prepend=os.pathsep)
    kept = tmp_path / "kept"
    assert instructions.count(tmp_path, ["get"], "python", kept) == [5.0]
    (kept / "callgrind.python.2").write_text("totals: 1\n")
    assert instructions.count(tmp_path, ["get"], "python", kept) == [5.0]
    assert os.listdir(kept) == ["callgrind.python.1"]
