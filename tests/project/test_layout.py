r"""The architecture, as statements about what is absent.

    backends/  migrations/  tools/
         \         |         /            imports point to the core,
          +--> kvstore/ <---+             and the core imports none of them
                 |
             files.py    the only one that syncs, renames, truncates, removes or opens for writing
             layout.py   the only one that spells the names of files

The rules are read from the syntax tree, so a line that never runs breaks them all the same.
"""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from tests import PROJECT

ADAPTERS = ("backends", "migrations", "tools")
FOLDERS = ("kvstore", *ADAPTERS)
LAB = PROJECT / "tools" / "lab"
TESTING = PROJECT / "kvstore" / "testing"


def sources(folder: str) -> list[Path]:
    found = sorted((PROJECT / folder).rglob("*.py"))
    assert found, f"no sources in {folder}/: this test looks in the wrong place"
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"


# --- imports ----------------------------------------------------------------------------


def installed_package(path: Path) -> list[str]:
    """The parts of the package that the module belongs to once installed."""
    parts = list(path.relative_to(PROJECT).parent.parts)
    return parts if parts[0] == "kvstore" else ["kvstore", *parts]


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Each imported name, absolute: ``from ..x import y`` gives ``kvstore.….x`` and ``….x.y``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            package = installed_package(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node, module
            for alias in node.names:
                yield node, f"{module}.{alias.name}"


def adapter_of(name: str) -> str | None:
    """The adapter folder that an absolute name reaches into, whichever way it is spelt."""
    parts = name.removeprefix("kvstore.").split(".")
    return parts[0] if parts[0] in ADAPTERS else None


def crossing_imports(path: Path, tree: ast.Module) -> list[str]:
    home = path.relative_to(PROJECT).parts[0]
    return [
        f"{place(path, node)} imports {name}"
        for node, name in imports(path, tree)
        if adapter_of(name) not in (None, home)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_to_the_core(folder: str) -> None:
    """kvstore/ imports no adapter, and adapters import the core but never each other."""
    assert [line for path in sources(folder) for line in crossing_imports(path, parse(path))] == []


@pytest.mark.parametrize("folder", ADAPTERS)
def test_files_of_one_adapter_folder_import_each_other_relatively(folder: str) -> None:
    """An adapter never spells its own folder's installed name, so type checkers resolve every import."""
    absolute = [
        f"{place(path, node)} imports {name}"
        for path in sources(folder)
        for node, name in imports(path, parse(path))
        if adapter_of(name) == folder and not getattr(node, "level", 0)
    ]
    assert absolute == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kvstore/store.py", "from kvstore.backends.lmdb import LMDBBackend"),
        ("kvstore/store.py", "from . import backends"),
        ("kvstore/mvcc/index.py", "from ..tools import dump"),
        ("backends/lmdb.py", "import kvstore.tools.main"),
        ("tools/main.py", "from kvstore import migrations"),
        ("migrations/etcd/rows.py", "from ...backends import memory"),
        ("migrations/steps.py", "import backends"),
    ],
)
def test_an_import_against_the_direction_is_seen(file: str, line: str) -> None:
    """Each way of spelling a forbidden import is recognised."""
    assert crossing_imports(PROJECT / file, ast.parse(line))


def test_what_is_for_tests_is_imported_by_tests_alone() -> None:
    """Nothing that a user runs needs kvstore/testing, and with it pytest."""
    taken = [
        f"{place(path, node)} imports {name}"
        for folder in FOLDERS
        for path in sources(folder)
        if TESTING not in path.parents
        for node, name in imports(path, parse(path))
        if name.startswith("kvstore.testing")
    ]
    assert taken == []


def test_no_test_module_imports_from_another(project: Path) -> None:
    """What tests share lies in tests/harness, or in a module of its own beside them."""
    taken = [
        f"{place(path, node)} imports {name}"
        for path in sorted((project / "tests").rglob("*.py"))
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [*(alias.name for alias in node.names), getattr(node, "module", "") or ""]
        if re.match(r"test_\w+$", name.rpartition(".")[2])
    ]
    assert taken == []


# --- the seam at the disk -----------------------------------------------------------------

WRITING_CALLS = frozenset(
    "fsync fdatasync sync rename renames replace truncate ftruncate unlink remove rmdir removedirs "
    "link symlink mkdir makedirs write pwrite pwritev writev posix_fallocate sendfile copy_file_range".split()
)
WRITING_FLAGS = frozenset("O_WRONLY O_RDWR O_CREAT O_TRUNC O_APPEND".split())
PATH_ONLY_METHODS = frozenset("write_bytes write_text touch symlink_to hardlink_to".split())


def opens_for_writing(call: ast.Call) -> bool:
    """``open(path, mode)`` whose mode is not plainly one of reading."""
    mode = next((k.value for k in call.keywords if k.arg == "mode"), None)
    if mode is None and len(call.args) > 1:
        mode = call.args[1]
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rbt"))


def writing(node: ast.AST) -> str | None:
    """What the node does to files that only kvstore/files.py may do; None where it does nothing."""
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in WRITING_CALLS | WRITING_FLAGS:
            return f"os.{name}"
        case ast.ImportFrom(module="os", names=names):
            taken = {alias.name for alias in names} & (WRITING_CALLS | WRITING_FLAGS)
            return f"from os import {', '.join(sorted(taken))}" if taken else None
        case ast.Import(names=names) if any(alias.name == "shutil" for alias in names):
            return "import shutil"
        case ast.ImportFrom(module="shutil", names=names) if any(a.name != "disk_usage" for a in names):
            return "from shutil import …"
        case ast.Call(func=ast.Name(id="open")) if opens_for_writing(node):
            return "open for writing"
        case ast.Call(func=ast.Attribute(attr=name)) if name in PATH_ONLY_METHODS:
            return name
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="Path")), attr=name)) if (
            name in WRITING_CALLS
        ):
            return f"Path(…).{name}"
    return None


def test_only_files_py_changes_the_disk() -> None:
    """In kvstore/, only files.py syncs, renames, truncates, removes or opens for writing. (testing/ makes crashes.)"""
    offences = [
        f"{place(path, node)} {what}"
        for path in sources("kvstore")
        if path != PROJECT / "kvstore" / "files.py" and TESTING not in path.parents
        for node in ast.walk(parse(path))
        if (what := writing(node))
    ]
    assert offences == []


@pytest.mark.parametrize(
    "line",
    [
        "os.fsync(fd)",
        "sync = os.fdatasync",
        "from os import rename",
        "os.open(path, os.O_RDWR)",
        "import shutil",
        "open(path, 'wb')",
        "open(path, mode='r+b')",
        "open(path, mode)",
        "path.write_bytes(data)",
        "Path(name).unlink()",
    ],
)
def test_a_write_beside_the_seam_is_seen(line: str) -> None:
    """Each way of changing the disk is recognised."""
    assert any(writing(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["open(path)", "open(path, 'rb')", "text.replace('a', 'b')", "disk.rename(a, b)", "os.stat(path)"]
)
def test_reading_and_the_seam_itself_are_allowed(line: str) -> None:
    """Reading, and asking the disk of files.py to write, break no rule."""
    assert not any(writing(node) for node in ast.walk(ast.parse(line)))


# --- names of files -------------------------------------------------------------------------

FILE_NAME = re.compile(r"\.(wal|snap)\b")


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the constants that stand alone as statements: prose, not names."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def spelt_file_names(tree: ast.Module) -> Iterator[ast.Constant]:
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in prose:
            continue
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str) and FILE_NAME.search(text) and not text.startswith("kvstore."):
            yield node


def test_only_layout_py_spells_file_names() -> None:
    """Inside kvstore/, the endings .wal and .snap are written in layout.py alone."""
    offences = [
        place(path, node)
        for path in sources("kvstore")
        if path != PROJECT / "kvstore" / "layout.py"
        for node in spelt_file_names(parse(path))
    ]
    assert offences == []


def test_a_spelt_file_name_is_seen() -> None:
    """A file ending in code is found, in plain, formatted and byte strings; in prose it is not."""
    code = 'def f(x):\n    """Writes x.wal."""\n    return f"{x:016x}.wal", b"db.snap", "kvstore.wal"\n'
    assert len(list(spelt_file_names(ast.parse(code)))) == 2


# --- what a user gets ------------------------------------------------------------------------


def test_a_wheel_installs_nothing_but_kvstore(tmp_path: Path) -> None:
    """A built wheel holds kvstore/, all modules of the four folders but the lab, the page, py.typed, and metadata.

    It also holds the part in C, if it could be built here, but not its sources.
    Its version is the one that the package tells: it is written down in one place.
    """
    tree, out = tmp_path / "tree", tmp_path / "out"
    for folder in FOLDERS:
        shutil.copytree(PROJECT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("pyproject.toml", "setup.py", "LICENSE", *(p.name for p in PROJECT.glob("README*"))):
        shutil.copy(PROJECT / file, tree / file)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=tree, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    assert wheel.name.split("-")[1] == kvstore.__version__
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"kvstore", "kvstore_mvcc"}
    page = [path for kind in ("css", "js") for path in (PROJECT / "kvstore/ui").glob(f"*.{kind}")]
    expected = {"kvstore/py.typed", *(path.relative_to(PROJECT).as_posix() for path in page)}
    assert len(page) > 1
    for folder in FOLDERS:
        prefix = "" if folder == "kvstore" else "kvstore/"
        expected |= {
            f"{prefix}{path.relative_to(PROJECT).as_posix()}"
            for path in sources(folder)
            if LAB not in path.parents
        }
    built = {name for name in names if re.fullmatch(r"kvstore/_native\..*\.so", name)}
    assert len(built) <= 1
    assert {name for name in names if name.startswith("kvstore/")} - built == expected


HEAVY = ("lmdb", "apsw", "typer", "rich", "prometheus_client", "google.protobuf", "kvstore.etcdpb")


def test_importing_kvstore_loads_no_adapter_and_no_heavy_package() -> None:
    """``import kvstore`` is light: backends, command line and protobuf load when they are first used."""
    unwanted = [*HEAVY, *(f"kvstore.{adapter}" for adapter in ADAPTERS)]
    code = f"import sys, kvstore; print([name for name in {unwanted} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]"
