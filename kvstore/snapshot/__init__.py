"""Snapshots: verified copies of the store in one file each, and what is done with them.

manifest   the bytes: what follows the backend copy
reader     one file: its manifest, its verification, its backend
formats    a file of any known kind, ours or another program's
writer     taking one: copy, seal, read back, rename
copying    the backend's copy: hashed on the way, and read back
live_copy  taking one of a store that another process writes
transfer   the content of a snapshot into a new backend
point      any point of the past: a snapshot before it, and the log up to it
building   where a new data directory is built
restore    a new data directory from a snapshot or a data directory
rescue     a damaged backend at open: replaced from the newest good snapshot

When to take one, which to keep and which log segments that frees is in ``upkeep/snapshots.py``; a snapshot as a
read-only store is in ``opened.py``.
"""
