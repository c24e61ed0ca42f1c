"""``kvstore serve`` as a process of its own, and etcdctl as its client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 60
READY = "ready to serve client requests"


class Serve:
    """A running ``kvstore serve``."""

    def __init__(self, data_dir: Path, *flags: str, code: str = "", **environ: str) -> None:
        python = [sys.executable, *(["-c", code] if code else ["-m", "kvstore.tools.main"])]
        command = [*python, "serve", f"--data-dir={data_dir}", *flags]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, **environ}
        )
        self.log: list[dict[str, Any]] = []

    def until(self, message: str) -> dict[str, Any]:
        """Read its log up to the line with this message; that line."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line = json.loads(text) if text.startswith(b"{") else {"msg": text.decode()}
            self.log.append(line)
            if message in line["msg"]:
                return line
        raise AssertionError(f"it ended without {message!r}: {self.log}")

    @property
    def endpoint(self) -> str:
        """Where it serves, once it does."""
        ready = [line for line in self.log if line["msg"] == READY] or [self.until(READY)]
        addresses: list[str] = ready[0]["addresses"]
        return addresses[0]

    def ctl(self, *arguments: str, stdin: bytes | None = None) -> Any:
        return etcdctl(self.endpoint, *arguments, stdin=stdin)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit code."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.log.append(json.loads(text))
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.ended()


@contextmanager
def serve(data_dir: Path, *flags: str, code: str = "", **environ: str) -> Iterator[Serve]:
    """A server at a free port of its own (unless a flag says where), killed at the latest when the block ends.

    ``code``: what Python runs instead of the command.
    """
    if not any(flag.startswith("--listen-client-urls") for flag in flags):
        flags = ("--listen-client-urls=http://127.0.0.1:0", *flags)
    served = Serve(data_dir, *flags, code=code, **environ)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.wait()
        assert served.process.stderr is not None
        served.process.stderr.close()


def etcdctl(endpoint: str, *arguments: str, stdin: bytes | None = None) -> Any:
    """Run etcdctl; its JSON answer. Skips where there is none."""
    done = run_etcdctl(endpoint, *arguments, "-w", "json", stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout.strip().startswith((b"{", b"[")) else done.stdout.decode()


def run_etcdctl(
    endpoint: str, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("etcdctl") is None:
        pytest.skip("no etcdctl on PATH")
    command = ["etcdctl", "--endpoints", endpoint, f"--command-timeout={PATIENCE_SECONDS}s", *arguments]
    environ = {**os.environ, "ETCDCTL_API": "3"}
    return subprocess.run(command, input=stdin, env=environ, capture_output=True, check=False)
