"""The members of the cluster: a picture, for clients that ask who is there.

There is one voter, this member. Learners are added, listed and removed, and nothing is ever sent to them. A second
voter is refused: a real etcd would take it, and then answer nobody.

    row of meta                  value                                                          (etcd's own, as JSON)
    etcd/members/<id, in hex>    {"id", "peerURLs", "isLearner", "name", "clientURLs"}

An import carries such rows. Those of this member and of learners that never started count. The others are members of
the cluster that the store came from: a client must not be sent to them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kvstore.backend import Row
from kvstore.errors import Code, Corruption
from kvstore.etcdpb.status import CODES
from kvstore.network.call import Failed

MEMBERS_PREFIX = b"etcd/members/"
LEARNERS_MAX = 1
_URL = re.compile(r"(https?|unixs?)://(\[[^\[\]]*\]|[^:/\[\]\s]*):[0-9]*")


@dataclass(frozen=True, slots=True)
class Member:
    """A member, as it is listed."""

    id: int
    peer_urls: tuple[str, ...]
    name: str = ""
    """Empty: it has never run."""
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """This member and its learners. A change gives another picture; ``Failed`` says why there is none."""

    own: Member
    learners: tuple[Member, ...] = ()

    @classmethod
    def loaded(cls, own: Member, rows: Iterable[Row]) -> Members:
        """What the rows of the store say. This member's own say no more than where its peers find it."""
        found = [decode_member(key, value) for key, value in rows]
        addresses = {member.id: member.peer_urls for member in found}
        learners = tuple(member for member in found if member.is_learner and not member.name)
        return cls(replace(own, peer_urls=addresses.get(own.id, own.peer_urls)), learners)

    def all(self) -> list[Member]:
        """By id, as etcd lists them."""
        return sorted((self.own, *self.learners), key=lambda member: member.id)

    def rows(self) -> dict[bytes, bytes]:
        return dict(map(encode_member, self.all()))

    def changes_since(self, before: Members) -> dict[bytes, bytes | None]:
        """Rows that differ from another picture's; None: there is none any more."""
        old, new = before.rows(), self.rows()
        return {key: new.get(key) for key in sorted(old | new) if old.get(key) != new.get(key)}

    # --- changes ----------------------------------------------------------------------

    def added(self, urls: Iterable[str], *, is_learner: bool, now_seconds: int) -> tuple[Members, Member]:
        """With a member more, and which."""
        peer_urls = _checked(urls)
        if not is_learner:
            raise refused("re-configuration failed due to not enough started members", Code.UNKNOWN)
        self._check_free(peer_urls)
        if len(self.learners) >= LEARNERS_MAX:
            raise refused("too many learner members in cluster")
        member = Member(_drawn_id(peer_urls, now_seconds), peer_urls, is_learner=True)
        return replace(self, learners=(*self.learners, member)), member

    def removed(self, member_id: int) -> Members:
        if member_id == self.own.id:
            raise refused("re-configuration failed due to not enough started members", Code.UNKNOWN)
        gone = self._get(member_id)
        return replace(self, learners=tuple(member for member in self.learners if member != gone))

    def updated(self, member_id: int, urls: Iterable[str]) -> Members:
        """With other addresses for its peers."""
        member = self._get(member_id)
        peer_urls = _checked(urls)
        self._check_free(peer_urls, but_by=member_id)
        changed = replace(member, peer_urls=peer_urls)
        if member is self.own:
            return replace(self, own=changed)
        return replace(self, learners=tuple(changed if each == member else each for each in self.learners))

    def promoted(self, member_id: int) -> Members:
        """Never: there is no learner that has caught up."""
        if self._get(member_id).is_learner:
            raise refused("can only promote a learner member which is in sync with leader")
        raise refused("can only promote a learner member")

    def _get(self, member_id: int) -> Member:
        for member in (self.own, *self.learners):
            if member.id == member_id:
                return member
        raise refused("member not found")

    def _check_free(self, peer_urls: Iterable[str], but_by: int = 0) -> None:
        others = (member for member in (self.own, *self.learners) if member.id != but_by)
        if any(not set(peer_urls).isdisjoint(member.peer_urls) for member in others):
            raise refused("Peer URLs already exists")


def refused(what: str, code: Code | None = None) -> Failed:
    """etcd's refusal with this text; of some of them the code gets lost on the way out of a server of etcd's."""
    text = f"etcdserver: {what}"
    return Failed(CODES[text] if code is None else code, text)


def _checked(urls: Iterable[str]) -> tuple[str, ...]:
    found = tuple(sorted(url.strip() for url in urls))
    if not found or not all(map(_URL.fullmatch, found)):
        raise refused("given member URLs are invalid")
    return found


def _drawn_id(peer_urls: tuple[str, ...], now_seconds: int) -> int:
    """As etcd draws the id of a member that joins: from its addresses and the time."""
    said = "".join(peer_urls) + str(now_seconds)
    return int.from_bytes(hashlib.sha1(said.encode(), usedforsecurity=False).digest()[:8], "big")


# --- rows ----------------------------------------------------------------------------------------


def encode_member(member: Member) -> Row:
    """As etcd writes it: what is empty is left out."""
    said: dict[str, Any] = {
        "id": member.id,
        "peerURLs": member.peer_urls,
        "isLearner": member.is_learner,
        "name": member.name,
        "clientURLs": member.client_urls,
    }
    kept = {name: value for name, value in said.items() if value}
    return MEMBERS_PREFIX + b"%x" % member.id, json.dumps(kept, separators=(",", ":")).encode()


def decode_member(key: bytes, value: bytes) -> Member:
    try:
        said = json.loads(value)
        return Member(
            int(said["id"]),
            tuple(map(str, said.get("peerURLs") or ())),
            str(said.get("name") or ""),
            tuple(map(str, said.get("clientURLs") or ())),
            bool(said.get("isLearner")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise Corruption(f"the row {key!r:.80} holds no member") from None
