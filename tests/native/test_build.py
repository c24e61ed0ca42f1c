"""The part in C is built where a compiler is, and missed by nobody where none is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests import PROJECT

FOLDERS = ("kvstore", "backends", "migrations", "tools")
TELL = "import kvstore; print(kvstore.__impl__, kvstore.__file__)"


def installed(place: Path, **environment: str) -> Path:
    """What a wheel built with that environment installs."""
    tree, out = place / "tree", place / "out"
    for folder in FOLDERS:
        shutil.copytree(
            PROJECT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so", "lab")
        )
    for file in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(PROJECT / file, tree / file)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(out)]
    subprocess.run(command, cwd=tree, env={**os.environ, **environment}, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "installed")
    return place / "installed"


def tell(folder: Path) -> str:
    """The implementation that is used there, where nothing was asked for."""
    environment = {name: value for name, value in os.environ.items() if name != "KVSTORE_IMPL"}
    packages = sysconfig.get_path("purelib")  # what kvstore needs; -S: without what a checkout has put there
    command = [sys.executable, "-S", "-c", TELL]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "PYTHONPATH": f"{folder}{os.pathsep}{packages}"},
        check=True,
        capture_output=True,
        text=True,
    )
    implementation, file = done.stdout.split(maxsplit=1)
    assert Path(file).is_relative_to(folder)
    return implementation


def test_without_a_compiler_everything_else_is_installed(tmp_path: Path) -> None:
    """The build succeeds, without the part in C; Python does its work."""
    folder = installed(tmp_path, CC="/bin/false")
    assert not list(folder.glob("kvstore/_native*"))
    assert tell(folder) == "python"


def test_with_a_compiler_the_part_in_c_is_installed_and_used(tmp_path: Path) -> None:
    """Without any warning of the compiler, which the flags would turn into a failure."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no C compiler ({compiler})")
    folder = installed(tmp_path, CFLAGS="-Werror")
    if not list(folder.glob("kvstore/_native*.so")):
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.exists():
            pytest.skip(f"there is no {header}")
        raise AssertionError("the part in C was not built; `make native` says why")
    assert tell(folder) == "native"
