"""What a run found: a table, JSON, a picture of all goals. (A page of docs: page.py.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .contest import Absent, Contest, Contestant, Outcome, Settings, Verdict
from .peers import module
from .server import SERVER_CPU


def to_json(machine: dict[str, Any], settings: Settings, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "machine": machine,
        "settings": asdict(settings),
        "rows": [outcome.to_json() for outcome in outcomes],
    }


# --- the table -------------------------------------------------------------------------


def print_machine(console: Console, machine: dict[str, Any], settings: Settings) -> None:
    for line in where_and_how(machine, settings):
        console.print(line, highlight=False)
    console.print()


def where_and_how(machine: dict[str, Any], settings: Settings) -> list[str]:
    """The machine, what ran on it, and the size of the run: a line each."""
    sync, versions = machine["fdatasync_us"], machine["versions"]
    slow = f", {settings.sync_delay_ms:g} ms added to every sync" if settings.sync_delay_ms else ""
    size = "" if settings.scale == 1 else f", all sizes × {settings.scale:g}"
    return [
        f"{machine['date']} · {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB "
        f"(load {machine['load_average']:.1f}) · {machine['kernel']} · {machine['file_system']}, "
        f"fdatasync p50 {sync['p50']} µs, p99 {sync['p99']} µs · {machine['python']}",
        f"kvstore at {machine['kvstore']} · {', '.join(f'{name} {which}' for name, which in versions.items())}",
        f"{settings.pairs} rounds of {settings.seconds:g} s, medians (smallest … largest){size}{slow}",
    ]


def print_outcome(console: Console, outcome: Outcome) -> None:
    """One row: its contestants, and the goals of each."""
    contest, row = outcome.contest, outcome.row
    console.print(f"[bold]{escape(row.title)}[/bold] ({row.name})", highlight=False)
    console.print(f"[dim]{escape(row.what)}[/dim]", highlight=False)
    table = Table("", row.unit, "of which", "÷", "ratio", "goal", "", box=None, pad_edge=False)
    for contestant in contest.contestants.values():
        if contestant.samples:
            _add_lines(table, contest, contestant)
    console.print(table)
    for name, reason in contest.skipped.items():
        console.print(f"  skipped: {escape(name)}: {escape(reason)}", highlight=False)
    if outcome.error:
        console.print(f"  [red]failed: {escape(outcome.error)}[/red]", highlight=False)
    console.print()


def _add_lines(table: Table, contest: Contest, contestant: Contestant) -> None:
    for *cells, mark in lines(contest, contestant):
        color = {"met": "green", "missed": "red"}.get(mark)
        table.add_row(*map(escape, cells), f"[{color}]{mark}[/{color}]" if color else mark)


def lines(contest: Contest, contestant: Contestant) -> list[list[str]]:
    """A contestant's cells: name, figure, details, reference, ratio, goal, outcome; a line for each goal."""
    values = contestant.values
    figure = f"{number(contestant.median)} ({number(min(values))} … {number(max(values))})"
    start = [contestant.name, figure, _details(contestant)]
    verdicts = [verdict for verdict in contest.verdicts() if verdict.goal.subject == contestant.name]
    judged = [_judgement(verdict) for verdict in verdicts] or [["", "", "", ""]]
    return [(["", "", ""] if at else start) + cells for at, cells in enumerate(judged)]


def _judgement(verdict: Verdict) -> list[str]:
    goal = verdict.goal
    spread = f"{verdict.ratio:.2f} ({verdict.lowest:.2f} … {verdict.highest:.2f})" if goal.reference else ""
    name = _NAMES.get(goal.of, goal.of)
    return [goal.reference or "", spread, f"{name} {goal}".strip(), "met" if verdict.met else "missed"]


_NAMES = {SERVER_CPU: "CPU", "p99_ms": "p99"}
"""Of details that goals are about."""
_SHORT = {
    "cpu_us_per_op": "CPU {:.1f} µs/op",
    SERVER_CPU: "server CPU {:.0f} µs/op",
    "client_cpu_us_per_op": "client CPU {:.0f} µs/op",
}


def _details(contestant: Contestant) -> str:
    details = contestant.detail_medians()
    parts = [_SHORT[name].format(value) for name, value in details.items() if name in _SHORT]
    parts += [f"{n.replace('_', ' ')} {number(v)}" for n, v in details.items() if n not in _SHORT]
    return ", ".join(parts)


def number(value: float) -> str:
    """Three significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def summary(outcomes: Sequence[Outcome]) -> str:
    verdicts = [verdict for outcome in outcomes for verdict in outcome.contest.verdicts()]
    failed = [outcome.row.name for outcome in outcomes if outcome.error]
    text = f"{sum(verdict.met for verdict in verdicts)} of {len(verdicts)} goals met"
    return f"{text}; failed: {', '.join(failed)}" if failed else text


# --- the picture -----------------------------------------------------------------------


def write_plot(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Every goal as a bar: how many times better than the goal (right of 1) or worse, with its spread."""
    matplotlib = module("matplotlib")
    matplotlib.use("Agg")
    plot = module("matplotlib.pyplot")
    bars = [
        (f"{outcome.row.title}: {_versus(verdict)}", *_times_better(verdict), verdict.met)
        for outcome in outcomes
        for verdict in outcome.contest.verdicts()
    ]
    if not bars:
        raise Absent("nothing to draw: no goal was measured")
    bars.reverse()
    figure, axes = plot.subplots(figsize=(11, 1 + 0.32 * len(bars)), layout="constrained")
    positions = range(len(bars))
    axes.barh(
        positions,
        [middle - 1 for _, _, middle, _, _ in bars],
        left=1,
        color=["#3a7d44" if met else "#b23a48" for *_, met in bars],
        xerr=[[b[2] - b[1] for b in bars], [b[3] - b[2] for b in bars]],
        ecolor="#555555",
    )
    axes.set_yticks(positions, [name for name, *_ in bars], fontsize=8)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("result ÷ goal: right of 1, the goal is met")
    figure.savefig(path, dpi=120)
    plot.close(figure)


def _versus(verdict: Verdict) -> str:
    goal = verdict.goal
    return f"{goal.subject} ÷ {goal.reference}" if goal.reference else goal.subject


def _times_better(verdict: Verdict) -> tuple[float, float, float]:
    """(worst, middle, best), each as a multiple of the goal; never 0, which a logarithm cannot show."""
    values = [max(value, 1e-9) for value in (verdict.lowest, verdict.ratio, verdict.highest)]
    if verdict.goal.at_least is not None:
        times = [value / verdict.goal.at_least for value in values]
    else:
        times = [(verdict.goal.at_most or 0) / value for value in values]
    worst, best = min(times), max(times)
    return worst, min(max(times[1], worst), best), best
