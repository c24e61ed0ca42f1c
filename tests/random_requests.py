"""Random requests in the format of recorded conversations: over few, awkward keys, many of them wrong."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

Message = dict[str, Any]

AWKWARD = [
    "\0",
    "\0\0",
    "a",
    "a\0",
    "ab",
    "b",
    "k/",
    "k/1",
    "k/10",
    "k/2",
    "z\0\1",
    "\xc3\xa9",
    "\xff",
    "\xff\xff",
]
LONG = ["p" * 600, "p" * 600 + "\0", "p" * 511, "p" * 512, "q" * 2999 + "\xff", "p" * 600 + "\xff\xff"]
LEASES = list(range(101, 109))


class Requests:
    """An endless stream of (op, request). It guesses the store's revision to ask around it."""

    def __init__(self, seed: int, *, long_keys: bool = False) -> None:
        self._random = Random(seed)
        self._keys = AWKWARD + (LONG * 3 if long_keys else [])
        self.revision = 1

    def __iter__(self) -> Iterator[tuple[str, Message]]:
        choices = [self.put] * 8 + [self.range] * 8 + [self.txn] * 6 + [self.delete] * 2
        choices += [self.grant] * 2 + [self.revoke, self.compact]
        while True:
            make = self._random.choice(choices)
            yield make.__name__, make()

    def put(self) -> Message:
        request: Message = {"key": self._key(), "value": self._value()}
        if self._chance(0.25):
            request["lease"] = self._lease()
        for flag in ("prev_kv", "ignore_value", "ignore_lease"):
            if self._chance(0.12):
                request[flag] = True
        if "ignore_value" in request and self._chance(0.9):
            request["value"] = ""
        return request

    def range(self) -> Message:
        request = self._span()
        if self._chance(0.4):
            request["revision"] = self._revision()
        if self._chance(0.1):
            request["keys_only"] = True
        if self._chance(0.1):
            request["count_only"] = True
        for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self._chance(0.06):
                request[bound] = self._revision()
        if self._chance(0.5):
            request["sort_order"] = self._random.choice(["NONE", "ASCEND", "DESCEND"])
            request["sort_target"] = self._random.choice(["KEY", "VERSION", "CREATE", "MOD", "VALUE"])
        if request.get("sort_target") == "VALUE":
            request.pop("keys_only", None)  # which rows tie could not be seen
        if self._chance(0.4) and request.get("sort_target", "KEY") == "KEY":
            request["limit"] = self._random.choice([0, 1, 2, 3, 5, 100, -1])
        return request

    def delete(self) -> Message:
        request = self._span()
        if self._chance(0.4):
            request["prev_kv"] = True
        return request

    def txn(self, depth: int = 0) -> Message:
        return {
            "compare": [self._compare() for _ in range(self._random.choice([0, 0, 1, 1, 2]))],
            "success": [self._op(depth) for _ in range(self._random.choice([0, 1, 2, 3]))],
            "failure": [self._op(depth) for _ in range(self._random.choice([0, 1, 2]))],
        }

    def compact(self) -> Message:
        behind = self._random.choice([0, 5, 50, 200, 200])
        request: Message = {"revision": self._revision() - behind}
        if self._chance(0.5):
            request["physical"] = True
        return request

    def grant(self) -> Message:
        return {"ID": self._random.choice(LEASES), "TTL": 86400}

    def revoke(self) -> Message:
        return {"ID": self._lease()}

    # --- parts ------------------------------------------------------------------------

    def _op(self, depth: int) -> Message:
        kinds = ["put", "put", "range", "range", "delete"] + (["txn", "txn"] if depth < 2 else [])
        kind = self._random.choice(kinds)
        if kind == "txn":
            return {"request_txn": self.txn(depth + 1)}
        if kind == "delete":
            return {"request_delete_range": self.delete()}
        request = self.put() if kind == "put" else self.range()
        if kind == "range" and self._chance(0.7):
            request.pop("revision", None)  # most past revisions are compacted, and one refusal refuses all
        if kind == "put" and self._chance(0.7):
            for name in ("lease", "ignore_value", "ignore_lease"):
                request.pop(name, None)
        return {f"request_{kind}": request}

    def _compare(self) -> Message:
        target, name = self._random.choice(
            [
                ("VERSION", "version"),
                ("CREATE", "create_revision"),
                ("MOD", "mod_revision"),
                ("VALUE", "value"),
                ("LEASE", "lease"),
            ]
        )
        compare = self._span() if self._chance(0.3) else {"key": self._key()}
        compare["target"] = target
        compare["result"] = self._random.choice(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"])
        if name == "value":
            compare[name] = self._value()
        elif name == "lease":
            compare[name] = self._random.choice([0, *LEASES])
        else:
            compare[name] = self._random.choice([0, 1, 2, self._revision()])
        return compare

    def _span(self) -> Message:
        span: Message = {"key": self._key()}
        shape = self._random.random()
        if shape < 0.25:
            span["range_end"] = "\0"
            if self._chance(0.5):
                span["key"] = "\0"
        elif shape < 0.6:
            span["range_end"] = self._random.choice(self._keys)
        elif shape < 0.7 and span["key"] and span["key"][-1] != "\xff":
            span["range_end"] = span["key"][:-1] + chr(ord(span["key"][-1]) + 1)
        return span

    def _key(self) -> str:
        return "" if self._chance(0.01) else self._random.choice(self._keys)

    def _value(self) -> str:
        return self._random.randbytes(self._random.choice([0, 1, 3, 20])).decode("latin-1")

    def _lease(self) -> int:
        return self._random.choice([*LEASES, 999])

    def _revision(self) -> int:
        behind = self._random.choice([0, 0, 1, 1, 2, 3, 5, 10, 30, 100, 200])
        return self.revision + 1 if self._chance(0.05) else max(-1, self.revision - behind)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share
