"""The seat of a shared store: in it sits the one process that has the store open, and serves it on a socket.

    free ──flock──> taken ──recovery──> open ──bind──> served ──close──> free
                      └────────────── kill -9 ─────────────────────────> free

Every handle has a seat, and a thread that looks after it. When nobody answers at the socket, the thread tries to sit
down: it takes the seat's lock, opens the store as any process would, and serves it. The kernel drops both locks when a
process dies, so a seat is free exactly when nobody can be writing. A process that is stopped (SIGSTOP) keeps it: nobody
could keep that one from writing when it goes on.

Two locks, because they say two things. The seat's, on the folder ``snap``, is held from before the store is opened: who
finds it held and no socket waits, for somebody is recovering. Who holds it and finds the store locked has met a process
that does not share (``StoreLocked``).

The socket has mode 0600. A file that a killed process has left is removed by the next one that sits.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kvstore.arguments import SOCKET_PATH_BYTES_MAX
from kvstore.bell import Bell, Gate
from kvstore.directory import make_directories
from kvstore.engine import LocalEngine
from kvstore.errors import KVStoreError, NoThread, OpenError, StoreLocked
from kvstore.files import FolderLock, OSDisk, disk_full_is_typed, hand_over
from kvstore.layout import DataDir
from kvstore.life import Phase
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.served import Server
from kvstore.shelter import start

logger = logging.getLogger("kvstore.shared")

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 0.5
"""Between two attempts to sit down while nobody answers."""
LOOK_SECONDS = 1.0
"""How often who serves looks whether the store still can be written."""
GRACE_SECONDS = 1.0
"""How long calls of others may take to end when the seat is left."""

Serve = Callable[[LocalEngine, str], Server]
"""Serves a store on a socket at a path, of which only its user may make use."""


class Seat:
    """One handle's view of the seat, and what it holds while it sits there itself. Thread-safe."""

    def __init__(self, data_dir: str | os.PathLike[str], options: Options, serve: Serve) -> None:
        """Makes the directory if there is none. Raises ``NotAStore``, ``OpenError``."""
        self._options = options.with_(lock_timeout_seconds=0.0)
        self._lock_timeout_seconds = options.lock_timeout_seconds
        self.directory = DataDir.at(data_dir, options.wal_dir or None)
        with disk_full_is_typed():
            make_directories(self.directory, OSDisk())
        self._folder = -1
        """A descriptor of the directory, where the socket is reached through it."""
        self.path = self._reachable(self.directory.socket)
        self.local: LocalEngine | None = None
        """The store itself, while it is served from here."""
        self.error: KVStoreError | None = None
        """Why it could not be opened from here, when that was tried last."""
        self._serve = serve
        self._serving: Server | None = None
        self._lock = FolderLock(self.directory.snap)
        self._wanted = Bell()
        self._closing = Gate()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._look_after, name="kvstore-seat", daemon=True)

    def _reachable(self, path: Path) -> str:
        """The path by which the socket is bound and connected to: a system's limit may be in the way."""
        text = os.fspath(path)
        if len(os.fsencode(text)) <= SOCKET_PATH_BYTES_MAX:
            return text
        if not os.path.isdir("/proc/self/fd"):
            raise OpenError(
                f"{text}: the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes on this system; to share the "
                "store, put it at a shorter path",
                text,
            )
        self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{path.name}"

    # --- from the handle ----------------------------------------------------------------

    def settle(self, check: Callable[[], None], patience_seconds: float) -> None:
        """Sit down, or find out that somebody does, who may be recovering for so long.

        Raises ``StoreLocked`` (for who does not share, after ``lock_timeout_seconds``), and whatever opening raises.
        """
        begun = time.monotonic()
        pause_seconds = PAUSE_SECONDS
        while not self._is_settled():
            error = self.error
            if error is not None and not isinstance(error, StoreLocked):
                raise error
            allowed_seconds = patience_seconds if error is None else self._lock_timeout_seconds
            left_seconds = begun + allowed_seconds - time.monotonic()
            if left_seconds <= 0:
                raise error or StoreLocked(self.directory.root)
            check()
            time.sleep(min(pause_seconds, left_seconds))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        try:
            start(self._thread)
        except RuntimeError as failure:
            raise NoThread from failure

    def look(self) -> None:
        """Somebody may be needed in the seat. For any thread; never waits."""
        self._wanted.ring()

    def close(self) -> None:
        """Leave the seat to others. Idempotent; in a forked child, nothing is here to leave."""
        if os.getpid() != self._pid or self._closing.is_open:
            return
        self._closing.open()
        self._wanted.ring()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._leave()
        finally:
            if self._folder >= 0:
                os.close(self._folder)

    # --- the thread ---------------------------------------------------------------------

    def _look_after(self) -> None:
        while not self._closing.is_open:
            self._wanted.wait(LOOK_SECONDS if self.local is not None else None)
            if self.local is not None and self.local.life.phase is Phase.POISONED:
                logger.warning(
                    "%s: the store is opened anew: %s", self.directory.root, self.local.life.failure
                )
                self._leave()
            pause_seconds = PAUSE_SECONDS
            while not self._closing.is_open and not self._is_settled():
                self._closing.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _is_settled(self) -> bool:
        """Whether the store is served, from here or by somebody else. Sits down if the seat is free."""
        return self.local is not None or self._is_served() or self._sit()

    def _is_served(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(self.path)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    self.error = OpenError(
                        f"{self.directory.root} is shared by a process of another user, which serves only its own: "
                        "open it as that user",
                        self.directory.root,
                    )
                return False
        self.error = None
        return True

    def _sit(self) -> bool:
        """Take the seat if it is free, and serve the store. Returns whether it is served from here now."""
        try:
            if not self._lock.acquire():
                if isinstance(self.error, StoreLocked):
                    self.error = None  # that was then: now somebody who shares is opening it
                return False
            self.error = None
            self._open()
        except (KVStoreError, OSError) as error:
            self._leave()
            self.error = (
                error if isinstance(error, KVStoreError) else OpenError(str(error), self.directory.root)
            )
            self.error.__cause__ = error.__cause__
            if not isinstance(error, StoreLocked):
                logger.warning("%s cannot be served: %s", self.directory.root, error)
            return False
        logger.info("%s is served from here", self.directory.root)
        return True

    def _open(self) -> None:
        engine = open_engine(self.directory.root, self._options)
        assert isinstance(engine, LocalEngine)  # one that only reads is not shared
        try:
            engine.disk.remove(
                self.directory.socket
            )  # the holder of the lock listens there, and nobody does yet
            self._serving = self._serve(engine, self.path)
            hand_over(self.directory.socket)
        except BaseException:
            if self._serving is None:
                engine.close()
            raise
        finally:
            if self._serving is not None:
                self.local = engine

    def _leave(self) -> None:
        """Let calls under way end, close the store, and free the seat. Does what is left to do."""
        local, self.local = self.local, None
        serving, self._serving = self._serving, None
        try:
            if serving is not None:
                serving.stop(GRACE_SECONDS)
        finally:
            try:
                if local is not None:
                    local.close()
            finally:
                self._lock.release()
