"""``kvstore replica``: follow a source into a data directory, and serve it at the source's revisions.

    kvstore replica --from etcd://h1,h2,h3 --data-dir DIR --listen http://127.0.0.1:2479      until SIGTERM
    kvstore replica --from s3://bucket/jobs --data-dir DIR                                    a backup that goes on
    kvstore replica --from URL --data-dir DIR --once     take over what there is, and end
    kvstore replica promote DIR                          from now on a store like any other, which takes writes

    SIGTERM, SIGINT and a failed sync are as of ``kvstore serve``, whose flags it takes, too

While the store is made anew, because the source no longer has what comes next, nothing is served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

from kvstore import replica
from kvstore.backup import read_key
from kvstore.errors import KVStoreError
from kvstore.network import config as configuration
from kvstore.network import logs, systemd
from kvstore.network.config import Config
from kvstore.network.serving import Serving
from kvstore.options import BadOption, parse_duration
from kvstore.replica.endpoint import is_endpoint
from kvstore.served import GRACE_SECONDS
from kvstore.store import Store

from .serve import Process, notes_of

logger = logging.getLogger("kvstore.replica")

USAGE = """\
Usage: kvstore replica --from URL --data-dir DIR [--listen URLS] [flags of kvstore serve]
       kvstore replica promote DIR

Follow a source, and serve it, read-only, at the source's revisions.

  --from URL          what to follow: an etcd cluster or a served store (etcd://h1:2379,h2,h3), or a
                      backup (a path, s3://bucket/folder) that somebody goes on with
  --data-dir DIR      the replica's own store; made if it is absent
  --listen URLS       where to serve it [default: http://localhost:2379]
  --set NAME=VALUE    an option of the client, e.g. user=root (docs/remote.md)
  --key-file FILE     the key of an encrypted backup, in hexadecimal (or KVSTORE_BACKUP_KEY_FILE)
  --interval 1s       how often to ask the source how far it is
  --max-lag 5m        if nothing new has come for so long, health says so; 0: never
  --once              take over what there is, serve nothing, and end
  --json              with --once and promote: the answer as JSON
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadOption(message)


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="source", default="")
    parser.add_argument("--listen", default="")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--key-file", default=os.environ.get("KVSTORE_BACKUP_KEY_FILE", ""))
    parser.add_argument("--interval", default="1s")
    parser.add_argument("--max-lag", default="5m")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_known_args(arguments)


def run(arguments: Sequence[str]) -> int:
    """Follow and serve until told to stop, or promote; the exit code."""
    try:
        if arguments[:1] == ["promote"]:
            return _promote(arguments[1:])
        return _follow(*_parsed(arguments))
    except (KVStoreError, OSError) as error:
        from .command import ExitCode, exit_code

        print(f"Error: {error}", file=sys.stderr)
        return exit_code(error) or ExitCode.FAILED
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    """On stdout, whatever is in the name of a directory."""
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")


def _promote(arguments: Sequence[str]) -> int:
    parser = _Parser(add_help=False)
    parser.add_argument("data_dir")
    parser.add_argument("--json", action="store_true")
    said = parser.parse_args(arguments)
    revision = replica.promote(said.data_dir)
    if said.json:
        print(json.dumps({"data_dir": said.data_dir, "revision": revision}))
    else:
        _say(f"{said.data_dir} is a store of its own now, at revision {revision}")
        _say("what the source has written since is not in it, and the source, if it runs, still takes writes")
    return 0


def _follow(said: argparse.Namespace, flags: list[str]) -> int:
    flags += [f"--listen-client-urls={said.listen}"] if said.listen else []
    given = configuration.read(flags)
    if "help" in given:
        sys.stdout.write(USAGE)
        return 0
    if not said.source:
        raise BadOption("what is to be followed? give --from URL")
    if "data-dir" not in given:
        raise BadOption("where is the replica to be? give --data-dir")
    config = configuration.config_of(given)
    how: dict[str, Any] = {
        "connect": _client_options(said.set),
        "options": {"backend": config.options.backend} if config.is_backend_given else {},
        "key": read_key(said.key_file) if said.key_file and not is_endpoint(said.source) else None,
        "interval_seconds": parse_duration(said.interval),
        "max_lag_seconds": parse_duration(said.max_lag),
    }
    if said.once:
        return _once(said, config, how)
    logs.start(config.logging)
    try:
        return ReplicaProcess(config, said.source, how).run()
    except (KVStoreError, OSError) as error:
        logger.critical("cannot follow", extra={"error": str(error), **notes_of(error)})
        return 1


def _client_options(assignments: Sequence[str]) -> dict[str, Any]:
    if not assignments:
        return {}
    from .command import client_options

    return client_options(assignments)


def _once(said: argparse.Namespace, config: Config, how: dict[str, Any]) -> int:
    with replica.new_replica(said.source, config.data_dir, **how) as made:
        revision = made.catch_up()
    if said.json:
        print(json.dumps({"data_dir": config.data_dir, "revision": revision}))
    else:
        _say(f"{config.data_dir} has revision {revision} of {said.source}")
    return 0


class ReplicaProcess(Process):
    """A process that follows a source, and serves what it has."""

    def __init__(self, config: Config, source: str, how: dict[str, Any]) -> None:
        super().__init__(config)
        self._source = source
        self._how = how
        self._replica: replica.Replica | None = None

    def _open(self) -> None:
        """The replica opens its store itself."""

    def _close(self) -> None:
        if self._replica is not None:
            self._replica.close()

    def _failure(self) -> BaseException | None:
        store = self._replica.store if self._replica is not None else None
        return store.engine.core.life.failure if store is not None else None

    async def _served(self, stop: asyncio.Event) -> BaseException | None:
        loop = asyncio.get_running_loop()

        def follow() -> replica.Replica:
            return replica.follow(
                self._source,
                self._config.data_dir,
                serve=lambda store: _OnLoop(self, store, loop),
                **self._how,
            )

        self._replica = await loop.run_in_executor(None, follow)
        systemd.notify(systemd.READY)
        failure = await self._stopped(stop)
        systemd.notify(systemd.STOPPING)
        await loop.run_in_executor(None, self._replica.close)
        return failure


class _OnLoop:
    """A server on the loop of the process, for the thread of the replica."""

    def __init__(self, process: ReplicaProcess, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        begun: Future[Serving] = asyncio.run_coroutine_threadsafe(process._begin(store.engine), loop)
        self._loop = loop
        self._serving = begun.result()
        self.endpoints = self._serving.endpoints

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        asyncio.run_coroutine_threadsafe(self._serving.stop(grace_seconds), self._loop).result()

    def __enter__(self) -> _OnLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
