"""The write-ahead log: makes a write durable. It knows indexes, times and bytes; no keys, no revisions.

format     the bytes: frames, records, batches
reader     one segment, frame by frame
writer     one segment, being appended to
log        the segments together: create, open, replay, append, roll, release
replay     reading all segments in order, to the end
tail       torn or damaged: where the log ends, and what may be cut
bit_flip   finding a single flipped bit
inspect    a dump of one segment, and the repair of a whole log
restart    a new log after a damaged one
archive    released segments, kept for a restore
"""

from kvstore.wal.format import Batch, Metadata
from kvstore.wal.log import Durability, Log, LogOptions, SegmentInfo

__all__ = ["Log", "LogOptions", "Durability", "Batch", "Metadata", "SegmentInfo"]
