"""Backups to S3: the API of moto's server, with refused, lost and slow answers at every request.

moto's server runs in this process, so that a test can stand before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import backup
from kvstore.backup.errors import TargetFailed
from kvstore.backup.targets import ObjectStore, open_target
from tests.backup.places import Time, expected, follower, restored, write

moto_server = pytest.importorskip("moto.server", reason="moto, flask or flask-cors is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>planned</Message></Error>"


class Faults:
    """In front of the server: request number ``at`` is refused, done and then refused, or slow."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.plan(0)

    def plan(self, at: int, way: str = "refused") -> None:
        self.requests, self._at, self._way = 0, at, way

    def __call__(self, environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        if self.requests != self._at:
            return self._app(environ, begin)  # type: ignore[no-any-return]
        if self._way == "slow":
            time.sleep(0.2)
            return self._app(environ, begin)  # type: ignore[no-any-return]
        if self._way == "answer lost":
            list(self._app(environ, lambda *_: None))
        elif length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"].read(length)
        begin("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
        return [DENIED]


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    """A server, with its address and credentials in the environment."""
    from werkzeug.serving import make_server

    app = Faults(moto_server.DomainDispatcherApplication(moto_server.create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("backups")
        yield app
    server.shutdown()
    thread.join()


def life(scratch: Path, name: str) -> tuple[str, int]:
    """Follow a store through two generations, with each step tried until it succeeds. Its place and revision."""
    place, now_ms = f"s3://backups/{name}", Time()
    with kvstore.open(scratch / name, wal_file_size=8192) as store:
        following = follower(store, open_target(place), scratch, now_ms)
        for _ in range(3):
            write(store, 30)
            for _ in range(3):
                try:
                    following.step()
                except TargetFailed:
                    continue
                break
            now_ms.ms += 50_000_000
        following.close()
        return place, store.revision


def test_a_store_goes_to_s3_and_comes_back(faults: Faults, scratch: Path) -> None:
    """Snapshot, pieces, status, restore to a revision, verification, deletion."""
    faults.plan(0)
    place, revision = life(scratch, "whole")
    found = backup.status(place)
    assert found.revision == revision
    assert restored(place, scratch) == (revision, expected(revision))
    assert restored(place, scratch, to_revision=50) == (50, expected(50))
    assert backup.verify(place, work_dir=scratch).ok
    target = ObjectStore(place)
    for name in target.list():
        target.delete(name)
        target.delete(name)
    assert target.list() == []
    assert backup.status(place).generations == []


@pytest.fixture(scope="module")
def requests(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many requests a life makes, its bucket being known."""
    faults.plan(0)
    life(tmp_path_factory.mktemp("counted"), "counted")
    return faults.requests


def try_requests(faults: Faults, scratch: Path, way: str, numbers: Iterable[int]) -> None:
    for number in numbers:
        faults.plan(number, way)
        place, revision = life(scratch, f"{way} {number}")
        faults.plan(0)
        assert restored(place, scratch) == (revision, expected(revision)), number


@pytest.mark.parametrize(("way", "first"), [("refused", 3), ("answer lost", 8), ("slow", 13)])
def test_some_failing_requests_lose_nothing(
    faults: Faults, scratch: Path, requests: int, way: str, first: int
) -> None:
    """A request fails, and what is restored is all of the store."""
    try_requests(faults, scratch, way, range(first, requests + 1, 13))


@pytest.mark.soak
@pytest.mark.parametrize("way", ["refused", "answer lost", "slow"])
def test_no_failing_request_loses_anything(faults: Faults, scratch: Path, requests: int, way: str) -> None:
    """The same for every request of a life."""
    try_requests(faults, scratch, way, range(1, requests + 1))


def test_a_bucket_that_is_not_there_is_said(faults: Faults, scratch: Path) -> None:
    """The error is of the target, so the follower waits for it; it names the place."""
    faults.plan(0)
    with kvstore.open(scratch / "data") as store:
        following = backup.new_follower(store, "s3://nowhere/at-all", work_dir=str(scratch))
        with pytest.raises(TargetFailed, match=r"^put s3://nowhere/at-all/.*bucket does not exist"):
            following.step()
        following.close()
