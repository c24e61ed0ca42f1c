"""Verification: is what is on disk what was written?

report      findings, and what was checked
log         the log by itself: frames, chain, joins, indexes, entries
tables      the backend's tables against each other
small       marks, leases, attachments, alarms
snapshots   snapshot files: manifest, hash, content
deep        the backend against what snapshot and log say it should be, row by row
run         all of it, on a data directory or a snapshot file
healing     mends a damaged backend, or a log that ends before its backend does

Without ``deep`` this notices every flipped bit of log and snapshots (checksums), and in the backend whatever breaks
its structure or contradicts another row. A changed *value* contradicts nothing: neither LMDB nor SQLite
keeps checksums of pages, and a checksum per row would be paid by every read. That is what ``deep`` is for.
"""

from kvstore.verification.healing import Healed, heal
from kvstore.verification.report import Finding, Report, Steps
from kvstore.verification.run import verify

__all__ = ["Finding", "Healed", "Report", "Steps", "heal", "verify"]
