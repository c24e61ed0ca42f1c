"""The benchmark command: a tiny run of every row, and what it reports. Nothing here depends on how fast anything is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kvstore.tools.command import ExitCode, run
from kvstore.tools.lab.bench import register
from kvstore.tools.lab.benchmarks.catalogue import ROWS
from kvstore.tools.lab.benchmarks.contest import Contest, Sample, Settings, hold, row
from kvstore.tools.lab.benchmarks.etcd_load import EventCounter
from kvstore.tools.lab.benchmarks.place import Place

TINY = ["--pairs", "1", "--scale", "0.001", "--seconds", "0.05"]


def _bench(*arguments: str) -> int:
    """The command's exit code."""
    with pytest.MonkeyPatch.context() as patch:
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
    (found,) = _run(tmp_path, "--only", name)["rows"]
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


def _scripted(values: dict[str, list[float]], **goal: float) -> Contest:
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
