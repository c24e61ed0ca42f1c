"""A cluster of etcd's, or a served store, as what is backed up: a replica of it, and the backup of that replica's log.

    cluster --snapshot, watch--> Replica, in a data directory here --> Follower --> target

The replica's log has what a watch of the cluster told, whole revisions at the cluster's own numbers, so a generation at
the target is what it always is: a snapshot and the log after it. Where the cluster had compacted what comes next, the
replica is made from scratch, and a new generation begins: the revisions between are in none.

The data directory is worth keeping: with it the next process goes on where this one was. Without, it begins again with
a snapshot of the cluster, and a new generation.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kvstore.arguments import as_it_is_now, places_as_they_are_now
from kvstore.backup.catalogue import Catalogue
from kvstore.backup.follower import Follower, Settings
from kvstore.backup.sources import Copy
from kvstore.core import BackupStatus
from kvstore.errors import said_of
from kvstore.files import OSDisk
from kvstore.ongoing import Ongoing
from kvstore.options import Options
from kvstore.replica.endpoint import Endpoint
from kvstore.replica.replica import RETRY_SECONDS_MAX, Replica
from kvstore.scratch import remove_tree

logger = logging.getLogger("kvstore.backup")


class ClusterFollower(Ongoing):
    """Backs up a cluster to one target. Used as a ``Follower`` is."""

    thread_name = "kvstore-backup"
    logger = logger
    waits = "the backup waits"
    retry_seconds_max = RETRY_SECONDS_MAX

    def __init__(
        self,
        url: str,
        shelf: Catalogue,
        settings: Settings,
        data_dir: str,
        options: Mapping[str, Any],
        store_options: Mapping[str, Any],
    ) -> None:
        """``data_dir``: of the copy; empty: a temporary one. ``options``: of ``kvstore.connect``."""
        super().__init__(settings.interval_seconds, settings.interval_seconds)
        self._temporary = (
            "" if data_dir else tempfile.mkdtemp(prefix="kvstore-copy-", dir=settings.work_dir or None)
        )
        self._shelf = shelf
        self._settings = settings
        self._following: Follower | None = None
        self._seeds = 0
        self._error = ""
        try:
            self.replica = Replica(
                partial(Endpoint, os.fspath(as_it_is_now(url)), places_as_they_are_now(options)),
                url,
                Path(data_dir or self._temporary) / ("" if data_dir else "copy"),
                interval_seconds=settings.interval_seconds,
                keeps_cluster_id=True,
                options=Options.load(store_options),
            )
        except BaseException:
            self._forget()
            raise

    def status(self) -> BackupStatus:
        """As of a ``Follower``; the lag is behind the cluster."""
        error = self._error or self.replica.status().error
        if self._following is None:
            lag_seconds = self.replica.status().lag_seconds
            return BackupStatus("", 0, 0, lag_seconds, 0, error)
        said = self._following.status()
        return replace(said, error=said.error or error)

    def step(self) -> None:
        """Bring the target up to what the cluster has now. Raises what either side raises."""
        try:
            self.replica.catch_up()
            self._ship()
            self._error = ""
        except Exception as error:
            self._error = said_of(error)
            raise

    def _ship(self) -> None:
        """Bring the target up to what the replica has."""
        if self._following is None or self._seeds != self.replica.seeds:
            if self._following is not None:
                self._following.close()
            self._seeds = self.replica.seeds
            self._following = Follower(Copy(self.replica), self._shelf, self._settings)
        self._following.step()

    # --- by itself --------------------------------------------------------------------

    def run(self) -> None:
        """Step until ``stop`` is called. What fails is tried again after longer and longer pauses.

        The replica goes on by itself, so that what the cluster compacts while the target is away is here by then.
        """
        if not self._stopping:
            self.replica.begin()
        super().run()

    def _take_step(self) -> None:
        if not self.replica.complete_at_ms:
            return  # nothing is claimed before all of it is here
        try:
            self._ship()
            self._error = ""
        except Exception as error:
            self._error = said_of(error)
            raise

    def close(self) -> None:
        """End. If the last step succeeded, what has come from the cluster is brought to the target before.

        So it is if the thread was stopped before its first step.
        """
        self.end()
        try:
            self.replica.end()
            if not self._error and (self._following is not None or self._was_begun):
                self._last_step()
            if self._following is not None:
                self._following.close()
        finally:
            self.replica.close()
            self._forget()

    def _last_step(self) -> None:
        if not self.replica.complete_at_ms:
            return
        try:
            self._ship()
        except Exception as error:
            self._error = said_of(error)
            logger.warning("the backup is not complete: %s", self._error)

    def _forget(self) -> None:
        if self._temporary:
            with suppress(OSError):
                remove_tree(OSDisk(), Path(self._temporary))

    def __enter__(self) -> ClusterFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
