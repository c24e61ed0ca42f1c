"""Stores elsewhere: served by this process from each backend, by one real etcd, and by three of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from tests.etcd.etcd_cluster import HAS_ETCD, Cluster, running_cluster
from tests.etcd.etcd_servers import etcd


@pytest.fixture(scope="package")
def etcd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real etcd, for all tests here; then it ends, for one that nobody asks is not idle."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip("no etcd on PATH")
    folder = tmp_path_factory.mktemp("etcd")
    with etcd(folder / "data", folder / "log") as server:
        yield server.endpoint.replace("http://", "etcd://")


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three etcds, for all tests here: each leaves them in good health."""
    if not HAS_ETCD:
        pytest.skip("no etcd on PATH")
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster_url(cluster: Cluster) -> str:
    return cluster.url


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
