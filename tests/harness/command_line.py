"""The ``kvstore`` command: inside the test's own process, which is as fast as a function call, or in one of its own.

run            in this process, with a store's directory in the environment
run_apart      the same in another process: for what depends on there being two
command_line   some verbs, under pytest's own capture
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kvstore.tools import command
from kvstore.tools.command import Register
from kvstore.tools.main import main

KVSTORE = [sys.executable, "-m", "kvstore.tools.main"]
_HEED = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
INTERRUPTIBLE = [sys.executable, "-c", _HEED, *KVSTORE]
"""The same, for what is to be interrupted: where tests run in the background, SIGINT is ignored."""


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: bytes
    err: str


def run(data_dir: Path, *arguments: str | bytes, stdin: bytes = b"", **environ: str) -> Done:
    """The command in this process: starting one for each would take most of the time of these tests."""
    given, err = io.TextIOWrapper(io.BytesIO(stdin)), io.StringIO()
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="utf-8", errors="surrogateescape")
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"KVSTORE_DATA_DIR": str(data_dir), **environ}.items():
            patch.setenv(name, value)
        for name, stream in (("stdin", given), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["kvstore", *map(os.fsdecode, arguments)])
        try:
            main()
        except SystemExit as end:
            code = end.code
        out.flush()
        return Done(code or 0, written.getvalue(), err.getvalue())


def run_apart(data_dir: Path, *arguments: str | bytes, stdin: bytes = b"", **environ: str) -> Done:
    """The command in a process of its own."""
    environ = {**os.environ, "KVSTORE_DATA_DIR": str(data_dir), **environ}
    done = subprocess.run([*KVSTORE, *arguments], input=stdin, capture_output=True, env=environ, check=False)
    return Done(done.returncode, done.stdout, done.stderr.decode())


CommandLine = Callable[..., tuple[int, str, str]]


def command_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *registers: Register
) -> CommandLine:
    """A function that runs a command line and returns (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kvstore", *arguments])
        capfd.readouterr()
        code = command.run(*registers, prog_name="kvstore")
        sys.stdout.flush()
        return code, *capfd.readouterr()

    return call
