"""Random conversations of several users, for a server beside a real etcd (test_users_beside_etcd.py).

Left out is what releases of etcd differ in, or what nobody means: nested transactions, and watches to the last key, in
which 3.4 looks at less; spans that end before they begin; tokens while users are off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kvstore.etcdpb.messages import etcdserverpb as pb

USERS = ("root", "u1", "u2", "u3", "")
ROLES = ("root", "r1", "r2", "r3", "")
KEYS = (b"a", b"b", b"b\0", b"c", b"c\xff", b"d", b"")
ENDS = (b"", b"", b"", b"b", b"c", b"d", b"e", b"\0")
LEASES = (1, 2, 3)
WHO = ("", "bad", "root", "root", "root", "root", "u1", "u1", "u2", "u2", "u3")


class Login(NamedTuple):
    user: str
    password: str


class Asked(NamedTuple):
    who: str
    path: str
    request: Any
    is_told: bool = True
    """Whether the answer is compared, or only whether there is one."""


class Requests:
    """What is asked; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: dict[Callable[[], Any], int] = {
            self._login: 10,
            self._manage: 25,
            self._put: 16,
            self._range: 16,
            self._delete: 7,
            self._txn: 10,
            self._lease: 8,
            self._watch: 3,
            self._rest: 5,
        }

    def some(self, count: int) -> Iterator[Login | Asked]:
        kinds, weights = list(self._kinds), list(self._kinds.values())
        for kind in self._random.choices(kinds, weights, k=count):
            yield kind()

    def _pick(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def _span(self) -> dict[str, bytes]:
        while True:
            key, end = self._pick(*KEYS), self._pick(*ENDS)
            if end in (b"", b"\0") or key < end:
                return {"key": key, "range_end": end}

    def _asked(self, path: str, request: Any, *, is_told: bool = True) -> Asked:
        return Asked(self._pick(*WHO), f"/etcdserverpb.{path}", request, is_told)

    # --- users and roles --------------------------------------------------------------

    def _login(self) -> Login:
        user = self._pick(*USERS)
        return Login(user, self._pick(user, user, user, "x", "new"))

    def _manage(self) -> Asked:
        user, role = self._pick(*USERS), self._pick(*ROLES)
        span, kind = self._span(), self._pick("READ", "WRITE", "READWRITE")
        method, fields = self._pick(
            ("UserAdd", {"name": user, "password": user}),
            ("UserAdd", {"name": user, "options": {"no_password": True}}),
            ("UserDelete", {"name": user}),
            ("UserChangePassword", {"name": user, "password": self._pick(user, user, "new", "")}),
            *[("UserGrantRole", {"user": user, "role": role})] * 3,
            ("UserRevokeRole", {"name": user, "role": role}),
            ("UserGet", {"name": user}),
            ("UserList", {}),
            *[("RoleAdd", {"name": role})] * 2,
            ("RoleDelete", {"role": role}),
            ("RoleGet", {"role": role}),
            ("RoleList", {}),
            *[("RoleGrantPermission", {"name": role, "perm": {"permType": kind, **span}})] * 4,
            ("RoleRevokePermission", {"role": role, **span}),
            ("AuthEnable", {}),
        )
        message = method if method.startswith("Auth") else f"Auth{method}"
        return self._asked(f"Auth/{method}", getattr(pb, f"{message}Request")(**fields))

    # --- keys -------------------------------------------------------------------------

    def _put_fields(self) -> dict[str, Any]:
        lease = self._pick(0, 0, *LEASES)
        return {
            "key": self._pick(*KEYS),
            "value": b"%d" % self._random.randrange(9),
            "lease": lease,
            "prev_kv": self._chance(30),
            "ignore_value": self._chance(5),
            "ignore_lease": self._chance(5),
        }

    def _put(self) -> Asked:
        return self._asked("KV/Put", pb.PutRequest(**self._put_fields()))

    def _range(self) -> Asked:
        request = pb.RangeRequest(**self._span(), serializable=self._chance(30), count_only=self._chance(10))
        return self._asked("KV/Range", request)

    def _delete(self) -> Asked:
        return self._asked("KV/DeleteRange", pb.DeleteRangeRequest(**self._span(), prev_kv=self._chance(30)))

    def _txn(self) -> Asked:
        compare = [
            {"target": "VERSION", "version": self._random.randrange(2), **self._span()}
            for _ in range(self._random.randrange(3))
        ]
        success, failure = ([self._op() for _ in range(self._random.randrange(3))] for _branch in range(2))
        return self._asked("KV/Txn", pb.TxnRequest(compare=compare, success=success, failure=failure))

    def _op(self) -> Any:
        return self._pick(
            {"request_put": self._put_fields()},
            {"request_range": self._span()},
            {"request_delete_range": {**self._span(), "prev_kv": self._chance(30)}},
        )

    # --- the rest ---------------------------------------------------------------------

    def _lease(self) -> Asked:
        lease = self._pick(*LEASES)
        method, request, is_told = self._pick(
            ("LeaseGrant", pb.LeaseGrantRequest(TTL=6000, ID=lease), True),
            ("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), True),
            ("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease, keys=True), False),
            ("LeaseLeases", pb.LeaseLeasesRequest(), False),
            ("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=lease), True),
        )
        return self._asked(f"Lease/{method}", request, is_told=is_told)

    def _watch(self) -> Asked:
        span = self._span()
        if span["range_end"] == b"\0":
            del span["range_end"]
        return self._asked("Watch/Watch", pb.WatchRequest(create_request=span))

    def _rest(self) -> Any:
        return self._pick(
            self._asked("KV/Compact", pb.CompactionRequest(revision=self._random.randrange(40))),
            self._asked("Maintenance/Alarm", pb.AlarmRequest()),
        )
