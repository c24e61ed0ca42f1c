"""Stores elsewhere: served by this process from each backend, and by one real etcd."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from tests.etcd.etcd_servers import etcd


@pytest.fixture(scope="session")
def etcd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real etcd, for all tests of a run."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip("no etcd on PATH")
    folder = tmp_path_factory.mktemp("etcd")
    with etcd(folder / "data", folder / "log") as server:
        yield server.endpoint.replace("http://", "etcd://")


@pytest.fixture(params=["lmdb", "sqlite", "memory", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store can be asked. Its content is whatever tests before have left there: use keys of your own."""
    if request.param == "etcd":
        yield request.getfixturevalue("etcd_url")
        return
    with (
        kvstore.open(tmp_path / "store", backend=request.param) as store,
        kvstore.serve(store, "http://127.0.0.1:0") as server,
    ):
        yield server.endpoints[0].replace("http://", "etcd://")


@pytest.fixture
def remote(url: str) -> Iterator[kvstore.Store]:
    """A store elsewhere."""
    with kvstore.connect(url) as store:
        yield store
