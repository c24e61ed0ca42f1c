"""``kvstore serve``: a store on the network, for every client of etcd's API v3, until it is told to stop.

    read flags, environment or file -> open the store (waiting a little for whoever had it) -> serve -> ready
    SIGTERM, SIGINT     calls under way end (5 s), connections are closed, the store is closed: exit 0
    a second one        at once: exit 1; the store opens as after a crash
    a failed sync       the same as SIGTERM, but exit 1: a supervisor starts it again, which recovers

The flags are etcd's (kvstore/network/flags.py), so this verb reads its command line itself. Wrong flags end with 2,
everything else that fails with 1, as etcd does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import kvstore
from kvstore import verification
from kvstore.engine import LocalEngine
from kvstore.errors import Corruption, KVStoreError, NotAStore, StoreLocked
from kvstore.files import OSDisk
from kvstore.foreign import recognize_foreign
from kvstore.layout import DataDir
from kvstore.network import config as configuration
from kvstore.network import logs, systemd
from kvstore.network.config import Config
from kvstore.network.event_loop import new_event_loop
from kvstore.network.flags import IGNORED, MEANT, REFUSED
from kvstore.network.self_signed import self_signed
from kvstore.network.serving import Serving
from kvstore.network.tls import TLSSettings
from kvstore.options import BadOption, Options
from kvstore.recognition import backend_of
from kvstore.recovery import OpenedEngine, open_engine
from kvstore.served import GRACE_SECONDS
from kvstore.store import Store

logger = logging.getLogger("kvstore.serve")

OBJECTS_BETWEEN_COLLECTIONS = 10_000
LOCK_PATIENCE_SECONDS = 10.0
"""How long a store may still be held by the process before this one."""
LOCK_POLL_SECONDS = 0.1
FAILURE_POLL_SECONDS = 0.5


def run(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code."""
    try:
        given = configuration.read(arguments)
        if "help" in given:
            sys.stdout.write(help_text())
            return 0
        if "version" in given:
            sys.stdout.write(f"kvstore Version: {kvstore.__version__}\n")
            return 0
        config = configuration.config_of(given)
        logs.start(config.logging)
    except (KVStoreError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadOption) else 1
    for remark in config.remarks:
        logger.warning("%s", remark)
    try:
        return Process(config).run()
    except (KVStoreError, OSError) as error:
        logger.critical("cannot serve", extra={"error": str(error), **notes_of(error)})
        return 1
    except KeyboardInterrupt:
        return 130


def notes_of(error: BaseException) -> dict[str, Any]:
    notes = getattr(error, "__notes__", [])
    return {"help": "; ".join(notes)} if notes else {}


# --- the store ----------------------------------------------------------------------------


def open_store(config: Config) -> Store:
    """The store, made if there is none. Raises ``StoreLocked`` once patience has run out, and what ``open`` raises."""
    directory = DataDir.at(config.data_dir, config.options.wal_dir or None)
    refuse_foreign(directory)
    kind = None if config.is_backend_given else backend_of(directory)
    options = config.options if kind is None else config.options.with_(backend=kind.name)
    if config.verify_first and directory.snap.is_dir():
        check_all(directory, options)
    return Store(_opened(directory.root, options))


def refuse_foreign(directory: DataDir) -> None:
    """Nothing of another program's is touched; the error names the command that moves it in."""
    if directory.root.is_dir() and not directory.snap.is_dir():
        foreign = recognize_foreign(directory.root)
        if foreign is not None:
            raise NotAStore(
                f"{directory.root} is a store of {foreign.name}: stop that, and move it into a new directory with "
                f"`kvstore import {foreign.name} {directory.root} --data-dir NEW`",
                directory.root,
            )


def check_all(directory: DataDir, options: Options) -> None:
    """Raise ``Corruption`` where a byte is not what it should be."""
    report = verification.verify(directory.root, options=options)
    if report.findings:
        raise Corruption(f"{report.findings[0]} ({report.findings_total} in all)", directory.root)
    logger.info("verified", extra={"path": str(directory.root), **report.counts})


def _opened(root: Path, options: Options) -> OpenedEngine:
    """Tries again while the process before this one still holds the lock."""
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    is_told = False
    while True:
        try:
            return open_engine(root, options)
        except StoreLocked as error:
            if time.monotonic() > deadline:
                raise
            if not is_told:
                logger.warning("the store is in use: waiting for it", extra={"error": str(error)})
                is_told = True
        time.sleep(LOCK_POLL_SECONDS)


# --- the process --------------------------------------------------------------------------


class Process:
    """A process that serves one store."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open()
        self._stop: Callable[[], object] | None = None
        """Called by the first signal."""
        self._was_signaled = False

    def _open(self) -> None:
        self._store = open_store(self._config)

    def _close(self) -> None:
        self._store.close()

    def run(self) -> int:
        """Serve until a signal, or until the store is poisoned; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signaled)
        try:
            with self._backup(), asyncio.Runner(loop_factory=new_event_loop) as runner:
                code = runner.run(self._serve())
        finally:
            self._close()
        logger.info("closed", extra={"path": self._config.data_dir})
        return code

    def _backup(self) -> AbstractContextManager[object]:
        config = self._config
        if not config.backup_to:
            return nullcontext()
        from kvstore import backup

        key = backup.read_key(config.backup_key_file) if config.backup_key_file else None
        keep = backup.Keep.parse(config.backup_keep) if config.backup_keep else None
        return backup.follow(self._store, config.backup_to, key=key, keep=keep)

    def _signaled(self, number: int, _frame: FrameType | None) -> None:
        if self._was_signaled:
            os._exit(1)
        self._was_signaled = True
        logger.info("received %s", signal.Signals(number).name)
        if self._stop is not None:
            self._stop()

    async def _serve(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        if self._was_signaled:
            stop.set()
        failure = await self._served(stop)
        if failure is not None:
            logger.critical("the store takes no writes any more", extra={"error": repr(failure)})
        return 0 if failure is None else 1

    async def _served(self, stop: asyncio.Event) -> BaseException | None:
        """Serve until told to stop, or until the store is poisoned: then what it was poisoned by."""
        serving = await self._begin(self._store.engine)
        collect_rarely()
        systemd.notify(systemd.READY)
        failure = await self._stopped(stop)
        systemd.notify(systemd.STOPPING)
        await serving.stop(GRACE_SECONDS)
        return failure

    async def _begin(self, engine: LocalEngine) -> Serving:
        config = self._config
        serving = await Serving.begin(
            engine, config.listeners, config.settings, self._tls(), reuse_port=config.reuse_port
        )
        logger.info("ready to serve client requests", extra={"addresses": serving.endpoints})
        return serving

    async def _stopped(self, stop: asyncio.Event) -> BaseException | None:
        """Wait for the end; what poisoned the store, if that was it."""
        while (failure := self._failure()) is None:
            try:
                await asyncio.wait_for(stop.wait(), FAILURE_POLL_SECONDS)
                return None
            except TimeoutError:
                continue
        return failure

    def _failure(self) -> BaseException | None:
        return self._store.engine.core.life.failure

    def _tls(self) -> TLSSettings:
        config = self._config
        if not config.tls.auto or config.tls.cert_file:
            return config.tls
        hosts = [each.host for each in config.listeners if each.host] + ["localhost"]
        return self_signed(config.tls, DataDir.at(config.data_dir).tls, hosts, OSDisk())


def collect_rarely() -> None:
    """Have the collector look for cycles less often, and not among what is there now, which stays until the end.

    Serving makes next to none, and looking for them took a tenth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


# --- help ---------------------------------------------------------------------------------

USAGE = """\
Usage: kvstore serve [--data-dir DIR] [--listen-client-urls URLS] [flags]

Serve a store to every client of etcd's API v3. The flags are etcd's, as --name=value or --name value; each can be
given as ETCD_NAME in the environment too (the last ones as KVSTORE_NAME), or all of them in a file.
"""


def help_text() -> str:
    lines = [USAGE]
    for chapter, flags in MEANT:
        lines.append(f"{chapter}:")
        for flag in flags:
            lines.append(f"  --{flag.name} '{flag.shown_default}'")
            lines.append(f"    {flag.text}")
        lines.append("")
    for title, names in (
        ("Accepted, and of no meaning with one member:", [flag.name for flag in IGNORED]),
        ("Refused, unless they say what holds anyway:", [flag.name for flag in REFUSED]),
    ):
        lines += [
            title,
            _filled(names),
            "",
        ]
    return "\n".join(lines)


def _filled(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
