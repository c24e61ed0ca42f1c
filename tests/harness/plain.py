"""Answers of a store in the form in which ``tests.harness.model`` gives them."""

from __future__ import annotations

from typing import Any

from kvstore import KeyValue, KeyValues, Store
from kvstore.mvcc.changes import change_page
from tests.harness.model import KV


def plain(answer: Any) -> Any:
    """An answer as tuples, lists and ``KV``."""
    if isinstance(answer, KeyValue):
        return KV(
            answer.key,
            answer.value,
            answer.create_revision,
            answer.mod_revision,
            answer.version,
            answer.lease,
        )
    if isinstance(answer, tuple):
        fields = tuple(plain(field) for field in answer)
        return (*fields[:2], list(fields[2])) if type(answer).__name__ == "TxnResponse" else fields
    if isinstance(answer, (list, KeyValues)):
        return [plain(item) for item in answer]
    return answer


def value_of(store: Store, key: bytes, revision: int = 0) -> bytes | None:
    """The key's value; None where there is no such key."""
    kv = store.get(key, revision=revision)
    return None if kv is None else kv.value


def changes_since(store: Store, first: int, page_rows: int = 100) -> list[tuple[int, int, bytes, KV | None]]:
    """Every change from revision ``first`` on, as watches read them: whole revisions, page by page."""
    found, at = [], first
    while at <= store.revision:
        page, covered = change_page(store.engine.state, at, store.revision, page_rows)
        assert covered >= at
        for main, sub, key, row in page:
            found.append((main, sub, key, None if row is None else plain(KeyValue.from_row(row))))
        at = covered + 1
    return found
