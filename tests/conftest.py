"""What every test may ask for."""

import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from tests import PROJECT
from tests.harness.browser import Browser

# Examples are bounded by their number alone: a loaded machine must not turn into a failure.
settings.register_profile("kvstore", deadline=None, print_blob=True)
settings.load_profile("kvstore")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Each worker of pytest-xdist imports its share of the modules before it collects all of them.

    Most of what collecting takes is pytest's work on their asserts, which it keeps in ``__pycache__`` (the Makefile
    lets it): so the workers do it once between them, not each of them once.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    mine, workers = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    folders = [Path(argument) for argument in session.config.args if Path(argument).is_dir()]
    modules = sorted(path for folder in folders for path in folder.resolve().rglob("test_*.py"))
    for module in modules[mine::workers]:
        with suppress(Exception, pytest.skip.Exception):  # what it is, collecting tells
            importlib.import_module(".".join(module.relative_to(PROJECT).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """What has been collected stays to the end: looking through all of it is no part of a garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of files that other programs and former versions wrote (``tests/fixtures``)."""
    return PROJECT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def samples(fixtures: Path) -> Path:
    """Files of real etcd servers, with what these said of them."""
    return own_data(fixtures / "samples")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of other projects' data, which is optional; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("KVSTORE_SHARED", PROJECT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"optional data of other projects is absent: {folder} (KVSTORE_SHARED says where it is)")
    return folder


def own_data(folder: Path) -> Path:
    """Data of this project's own. Where it is absent, tests skip; under CI, where nobody would see it, they fail."""
    if not folder.is_dir():
        end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        end(f"the tree has no {folder.relative_to(PROJECT)}")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium, for modules marked ``needs_browser``."""
    with Browser() as browser:
        yield browser


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for tests that tell what is durable by other means: where syncs cost nothing, if there is one."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="kvstore-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
