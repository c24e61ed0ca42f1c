"""Logs as etcd writes them, record by record."""

from kvstore.migrations.etcd import messages
from kvstore.migrations.etcd.wal_frame import CRC, ENTRY, FRAME_ALIGN_BYTES, METADATA, SNAPSHOT, STATE, crc_of

from kvstore.wire import varint


def encode_frame(record_type: int, crc: int, data: bytes | None) -> bytes:
    """One frame, as etcd writes it."""
    body = b"\x08" + varint(record_type) + b"\x10" + varint(crc)
    if data is not None:
        body += b"\x1a" + varint(len(data)) + data
    padding = -len(body) % FRAME_ALIGN_BYTES
    field = len(body) | ((0x80 | padding) << 56 if padding else 0)
    return field.to_bytes(8, "little") + body + bytes(padding)


class LogWriter:
    """Writes records as etcd does: a running checksum, each segment beginning with it and the metadata."""

    def __init__(self, metadata: bytes = b"") -> None:
        self.metadata = metadata
        self.crc = 0
        self.out = bytearray()
        self.starts: list[int] = []
        self.head()

    def head(self) -> None:
        self.out = bytearray(encode_frame(CRC, self.crc, None))
        self.starts = [0]
        self.record(METADATA, self.metadata)

    def record(self, kind: int, data: bytes) -> None:
        self.crc = crc_of(data, self.crc)
        self.starts.append(len(self.out))
        self.out += encode_frame(kind, self.crc, data)

    def snapshot(self, index: int, term: int) -> None:
        self.record(SNAPSHOT, messages.WalSnapshot(index=index, term=term).SerializeToString())

    def entry(self, index: int, term: int = 1, data: bytes = b"") -> None:
        self.record(ENTRY, messages.Entry(Term=term, Index=index, Data=data).SerializeToString())

    def state(self, commit: int, term: int = 1) -> None:
        self.record(STATE, messages.HardState(term=term, vote=1, commit=commit).SerializeToString())
