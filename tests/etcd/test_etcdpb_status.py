"""Codes and texts of errors on the wire: etcd's, to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kvstore.tools.lab.conversation import read_conversation

from kvstore import errors
from kvstore.errors import Code, KVStoreError
from kvstore.etcdpb.status import CODES, status_of
from tests.etcd.conversations import TRACES


def test_every_recorded_refusal_is_in_the_list() -> None:
    """Whatever a real etcd has refused, with its code."""
    refusals = {
        (exchange.error["message"], exchange.error["code"])
        for trace in TRACES
        for exchange in read_conversation(trace)
        if exchange.error
    }
    assert len(refusals) > 5
    assert refusals <= {(text, int(code)) for text, code in CODES.items()}


def kinds(root: type[KVStoreError] = KVStoreError) -> Iterator[type[KVStoreError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_an_error_with_etcds_text_has_etcds_code(kind: Any) -> None:
    """What begins as etcd's messages do is one of them."""
    if kind.message.startswith("etcdserver: "):
        assert CODES[kind.message] == kind.code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.EmptyKey(), 3, "etcdserver: key is not provided"),
        (errors.Compacted(7), 11, "etcdserver: mvcc: required revision has been compacted"),
        (errors.LeaseNotFound(), 5, "etcdserver: requested lease not found"),
        (errors.RequestTooLarge(9, 8), 3, "etcdserver: request is too large"),
        (errors.BadArgument("limit: too much"), 3, "limit: too much"),
        (errors.QuotaExceeded(9, 8), 8, "etcdserver: mvcc: database space exceeded"),
        (errors.DiskFull(), 8, "etcdserver: mvcc: database space exceeded"),
        (errors.StoreClosed(), 14, "etcdserver: server stopped"),
        (errors.StorePoisoned(), 14, "etcdserver: server stopped"),
        (errors.Overloaded(), 14, "etcdserver: request timed out"),
        (errors.Corruption("bad row", "/data/db"), 15, "etcdserver: corrupt cluster"),
        (errors.NoThread(), 14, errors.NoThread.message),
        (errors.ReadOnly(), 9, str(errors.ReadOnly())),
        (ZeroDivisionError("division by zero"), 2, "division by zero"),
    ],
)
def test_what_a_client_gets_to_see(error: Exception, code: int, text: str) -> None:
    """etcd's word where it has one; else our own, and UNKNOWN for what is no error of ours."""
    assert status_of(error) == (Code(code), text)


def test_the_list_is_etcds() -> None:
    """As many messages as etcd has (rpctypes, 3.5 to 3.7), each with one code and without a blank around it."""
    assert len(CODES) == 63
    assert all(text == text.strip() for text in CODES)
