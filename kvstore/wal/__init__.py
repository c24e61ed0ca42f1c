"""The write-ahead log: makes a write durable. It knows indexes, times and bytes; no keys, no revisions.

format     the bytes: frames, records, batches
reader     one segment, frame by frame
writer     one segment, being appended to
recovery   torn or damaged: where the log ends, and what may be cut
log        the segments together: create, open, replay, append, roll, release
"""

from kvstore.wal.format import Batch, Metadata
from kvstore.wal.log import Durability, Log, LogOptions, SegmentInfo

__all__ = ["Log", "LogOptions", "Durability", "Batch", "Metadata", "SegmentInfo"]
