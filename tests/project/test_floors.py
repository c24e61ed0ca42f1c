"""The floors of kvstore/: imports lead down, or to the same floor, and never in a circle.

Imports for type checkers and inside functions count too: who names a thing knows it.
"""

import ast
from functools import cache
from pathlib import Path

from tests import PROJECT

FLOORS = (
    (
        "words",
        "_version _platform checksum implementation errors invariants bell clock wire arguments protobuf",
    ),
    (
        "the machine",
        "plugins layout files options life readers held shelter ongoing loops twins backend row_sort scratch codecs",
    ),
    ("values and requests", "keyvalue model"),
    ("the log", "wal"),
    ("revisions", "mvcc ops former pacing etcdpb auth"),
    ("what an open store shares", "store_lock core replay following"),
    ("watches, writes, snapshots", "watch write snapshot"),
    ("what a store says", "observe.status observe.estimates recognition directory times"),
    ("engines", "reads write.room upkeep engine"),
    (
        "opening and looking through",
        "observe.measuring snapshot.restore verification read_only recovery in_memory",
    ),
    ("beside a store", "observe offline backend_move metrics"),
    ("what people see", "decoding ui"),
    (
        "faces",
        "protocol calls scans compound store opened awaited_writes aio map_view foreign served salvage",
    ),
    ("recipes", "recipes"),
    ("backups and replicas", "backup replica"),
    ("kvstore", "testing adapters __main__"),
    ("the network", "network"),
)
"""From the ground up. A module that is named lives there, others where their folder does."""


def modules() -> dict[str, Path]:
    """Each module of kvstore/ by its name without the package's; the package itself is ""."""
    found = {}
    for path in (PROJECT / "kvstore").rglob("*.py"):
        parts = path.relative_to(PROJECT / "kvstore").with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """The modules of kvstore/ that a module names."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = [
                "kvstore",
                *(name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]),
            ]
            base = (
                ".".join(part for part in package[: len(package) - node.level + 1] if part)
                if node.level
                else ""
            )
            module = ".".join(part for part in (base, node.module or "") if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [full if full.removeprefix("kvstore.") in MODULES else module for full in names]
        else:
            continue
        found |= {
            full.removeprefix("kvstore").removeprefix(".")
            for full in names
            if full.split(".")[0] == "kvstore"
        }
    return {module for module in found if module in MODULES and module != name}


@cache
def floor_of(name: str) -> int:
    """The number of its floor, from below. A module may be placed on its own, else its folder decides."""
    places = {module: number for number, (_, names) in enumerate(FLOORS) for module in names.split()}
    if not name:
        return [floor for floor, _ in FLOORS].index("kvstore")
    return places[name] if name in places else places[name.split(".", maxsplit=1)[0]]


def test_every_module_has_a_floor() -> None:
    """None is without a place, and no place is without a module."""
    for name in MODULES:
        floor_of(name)
    named = {module for _, names in FLOORS for module in names.split()}
    assert named <= set(MODULES)


def test_no_import_leads_back_up() -> None:
    """A module knows those on its own floor and below."""
    rising = [
        f"{name or 'kvstore'} (on {FLOORS[floor_of(name)][0]!r}) imports {other or 'kvstore'}"
        for name in MODULES
        for other in imported(name)
        if floor_of(other) > floor_of(name)
    ]
    assert rising == []


def test_no_imports_form_a_circle() -> None:
    """Modules can be read in an order in which each names only those that came before."""
    left = {name: imported(name) for name in MODULES}
    while ready := {name for name, others in left.items() if not others}:
        left = {name: others - ready for name, others in left.items() if name not in ready}
    assert left == {}
