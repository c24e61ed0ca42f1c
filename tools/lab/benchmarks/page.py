"""The page of docs that a run writes: where and how it was measured, and for each area a picture and its rows.

A picture has a panel for each row, a bar for each contestant: its median, with a line from the smallest to the largest
sample. Ours are drawn in one color.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from . import report
from .contest import IMPLEMENTATION, Contestant, Outcome, Settings
from .peers import module

AREAS = {
    "write": "Writes",
    "read": "Reads",
    "open": "Opening and memory",
    "watch": "Watches",
    "upkeep": "Upkeep",
    "life": "Now and then",
    "growth": "Growth",
    "wire": "On the network",
}
NAME = "measured" if IMPLEMENTATION == "native" else f"measured-{IMPLEMENTATION}"
"""Of the page, and of the folder of its pictures."""
OURS, OTHERS = "#3a7d44", "#9aa5b1"
INCHES = 9.0
INCHES_A_BAR = 0.19
INCHES_A_PANEL = 0.75
LOGARITHMIC_FROM = 20.0
"""Times that the longest bar of a panel is as long as the shortest."""

_TITLE = "# Measured" if IMPLEMENTATION == "native" else "# Measured, without the part in C"
_OPENING = f"""{_TITLE}

What a run of the benchmark found, as `make bench` writes it: nothing here was put in by hand. What the rows mean and
how they are measured: [benchmarks.md](benchmarks.md). A ratio is that of two medians, followed by the smallest and the
largest ratio within one round.
"""
_HEAD = "| | unit | median | of which | ÷ | ratio | goal | |\n|---|---|---|---|---|---|---|---|"


def write(folder: Path, machine: dict[str, Any], settings: Settings, outcomes: Sequence[Outcome]) -> None:
    """The page in ``folder``, and its pictures in a folder beside it. Raises ``Absent`` without matplotlib."""
    (folder / NAME).mkdir(exist_ok=True)
    parts = [_OPENING, *(f"{line}  " for line in report.where_and_how(machine, settings)), ""]
    for area, some in groupby(outcomes, key=lambda outcome: outcome.row.area):
        rows = list(some)
        _draw(folder / NAME / f"{area}.svg", rows)
        title = AREAS.get(area, area)
        parts += [f"## {title}\n", f"![{title}]({NAME}/{area}.svg)\n", _HEAD]
        for outcome in rows:
            parts += _table_lines(outcome)
        parts += ["", *_notes(rows)]
    (folder / f"{NAME}.md").write_text("\n".join(parts).rstrip() + "\n")


def _table_lines(outcome: Outcome) -> list[str]:
    start = f"**`{outcome.row.name}`** {outcome.row.title}"
    found = [f"| {start} | {outcome.row.unit} | | | | | | |"]
    for contestant in _who(outcome):
        for name, figure, *rest in report.lines(outcome.contest, contestant):
            found.append(f"| {name} | | {figure} | {' | '.join(rest)} |")
    return found


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Who did not take part, and what failed."""
    notes = [
        f"* `{outcome.row.name}`: {name} was left out: {reason}"
        for outcome in outcomes
        for name, reason in outcome.contest.skipped.items()
    ]
    notes += [f"* `{outcome.row.name}` failed: {outcome.error}" for outcome in outcomes if outcome.error]
    return [*notes, ""] if notes else []


def _who(outcome: Outcome) -> list[Contestant]:
    return [contestant for contestant in outcome.contest.contestants.values() if contestant.samples]


def _draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    matplotlib = module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: a tenth of the bytes
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures make the same file
    plot = module("matplotlib.pyplot")
    shown = [outcome for outcome in outcomes if _who(outcome)]
    heights = [INCHES_A_PANEL + INCHES_A_BAR * len(_who(outcome)) for outcome in shown]
    figure, panels = plot.subplots(
        max(len(shown), 1),
        figsize=(INCHES, sum(heights) or 1),
        height_ratios=heights or [1],
        squeeze=False,
        layout="constrained",
    )
    for outcome, panel in zip(shown, panels[:, 0], strict=False):
        _draw_panel(panel, outcome)
    figure.savefig(path, metadata={"Date": None})
    plot.close(figure)


def _draw_panel(panel: Any, outcome: Outcome) -> None:
    who = _who(outcome)[::-1]
    medians = [contestant.median for contestant in who]
    spread = [
        [contestant.median - min(contestant.values) for contestant in who],
        [max(contestant.values) - contestant.median for contestant in who],
    ]
    colors = [OURS if contestant.name.startswith("kvstore") else OTHERS for contestant in who]
    panel.barh(
        range(len(who)), medians, color=colors, xerr=spread, ecolor="#333333", error_kw={"linewidth": 0.8}
    )
    panel.set_yticks(range(len(who)), [contestant.name for contestant in who], fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_title(f"{outcome.row.name}: {outcome.row.title} ({outcome.row.unit})", fontsize=8, loc="left")
    if min(medians) > 0 and max(medians) > LOGARITHMIC_FROM * min(medians):
        panel.set_xscale("log")
