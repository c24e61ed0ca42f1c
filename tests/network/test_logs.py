"""Log lines in etcd's form, and systemd told."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.network import systemd
from kvstore.network.logs import ConsoleFormatter, JSONFormatter


def record_of(level: int, message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"levelno": level, "msg": message, "args": arguments, "pathname": "/a/network/server.py", "lineno": 7}
    )
    made.created = 1_700_000_000.25
    vars(made).update(extra)
    return made


def test_a_line_is_a_json_object_as_zap_writes_it() -> None:
    """Level, time, caller and message by zap's names, in its order; then what was said beside."""
    line = JSONFormatter().format(record_of(logging.WARNING, 'a "%s"', "b\n", path=Path("/x"), count=2))
    assert "\n" not in line
    assert list(json.loads(line).items()) == [
        ("level", "warn"),
        ("ts", "2023-11-14T22:13:20.250000Z"),
        ("caller", "network/server.py:7"),
        ("msg", 'a "b\n"'),
        ("path", "/x"),
        ("count", 2),
    ]


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "fatal"),
        (25, "info"),
    ],
)
def test_levels_have_zap_s_names(level: int, name: str) -> None:
    """Also one that nobody has named."""
    assert json.loads(JSONFormatter().format(record_of(level, "x")))["level"] == name


def test_an_exception_stands_in_its_line() -> None:
    """Text and traceback are values: a line stays a line."""
    try:
        raise ValueError("no")
    except ValueError:
        failed = record_of(logging.ERROR, "it failed", exc_info=sys.exc_info())
    line = json.loads(JSONFormatter().format(failed))
    assert line["error"] == "no"
    assert line["stacktrace"].startswith("Traceback")
    assert ConsoleFormatter().format(failed).splitlines()[1].startswith("Traceback")


def test_the_console_has_columns() -> None:
    """For people: tabs between the same parts, and no braces where there is nothing beside."""
    assert ConsoleFormatter().format(record_of(logging.INFO, "x")) == (
        "2023-11-14T22:13:20.250000Z\tinfo\tnetwork/server.py:7\tx"
    )
    assert ConsoleFormatter().format(record_of(logging.INFO, "x", n=1)).endswith('\tx\t{"n": 1}')


def test_outputs_are_streams_and_files(tmp_path: Path) -> None:
    """Every output gets every line from the level on; a file that was moved away is made anew."""
    log = tmp_path / "log"
    code = (
        "import logging, os, sys; from kvstore.network.logs import Logging, start\n"
        f"start(Logging(level='warn', outputs=('stderr', 'stdout', {str(log)!r})))\n"
        "logging.info('quiet'); logging.warning('one')\n"
        f"os.rename({str(log)!r}, {str(log)!r} + '.1'); logging.warning('two')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    messages = [json.loads(line)["msg"] for line in done.stdout.splitlines()]
    assert messages == ["one", "two"]
    assert done.stderr == done.stdout
    assert done.stdout == (tmp_path / "log.1").read_text() + log.read_text()


# --- systemd --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool) -> None:
    """One datagram at the socket that NOTIFY_SOCKET names, be it a file or a name in the kernel."""
    name = f"@kvstore-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert systemd.notify(systemd.READY)
        assert listener.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No NOTIFY_SOCKET is the ordinary case; one where nobody listens is worth a warning, and no more."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify(systemd.READY)
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not systemd.notify(systemd.STOPPING)
    assert "systemd cannot be told STOPPING=1" in caplog.text
