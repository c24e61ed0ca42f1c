"""Verification: is what is on disk what was written?

report      findings, and what was checked
log         the log by itself: frames, chain, joins, indexes, entries
tables      the backend's tables against each other
small       marks, leases, attachments, alarms
snapshots   snapshot files: manifest, hash, content
deep        the backend, row by row, against what snapshot and log say it should be
copied      whether a backend is a copy of files in use
run         all of it, on a data directory or a snapshot file
healing     mends a damaged backend, or a log that ends before its backend does

Without ``deep`` this finds every flipped bit of log and snapshots (checksums), and in the backend anything that breaks
its structure or contradicts another row. A changed *value* contradicts nothing: neither LMDB nor SQLite
keeps checksums of pages, and every read would have to pay for a checksum per row. That is what ``deep`` is for.
"""

from kvstore.verification.healing import Healed, heal
from kvstore.verification.report import Finding, Report, Steps
from kvstore.verification.run import verify

__all__ = ["Finding", "Healed", "Report", "Steps", "heal", "verify"]
