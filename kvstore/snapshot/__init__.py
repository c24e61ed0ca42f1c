"""Snapshots: verified copies of the store in one file each, and what is done with them.

manifest   the bytes: what follows the backend copy
reader     one file: its manifest, its verification, its backend
writer     taking one: copy, seal, read back, rename
copying    the backend's copy: hashed on the way, and read back
beside     taking one of a store that another process writes
keeper     when to take one, which to keep, which log segments that frees
opened     a snapshot as a read-only store; files of other kinds too
transfer   the content of a snapshot into a new backend
point      any point of the past: a snapshot before it, and the log up to it
restore    a new data directory out of a snapshot or a data directory
rescue     a damaged backend at open: replaced from the newest good snapshot
"""
