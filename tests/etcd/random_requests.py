"""Random requests in the format of recorded conversations: over few, awkward keys, many of them wrong.

A profile says which requests are frequent. Whoever asks them tells ``learn`` what was answered, so that the next
requests can aim at what is there: around the newest revision, around the compaction, at watches that are open.

What etcd answers differently from version to version, or leaves open, is not asked: a watch from the compact
revision or from a negative one, HashKV at the compact revision, progress while a watch waits for the future.
"""

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
LEASES = [101, 102, 103, 104, 105, -7, 2**63 - 1, -(2**63)]
TTL_SECONDS = 86400
EXTREMES = [-(2**63), -5, -1, 2**63 - 1]
WATCH_IDS = [0, 0, 0, 1, 2, 3, 9, -5, 2**62]

_MIX = {"put": 8, "range": 8, "txn": 6, "delete": 2, "grant": 2, "revoke": 1, "compact": 1}
PROFILES: dict[str, dict[str, int]] = {
    "mix": _MIX,
    "range": {**_MIX, "range": 30, "txn": 2},
    "txn": {**_MIX, "txn": 30, "range": 2},
    "lease": {**_MIX, "grant": 6, "revoke": 3, "keepalive": 2, "timetolive": 4, "leases": 1},
    "hash": {"put": 8, "delete": 4, "txn": 4, "grant": 1, "revoke": 1, "compact": 1, "hashkv": 1},
    "watch": {**_MIX, "range": 1, "delete": 4, "watch": 1, "stream": 4},
    "many": {
        "many_txn": 4,
        "many_range": 8,
        "many_delete": 2,
        "compact": 1,
        "grant": 1,
        "revoke": 1,
        "many_watch": 1,
    },
    "large": {"large_txn": 8, "large_put": 1, "put": 2, "range": 1},
}


class Requests:
    """An endless stream of (op, request)."""

    def __init__(self, seed: int, *, profile: str = "mix", long_keys: bool = False) -> None:
        self._random = Random(seed)
        self._keys = AWKWARD + (LONG * 3 if long_keys else [])
        self._profile = PROFILES[profile]
        self.revision = 1
        self.compacted = -1
        self._watches: dict[int, int] = {}
        """Start revisions of the open ones, by id."""
        self._start_revision = 0

    def __iter__(self) -> Iterator[tuple[str, Message]]:
        kinds, weights = list(self._profile), list(self._profile.values())
        while True:
            (kind,) = self._random.choices(kinds, weights)
            if kind == "hashkv" and self.compacted >= self.revision:
                continue
            yield kind.removeprefix("large_").removeprefix("many_"), getattr(self, kind)()

    def learn(self, exchange: Message) -> None:
        """Take note of an answer."""
        response = exchange.get("response", {})
        self.revision = response.get("header", {}).get("revision", self.revision)
        if exchange["op"] == "compact" and response:
            self.compacted = exchange["request"].get("revision", 0)
        for message in response.get("responses", []) if exchange["op"] == "stream" else []:
            if message.get("canceled"):
                self._watches.pop(message["watch_id"], None)
            elif message.get("created"):
                self._watches[message["watch_id"]] = self._start_revision

    # --- requests ---------------------------------------------------------------------

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
        for flag in ("keys_only", "count_only", "serializable"):
            if self._chance(0.1):
                request[flag] = True
        for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self._chance(0.08):
                request[bound] = self._revision()
        if self._chance(0.6):
            request["sort_order"] = self._random.choice(["NONE", "ASCEND", "DESCEND"])
            request["sort_target"] = self._random.choice(["KEY", "VERSION", "CREATE", "MOD", "VALUE"])
        if self._chance(0.4):
            request["limit"] = self._random.choice([0, 1, 2, 3, 5, 10, 100, *EXTREMES])
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

    def large_txn(self) -> Message:
        """About as many compares and ops as are allowed, over two levels."""
        count = self._random.choice([1, 20, 64, 120, 126, 127, 128, 129])
        ops: list[Message] = [
            {"request_put": {"key": f"n/{at}", "value": self._value()}} for at in range(count)
        ]
        inside = max(128 - count + self._random.choice([-1, 0, 1]), 0)
        if self._chance(0.5):
            ops[0] = {"request_txn": {self._branch(): [self._get(at) for at in range(inside)]}}
        elif self._chance(0.3):
            compares = [{"key": "a", "target": "VERSION"}] * inside
            ops[0] = {"request_txn": {"compare": compares}}
        return {self._branch(): ops}

    def large_put(self) -> Message:
        """About as large as is allowed; so near to it that only a byte decides, versions of etcd may differ."""
        return {
            "key": "large",
            "value": "v" * self._random.choice([1_000_000, 1_572_700, 1_573_000, 1_600_000]),
        }

    def many_txn(self) -> Message:
        """A hundred keys in a row of the thousand of this profile."""
        first, lease = self._random.randrange(900), self._lease() if self._chance(0.2) else 0
        value = self._value()
        puts = [{"key": f"m/{first + at:03}", "value": value, "lease": lease} for at in range(100)]
        return {"success": [{"request_put": put} for put in puts]}

    def many_range(self) -> Message:
        request = {**self.range(), **self._many_span()}
        if self._chance(0.5):
            request["limit"] = self._random.choice([1, 2, 99, 100, 500, 999, 1000])
        return request

    def many_delete(self) -> Message:
        return {**self.delete(), **self._many_span()}

    def many_watch(self) -> Message:
        return {**self.watch(), **self._many_span()}

    def compact(self) -> Message:
        behind = self._random.choice([0, 5, 50, 200, 200])
        request: Message = {"revision": max(self._revision() - behind, EXTREMES[0])}
        if self._chance(0.03):
            request["revision"] = self._random.choice([0, *EXTREMES, self.compacted])
        if self._chance(0.5) or "hashkv" in self._profile:
            request["physical"] = True
        return request

    def grant(self) -> Message:
        if self._chance(0.05):
            return {"ID": self._random.choice(LEASES), "TTL": self._random.choice([9_000_000_001, 2**63 - 1])}
        return {"ID": self._random.choice(LEASES), "TTL": self._random.choice([TTL_SECONDS, 9_000_000_000])}

    def revoke(self) -> Message:
        return {"ID": self._lease()}

    def keepalive(self) -> Message:
        return {"ID": self._lease()}

    def timetolive(self) -> Message:
        return {"ID": self._lease(), "keys": self._chance(0.8)}

    def leases(self) -> Message:
        return {}

    def hashkv(self) -> Message:
        kept = self._random.randint(max(self.compacted + 1, 1), self.revision)
        return {"revision": self._random.choice([0, kept])}

    def watch(self) -> Message:
        request = {**self._span(), "start_revision": max(self._start(), 0)}
        if self._chance(0.5):
            request["prev_kv"] = True
        return request

    def stream(self) -> Message:
        drawn = self._random.random()
        if drawn < 0.35:
            return {"create_request": self._watch_to_create()}
        if drawn < 0.5:
            return {"cancel_request": {"watch_id": self._random.choice([*WATCH_IDS, *self._watches])}}
        waiting = any(start > self.revision for start in self._watches.values())
        if drawn < 0.65 and self._watches and not waiting:
            return {"progress_request": {}}
        return {}

    # --- parts ------------------------------------------------------------------------

    def _watch_to_create(self) -> Message:
        request = {
            **self._span(),
            "start_revision": self._start(),
            "watch_id": self._random.choice(WATCH_IDS),
        }
        self._start_revision = request["start_revision"]
        for flag in ("prev_kv", "progress_notify"):
            if self._chance(0.5):
                request[flag] = True
        if self._chance(0.3):
            request["filters"] = self._random.choice([["NOPUT"], ["NODELETE"], ["NOPUT", "NODELETE"]])
        return request

    def _start(self) -> int:
        start = self._random.choice([0, 0, self._revision(), self._revision(), self.revision + 3])
        return start if start > 0 and start != self.compacted else 0

    def _op(self, depth: int) -> Message:
        kinds = ["put", "put", "range", "range", "delete"] + (["txn", "txn"] if depth < 3 else [])
        kind = self._random.choice(kinds)
        if self._chance(0.01):
            return {}
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
        if request.get("sort_target", "KEY") != "KEY":
            for name in ("limit", "keys_only"):  # ties: which rows are cut off could not be seen
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
        compare: Message = {**(self._span() if self._chance(0.3) else {"key": self._key()})}
        compare["target"] = target
        compare["result"] = self._random.choice(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"])
        if self._chance(0.03):
            name = self._random.choice(["version", "mod_revision", "value", "lease"])  # another target's
        if name == "value":
            compare[name] = self._value()
        elif name == "lease":
            compare[name] = self._random.choice([0, *LEASES])
        else:
            compare[name] = self._random.choice([0, 1, 2, self._revision()])
        if self._chance(0.03):
            del compare[name]
        return compare

    def _branch(self) -> str:
        return self._random.choice(["success", "failure"])

    def _get(self, number: int) -> Message:
        return {"request_range": {"key": f"n/{number}", "count_only": True}}

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

    def _many_span(self) -> Message:
        if self._chance(0.2):
            return {"key": "m/", "range_end": "m0"}
        first = self._random.randrange(1000)
        return {"key": f"m/{first:03}", "range_end": f"m/{first + self._random.choice([1, 5, 50, 500]):03}"}

    def _key(self) -> str:
        return "" if self._chance(0.01) else self._random.choice(self._keys)

    def _value(self) -> str:
        return self._random.randbytes(self._random.choice([0, 1, 3, 20])).decode("latin-1")

    def _lease(self) -> int:
        return self._random.choice([*LEASES, 999, 0] if self._chance(0.2) else LEASES)

    def _revision(self) -> int:
        if self._chance(0.01):
            return self._random.choice(EXTREMES)
        behind = self._random.choice([0, 0, 1, 1, 2, 3, 5, 10, 30, 100, 200])
        return self.revision + 1 if self._chance(0.05) else max(-1, self.revision - behind)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share
