"""What the documents say of the code is so: options, verbs, the map, files, names, errors, invariants, metrics."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from kvstore.tools.command import new_app
from kvstore.tools.full import typer_of
from kvstore.tools.main import COMMANDS

from kvstore import errors, metrics
from kvstore.network import flags
from kvstore.options import Options
from tests import PROJECT
from tests.project.named_tests import names_of

FOLDERS = ("kvstore", "backends", "migrations", "tools", "tests")
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(PROJECT.glob("docs/*.md")), PROJECT / "tests" / "README.md"]
MAP = PROJECT / "ARCHITECTURE.md"


def rows_of(page: Path, header: str) -> Iterator[list[str]]:
    """The cells of each row of the tables whose header begins so."""
    inside = False
    for line in page.read_text().splitlines():
        if line.startswith(header):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|--"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# --- options ------------------------------------------------------------------------------


def test_option_tables_give_the_defaults_and_units_that_are_used() -> None:
    """Every table of options: the names exist, and default and unit are those of ``Options``."""
    known = {field.name: field.default for field in fields(Options)}
    seen = 0
    for page in PAGES:
        for cells in rows_of(page, "| option | default |"):
            names, told = quoted(cells[0]), cells[1].split(" (")[0].split(", ")
            assert len(names) == len(told), (page.name, cells)
            for name, default in zip(names, told, strict=True):
                value = known[name]
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                wanted = f"{value:,}".removesuffix(".0") if is_number else f"`{value!r}`"
                assert default == wanted, (page.name, name)
                if page.name == "options.md":
                    for suffix, unit in (("_seconds", "seconds"), ("_bytes", "bytes")):
                        assert not name.endswith(suffix) or cells[2] == unit, name
                seen += 1
    assert seen > len(known)  # some of them on more than one page


def test_every_option_is_documented() -> None:
    """docs/options.md has each option, once."""
    rows = rows_of(PROJECT / "docs" / "options.md", "| option | default |")
    named = [name for cells in rows for name in quoted(cells[0])]
    assert sorted(named) == sorted(field.name for field in fields(Options))


# --- the command line ---------------------------------------------------------------------


def verbs() -> dict[str, Any]:
    """Every verb that a user sees, sub-commands as ``group verb``."""
    app = new_app("")
    for name in COMMANDS:
        import_module(f"kvstore.tools.{name}").register(app)
    found: dict[str, Any] = {}
    root: Any = typer.main.get_command(typer_of(app))
    for name, command in root.commands.items():
        if inside := getattr(command, "commands", None):
            found |= {f"{name} {sub}": each for sub, each in inside.items()}
        elif not command.hidden:
            found[name] = command
    return found


def test_every_verb_is_documented_and_no_other() -> None:
    """docs/command-line.md has a row for each verb and sub-command, and names no option that they do not have."""
    known = verbs()
    groups = {name.split()[0] for name in known if " " in name}
    documented = set()
    for cells in rows_of(PROJECT / "docs" / "command-line.md", "| verb |"):
        said = [name.split() for name in quoted(cells[0])]
        of_row = {" ".join(words[: 2 if words[0] in groups else 1]) for words in said}
        documented |= of_row
        assert of_row <= known.keys(), cells[0]
        options = {
            name
            for verb in of_row
            for parameter in known[verb].params
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(re.findall(r"--[\w-]+", " ".join(cells))) <= options, cells[0]
    assert documented == known.keys()


def test_the_tables_of_flags_are_those_of_the_code() -> None:
    """docs/serving.md has every flag with its default and text, in order; every one that is ignored, or refused."""
    page = PROJECT / "docs" / "serving.md"
    told = [
        (cells[0], cells[1], cells[2].replace("\\|", "|")) for cells in rows_of(page, "| flag | default |")
    ]
    assert told == [
        (f"`--{flag.name}`", f"`{flag.shown_default}`" if flag.shown_default else "", flag.text)
        for _, chapter in flags.MEANT
        for flag in chapter
    ]
    ignored = page.read_text().partition("### Ignored")[2].partition("### Refused")[0]
    assert quoted(ignored) == [flag.name for flag in flags.IGNORED]
    refused = [
        (name.removeprefix("--"), cells[2])
        for cells in rows_of(page, "| flag | accepted all the same |")
        for name in quoted(cells[0])
    ]
    assert sorted(refused) == sorted((flag.name, flag.text) for flag in flags.REFUSED)


# --- the map ------------------------------------------------------------------------------


def modules_of(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_the_map_names_every_module_and_no_other() -> None:
    """ARCHITECTURE.md, "Map": a row for every module of kvstore/, and in the row of a folder every module in it."""
    core = PROJECT / "kvstore"
    folders = {path.parent.name for path in core.glob("*/__init__.py")}
    single = set()
    mapped = set()
    for cells in rows_of(MAP, "| module | what it does |"):
        names = quoted(cells[0])
        if names[0].endswith("/"):
            folder = names[0][:-1]
            mapped.add(folder)
            inside = modules_of(core / folder)
            told = set(quoted(cells[1])) - {"LocalEngine", "Engine"}
            assert told == inside, f"{folder}/: {sorted(told ^ inside)}"
        else:
            single |= set(names)
    assert mapped == folders
    assert single == modules_of(core)
    for cells in rows_of(MAP, "| folder | what it holds |"):
        for name in quoted(cells[0]):
            assert (PROJECT / name).is_dir(), name


def test_files_that_are_cited_exist() -> None:
    """Every path of ours that a page, a docstring or a comment names; and what the pages run with ``python -m``."""
    files = {str(path.relative_to(PROJECT)) for folder in FOLDERS for path in (PROJECT / folder).rglob("*")}
    files |= {path.name for path in PROJECT.iterdir()} | {f"docs/{page.name}" for page in PAGES}
    for folder in ("examples", "docs"):
        files |= {str(path.relative_to(PROJECT)) for path in (PROJECT / folder).rglob("*")}
    sources = [path for folder in FOLDERS[:4] for path in (PROJECT / folder).rglob("*.py")]
    cited: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        found = re.findall(r"(?<![\w/.-])((?:[\w-]+/)*[\w-]+\.(?:py|c|toml|md))(?![\w/-])", text)
        found += re.findall(r"`((?:kvstore|backends|migrations|tools|tests|docs)/[\w./-]*)`", text)
        found += [
            module.replace(".", "/") for module in re.findall(r"python -m ((?:kvstore|tests)\.[\w.]+)", text)
        ]
        cited |= dict.fromkeys(found, page.name)
    for source in sources:
        for name in re.findall(r"(?<![\w/.{}*-])((?:[\w-]+/)*\w+\.py)\b", source.read_text()):
            cited[name] = str(source.relative_to(PROJECT))
    assert len(cited) > 100
    gone = {}
    for name, where in cited.items():
        wanted = re.sub(r"^kvstore/(?=backends/|migrations/|tools/)", "", name).rstrip("/")
        if not any(has(files, each) for each in (wanted, f"{wanted}.py")):
            gone[name] = where
    assert gone == {}


def has(files: set[str], wanted: str) -> bool:
    """Whether there is such a file, also by the end of its path."""
    return wanted in files or any(each.endswith(f"/{wanted}") for each in files)


def test_names_of_the_code_in_the_architecture_exist() -> None:
    """``Class.member`` in ARCHITECTURE.md and CONTRIBUTING.md is a member of such a class."""
    members: dict[str, set[str]] = {}
    for folder in FOLDERS[:4]:
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    for each in ast.walk(node):
                        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                            members.setdefault(node.name, set()).add(each.name)
                        elif isinstance(each, ast.Name | ast.Attribute) and isinstance(each.ctx, ast.Store):
                            name = each.id if isinstance(each, ast.Name) else each.attr
                            members.setdefault(node.name, set()).add(name)
    for page in (MAP, PROJECT / "CONTRIBUTING.md"):
        for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)[`(]", page.read_text()):
            assert name in members.get(owner, set()), f"{page.name}: {owner}.{name}"


# --- errors, invariants, metrics ------------------------------------------------------------


def test_the_tree_of_errors_is_drawn_whole() -> None:
    """The head of errors.py draws every class, below its parent, and no other."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([ |`-]*)((?:[A-Z]\w+(?:, )?)+)", line):
            depth = len(match[1])
            above = [each for each in above if each[0] < depth]
            for name in match[2].strip(", ").split(", "):
                drawn[name] = above[-1][1] if above else ""
            above.append((depth, match[2].split(",")[0]))
    tree = {
        name: next((base.__name__ for base in value.__bases__ if issubclass(base, errors.KVStoreError)), "")
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.KVStoreError)
    }
    assert drawn == tree


def test_each_invariant_names_where_it_is_kept_and_tested() -> None:
    """The numbered list and the table have the same numbers; checks at run time are in the modules that a row names."""
    text = MAP.read_text()
    listed = re.findall(r"^(\d+)\. ", text.partition("## Invariants")[2].partition("\n## ")[0], re.MULTILINE)
    rows = {cells[0]: cells for cells in rows_of(MAP, "| | kept and checked in |")}
    assert list(rows) == listed == [str(number + 1) for number in range(11)]
    tests = names_of(PROJECT)
    for cells in rows.values():
        assert quoted(cells[1]) and all((PROJECT / name).is_file() for name in quoted(cells[1])), cells
        assert quoted(cells[2]) and set(quoted(cells[2])) <= tests, cells
    for path in (PROJECT / "kvstore").rglob("*.py"):
        for number in re.findall(r"\bhold\(\s*(\d+),", path.read_text()):
            assert str(path.relative_to(PROJECT)) in quoted(rows[number][1]), f"{number} is checked in {path}"


def test_metrics_of_the_guide_exist() -> None:
    """Every metric that docs/guide.md writes out is one that a store shows."""
    known = (
        set(metrics.GAUGES)
        | set(metrics.TOTALS)
        | set(metrics.HISTOGRAMS)
        | set(metrics.BACKUPS)
        | set(metrics.REPLICA)
    )
    known |= {f"{name}_total" for name in (*metrics.DONE, *metrics.COUNTERS)}
    named = set(re.findall(r"`((?:etcd|kvstore)_[a-z_]+[a-z])`", (PROJECT / "docs" / "guide.md").read_text()))
    assert len(named) > 15
    assert named - known == set()
