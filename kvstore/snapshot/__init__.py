"""Snapshots: verified copies of the store in one file each, and what is done with them.

manifest   the bytes: what follows the backend copy
reader     one file: its manifest, its verification, its backend
writer     taking one: copy, seal, read back, rename
keeper     when to take one, which to keep, which log segments that frees
opened     a snapshot as a read-only store
restore    a new data directory out of a snapshot, and of the log after it
rescue     a damaged backend at open: replaced from the newest good snapshot
"""
