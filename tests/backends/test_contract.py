"""Our own backends under the contract."""

import pytest
from kvstore.backends import lmdb, sqlite
from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.memory import MemoryBackend
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.testing.backend_contract import BackendContract


class TestLMDB(BackendContract):
    backend = LMDBBackend

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Closing gives up a view that is never closed sooner than a program would like it to."""
        monkeypatch.setattr(lmdb, "VIEW_WAIT_SECONDS", 0.2)


class TestSQLite(BackendContract):
    backend = SQLiteBackend

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Closing gives up a view that is never closed sooner than a program would like it to."""
        monkeypatch.setattr(sqlite, "CLOSE_WAIT_SECONDS", 0.2)


class TestMemory(BackendContract):
    backend = MemoryBackend
