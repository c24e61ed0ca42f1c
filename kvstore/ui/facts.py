"""The numbers that stand above a store's page, and what they mean, in the same words wherever they stand."""

from __future__ import annotations

Fact = tuple[str, str, str]
"""A name, a number, what it means."""

_MEANINGS = {
    "kind": "What was opened.",
    "revision": "The newest revision. Each transaction that changes something makes one.",
    "compacted at": "Of older revisions only what was live at this one is kept.",
    "keys": "Keys that exist at the newest revision.",
    "deleted keys": "Keys that do not exist any more, but of which an older version, or the delete itself, is kept "
    "until the next compaction after it.",
    "kept versions": "Versions and deletes of all keys, the newest ones and those before them.",
    "superseded": "Of keys and values, what is no newest version: older versions and deletes. A compaction at the "
    "newest revision would drop it, and a defragmentation then give the space back.",
    "leases": "Leases that have not ended. Their keys go when they do.",
    "cluster": "The id of the cluster that wrote the store.",
    "values in this page": "All keys are named here. Values are those of the largest, the most changed, and some of "
    "the others.",
    "size": "Bytes of the store's file.",
    "in use": "Bytes of that file that hold something. A defragmentation gives the rest back.",
    "behind its source": "This is a replica: what its source had that long ago is here.",
    "version": "The release of etcd that clients take this server for.",
}


def fact(name: str, number: str) -> Fact:
    return name, number, _MEANINGS[name]


def revision_facts(revision: int, compact_revision: int) -> list[Fact]:
    compacted = f"{compact_revision:,}" if compact_revision >= 0 else "never"
    return [fact("revision", f"{revision:,}"), fact("compacted at", compacted)]
