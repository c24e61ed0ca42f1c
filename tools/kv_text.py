"""Responses as etcdctl prints them ("simple"): a line for each key and each value, as they are or as ``\\x..``."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.keyvalue import KeyValue
from kvstore.model import DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse

from .command import write_bytes, write_line


class Printer:
    """Prints responses to stdout."""

    def __init__(self, *, as_hex: bool = False, values_only: bool = False) -> None:
        self._as_hex = as_hex
        self._values_only = values_only

    def answer(self, response: object) -> None:
        match response:
            case RangeResponse():
                self.key_values(response.kvs)
            case PutResponse():
                write_line("OK")
                self.key_values([response.prev_kv] if response.prev_kv else [])
            case DeleteRangeResponse():
                write_line(str(response.deleted))
                self.key_values(response.prev_kvs)
            case TxnResponse():
                write_line("SUCCESS" if response.succeeded else "FAILURE")
                for part in response.responses:
                    write_line("")
                    self.answer(part)

    def key_values(self, kvs: Iterable[KeyValue]) -> None:
        for kv in kvs:
            if not self._values_only:
                write_bytes(self._shown(kv.key) + b"\n")
            write_bytes(self._shown(kv.value) + b"\n")

    def _shown(self, data: bytes) -> bytes:
        return b"".join(b"\\x%02x" % byte for byte in data) if self._as_hex else data
