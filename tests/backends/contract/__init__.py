"""What every backend must do. A third party's suite is two lines:

from tests.backends.contract.backend_contract import BackendContract

class TestMine(BackendContract):
    backend = MyBackend
"""
