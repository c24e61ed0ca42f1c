"""Spans of keys, and changes of users and roles, by themselves."""

from __future__ import annotations

import random
from itertools import chain, pairwise
from typing import Any

import pytest

from kvstore.auth.changes import changed
from kvstore.auth.permissions import READ, WRITE, covers, merged, needs, point, span_of
from kvstore.auth.store import ENABLED, NOBODY, REVISION, USERS, Caller, Refused, Rules
from kvstore.errors import Corruption
from kvstore.etcdpb.logged import authpb
from kvstore.etcdpb.logged import etcdserverpb as pb
from kvstore.model import DeleteRangeRequest, LeaseLeasesRequest, PutRequest, TxnRequest, WatchRequest

LETTERS = [b"%c" % number for number in range(8)]


def keys_of(span: tuple[bytes, bytes | None]) -> set[bytes]:
    """Those of a few keys that are in a span."""
    few = [*LETTERS, *(letter + b"\0" for letter in LETTERS), *(letter + b"x" for letter in LETTERS)]
    return {key for key in few if span[0] <= key and (span[1] is None or key < span[1])}


@pytest.mark.parametrize("seed", range(20))
def test_merged_spans_hold_the_same_keys(seed: int) -> None:
    """As few as possible, in order, with gaps between them; a span is covered if all of it is within one of them."""
    chance = random.Random(seed)

    def drawn() -> tuple[bytes, bytes | None]:
        start, end = sorted(chance.sample(LETTERS, 2))
        return chance.choice([(start, end), (start, end), (start, end), point(start), (start, None)])

    spans = [drawn() for _ in range(chance.randrange(1, 6))]
    found = merged(spans)
    for (_, end), (start, _) in pairwise(found):
        assert end is not None and end < start
    assert set().union(*map(keys_of, found)) == set().union(*map(keys_of, spans))
    for _ in range(100):
        wanted = drawn()
        end = wanted[1]
        held = any(
            low <= wanted[0] and (high is None or (end is not None and end <= high)) for low, high in found
        )
        assert covers(found, wanted) == held
        if held:
            assert keys_of(wanted) <= set().union(*map(keys_of, spans))


def test_a_span_without_keys_is_covered_by_none_beyond_it() -> None:
    """Where the end is before the start, the start has to be inside all the same."""
    assert not covers([(b"a", b"c")], (b"z", b"b"))
    assert not covers([], point(b"a"))


def test_what_a_request_needs() -> None:
    """Reads and writes, of both branches and of what is nested; of a lease's other keys, where it is named."""
    leases = {7: [b"x", b"y"]}

    def found(request: Any) -> list[Any]:
        return list(
            needs(request, lambda lease: chain(*leases.values()) if lease is None else leases.get(lease, []))
        )

    a = point(b"a")
    assert found(PutRequest(b"a")) == [(WRITE, a)]
    assert found(PutRequest(b"a", lease=7, prev_kv=True)) == [
        *((WRITE, a), (READ, a)),
        *((WRITE, point(b"x")), (WRITE, point(b"y"))),
    ]
    assert found(DeleteRangeRequest(b"a", b"\0", prev_kv=True)) == [
        (WRITE, (b"a", None)),
        (READ, (b"a", None)),
    ]
    inner = TxnRequest(failure=(PutRequest(b"a", lease=7),))
    assert found(TxnRequest((), (inner, None), ())) == [
        (WRITE, a),
        (WRITE, point(b"x")),
        (WRITE, point(b"y")),
    ]
    assert found(LeaseLeasesRequest()) == [(READ, point(b"x")), (READ, point(b"y"))]
    assert found(WatchRequest(b"", b"\0")) == [(READ, (b"\0", None))]
    assert found(object()) == []
    assert span_of(b"a", b"b") == (b"a", b"b")


# --- rules -----------------------------------------------------------------------------------------


def applied(*requests: Any, rows: dict[bytes, bytes] | None = None) -> Rules:
    """The rules after some changes."""
    found = dict(rows or {})
    for request in requests:
        for name, value in changed(Rules(found), request).items():
            if value is None:
                del found[name]
            else:
                found[name] = value
    return Rules(found)


ROOT = (
    pb.AuthUserAddRequest(name=b"root"),
    pb.AuthUserGrantRoleRequest(user=b"root", role=b"root"),
    pb.AuthEnableRequest(),
)


def test_the_revision_counts_changes() -> None:
    """From 1 on; turning users on is none, turning them off is one, and so is nothing that is so already."""
    assert applied().revision == 1
    rules = applied(*ROOT)
    assert (rules.enabled, rules.revision) == (True, 3)
    again = applied(*ROOT[1:], rows=dict(rules.rows))
    assert again.rows == rules.rows
    off = applied(pb.AuthDisableRequest(), rows=dict(rules.rows))
    assert (off.enabled, off.revision) == (False, 4)
    assert applied(pb.AuthDisableRequest(), rows=dict(off.rows)).rows == off.rows


def test_who_counts_as_whom() -> None:
    """Nobody, a user who is gone, one by old rules: each is told another thing. Root may be found out by any."""
    rules = applied(*ROOT, pb.AuthUserAddRequest(name=b"bob"))
    read = [(READ, point(b"a"))]
    for caller, needed, said in (
        (NOBODY, read, "user name is empty"),
        (Caller(b"", 9), read, "user name is empty"),
        (Caller(b"bob", 4), read, "permission denied"),
        (Caller(b"bob", 3), read, "revision of auth store is old"),
        (Caller(b"gone", 4), read, "permission denied"),
        (Caller(b"root", 3), read, "revision of auth store is old"),
    ):
        with pytest.raises(Refused, match=said):
            rules.check(caller, needed)
    rules.check(Caller(b"root", 4), read)
    rules.check(NOBODY, [])
    rules.check_root(Caller(b"root", 1))
    rules.check_user(Caller(b"bob", 1))
    with pytest.raises(Refused, match="permission denied"):
        rules.check_root(Caller(b"bob", 4))
    with pytest.raises(Refused, match="permission denied"):
        rules.check_user(Caller(b"gone", 4))


def test_rules_without_users_refuse_nothing() -> None:
    """Whoever asks."""
    rules = applied(*ROOT[:2])
    rules.check(NOBODY, [(WRITE, point(b"a"))])
    rules.check_root(NOBODY)
    rules.check_user(NOBODY)


def test_a_user_without_a_password_gets_none() -> None:
    """Neither when he is added nor by a change."""
    add = pb.AuthUserAddRequest(name=b"u", options={"no_password": True})
    change = pb.AuthUserChangePasswordRequest(name=b"u", hashedPassword=b"JDJhJA==")
    rules = applied(add, change)
    assert rules.user(b"u").password == b""
    assert applied(pb.AuthUserAddRequest(name=b"u"), change).user(b"u").password == b"$2a$"


@pytest.mark.parametrize(
    "rows",
    [{REVISION: b"1"}, {USERS + b"a": b"\xff"}, {ENABLED: b"\x01", USERS + b"a": b"\x0a\xff"}],
)
def test_rows_that_say_nothing_are_damage(rows: dict[bytes, bytes]) -> None:
    """Not an absent user, and not rules without a revision."""
    with pytest.raises(Corruption):
        Rules(rows).user(b"a")


def test_names_are_bytes() -> None:
    """A log may hold names that are no text: they are kept as they are."""
    rules = applied(pb.AuthUserAddRequest(name=b"\xff"), pb.AuthRoleAddRequest(name=b"\xfe"))
    assert (rules.users(), rules.roles()) == ([b"\xff"], [b"\xfe"])
    assert rules.rows[USERS + b"\xff"] == authpb.User(name=b"\xff").SerializeToString() + b'"\x00'
