"""Users beside a real etcd: how long tokens live; over JSON, and by etcdctl."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from tests.etcd import etcd_servers as real
from tests.network.two_servers import (
    BAD,
    COST,
    EVERYBODY,
    READ,
    Both,
    Side,
    auth,
    begin,
    two_servers,
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)


@pytest.fixture(params=["lmdb", "sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    with two_servers(tmp_path, request.param) as opened:
        yield opened


# --- tokens --------------------------------------------------------------------------------------


def test_tokens_live_as_long(both: Both) -> None:
    """They outlive other changes; they end with a password, with their user, and with users as a whole."""
    begin(both)
    both.log_in("alice", "alice", "second")
    for change in (
        auth("UserAdd", name="carol", password="c"),
        auth("UserRevokeRole", name="alice", role="more"),
        auth("RoleDelete", role="more"),
        auth("UserChangePassword", name="bob", password="new"),
    ):
        both.ask("root", *change)
        for who in ("alice", "second", "bob"):
            both.ask(who, *READ)
    assert both.log_in("bob", "bob") != "logged in"
    assert both.log_in("bob", "new") == "logged in"
    both.ask("bob", *READ)
    both.ask("root", *auth("UserChangePassword", name="alice", password="new"))
    both.ask("alice", *READ)
    both.ask("second", *READ)
    assert both.log_in("alice", "new") == "logged in"
    both.ask("alice", *READ)
    both.ask("root", *auth("UserDelete", name="alice"))
    both.ask("alice", *READ)
    both.ask("root", *auth("AuthDisable"))
    both.ask("", *READ)  # with a token 3.4 refuses everything then, 3.5 does not
    both.ask("", *auth("AuthEnable"))
    for who in ("", "bob", "root"):
        both.ask(who, *READ)
    both.check()


# --- JSON ----------------------------------------------------------------------------------------

OVER_HTTP = [
    ("kv/range", {"key": "YTE="}),
    ("kv/range", {"key": "ejE="}),
    ("kv/range", {}),
    ("kv/put", {"key": "YQ==", "value": "YQ=="}),
    ("kv/txn", {"success": [{"requestPut": {"key": "eg=="}}]}),
    ("lease/leases", {}),
    ("maintenance/status", {}),
    ("maintenance/defragment", {}),
    ("auth/user/list", {}),
    ("auth/user/get", {"name": "alice"}),
    ("auth/role/get", {"role": "keys"}),
    ("lock/lock", {"name": "eg==", "lease": "3"}),
    ("auth/enable", {}),
]


def posted(url: str, path: str, message: Any, token: str) -> Any:
    """The status of HTTP, and the JSON."""
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"{url}/v3/{path}", json.dumps(message).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=real.PATIENCE_SECONDS) as response:
            status, found = response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            status, found = error.code, json.load(error)
    if path == "maintenance/status" and status == 200:
        return status
    for name in ("cluster_id", "member_id"):
        found.get("header", {}).pop(name, None)
    return status, found


def test_the_gateway_answers_the_same(both: Both) -> None:
    """Tokens are got and shown over HTTP, and refusals have the same statuses and bodies."""
    begin(both)
    tokens: list[dict[str, str]] = [{"": "", "bad": BAD} for _ in both.sides]
    for name in ("root", "alice", "bob"):
        for side, found in zip(both.sides, tokens, strict=True):
            status, answer = posted(side.url, "auth/authenticate", {"name": name, "password": name}, "")
            assert status == 200
            found[name] = answer["token"]
    for path, message in [*OVER_HTTP, ("auth/authenticate", {"name": "root", "password": "wrong"})]:
        for who in EVERYBODY:
            ours, theirs = (
                posted(side.url, path, message, found[who])
                for side, found in zip(both.sides, tokens, strict=True)
            )
            both._compare(f"{who or 'nobody'}: {path}", ours, theirs)
    both.check()


# --- etcdctl -------------------------------------------------------------------------------------

COMMANDS = """
user add root:root
user grant-role root root
user add alice:alice
user add bob --no-password
role add keys
role add keys
role grant-permission keys readwrite a c
role grant-permission keys read k --prefix
role grant-permission keys write x --from-key
role grant-permission keys read e e
role grant-permission none read a
role get keys
user grant-role alice keys
user grant-role alice none
user get alice
user get alice --detail
user list
role list
put a 1
auth enable
get a
put a 2
--user root:root get a
--user root:wrong get a
--user nobody:x get a
--user bob:x get a
--user alice:alice get a
--user alice:alice put a 3
--user alice:alice put d 3
--user alice:alice get a c
--user alice:alice get a d
--user alice:alice get k --prefix
--user alice:alice get --prefix -- ""
--user alice:alice del a --prev-kv
--user alice:alice del k
--user alice:alice put x 1
--user alice:alice get x
--user alice:alice user get alice
--user alice:alice user get bob
--user alice:alice role get keys
--user alice:alice role list
--user alice:alice lease grant 1000000000000
--user alice:alice compaction 2
--user alice:alice alarm list
--user alice:alice member remove 77
--user alice:alice defrag
--user root:root role revoke-permission keys a c
--user root:root role revoke-permission keys a c
--user alice:alice get a
--user root:root user revoke-role alice keys
--user root:root user revoke-role alice keys
--user root:root role delete keys
--user root:root user delete alice
--user root:root user delete root
--user root:root auth enable
--user root:root auth disable
--user root:root auth disable
auth disable
get a
--user root:root get a
"""


def test_etcdctl_prints_the_same(both: Both) -> None:
    """Of every command: exit code, output, error."""
    for line in COMMANDS.strip().splitlines():
        words = [word.strip('"') for word in line.split()]
        ours, theirs = (side.etcdctl(*words) for side in both.sides)
        both._compare(line, ours, theirs)
    both.check()


def test_a_token_that_is_not_used_ends(tmp_path: Path) -> None:
    """After its time, on either side; being used makes it last."""
    options = ("--bcrypt-cost", str(COST), "--auth-token-ttl", "2")
    with (
        real.etcd(tmp_path / "etcd", tmp_path / "log", *options) as server,
        kvstore.open(tmp_path / "store") as store,
        kvstore.serve(
            store, "http://127.0.0.1:0", etcd_version=real.RELEASE, bcrypt_cost=COST, auth_token_ttl_seconds=2
        ) as serving,
    ):
        both = Both(Side(serving.endpoints[0]), Side(server.endpoint))
        begin(both)
        time.sleep(4.5)  # etcd looks once a second
        assert both.ask("alice", *READ) == "16 etcdserver: invalid auth token"
        both.log_in("alice", "alice")
        assert "kvs" in both.ask("alice", *READ)
        both.close()
        both.check()
