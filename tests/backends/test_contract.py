"""Our own backends under the contract."""

from kvstore.backends.lmdb import LMDBBackend
from kvstore.backends.memory import MemoryBackend
from kvstore.backends.sqlite import SQLiteBackend

from kvstore.testing.backend_contract import BackendContract


class TestLMDB(BackendContract):
    backend = LMDBBackend


class TestSQLite(BackendContract):
    backend = SQLiteBackend


class TestMemory(BackendContract):
    backend = MemoryBackend
