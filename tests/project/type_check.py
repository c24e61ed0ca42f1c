"""mypy over the tree as it is once installed: one package ``kvstore``, with backends, migrations and tools inside.

    python -m tests.project.type_check [file ...]      without files: everything, tests and examples included

In the checkout the four folders lie side by side, and only an installed finder knows that ``kvstore.backends`` is
``backends``. Here links show it to mypy too, so that every import resolves, and what is said of a file is said under
its own name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests import PROJECT

INSIDE = ("backends", "migrations", "tools")


def as_installed() -> Path:
    """The folder of links, made anew: a module that has come or gone since is no matter."""
    folder = PROJECT / ".mypy_cache" / "as-installed"
    package = folder / "kvstore"
    package.mkdir(parents=True, exist_ok=True)
    here = [path for path in (PROJECT / "kvstore").iterdir() if path.name != "__pycache__"]
    wanted = {folder / name: PROJECT / name for name in ("tests", "examples")}
    wanted |= {package / path.name: path for path in [*here, *(PROJECT / name for name in INSIDE)]}
    for link in [*folder.iterdir(), *package.iterdir()]:
        if link.is_symlink() and link not in wanted:
            link.unlink()
    for link, target in wanted.items():
        if not link.is_symlink():
            link.symlink_to(target)
    return folder


def mypy(files: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """What mypy, as pyproject.toml sets it up, says of the files."""
    command = [sys.executable, "-m", "mypy", "--config-file", PROJECT / "pyproject.toml", *files]
    return subprocess.run(command, cwd=as_installed(), capture_output=True, text=True, check=False)


def pyright(files: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """What pyright says of the files, with its usual rules. Its own package runs it; nothing else is needed."""
    root = as_installed()
    settings = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "extraPaths": [str(root)]}
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            (Path(folder) / f"program_{number}.py").write_text(Path(file).read_text())
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--project", folder]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    done = mypy(sys.argv[1:] or ["kvstore", "tests", "examples"])
    print(done.stdout + done.stderr, end="")
    sys.exit(done.returncode)
