"""Log lines as etcd's, so that what reads its log reads ours.

    json       {"level":"info","ts":"2026-11-27T07:00:00.000000Z","caller":"network/tls.py:42","msg":"...", ...}
    console    2026-11-27T07:00:00.000000Z	info	network/tls.py:42	...	{...}

What a call of ``logging`` gives as ``extra`` stands beside the message. ``start`` is for a process of its own
(``kvstore serve``); a program that serves a store sets up ``logging`` as it likes.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
FORMATS = ("json", "console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What a server says, and where."""

    level: str = "info"
    format: str = "json"
    outputs: tuple[str, ...] = ("default",)
    """``default`` and ``stderr``, ``stdout``, or names of files."""


def start(settings: Logging) -> None:
    """From now on, everything that is logged in this process goes there. Raises ``OSError`` for a bad file."""
    formatter = JSONFormatter() if settings.format == "json" else ConsoleFormatter()
    handlers = [_handler(output) for output in settings.outputs]
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=LEVELS[settings.level], handlers=handlers, force=True)


def _handler(output: str) -> logging.Handler:
    if output in ("default", "stderr"):
        return logging.StreamHandler(sys.stderr)
    if output == "stdout":
        return logging.StreamHandler(sys.stdout)
    return WatchedFileHandler(output, encoding="utf-8")  # opened anew when it was moved away


_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        level, time, caller, message = _head(record)
        line = {"level": level, "ts": time, "caller": caller, "msg": message, **_beside(record, self)}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)


class ConsoleFormatter(logging.Formatter):
    """The same for people: columns with tabs between them."""

    def format(self, record: logging.LogRecord) -> str:
        level, time, caller, message = _head(record)
        beside = _beside(record, self)
        trace = beside.pop("stacktrace", "")
        said = [time, level, caller, message]
        if beside:
            said.append(json.dumps(beside, ensure_ascii=False, default=str))
        return "\t".join(said) + (f"\n{trace}" if trace else "")


def _head(record: logging.LogRecord) -> tuple[str, str, str, str]:
    path = Path(record.pathname)
    return (
        _NAMES.get(record.levelno, "fatal" if record.levelno > logging.ERROR else "info"),
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        f"{path.parent.name}/{path.name}:{record.lineno}",
        record.getMessage(),
    )


def _beside(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    beside = {name: value for name, value in vars(record).items() if name not in _OWN}
    if record.exc_info and record.exc_info[1] is not None:
        beside["error"] = str(record.exc_info[1]) or type(record.exc_info[1]).__name__
        beside["stacktrace"] = formatter.formatException(record.exc_info)
    return beside
