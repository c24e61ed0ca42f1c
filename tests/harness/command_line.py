"""The ``kvstore`` command inside the test's own process: as fast as a function call."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from kvstore.tools.command import Register, run

CommandLine = Callable[..., tuple[int, str, str]]


def command_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *registers: Register
) -> CommandLine:
    """A function that runs a command line and returns (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kvstore", *arguments])
        capfd.readouterr()
        code = run(*registers, prog_name="kvstore")
        sys.stdout.flush()
        return code, *capfd.readouterr()

    return call
