"""The source distribution is the tree: all of it is there, and its own tests run where it is unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

FOLDERS = ("kvstore", "backends", "migrations", "tools", "tests", "docs", "examples")
FILES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "mkdocs.yml",
    "Makefile",
    "LICENSE",
    ".gitignore",
    ".ci/run",
)
SHORT = [
    "tests/backends/test_contract.py::TestMemory",
    "tests/project/test_docs_proof.py",
    "tests/project/test_testing_kit.py",
    "tests/etcd/test_traces.py::test_every_answer_is_etcds[small-11-memory]",
]
"""A part of each kind: the contract, our own data, the documents, what other packages find."""


def in_the_tree(project: Path) -> set[str]:
    """Every file that belongs to the project."""
    folders = [path for folder in FOLDERS for path in (project / folder).rglob("*")]
    return {
        path.relative_to(project).as_posix()
        for path in [*folders, *project.glob("*.md"), *(project / name for name in FILES)]
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


@pytest.fixture(scope="module")
def unpacked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that somebody has after unpacking the distribution."""
    place = tmp_path_factory.mktemp("sdist")
    for name in in_the_tree(project):
        (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, place / "tree" / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", build, str(place)]
    subprocess.run(command, cwd=place / "tree", check=True, capture_output=True)
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return place / archive.name.removesuffix(".tar.gz")


def test_all_of_the_tree_is_in_it(project: Path, unpacked: Path) -> None:
    """Tests and their data, documents, the Makefile: nothing stays at home."""
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert in_the_tree(project) - there == set()


def test_its_tests_run_where_it_is_unpacked(unpacked: Path, tmp_path: Path) -> None:
    """Installed from there, with no other checkout in sight, and no data of its own absent."""
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    packages = sysconfig.get_path(
        "purelib"
    )  # what the tests need is installed here; a path reads no .pth of it
    (inside / "borrowed.pth").write_text(f"{packages}\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "--editable", "."], cwd=unpacked, check=True)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SHORT],
        cwd=unpacked,
        env={**os.environ, "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    where = "import kvstore.backends.lmdb as found; print(found.__file__)"
    told = subprocess.run([python, "-c", where], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert Path(told.stdout.strip()).is_relative_to(unpacked)
